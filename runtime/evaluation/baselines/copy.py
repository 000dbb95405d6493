"""The first mask, unchanged: what a tracker gets that does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phoneward.runtime.evaluation.baselines.base import Baseline

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Copy(Baseline):
    """Looks at no frame."""

    def _begin(self, object_id: int, mask: NDArray[np.bool_], seen: NDArray[np.float32]) -> None:
        pass

    def _move(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> None:
        pass

    def _mask(self, object_id: int) -> NDArray[np.bool_]:
        return self._masks[object_id]
