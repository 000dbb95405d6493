"""Opening what is measured, and its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.bundle import Bundle
from phoneward.runtime.classifier import Classifier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.apps.bench.cbnet.records import Case


def open_case(case: Case, engine: str, threads: int) -> Classifier:
    """Open the bundle of a case with an engine."""
    return Classifier.open(
        Bundle.open(case.bundle),
        engine=engine,
        precision=case.system.precision,
        threads=threads,
    )


def images_of(case: Case) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the test images (N, 28, 28), shuffled, and their classes (N,)."""
    with np.load(case.images) as arrays:
        return arrays["images"], arrays["classes"]


def slice_of(images: NDArray[Any], turn: int, count: int) -> NDArray[Any]:
    """Return the images of a turn: as turns go on all have theirs, then the first come again."""
    rows = (np.arange(count) + turn * count) % len(images)
    return images[rows]
