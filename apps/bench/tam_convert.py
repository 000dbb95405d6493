"""Child process: EfficientTAM's stages as files of one format, rewritten or plain."""

from __future__ import annotations

import importlib
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward import __version__
from phoneward.apps.bench.child import serve
from phoneward.apps.bench.convert import PACKAGES
from phoneward.apps.bench.tam_prepare import build
from phoneward.apps.bench.tam_records import ATTENDS, ConvertStages, StageFile, StageSet, knobs_of
from phoneward.bundle import size_of
from phoneward.export.models import find
from phoneward.names import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from phoneward.bundle import Stage

BUNDLE = "bundle"


def convert(job: ConvertStages) -> StageSet:
    """Fill `job.folder`: with a bundle, whose artifacts agree with PyTorch, or with plain stages.

    Raises:
        ConversionError, ParityError: a rewritten stage was refused, or is not what PyTorch
            computes. Plain stages are not proven; the benchmark compares what they answer.
    """
    for package in PACKAGES[job.format]:
        importlib.import_module(package)
    if job.form == "plain":
        card, modules = build(job.model, job.bank)
        return _lowered(job, {s.name: (modules[s.name], s) for s in card.stages})
    if job.stages == ATTENDS:
        from phoneward.apps.bench import tam_keys

        return _lowered(job, tam_keys.graphs(build(job.model, job.bank)[1]["propagate"]))
    return _bundle(job)


def _bundle(job: ConvertStages) -> StageSet:
    from phoneward.export.pipeline import Options, export_bundle
    from phoneward.export.request import make_request

    knobs = knobs_of(job.bank)
    request = make_request(job.model, "random", (), [job.format], [Precision.FP32], knobs)
    options = Options(force=True, use_cache=False, threads=job.threads)
    starts: list[float] = []
    folder = Path(job.folder)
    bundle = export_bundle(
        request, folder / BUNDLE, options, lambda *_: starts.append(time.perf_counter())
    )
    artifacts = bundle.manifest.artifacts
    # the first two steps are the weights and PyTorch's answers, then there is one a stage
    spans = [end - start for start, end in itertools.pairwise(starts[2:])]
    files = tuple(
        StageFile(
            stage=artifact.stage,
            path=f"{BUNDLE}/{artifact.path}",
            seconds=seconds,
            bytes=artifact.bytes,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            delegation=artifact.delegation,
        )
        for artifact, seconds in zip(artifacts, spans, strict=False)
    )
    return StageSet(bank=job.bank, form=job.form, format=job.format, files=files)


def _lowered(job: ConvertStages, graphs: Mapping[str, tuple[nn.Module, Stage]]) -> StageSet:
    """Modules as they are, through the same converters with the same settings."""
    from phoneward.export.backends import BACKENDS, About, Graph
    from phoneward.export.recipe import Recipe

    backend = BACKENDS.get(job.format)
    about = About(job.model, "to be timed", find(job.model)[0].licence, __version__)
    files = []
    for module, stage in (graphs[name] for name in job.stages):
        out = Path(job.folder) / f"{stage.name}{backend.suffix}"
        graph = Graph(module, stage, about)
        started = time.perf_counter()
        # what a converter raises ends this process, and its last line is the answer
        lowered = backend.lower(graph, Recipe(job.format), out)
        files.append(
            StageFile(
                stage=stage.name,
                path=out.name,
                seconds=time.perf_counter() - started,
                bytes=size_of(out),
                inputs=lowered.inputs,
                outputs=lowered.outputs,
                delegation=lowered.delegation,
            )
        )
    return StageSet(bank=job.bank, form=job.form, format=job.format, files=tuple(files))


if __name__ == "__main__":
    serve(ConvertStages, convert)
