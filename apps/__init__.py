"""What people run: the command line and the phone apps."""

if __name__ != "phoneward.apps":
    raise ImportError("import phoneward.apps, never the checkout folder apps/")
