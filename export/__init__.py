"""PyTorch to artifacts: the zoo, the rewrites, the backends and the parity gate."""

if __name__ != "phoneward.export":
    raise ImportError("import phoneward.export, never the checkout folder export/")
