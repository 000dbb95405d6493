"""Child process: EfficientTAM's stages as files of one format, rewritten or plain."""

from __future__ import annotations

import importlib
import itertools
import time
from pathlib import Path

from phoneward import __version__
from phoneward.apps.bench.child import serve
from phoneward.apps.bench.convert import PACKAGES
from phoneward.apps.bench.tam_prepare import build
from phoneward.apps.bench.tam_records import ConvertStages, StageFile, StageSet, knobs_of
from phoneward.bundle import size_of
from phoneward.names import Precision

BUNDLE = "bundle"


def convert(job: ConvertStages) -> StageSet:
    """Fill `job.folder`: with a bundle, whose artifacts agree with PyTorch, or with plain stages.

    Raises:
        ConversionError, ParityError: a rewritten stage was refused, or is not what PyTorch
            computes. Plain stages are not proven; the benchmark compares what they answer.
    """
    for package in PACKAGES[job.format]:
        importlib.import_module(package)
    return _rewritten(job) if job.form == "rewritten" else _plain(job)


def _rewritten(job: ConvertStages) -> StageSet:
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


def _plain(job: ConvertStages) -> StageSet:
    """Stages as they are built, through the same converters with the same settings."""
    from phoneward.export.backends import BACKENDS, About, Graph
    from phoneward.export.recipe import Recipe

    card, modules = build(job.model, job.bank)
    backend = BACKENDS.get(job.format)
    about = About(card.name, "plain stages", card.licence, __version__)
    files = []
    for stage in [stage for stage in card.stages if stage.name in job.stages]:
        out = Path(job.folder) / f"{stage.name}{backend.suffix}"
        graph = Graph(modules[stage.name], stage, about)
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
