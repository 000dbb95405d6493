"""`phoneward predict`: what a model will take on a phone that is not here."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phoneward.apps.cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from phoneward.apps.cli.graphs import Graphs
    from phoneward.profiles.predict.calibrate import Calibration
    from phoneward.profiles.predict.group import Group
    from phoneward.profiles.predict.predictor import Target
    from phoneward.profiles.report.schema import LatencyReport, Predicted

EXAMPLE = "Example: phoneward predict timm:mobilenetv3_large_100@224 --device galaxy-s24"


def command(
    subject: Annotated[
        str,
        typer.Argument(
            help="A name from `phoneward models`, timm:NAME@PIXELS, torchvision:NAME@PIXELS, or a "
            "folder that `export` wrote.",
            metavar="MODEL_OR_BUNDLE",
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            help="A name from `phoneward devices` or of a calibration, or a calibration's file."
        ),
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            help=r"fp32, fp16, int8 (w8a8) or w8a16 \[default: of the bundle, else what the device "
            "is given first]."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help=r"coreml, tflite, onnxruntime, executorch, qnn, ncnn or mnn "
            r"\[default: that of the device's first export]."
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help=r"ane, npu, gpu, or cpu with its threads, as 'cpu 4t big' \[default: what the "
            "runtime was measured on there]."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File for a latency report.", metavar="FILE"),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Predict a latency with its interval, and where the time goes.

    A prediction rests on public measurements of other people, or on your own by `phoneward
    calibrate`; no phone is needed. Of a model of several stages the latency is of all, once each,
    without the host's work between them. Exit code 2: bad input, or too many of the model's ops
    have no price.
    """
    from phoneward.apps.cli.graphs import graphs_of
    from phoneward.apps.cli.predicted import print_prediction
    from phoneward.profiles.predict.own import find_device
    from phoneward.profiles.predict.predictor import Target, predict_stages
    from phoneward.profiles.predict.targets import runtime_of
    from phoneward.profiles.report.file import write_report

    name, calibration = find_device(device)
    asked = runtime_of(runtime) if runtime else None
    # names are checked before a model is traced
    _group(Target(name, asked, unit, precision), calibration)
    graphs = graphs_of(subject, asked, precision, _preferred(name))
    if graphs.format is not None and asked is None and calibration is None:
        asked = runtime_of(graphs.format)
    target = Target(name, asked, unit, precision or _own(graphs))
    group = _group(target, calibration)
    predicted = predict_stages(graphs.stages, target, calibration)
    if output is not None:
        write_report(_report(graphs, target, group, calibration), output)
    if json_output:
        print_json(_document(graphs, target, group, predicted))
        return
    print_prediction(graphs.model, _title(name), group, predicted)
    if output is not None:
        print(f"Report: {output}")


def _group(target: Target, calibration: Calibration | None) -> Group:
    from phoneward.profiles.predict.parameters import shipped_rows
    from phoneward.profiles.predict.targets import group_of

    if calibration is not None:
        return calibration.group(target)
    return group_of(target, shipped_rows().points.groups)


def _preferred(device: str) -> tuple[tuple[str, str], ...]:
    from phoneward.profiles.device import device_names, load_device

    if device not in device_names():
        return ()
    return tuple((export.format, str(export.precision)) for export in load_device(device).exports)


def _default(device: str) -> str | None:
    preferred = _preferred(device)
    return preferred[0][1] if preferred else None


def _own(graphs: Graphs) -> str | None:
    return None if graphs.precision is None else str(graphs.precision)


def _title(device: str) -> str:
    from phoneward.profiles.device import device_names, load_device

    return load_device(device).title if device in device_names() else device


def _document(graphs: Graphs, target: Target, group: Group, predicted: Predicted) -> dict[str, Any]:
    return {
        "model": graphs.model,
        "device": target.device,
        "runtime": group.runtime,
        "unit": f"{group.unit} {group.threads}".strip(),
        "precision": str(target.precision or _default(target.device) or group.numeric),
        **predicted.model_dump(mode="json"),
        "error": None,
    }


def _report(
    graphs: Graphs, target: Target, group: Group, calibration: Calibration | None
) -> LatencyReport:
    from phoneward import __version__
    from phoneward.names import Precision, Provenance
    from phoneward.profiles.predict.predictor import predict_stage
    from phoneward.profiles.report.schema import LatencyReport, Machine, StageReport, Subject

    known = {str(one): one for one in Precision}
    stages = tuple(
        StageReport(
            stage=stage.stage,
            format=graphs.format,
            precision=known.get(str(target.precision)),
            engine=group.runtime,
            unit=group.unit,
            kernels=stage.kernels,
            result=predict_stage(stage, target, calibration),
        )
        for stage in graphs.stages
    )
    facts = {"chip": group.soc, "arithmetic": group.numeric}
    if group.threads:
        facts["threads"] = group.threads
    return LatencyReport(
        provenance=Provenance.PREDICTED,
        created=datetime.now(timezone.utc),
        phoneward=__version__,
        place="predicted",
        subject=Subject(model=graphs.model),
        machine=Machine(name=_title(target.device), device=target.device, facts=facts),
        stages=stages,
    )
