"""The stages of each model of the family: which tensors go in and come out."""

from __future__ import annotations

from phoneward.bundle import Stage
from phoneward.spec import ImageSpec, TensorSpec

SIDE = 28
"""Rows and columns of every image, as in MNIST (LeCun et al. 1998)."""

IMAGE = ImageSpec(
    height=SIDE, width=SIDE, channel_order="GRAY", fit="stretch", interpolation="bicubic"
)
CLASSIFY, EXIT, FINISH = "classify", "exit", "finish"
# BranchyNet's stem: five channels, pooled from 30 x 30
_FEATURES = (5, 15, 15)


def stages(model: str, classes: int, batch: int) -> tuple[Stage, ...]:
    """Return the stages of a model by name, for a number of classes and of images at a time."""
    image = TensorSpec(name="image", shape=(batch, 1, SIDE, SIDE), layout="NCHW")
    logits = TensorSpec(name="logits", shape=(batch, classes), layout="NC")
    if model == "branchynet":
        features = TensorSpec(name="features", shape=(batch, *_FEATURES), layout="NCHW")
        return (
            Stage(name=EXIT, inputs=(image,), outputs=(logits, features), image=IMAGE),
            Stage(name=FINISH, inputs=(features,), outputs=(logits,)),
        )
    if model == "exit_hybrid":
        return (
            Stage(name=EXIT, inputs=(image,), outputs=(logits,), image=IMAGE),
            Stage(name=FINISH, inputs=(image,), outputs=(logits,), image=IMAGE),
        )
    outputs: tuple[TensorSpec, ...] = (logits,)
    if model == "cbnet":
        outputs += (image.model_copy(update={"name": "converted"}),)
    return (Stage(name=CLASSIFY, inputs=(image,), outputs=outputs, image=IMAGE),)
