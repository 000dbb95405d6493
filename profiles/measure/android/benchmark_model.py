"""LiteRT's `benchmark_model`: its flags, and what it prints.

It keeps no single durations, so that a report of it holds aggregates. After its source,
google-ai-edge/LiteRT tflite/tools/benchmark/benchmark_model.cc and, for the tables,
tflite/profiling/profile_summarizer.cc with tensorflow's stats_calculator.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from phoneward.profiles.measure.android.runner import RunnerError, Task
from phoneward.profiles.report.schema import Aggregate, Measured, Memory, OpTime

_WARMUP_RUNS = 5
# each a process and one inference: a median of several, where one process would give a mean
_OP_PROCESSES = 5
_STATISTICS = re.compile(r"\bcount=(\d+)((?: \w+=[-+.\w]+)+)")
_TIMINGS = re.compile(r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+)")
_PEAK = re.compile(r"peak memory footprint \(MB\)[^:]*: ([\d.e+]+)")
_OPS = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_APPLIED = re.compile(r"Explicitly applied (\w+) delegate, and the model graph will be")
_NOT_APPLIED = re.compile(r"Though (\w+) delegate is explicitly applied, the model graph will not")
_ERROR = re.compile(r"^(?:ERROR: |E\b)?\s*(.*(?:[Ff]ailed|[Ee]rror|Disallowed).*)$", re.M)


@dataclass(frozen=True)
class Printed:
    """What one process told, in nanoseconds."""

    init_ns: int
    first_ns: int
    warmup_runs: int
    inference: Aggregate


class BenchmarkModel:
    """The runner for TFLite files."""

    name = "benchmark_model"
    engine = "litert"
    format = "tflite"
    log_tag: str | None = None

    def describes(self, help_text: str) -> bool:
        """Tell whether `--help` printed this runner's help."""
        return "--graph=" in help_text and "--num_runs=" in help_text

    def measure(self, task: Task, help_text: str) -> tuple[Measured, str | None]:
        """Time an artifact; raises `RunnerError`."""
        request, common = task.request, self._common(task)
        output = task.run([*common, *_runs(request.runs, _WARMUP_RUNS, 0.5)])
        timed = parse(output)
        delegate = _delegate(output, task)
        once = [*common, *_runs(1, 1, 0)]
        cold = [parse(task.run(once)).init_ns for _ in range(request.cold_starts)]
        memory = task.run([*common, *_runs(5, 1, 0), "--report_peak_memory_footprint=true"])
        ops: tuple[OpTime, ...] = ()
        if request.op_times:
            profiled = [*common, *_runs(1, _WARMUP_RUNS, 0), "--enable_op_profiling=true"]
            ops = parse_ops(task.run(profiled) for _ in range(_OP_PROCESSES))
        measured = Measured(
            aggregate=timed.inference,
            first_ns=timed.first_ns,
            # the first inference is one of those that it calls warm-up
            warmup_runs=timed.warmup_runs - 1,
            cold_load_ns=tuple(cold),
            memory=parse_memory(memory),
            ops=ops,
        )
        return measured, delegate

    def _common(self, task: Task) -> list[str]:
        flags = [f"--graph={task.model}", f"--num_threads={task.request.threads}"]
        # said outright, it says whether it could
        return [*flags, "--use_xnnpack=true"] if _expects_xnnpack(task) else flags


def _runs(runs: int, warmup_runs: int, warmup_s: float) -> list[str]:
    # both limits of seconds would add runs
    return [
        f"--num_runs={runs}",
        "--min_secs=0",
        f"--warmup_runs={warmup_runs}",
        f"--warmup_min_secs={warmup_s}",
    ]


def _expects_xnnpack(task: Task) -> bool:
    delegation = task.artifact.delegation
    return delegation is not None and delegation.delegate.lower() == "xnnpack"


def _delegate(output: str, task: Task) -> str | None:
    if refused := _NOT_APPLIED.search(output):
        raise RunnerError(f"the delegate {refused[1]} was not applied to {task.artifact.path}")
    applied = _APPLIED.search(output)
    if applied is None and _expects_xnnpack(task):
        raise RunnerError(
            f"benchmark_model does not say that it applied XNNPACK to {task.artifact.path}"
        )
    return applied[1] if applied else None


def parse(output: str) -> Printed:
    """Read what the timed inferences took; raises `RunnerError` if it is not all there."""
    timings = _TIMINGS.search(output)
    statistics = _STATISTICS.findall(output.partition(_OPS)[0].partition("Profiling Info")[0])
    if timings is None or len(statistics) < 2:
        said = _ERROR.search(output)
        raise RunnerError(f"benchmark_model told no times: {said[1] if said else _end(output)}")
    (warmups, _), (count, fields) = statistics[-2:]
    values: dict[str, str] = dict(field.split("=") for field in fields.split())
    try:
        # `count=1 curr=7` and `count=3 curr=7(all same)` have but one value
        only = values["curr"]
        aggregate = Aggregate(
            source="benchmark_model",
            count=int(count),
            mean_ns=_ns(values.get("avg", only)),
            min_ns=round(_ns(values.get("min", only))),
            max_ns=round(_ns(values.get("max", only))),
            std_ns=_ns(values["std"]) if "std" in values else None,
            p5_ns=_ns(values["p5"]) if "p5" in values else None,
            median_ns=_ns(values["median"]) if "median" in values else None,
            p95_ns=_ns(values["p95"]) if "p95" in values else None,
        )
        return Printed(
            init_ns=round(_ns(timings[1])),
            first_ns=round(_ns(timings[2])),
            warmup_runs=int(warmups),
            inference=aggregate,
        )
    except (KeyError, ValueError) as error:
        raise RunnerError(f"benchmark_model told strange times: count={count}{fields}") from error


def _ns(microseconds: str) -> float:
    return float(microseconds) * 1000


def _end(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def parse_memory(output: str) -> Memory | None:
    """Read the peak of its resident memory; None where the program does not tell."""
    found = _PEAK.search(output)
    if found is None or float(found[1]) <= 0:
        return None
    # kilobytes divided by 1024
    peak = round(float(found[1]) * 2**20)
    return Memory(peak_bytes=peak, source="benchmark_model, looked at every 50 ms")


def parse_ops(outputs: Iterable[str]) -> tuple[OpTime, ...]:
    """Read the tables in order of execution; of each op the median over several processes."""
    tables = [_table(output) for output in outputs]
    if not tables or any([row[:2] for row in t] != [row[:2] for row in tables[0]] for t in tables):
        return ()
    return tuple(
        OpTime(
            name=rows[0][1],
            kind=rows[0][0],
            unit="cpu",
            median_ns=round(median(row[2] for row in rows) * 1e6),
            calls=rows[0][3],
        )
        for rows in zip(*tables, strict=True)
    )


def _table(output: str) -> list[tuple[str, str, float, int]]:
    """Kind, name, milliseconds and calls of each row of the first table."""
    lines = output.partition(_OPS)[2].splitlines()
    header: Sequence[str] = ()
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().split("\t")]
        if "[node type]" in cells:
            header = cells
        elif header and len(cells) == len(header):
            row = dict(zip(header, cells, strict=True))
            name, _, _ = row["[Name]"].removeprefix("[").rpartition("]")
            try:
                rows.append(
                    (
                        row["[node type]"],
                        name or row["[node type]"],
                        float(row["[avg ms]"]),
                        int(row["[times called]"]),
                    )
                )
            except ValueError as error:
                raise RunnerError(f"benchmark_model printed a strange row: {line}") from error
        elif header:
            return rows
    return rows
