"""`phoneward calibrate`: a device of one's own, known from a few measurements."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phoneward.profiles.predict.calibrate import Anchor

EXAMPLE = "Example: phoneward calibrate --device my-phone --from reports/"

# each measurement is predicted from the others, which takes a while for many
_MOST_CHECKED = 30


def command(
    device: Annotated[
        str, typer.Option(help="Name to keep it under: lower-case letters, digits and hyphens.")
    ],
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="A folder of measured latency reports, or a CSV file with the columns model, "
            "latency_ms, runtime, precision and, if wanted, unit.",
            metavar="FOLDER_OR_CSV",
        ),
    ],
    like: Annotated[
        str | None,
        typer.Option(
            help="A name from `phoneward devices` whose chip it has, so that what is published of "
            "that chip helps.",
            metavar="DEVICE",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help=r"File \[default: under the device's name, in ~/.local/share/phoneward/devices].",
            metavar="FILE",
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Learn how fast a device is from a few models that were measured on it.

    At least three measurements, better five to ten of different models; afterwards `phoneward
    predict --device NAME` uses them. Each is predicted from those of other models, as a check.
    Exit code 2: a measurement is damaged, or there are too few.
    """
    from phoneward.apps.cli.anchors import read_anchors
    from phoneward.profiles.device import load_device
    from phoneward.profiles.predict.calibrate import calibrate
    from phoneward.profiles.predict.own import keep

    soc = load_device(like).soc if like is not None else None
    anchors = read_anchors(source)
    calibration = calibrate(device, anchors, soc)
    checked = _from_the_others(device, anchors, soc)
    path = keep(calibration, output)
    errors = [abs(predicted / anchor.latency_ms - 1) for anchor, predicted in checked]
    median = statistics.median(errors) if errors else None
    if json_output:
        rows = [
            {"label": anchor.label, "latency_ms": anchor.latency_ms, "from_the_others_ms": ms}
            for anchor, ms in checked
        ]
        document = {
            "device": calibration.device,
            "chip": calibration.soc,
            "anchors": len(anchors),
            "checked": rows,
            "median_error": median,
            "file": str(path.absolute()),
            "error": None,
        }
        print_json(document)
        return
    print_table(
        f"{device}: {len(anchors)} measurements, each predicted from the others",
        ("model", "runtime", "precision", "measured ms", "predicted ms", "error"),
        [
            (a.label, a.runtime, str(a.precision), f"{a.latency_ms:.3g}", f"{ms:.3g}", _off(a, ms))
            for a, ms in checked
        ],
    )
    if median is not None:
        print(f"Median error: {median:.1%}")
    else:
        print("All are of one model: nothing tells how well others are predicted. Measure more.")
    print(f"Calibration: {path}")
    print(f"Next: phoneward predict MODEL --device {device if output is None else output}")


def _from_the_others(
    device: str, anchors: Sequence[Anchor], soc: str | None
) -> list[tuple[Anchor, float]]:
    from phoneward.profiles.predict.calibrate import calibrate
    from phoneward.profiles.predict.predictor import Target, predict_stage

    found = []
    for anchor in anchors[:_MOST_CHECKED]:
        # the same graph again would give its time away
        others = [one for one in anchors if one.kernels.kernels != anchor.kernels.kernels]
        if not others:
            continue
        target = Target(device, anchor.runtime, anchor.unit, anchor.precision)
        predicted = predict_stage(anchor.kernels, target, calibrate(device, others, soc))
        found.append((anchor, predicted.latency_ms))
    return found


def _off(anchor: Anchor, predicted: float) -> str:
    return f"{predicted / anchor.latency_ms - 1:+.1%}"
