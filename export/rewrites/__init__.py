"""Module rewrites that make a model export and run fast; each leaves the outputs unchanged.

(`half_activations`, for half precision, to within what half precision resolves.)

A rewrite is one file with one function `apply(model) -> int` that changes the model in place and
returns the number of places it changed. Which rewrites a model gets, and in which order, is
data: the lists that the zoo gives for each family and format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from phoneward.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn


class Rewrite(Protocol):
    """Changes `model` (in eval mode, fp32) in place; returns how many places it changed."""

    def __call__(self, model: nn.Module) -> int: ...


REWRITES: Registry[Rewrite] = Registry(
    "rewrite",
    {
        name: Entry(f"phoneward.export.rewrites.{name}:apply", extra="export", packages=("timm",))
        for name in (
            "normalize_rows",
            "fuse_batch_norm",
            "mean_pool",
            "fuse_mobile_norm",
            "hard_activations",
            "half_activations",
            "mobilevit_tokens",
            "mobilevit_rms",
            "mobilevitv2_tokens",
            "mobilevit_shuffle",
            "mobilevitv2_shuffle",
            "fold_layer_scale",
            "fuse_conv_norm",
            "merge_heads",
            "pool_mixer",
            "biased_attention",
            "efficientformer_rms",
            "half_stream",
            "attention_maps",
            "attention_maps_conv",
            "tam_memory",
            "linear_norm",
            "tam_windows",
            "tam_memory_encoder",
            "fold_image_scale",
            "merge_linears",
        )
    },
)


def apply_all(model: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Apply the named rewrites in order; returns how many places each changed."""
    return {name: REWRITES.get(name)(model) for name in names}
