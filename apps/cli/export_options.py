"""The options of `export`, by what they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phoneward.names import Precision

_MADE, _MEMORY, _TARGET, _OUTPUT = "What to make", "Memory", "Latency target", "Output"


def _models(incomplete: str) -> list[str]:
    from phoneward.export.models import cards

    return [name for name in cards() if name.startswith(incomplete)]


def _devices(incomplete: str) -> list[str]:
    from phoneward.profiles.device import device_names

    return [name for name in device_names() if name.startswith(incomplete)]


def _formats(incomplete: str) -> list[str]:
    from phoneward.export.backends import BACKENDS

    return [name for name in BACKENDS if name.startswith(incomplete)]


ModelArgument = Annotated[
    str, typer.Argument(help="A name from `phoneward models`.", autocompletion=_models)
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A name from `phoneward devices`; repeatable.",
        autocompletion=_devices,
        rich_help_panel=_MADE,
    ),
]
FormatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="Only this format (coreml, executorch, tflite, onnx); repeatable.",
        autocompletion=_formats,
        rich_help_panel=_MADE,
    ),
]
PrecisionOption = Annotated[
    list[Precision] | None,
    typer.Option(help="Only this precision; repeatable.", rich_help_panel=_MADE),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Keep this in fp32 in a Core ML fp16 package: an op by name, a module by path, or "
        "auto: what it does not agree with PyTorch without; repeatable.",
        rich_help_panel=_MADE,
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option(help="pretrained, random, or a .safetensors or .pt file.", rich_help_panel=_MADE),
]
SlotsOption = Annotated[
    int | None,
    typer.Option(
        help=r"Frames in the memory bank of a model that tracks, 1 to 16 \[default: 7]. At most "
        "6 are recent ones: more than 7 slots serve several prompted frames.",
        rich_help_panel=_MEMORY,
    ),
]
PooledOption = Annotated[
    bool | None,
    typer.Option(
        "--pooled-memory/--no-pooled-memory",
        help=r"Average the memory bank's keys 2 x 2 \[default: no].",
        show_default=False,
        rich_help_panel=_MEMORY,
    ),
]
PointersOption = Annotated[
    bool | None,
    typer.Option(
        "--object-pointers/--no-object-pointers",
        help=r"Let frames read the object pointers of earlier ones \[default: yes].",
        show_default=False,
        rich_help_panel=_MEMORY,
    ),
]
TargetOption = Annotated[
    float | None,
    typer.Option(
        "--target-ms",
        help="Make only the most capable choice whose predicted latency a frame on the device is "
        "at most this: format, precision and memory, as far as other options leave them open.",
        rich_help_panel=_TARGET,
    ),
]
AnyVariantOption = Annotated[
    bool,
    typer.Option(
        "--any-variant",
        help="Choose among all variants of the model's family too.",
        rich_help_panel=_TARGET,
    ),
]
BatchOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Images that a graph takes at a time, for models whose graphs can (not Core ML's).",
        rich_help_panel=_MADE,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help=r"The bundle's folder \[default: the model's name].",
        rich_help_panel=_OUTPUT,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Replace an existing bundle.", rich_help_panel=_OUTPUT),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check names, weights, packages and output; print the plan.",
        rich_help_panel=_OUTPUT,
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Convert anew even if nothing has changed.",
        rich_help_panel=_OUTPUT,
    ),
]
