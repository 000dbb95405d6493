"""Names of ops and results before coremltools' passes; imports no torch."""

from __future__ import annotations

import re

from phoneward.runtime.engines.mil.modules import plain

CASTS = ("cast", "identity")
"""Ops that compute nothing: a conversion puts them where two precisions meet."""

_ITEM = re.compile(r"_cast_fp(16|32)_\d+$")
_OUTPUT = re.compile(r"_type_(fp16|fp32|int32)$")


def short(name: str) -> str:
    """A name without what the passes to other types hang on it, also where it is an item's."""
    return _OUTPUT.sub("", plain(_ITEM.sub("", name)))
