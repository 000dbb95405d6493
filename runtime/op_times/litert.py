"""LiteRT's profiler, which its Python package leaves out and its C library has.

The events are those of the compiled model: what XNNPACK runs, one by one, and what is left to the
reference kernels. Times are whole microseconds; ops quicker than one count as 0.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from phoneward.errors import EngineError
from phoneward.runtime.op_times import OpDuration, OpRun, OpTable
from phoneward.runtime.op_times.litert_c import DELEGATED, Event, ProfiledModel

_PACKAGE = "ai_edge_litert"
# the C library promises no stable interface; these were tried
_TRIED = ("2.3.",)
_US = 1000
_UNITS = {True: "XNNPACK", False: "reference kernels"}


def op_times(run: OpRun) -> OpTable:
    """Run with the profiler on; the first inference is left out."""
    if reason := _why_not():
        return OpTable(reason=reason)
    with ProfiledModel(run.path, run.threads) as model:
        model.feed([(spec.name, run.tensors[spec.name]) for spec in run.inputs])
        model.infer()
        traces = [model.infer() for _ in range(run.runs)]
    return OpTable(tuple(_joined(run, traces)))


def _why_not() -> str | None:
    if importlib.util.find_spec(_PACKAGE) is None:
        return "tflite-runtime's Python package has no profiler"
    try:
        number = version("ai-edge-litert")
    except PackageNotFoundError:
        return "ai-edge-litert has no version"
    if not number.startswith(_TRIED):
        return f"LiteRT's profiler is read from ai-edge-litert {_TRIED[0]}*, here is {number}"
    return None


def _joined(run: OpRun, traces: Sequence[Sequence[Event]]) -> list[OpDuration]:
    """Every inference runs the same ops in the same order."""
    names = [event.name for event in traces[0]]
    if any([event.name for event in trace] != names for trace in traces):
        raise EngineError(f"{run.path}: its ops differ from inference to inference")
    seen: dict[str, int] = {}
    ops = []
    for events in zip(*traces, strict=True):
        kind = events[0].name
        seen[kind] = seen.get(kind, 0) + 1
        median = statistics.median(event.elapsed_us for event in events)
        unit = _UNITS[events[0].kind == DELEGATED]
        ops.append(OpDuration(f"{kind} #{seen[kind]}", kind, round(median * _US), unit=unit))
    return ops
