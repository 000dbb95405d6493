"""Where an engine's time goes, op by op, as the engine itself tells it; one file an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from phoneward.errors import EngineError, PhonewardError
from phoneward.registry import Entry, Registry
from phoneward.runtime.engines import ENGINES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec


@dataclass(frozen=True)
class OpRun:
    """What to profile: an artifact, its tensors in order, one sample by name, inferences."""

    path: Path
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    threads: int
    tensors: Mapping[str, NDArray[Any]]
    runs: int


@dataclass(frozen=True)
class OpDuration:
    """One op: the median of its durations in nanoseconds, over `runs`, and its calls in each.

    `kind` is the engine's own name; `module` the path of the PyTorch module it comes from, where
    the file tells; `unit` what executed it.
    """

    name: str
    kind: str
    median_ns: int
    module: str | None = None
    unit: str | None = None
    calls: int = 1


@dataclass(frozen=True)
class OpTable:
    """The ops in order of execution, or the reason why there are none."""

    ops: tuple[OpDuration, ...] = ()
    reason: str | None = None


class OpTimes(Protocol):
    """Profiles an artifact; may raise anything, which `op_times` turns into an `EngineError`."""

    def __call__(self, run: OpRun) -> OpTable:
        """Infer once to warm up, then `run.runs` times with the engine's profiler on."""
        ...


OP_TIMES: Registry[OpTimes] = Registry(
    "profiler",
    {
        "litert": Entry("phoneward.runtime.op_times.litert:op_times"),
        "onnxruntime": Entry("phoneward.runtime.op_times.onnxruntime:op_times"),
        "executorch": Entry("phoneward.runtime.op_times.executorch:op_times"),
    },
)


def op_times(engine: str, run: OpRun) -> OpTable:
    """Ask an engine's profiler; an engine without one gives the reason.

    Raises:
        UnknownName, MissingExtra: no such engine, or it is not installed.
        EngineError: its profiler failed.
    """
    ENGINES.require(engine)
    if engine not in OP_TIMES:
        return OpTable(reason=f"engine '{engine}' tells no times of single ops")
    profiler = OP_TIMES.get(engine)
    try:
        return profiler(run)
    except PhonewardError:
        raise
    except Exception as error:  # vendors raise anything
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineError(f"{run.path}: cannot be profiled op by op: {words[0]}") from error
