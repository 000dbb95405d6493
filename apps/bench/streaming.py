"""`python -m phoneward.apps.bench.streaming`: does memory grow while a long stream is tracked?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from phoneward.apps.bench.child import run_child
from phoneward.apps.bench.machine import quoted_command, this_machine
from phoneward.apps.bench.options import add_places, errors_end, names, positive, write_page
from phoneward.apps.bench.page import markdown_table, provenance
from phoneward.apps.bench.records import Measured
from phoneward.apps.bench.stream_worker import Look, StreamJob, StreamRun
from phoneward.apps.bench.tam_records import Bank, StageSubject
from phoneward.apps.bench.tam_run import BANKS, TIMED, StagePlan, StageShop
from phoneward.apps.bench.turns import held
from phoneward.errors import UnknownName
from phoneward.export.models import find
from phoneward.export.photographs import photographs

MODEL = "efficienttam_ti_512x512"
SETTLED = 100
"""Frames after which everything a tracker ever holds is there."""
FLAT = 0.01
"""What a stream may add until its end, of the memory that it took when settled."""
_ROWS = 10

_PAGE = """\
# A long stream

{model} with {bank} memory on {engine}, {threads} threads, tracks one object through {frames} \
frames of a moving photograph, in one process that does nothing else. Every {every} frames the \
process's resident memory is read from the system, and the tracker's state is measured.

{provenance}
From frame {settled} on resident memory was between {least:.1f} and {most:.1f} MB. The line \
through these readings rises by {slope:+.1f} kB in 1,000 frames, {growth:+.2%} from the first to \
the last; through those of the second half alone by {late:+.1f} kB in 1,000 frames. The run counts \
as flat up to {flat:.0%}: it is {verdict}. The tracker's state, which is what grows if frames are \
not forgotten, takes {state:.2f} MB, {same}.

"""


class StreamResults(Measured):
    """All of a run: the content of the JSON file beside the page."""

    model: str
    bank: Bank
    engine: str
    threads: int
    every: int
    run: StreamRun


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the stream; returns 0, 1 if memory grows, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    names(options.engine, _check_engine)
    find(options.model)
    results = _measure(options, quoted_command("phoneward.apps.bench.streaming", arguments))
    write_page(options.output, render(results), results)
    return 0 if is_flat(results.run.looks) else 1


def render(results: StreamResults) -> str:
    """Write the whole page."""
    looks = results.run.looks
    settled = [look for look in looks if look.frames >= SETTLED]
    sizes = [look.resident_bytes / 1e6 for look in settled]
    states = {look.state_bytes for look in settled}
    step = max(1, len(looks) // _ROWS)
    shown = dict.fromkeys((*looks[: SETTLED // results.every], *looks[step - 1 :: step]))
    rows = [
        (str(k.frames), f"{k.resident_bytes / 1e6:.1f}", f"{k.state_bytes / 1e6:.2f}")
        for k in sorted(shown, key=lambda look: look.frames)
    ]
    text = _PAGE.format(
        model=results.model,
        bank=results.bank,
        engine=results.engine,
        threads=results.threads,
        frames=looks[-1].frames,
        every=results.every,
        provenance=provenance(results.machine, results.date, results.command),
        settled=SETTLED,
        least=min(sizes),
        most=max(sizes),
        slope=slope(looks),
        late=slope([k for k in looks if 2 * k.frames >= looks[-1].frames]),
        growth=growth(looks),
        flat=FLAT,
        verdict="flat" if is_flat(looks) else "**not flat**",
        state=max(states) / 1e6,
        same="the same at every reading" if len(states) == 1 else "at most",
    )
    return text + markdown_table(("frames", "resident MB", "state MB"), rows)


def slope(looks: Sequence[Look]) -> float:
    """Bytes a frame (kB in 1,000) of the line through the readings once settled."""
    settled = [look for look in looks if look.frames >= SETTLED]
    if len(settled) < 2:
        return 0.0
    frames = np.array([look.frames for look in settled], np.float64)
    sizes = np.array([look.resident_bytes for look in settled], np.float64)
    return float(np.polyfit(frames, sizes, 1)[0])


def growth(looks: Sequence[Look]) -> float:
    """What the line gains from the first settled reading to the last, of that reading."""
    settled = [look for look in looks if look.frames >= SETTLED]
    return slope(looks) * (settled[-1].frames - settled[0].frames) / settled[0].resident_bytes


def is_flat(looks: Sequence[Look]) -> bool:
    """Tell whether memory stays as it is once settled."""
    return growth(looks) <= FLAT


def _measure(options: argparse.Namespace, command: str) -> StreamResults:
    bank: Bank = options.bank
    plan = StagePlan(options.model, (bank,), (), 1, 1, options.threads, options.lock)
    shop = StageShop(options.work.absolute(), plan)
    subject = StageSubject(bank=bank, engine=options.engine, form="rewritten")
    with held(options.lock, exclusive=False):
        bundle = shop.bundle(subject)
    job = StreamJob(
        bundle=str(bundle),
        engine=options.engine,
        picture=str(photographs()[0]),
        frames=options.frames,
        every=options.every,
        threads=options.threads,
        lock=str(options.lock) if options.lock else None,
    )
    return StreamResults(
        machine=this_machine(),
        date=datetime.now(timezone.utc).date().isoformat(),
        command=command,
        model=options.model,
        bank=bank,
        engine=options.engine,
        threads=options.threads,
        every=options.every,
        run=run_child("stream_worker", job, StreamRun, shop.root / "runs" / "streaming"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench.streaming", description=__doc__)
    add = parser.add_argument
    add("--model", default=MODEL, help=f"[{MODEL}]")
    add("--bank", choices=BANKS, default="pooled", help="the memory [pooled]")
    add("--engine", default="litert", help="[litert]")
    add("--frames", type=positive, default=2000, help="how many [2000]")
    add("--every", type=positive, default=50, help="frames from look to look [50]")
    add_places(parser, Path("docs/benchmarks/streaming.md"))
    return parser


def _check_engine(name: str) -> None:
    if name not in TIMED:
        raise UnknownName("engine", name, TIMED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
