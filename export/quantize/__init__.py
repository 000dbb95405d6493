"""Weights of linear layers in 8 bits, one file a format; what `int8` means.

Fully connected layers and matrix products with a constant matrix keep their weights in int8,
symmetric around zero with one scale an output channel: w is about s q, q = round(w / s),
s = max |w| / 127. Where an engine has such kernels, it quantizes activations on the fly from the
range that they have at that moment (dynamic range quantization), multiplies integers and hands on
floats; nothing is calibrated. Convolutions, products of two activations, biases and all tensors
between layers stay in floating point. A graph without linear layers is what it is in single
precision.
"""

from __future__ import annotations

LEAST_WEIGHTS = 1024
"""Smaller matrices stay in floating point: they cost no time, but may matter to every value.

The rewrites compute the mean of a norm as a product with one row of 1 / n, and quantized means
would put the error of 8 bits on all that the norm scales. The quantizers of TFLite have had the
same bound.
"""
