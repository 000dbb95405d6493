"""Artifacts to answers: engines, image input and classification. Imports no torch."""

if __name__ != "phoneward.runtime":
    raise ImportError("import phoneward.runtime, never the checkout folder runtime/")
