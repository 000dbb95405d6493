"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.runtime.engines.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ERRORS_ONLY = 3


class OnnxRuntimeSession(Session):
    """All graph optimisations, the CPU provider, one operator at a time on `threads` threads."""

    def _load(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # a model of several stages has a pool of threads each: those of a stage that has ended
        # must not keep the cores busy while the next one runs
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session: Any = onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"]
        )
        self._names = [spec.name for spec in self.outputs]

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        feeds = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        return [np.asarray(value) for value in self._session.run(self._names, feeds)]

    def _unload(self) -> None:
        del self._session
