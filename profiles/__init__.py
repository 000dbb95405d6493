"""Which devices there are, and how fast a model is on them."""

if __name__ != "phoneward.profiles":
    raise ImportError("import phoneward.profiles, never the checkout folder profiles/")
