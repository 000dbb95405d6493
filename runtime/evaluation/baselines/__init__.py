"""What a tracker has to beat: its first mask where it was, carried by optical flow, or by looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from phoneward.registry import Entry, Registry

if TYPE_CHECKING:
    from phoneward.runtime.evaluation.baselines.base import Baseline

_EXTRA, _PACKAGES = "evaluate", ("skimage",)

# called without arguments each gives a baseline; raises `MissingExtra` if it lacks its package
BASELINES: Registry[Callable[[], Baseline]] = Registry(
    "baseline",
    {
        "copy": Entry("phoneward.runtime.evaluation.baselines.copy:Copy"),
        "flow": Entry("phoneward.runtime.evaluation.baselines.flow:Flow", _EXTRA, _PACKAGES),
        "template": Entry(
            "phoneward.runtime.evaluation.baselines.template:Template", _EXTRA, _PACKAGES
        ),
    },
)
