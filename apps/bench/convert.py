"""Child process: make one artifact, ours or naive, with the input and the answer for it."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.apps.bench.child import first_line, serve
from phoneward.apps.bench.records import Conversion, ConvertJob
from phoneward.bundle import Delegation, size_of
from phoneward.errors import ConversionError, PhonewardError
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

TENSOR = "input.npy"
ANSWER = "pytorch.npy"

# imported before the clock starts: an import can take longer than the conversion
PACKAGES = {
    "executorch": (
        "executorch.exir",
        "executorch.backends.xnnpack.partition.xnnpack_partitioner",
    ),
    "tflite": ("litert_torch",),
    "onnx": ("torch.onnx", "onnx", "onnxscript"),
}


def convert(job: ConvertJob) -> Conversion:
    """Fill `job.folder`: the artifact, its input `input.npy` and PyTorch's answer `pytorch.npy`.

    The input is a photograph that ships with Phoneward, in the layout and range of the artifact.

    Raises:
        ConversionError: the vendor refused.
        ParityError: ours is not what PyTorch computes.
    """
    for package in PACKAGES[job.format]:
        importlib.import_module(package)
    return _ours(job) if job.variant == "ours" else _naive(job)


def plain_model(name: str) -> tuple[nn.Module, Tensor]:
    """Build the plain timm model with the same random weights as ours, and its input.

    Returns the model and a normalised photograph, float32 (1, 3, H, W).
    """
    from phoneward.export.models import find

    card, family = find(name)
    ours = next(iter(family.build(card, None).values()))
    return ours.body, ours.normalize(_photograph(name))


def _photograph(name: str) -> Tensor:
    import torch

    from phoneward.export.models import find
    from phoneward.export.photographs import photographs
    from phoneward.runtime.images import load_image, prepare

    card, _ = find(name)
    image = prepare(load_image(photographs()[0]), card.image, card.stages[0].inputs[0])
    return torch.from_numpy(image.round())


def _ours(job: ConvertJob) -> Conversion:
    from phoneward.export.pipeline import Options, export_bundle
    from phoneward.export.request import make_request
    from phoneward.names import Precision

    started = time.perf_counter()

    def progress(step: str, done: int, total: int) -> None:
        nonlocal started
        # the last step is the only artifact; what came before is PyTorch's reference
        started = time.perf_counter()

    request = make_request(job.model, "random", (), [job.format], [Precision.FP32])
    options = Options(force=True, use_cache=False, threads=job.threads)
    folder = Path(job.folder)
    bundle = export_bundle(request, folder / "bundle", options, progress)
    seconds = time.perf_counter() - started
    artifact = bundle.manifest.artifacts[0]
    image = _photograph(job.model).numpy()
    channel_last = artifact.inputs[0].layout == "NHWC"
    np.save(folder / TENSOR, image.transpose(0, 2, 3, 1) if channel_last else image)
    _save_answer(job.model, folder)
    return Conversion(
        model=job.model,
        format=job.format,
        variant="ours",
        path=f"bundle/{artifact.path}",
        seconds=seconds,
        bytes=artifact.bytes,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        delegation=artifact.delegation,
    )


def _naive(job: ConvertJob) -> Conversion:
    from phoneward.apps.bench.naive import CONVERTERS
    from phoneward.export.backends import BACKENDS

    folder = Path(job.folder)
    model, image = plain_model(job.model)
    out = folder / f"naive{BACKENDS.get(job.format).suffix}"
    started = time.perf_counter()
    try:
        naive = CONVERTERS[job.format](model, image, out)
    except (PhonewardError, OSError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(str(error))}"
        raise ConversionError(job.format, reason) from error
    seconds = time.perf_counter() - started
    delegation = _tflite_delegation(out) if job.format == "tflite" else naive.delegation
    np.save(folder / TENSOR, image.numpy())
    answer = _save_answer(job.model, folder)
    return Conversion(
        model=job.model,
        format=job.format,
        variant="naive",
        path=out.name,
        seconds=seconds,
        bytes=size_of(out),
        inputs=(TensorSpec(name=naive.input_name, shape=tuple(image.shape), layout="NCHW"),),
        outputs=(TensorSpec(name=naive.output_name, shape=answer.shape, layout="NC"),),
        delegation=delegation,
    )


def _tflite_delegation(path: Path) -> Delegation:
    from phoneward.export.backends.tflite_delegation import delegation_of

    return delegation_of(path)


def _save_answer(name: str, folder: Path) -> Any:
    import torch

    model, image = plain_model(name)
    with torch.no_grad():
        answer = model(image).numpy()
    np.save(folder / ANSWER, answer)
    return answer


if __name__ == "__main__":
    serve(ConvertJob, convert)
