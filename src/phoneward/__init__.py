"""Latency-targeted vision models, from PyTorch to the phone."""

__version__ = "0.1.0"
