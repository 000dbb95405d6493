"""What to predict: a bundle's graphs, or those of a model by its name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.errors import PredictionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phoneward.bundle import Bundle
    from phoneward.names import Precision
    from phoneward.profiles.kernels import StageKernels

# the format of artifact that a runtime opens; others make their own from any
_FORMATS = {
    "coreml": "coreml",
    "tflite": "tflite",
    "onnxruntime": "onnx",
    "executorch": "executorch",
}


@dataclass(frozen=True)
class Graphs:
    """A model's stages, and of which artifacts of a bundle they are; None for a name."""

    model: str
    stages: tuple[StageKernels, ...]
    format: str | None = None
    precision: Precision | None = None


def graphs_of(
    subject: str,
    runtime: str | None = None,
    precision: str | None = None,
    preferred: Sequence[tuple[str, str]] = (),
) -> Graphs:
    """Return the graphs of a bundle's folder, or of a model's name.

    Args:
        subject: a folder, a name of the zoo, `timm:NAME@PIXELS` or `torchvision:NAME@PIXELS`.
        runtime: as in `Target`; of a bundle only its format is taken.
        precision: of a bundle only artifacts of this one are taken, where there are any.
        preferred: formats with precisions, the first that the bundle has is taken.

    Raises:
        PredictionError: the bundle has no artifact for that runtime.
        BundleError: the folder is no bundle, or does not say what its artifacts compute.
        UnknownName: there is no such model.
        MissingExtra: a model by its name is traced, and torch is not installed.
    """
    if not _is_folder(subject):
        from phoneward.export.kernels.names import kernels_by_name

        return Graphs(subject, kernels_by_name(subject))
    from phoneward.bundle import Bundle
    from phoneward.profiles.bundle_kernels import stages_in

    bundle = Bundle.open(Path(subject))
    made = _made(bundle, runtime)
    wanted = [choice for choice in made if str(choice[1]) == precision] or made
    first = next((one for pair in preferred for one in wanted if _is(one, pair)), wanted[0])
    return Graphs(bundle.manifest.model, stages_in(bundle, *first), *first)


def _made(bundle: Bundle, runtime: str | None) -> list[tuple[str, Precision]]:
    manifest = bundle.manifest
    made = list(dict.fromkeys((a.format, a.precision) for a in manifest.artifacts))
    needed = _FORMATS.get(runtime or "")
    found = [choice for choice in made if needed in (None, choice[0])]
    if not found:
        formats = ", ".join(dict.fromkeys(format_name for format_name, _ in made))
        raise PredictionError(f"{bundle.path} has nothing for {runtime}, only: {formats}")
    return found


def _is(one: tuple[str, Precision], pair: tuple[str, str]) -> bool:
    return (one[0], str(one[1])) == (pair[0], str(pair[1]))


def _is_folder(subject: str) -> bool:
    is_path = Path(subject).is_absolute() or subject.startswith(f".{os.sep}")
    return is_path or Path(subject).exists() or (os.sep in subject and ":" not in subject)
