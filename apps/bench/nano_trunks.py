"""`python -m phoneward.apps.bench.nano_trunks`: which trunk learns more in as many steps?

EfficientNet-Lite0 with ImageNet's weights, kept as they are, with and without its finer levels for
the decoder; and a plain vision transformer of as many parameters, which learns from nothing. All
are trained on the same pictures, the first part of efficienttam-nano's curriculum made short.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phoneward.apps.bench.machine import quoted_command, this_machine
from phoneward.apps.bench.options import add_places, errors_end, positive, write_page
from phoneward.apps.bench.page import markdown_table, provenance
from phoneward.apps.bench.records import Measured
from phoneward.apps.cli.output import progress_bar
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.variants import NANO, Variant
from phoneward.export.train.tam import curve
from phoneward.export.train.tam.plan import CURRICULUM, EPOCH, Part
from phoneward.export.train.tam.run import Training, run
from phoneward.spec import Spec

_MODULE = "phoneward.apps.bench.nano_trunks"
_COARSE = replace(NANO.widths, fine=False)
TRUNKS: Mapping[str, Variant] = {
    "EfficientNet-Lite0, strides 4 and 8 to the decoder": NANO,
    "EfficientNet-Lite0": replace(NANO, name="efficienttam_nano_coarse", widths=_COARSE),
    "plain ViT, 12 blocks, from nothing": replace(
        NANO, name="efficienttam_nano_vit", trunk="vit", embedding=64, heads=2, widths=_COARSE
    ),
}
_LAST = 100
"""Steps whose figures are averaged."""

_PAGE = """\
# Which trunk?

{steps} steps of the first part of efficienttam-nano's curriculum (single pictures of {side} pixels,
prompted by masks, boxes and clicks), with the same seed and pictures. EfficientNet-Lite0 has seen
ImageNet and is kept as it is; the plain vision transformer, as wide as 2.5 million parameters
allow, learns with the rest.

{provenance}
{table}
IoU is that of the candidate for unambiguous prompts, in views of pictures that the model has not
seen before; loss and IoU are means over the last {last} steps.
"""


class TrunkRow(Spec):
    """What a training came to: loss and IoU of every step, and its seconds."""

    trunk: str
    parameters: int
    loss: tuple[float, ...]
    iou: tuple[float, ...]
    seconds: tuple[float, ...]


class TrunkResults(Measured):
    """All of a run: the content of the JSON file beside the page."""

    side: int
    rows: tuple[TrunkRow, ...]


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Train them one after the other, and write the page; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    with progress_bar(quiet=False) as progress:
        for trunk, variant in TRUNKS.items():
            part = part_of(variant, options.steps)
            folder = options.work.absolute() / "nano-trunks" / f"{variant.name}-{options.steps}"
            if (folder / f"{variant.name}.safetensors").exists():  # measured on another day
                shutil.rmtree(folder)
            run(Training((part,), folder, variant=variant), progress)
            rows.append(_row(trunk, variant, curve.read(folder / f"0-{part.name}.csv")))
    results = TrunkResults(
        machine=this_machine(),
        date=datetime.now(timezone.utc).date().isoformat(),
        command=quoted_command(_MODULE, arguments),
        side=CURRICULUM[0].size,
        rows=tuple(rows),
    )
    write_page(options.output, render(results), results)
    return 0


def part_of(variant: Variant, steps: int) -> Part:
    """Return the first part of the curriculum for a trunk: one without weights must learn."""
    part = CURRICULUM[0]
    schedule = replace(part.schedule, epochs=max(1, round(steps / EPOCH)), end=0.0)
    return replace(part, schedule=schedule, trunk=0.0 if variant.trunk == "lite0" else 1.0)


def render(results: TrunkResults) -> str:
    """Write the whole page."""
    rows = [
        (
            one.trunk,
            f"{one.parameters / 1e6:.2f} M",
            f"{np.mean(one.loss[-_LAST:]):.3f}",
            f"{np.mean(one.iou[-_LAST:]):.3f}",
            f"{np.median(np.diff(one.seconds)):.2f}",
        )
        for one in results.rows
    ]
    steps = len(results.rows[0].loss)
    return _PAGE.format(
        steps=steps,
        side=results.side,
        last=min(_LAST, steps),
        provenance=provenance(results.machine, results.date, results.command),
        table=markdown_table(("trunk", "parameters", "loss", "IoU", "s/step"), rows),
    )


def _row(trunk: str, variant: Variant, figures: Mapping[str, NDArray[np.float64]]) -> TrunkRow:
    return TrunkRow(
        trunk=trunk,
        parameters=sum(each.numel() for each in EfficientTAM(variant).parameters()),
        loss=tuple(figures["loss"].tolist()),
        iou=tuple(figures["first_iou"].tolist()),
        seconds=tuple(figures["seconds"].tolist()),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(_MODULE, description=__doc__)
    parser.add_argument("--steps", type=positive, default=400, help="of each training [400]")
    add_places(parser, Path("docs/benchmarks/efficienttam-nano-trunks.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
