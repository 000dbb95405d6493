"""Names and shapes of the four stages; no torch.

With S the side of the image, g = S / 16, T = g * g tokens, C channels (256 in the official
variants), F of the features (C, and more where the decoder sees finer levels) and M of a memory
(64):

    stage      reads                                                    writes
    encode     image (1, 3, S, S)                                       features (1, T, F)
    prompt     features, points (1, P, 2), labels (1, P),               masks (1, 1, 4g, 4g),
               mask (1, 1, S, S), previous (1, 1, 4g, 4g),              iou (1, 1), score (1, 1),
               initial, has_mask, has_previous (1, 1)                   pointer (1, C)
    propagate  features, memory (1, M, slots * T),                      as prompt, and
               memory_age (1, slots), pointers (1, 16, C),              conditioned (1, T, F)
               pointer_valid (1, 16)
    memorize   features, masks (1, 1, 4g, 4g), prompted (1, 1)          memory (1, M, T)

All are float32. Points are pixels of the S x S image; labels: 1 positive, 0 negative, 2 and 3 a
box's top-left and bottom-right corner, -1 "not a point", -2 an unused place. Switches are 0 or 1.
`memory_age` is 0 for a conditioning frame, n for the frame n steps back, -1 for an empty slot,
whose content has no effect as long as it is finite.
Masks are logits. `score` is positive where the object is in sight; `iou` is from 0 to 1.
"""

from __future__ import annotations

from phoneward.bundle import Stage
from phoneward.export.models.efficienttam.variants import (
    POINT_SLOTS,
    POINTER_SLOTS,
    Variant,
)
from phoneward.spec import ImageSpec, TensorSpec


def image_spec(variant: Variant) -> ImageSpec:
    """A frame is stretched to the square, its aspect ratio not kept."""
    return ImageSpec(height=variant.image, width=variant.image, fit="stretch")


def stages(variant: Variant) -> tuple[Stage, ...]:
    """Return the stages of a variant, in the order in which a host runs them."""
    side, tokens = variant.image, variant.tokens
    channels, remembered = variant.widths.channels, variant.widths.memory
    image = TensorSpec(name="image", shape=(1, 3, side, side), layout="NCHW")
    features = TensorSpec(name="features", shape=(1, tokens, variant.widths.features), layout="NLC")
    masks = _plain("masks", 1, 1, side // 4, side // 4)
    memory = _plain("memory", 1, remembered, tokens)
    answers = (masks, _flag("iou"), _flag("score"), _plain("pointer", 1, channels))
    conditioned = TensorSpec(name="conditioned", shape=features.shape, layout="NLC")
    prompts = (
        _plain("points", 1, POINT_SLOTS, 2),
        _plain("labels", 1, POINT_SLOTS),
        _plain("mask", 1, 1, side, side),
        _plain("previous", *masks.shape),
        *(_flag(name) for name in ("initial", "has_mask", "has_previous")),
    )
    bank = (
        _plain("memory", 1, remembered, variant.slots * tokens),
        _plain("memory_age", 1, variant.slots),
    )
    pointers = (
        _plain("pointers", 1, POINTER_SLOTS, channels),
        _plain("pointer_valid", 1, POINTER_SLOTS),
    )
    return (
        Stage(name="encode", inputs=(image,), outputs=(features,), image=image_spec(variant)),
        Stage(name="prompt", inputs=(features, *prompts), outputs=answers),
        Stage(
            name="propagate",
            inputs=(features, *bank, *(pointers if variant.pointers else ())),
            outputs=(*answers, conditioned),
        ),
        Stage(name="memorize", inputs=(features, masks, _flag("prompted")), outputs=(memory,)),
    )


def _plain(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape)


def _flag(name: str) -> TensorSpec:
    return _plain(name, 1, 1)
