"""Child process: where an artifact's time goes, by kind of operator, as its engine tells it."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from phoneward.apps.bench.child import serve
from phoneward.apps.bench.records import OpTime, Profile, TimeJob

# kinds of operators, and those outside the delegate by name (None: there is no delegate)
Found = tuple[list[OpTime], dict[str, int] | None]

# containers of other events in an ETDump, and what happens once
_NOT_OPERATORS = {"OPERATOR_CALL", "DELEGATE_CALL", "Method::execute", "Method::init"}
_NOT_OPERATORS |= {"Program::load_method"}


def profile(job: TimeJob) -> Profile:
    """Run `job.runs` times under the engine's profiler."""
    ops, outside = _PROFILERS[job.subject.engine](job)
    ordered = tuple(sorted(ops, key=lambda op: (-(op.milliseconds or 0), -op.count, op.name)))
    return Profile(model=job.subject.model, engine=job.subject.engine, ops=ordered, outside=outside)


def _onnxruntime(job: TimeJob) -> Found:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        session = onnxruntime.InferenceSession(
            job.path, options, providers=["CPUExecutionProvider"]
        )
        feeds = {job.inputs[0].name: np.load(job.tensor)}
        for _ in range(job.runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"] / 1000)
    return _by_kind((kind, times) for (kind, _), times in nodes.items()), None


def _executorch(job: TimeJob) -> Found:
    import torch
    from executorch.devtools import Inspector
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(job.threads)
    program = Runtime.get().load_program(Path(job.path or ""), enable_etdump=True)
    method = program.load_method("forward")
    tensor = torch.from_numpy(np.load(job.tensor))
    for _ in range(job.runs):
        method.execute([tensor])
    with tempfile.TemporaryDirectory() as folder:
        dump = str(Path(folder) / "trace.etdp")
        program.write_etdump_result_to_file(dump, str(Path(folder) / "debug.bin"))
        blocks = Inspector(etdump_path=dump).event_blocks
    events = [e for b in blocks for e in b.events if e.name not in _NOT_OPERATORS and e.perf_data]
    outside = Counter(_kind(e.name) for e in events if e.name.startswith("native_call_"))
    return _by_kind((_kind(event.name), event.perf_data.raw) for event in events), dict(outside)


def _kind(event: str) -> str:
    """`Convolution (NHWC, F32) IGEMM #3` -> `Convolution (NHWC, F32) IGEMM`."""
    return re.sub(r" #\d+$", "", event.removeprefix("native_call_"))


def _by_kind(nodes: Iterable[tuple[str, Iterable[float]]]) -> list[OpTime]:
    """Sum over nodes of a kind; a node counts with its median, which no cold run can move."""
    totals: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for kind, times in nodes:
        totals[kind] += statistics.median(times)
        counts[kind] += 1
    return [OpTime(name=kind, count=counts[kind], milliseconds=totals[kind]) for kind in totals]


def _litert(job: TimeJob) -> Found:
    from ai_edge_litert.interpreter import Interpreter

    from phoneward.export.backends.tflite_delegation import delegation_of

    interpreter = Interpreter(model_path=job.path, num_threads=job.threads)
    interpreter.allocate_tensors()
    # the Python package has no operator times, so the operators are counted
    details = interpreter._get_ops_details()
    counts = Counter(op["op_name"] for op in details if op["op_name"] != "DELEGATE")
    ops = [OpTime(name=name, count=count, milliseconds=None) for name, count in counts.items()]
    return ops, delegation_of(Path(job.path or "")).fallback


_PROFILERS: Mapping[str, Callable[[TimeJob], Found]] = {
    "onnxruntime": _onnxruntime,
    "executorch": _executorch,
    "litert": _litert,
}


if __name__ == "__main__":
    serve(TimeJob, profile)
