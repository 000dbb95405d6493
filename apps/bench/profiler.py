"""Is the profiler right about itself? `python -m phoneward.apps.bench.profiler BUNDLE`.

Two claims are put to the test on this machine. An artifact that is profiled twice, each time in
processes of its own, has medians that lie in each other's stated interval. And what the
profiler does around an inference costs less than 1 % of it: a bare loop and the profiler's take
turns, each in blocks, the other way round in every second pair.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.turns import held
from phoneward.bundle import Bundle
from phoneward.profiles.measure import Request
from phoneward.profiles.measure.host import profile
from phoneward.profiles.measure.local.steadiness import sample, warm_up
from phoneward.profiles.report.schema import Measured
from phoneward.runtime.artifacts import Wanted, choose, fitting, open_artifact
from phoneward.runtime.parity import Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.report.schema import StageReport

MOST_COST = 0.01
"""Share of an inference that the profiler may cost."""
_BLOCK_S = 0.005
_QUICK = 10
_LEVEL = (2.5, 97.5)
_RESAMPLES = 2000


@dataclass(frozen=True)
class Cost:
    """What the profiler adds to an inference, as a share of it, and where that lies with 95 %."""

    share: float
    low: float
    high: float
    pairs: int


def agree(one: Measured, other: Measured) -> bool:
    """Tell whether the median of each lies in the interval that the other states."""
    return _holds(one, other) and _holds(other, one)


def _holds(one: Measured, other: Measured) -> bool:
    if one.median_interval_ns is None:
        raise ValueError("no interval is stated of less than three processes")
    low, high = one.median_interval_ns
    return low <= statistics.median(other.samples_ns) <= high


def cost_of(run: Callable[[], object], pairs: int) -> Cost:
    """Compare the profiler's loop with a bare one, in turns, over `pairs` pairs of blocks."""
    warm_up(run)
    each = statistics.median(sample(run, 20))
    runs = max(1, round(1e9 * _BLOCK_S / each))
    spent: dict[Callable[..., int], list[int]] = {_bare: [], _profiled: []}
    for pair in range(pairs):
        for loop in (_bare, _profiled) if pair % 2 == 0 else (_profiled, _bare):
            spent[loop].append(loop(run, runs))
    bare, profiled = np.array(spent[_bare]), np.array(spent[_profiled])
    draws = np.random.default_rng(0).integers(0, pairs, (_RESAMPLES, pairs))
    # others only ever add time: the quick blocks are those that they left alone
    ratios = _quick(profiled[draws]) / _quick(bare[draws]) - 1
    low, high = (float(end) for end in np.percentile(ratios, _LEVEL))
    return Cost(float(_quick(profiled) / _quick(bare)) - 1, low, high, pairs)


def _quick(blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.percentile(blocks, _QUICK, axis=-1), np.float64)


def _bare(run: Callable[[], object], runs: int) -> int:
    started = time.perf_counter_ns()
    for _ in range(runs):
        run()
    return time.perf_counter_ns() - started


def _profiled(run: Callable[[], object], runs: int) -> int:
    started = time.perf_counter_ns()
    sample(run, runs)
    return time.perf_counter_ns() - started


def main(arguments: Sequence[str]) -> int:
    """Print both findings; 0 if they are as claimed, else 1."""
    parser = argparse.ArgumentParser(prog="profiler", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine")
    parser.add_argument("--stage")
    parser.add_argument("--pairs", type=int, default=5, help="of profiles to compare")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--blocks", type=int, default=200, help="pairs of blocks for the cost")
    parser.add_argument("--lock", type=Path, help="held while something is timed")
    asked = parser.parse_args(arguments)
    bundle = Bundle.open(asked.bundle)
    wanted = Wanted(asked.engine)
    request = Request(
        bundle=bundle,
        wanted=wanted,
        stages=(asked.stage,) if asked.stage else (),
        runs=asked.runs,
        op_times=False,
    )
    with held(asked.lock, exclusive=True):
        agreed = sum(_pair(request) for _ in range(asked.pairs))
        cost = _cost(bundle, wanted, asked.stage, asked.blocks)
    _say(f"{agreed} of {asked.pairs} pairs of profiles agree within the interval they state")
    _say(
        f"the profiler costs {cost.share:+.3%} of an inference "
        f"[{cost.low:+.3%}, {cost.high:+.3%}] over {cost.pairs} pairs of blocks"
    )
    return 0 if agreed == asked.pairs and cost.high < MOST_COST else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _pair(request: Request) -> bool:
    one, other = (profile("", request, lambda step: None) for _ in range(2))
    return all(_tell(a, b) for a, b in zip(one.stages, other.stages, strict=True))


def _tell(a: StageReport, b: StageReport) -> bool:
    if not (isinstance(a.result, Measured) and isinstance(b.result, Measured)):
        raise TypeError("the host measures")
    agreed = agree(a.result, b.result)
    texts = []
    for result in (a.result, b.result):
        low, high = (end / 1e6 for end in result.median_interval_ns or (0, 0))
        texts.append(f"{statistics.median(result.samples_ns) / 1e6:.4f} [{low:.4f}, {high:.4f}]")
    verdict = "agree" if agreed else "DIFFER"
    _say(f"{a.stage} {a.engine}: {texts[0]} and {texts[1]} ms (measured): {verdict}")
    return agreed


def _cost(bundle: Bundle, wanted: Wanted, stage: str | None, blocks: int) -> Cost:
    candidates = [a for a in fitting(bundle, wanted) if stage in (None, a.stage)]
    artifact, engine = choose(bundle, candidates, wanted.engine)
    reference = Reference.load(bundle.path / bundle.manifest.reference)
    feeds = {spec.name: reference.inputs(artifact.stage, spec)[0] for spec in artifact.inputs}
    with ExitStack() as stack:
        session = stack.enter_context(open_artifact(bundle, artifact, engine, 1))
        return cost_of(lambda: session(feeds), blocks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
