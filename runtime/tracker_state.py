"""A tracker's memory as named arrays, to be saved and taken up again.

object_ids                int64 (n,), in the order in which they were prompted
object{ID}/frames         int64 (f,)
object{ID}/flags          bool (f, 2): conditioning frame?, tracked in reverse?
object{ID}/answers        float32 (f, 2): object score, IoU
object{ID}/memory         uint16 (f, C, T), upper halves of float32
object{ID}/pointer        float32 (f, 1, P), P values a pointer
object{ID}/logits         float32 (f, 1, 1, 4g, 4g)
object{ID}/clicks         float32 (c, 3): x, y, label, frame after frame
object{ID}/click_counts   int64 (f,), -1 for a frame that nobody prompted
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import TensorMismatch
from phoneward.runtime.memory_bank import BankShape, Entry, MemoryBank, TrackerConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PARTS = ("frames", "flags", "answers", "memory", "pointer", "logits", "clicks", "click_counts")
_NONE = np.zeros((0, 3), np.float32)


def to_arrays(banks: Mapping[int, MemoryBank]) -> dict[str, NDArray[Any]]:
    """Copy the banks of all objects into arrays."""
    arrays: dict[str, NDArray[Any]] = {"object_ids": np.array(list(banks), np.int64)}
    for object_id, bank in banks.items():
        rows = list(bank.entries())
        entries = [entry for _, _, entry in rows]
        flags = [(conditioning, e.reverse) for _, conditioning, e in rows]
        parts: tuple[NDArray[Any], ...] = (
            np.array([index for index, _, _ in rows], np.int64),
            np.array(flags, np.bool_),
            np.array([(e.score, e.iou) for e in entries], np.float32),
            np.stack([e.memory for e in entries]),
            np.stack([e.pointer for e in entries]),
            np.stack([e.logits for e in entries]),
            np.concatenate([_NONE, *(e.clicks for e in entries if e.clicks is not None)]),
            np.array([-1 if e.clicks is None else len(e.clicks) for e in entries], np.int64),
        )
        arrays |= {_key(object_id, name): part for name, part in zip(_PARTS, parts, strict=True)}
    return arrays


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], shape: BankShape, config: TrackerConfig
) -> dict[int, MemoryBank]:
    """Make the banks that `to_arrays` was given.

    Raises:
        TensorMismatch: an array is missing, or its shape is that of another model's state.
    """
    ids = [int(each) for each in _get(arrays, "object_ids")]
    return {each: _bank(arrays, each, shape, config) for each in ids}


def _bank(
    arrays: Mapping[str, NDArray[Any]], object_id: int, shape: BankShape, config: TrackerConfig
) -> MemoryBank:
    parts = {name: _get(arrays, _key(object_id, name)) for name in _PARTS}
    count = parts["frames"].size
    total = int(np.maximum(parts["click_counts"], 0).sum())
    expected = {
        "frames": (count,),
        "flags": (count, 2),
        "answers": (count, 2),
        "memory": (count, shape.channels, shape.tokens),
        # a model that reads no pointers still writes them
        "pointer": (count, 1, shape.pointer_width or parts["pointer"].shape[-1]),
        "logits": (count, 1, 1, shape.mask_side, shape.mask_side),
        "clicks": (total, 3),
        "click_counts": (count,),
    }
    for name, size in expected.items():
        _check(object_id, parts, name, size)
    rows, first = [], 0
    for i, clicks in enumerate(parts["click_counts"].tolist()):
        entry = Entry(
            memory=parts["memory"][i].astype(np.uint16),
            pointer=parts["pointer"][i].astype(np.float32),
            logits=parts["logits"][i].astype(np.float32),
            score=float(parts["answers"][i, 0]),
            iou=float(parts["answers"][i, 1]),
            reverse=bool(parts["flags"][i, 1]),
            clicks=None if clicks < 0 else parts["clicks"][first : first + clicks].copy(),
        )
        first += max(0, clicks)
        rows.append((int(parts["frames"][i]), bool(parts["flags"][i, 0]), entry))
    return MemoryBank.of(rows, shape, config)


def _key(object_id: int, name: str) -> str:
    return f"object{object_id}/{name}"


def _get(arrays: Mapping[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in arrays:
        raise TensorMismatch(f"not a tracker's state: '{key}' is missing")
    return arrays[key]


def _check(
    object_id: int, parts: Mapping[str, NDArray[Any]], name: str, expected: tuple[int, ...]
) -> None:
    found = parts[name].shape
    if found != expected:
        raise TensorMismatch(
            f"another model's state: '{_key(object_id, name)}' has shape {found}, not {expected}"
        )
