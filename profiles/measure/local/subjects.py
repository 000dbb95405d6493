"""What is profiled: artifacts with the engines that run them here, and what they are fed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import BundleError, EngineError, MissingExtra
from phoneward.profiles.measure.local.records import Setting
from phoneward.profiles.measure.subset import formats_read_by, wanted_artifacts
from phoneward.runtime.artifacts import check_unchanged
from phoneward.runtime.engines import ENGINES, engines_for, format_of, why_not

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.profiles.measure import Request
    from phoneward.runtime.parity import Reference

# checks artifacts anywhere; no phone runs it, so that its times are asked for by name only
_CHECKERS = ("mil",)


@dataclass(frozen=True)
class Subject:
    """One artifact on one engine."""

    artifact: Artifact
    engine: str

    def __str__(self) -> str:
        """Say it as errors and progress do."""
        one = self.artifact
        return f"{one.stage} ({one.format}-{one.precision}, {self.engine})"


def choose_subjects(request: Request) -> tuple[list[Subject], list[str]]:
    """Return what can be profiled here, unchanged on disk, and what to warn of.

    Raises:
        UnknownName: no such engine.
        BundleError: a stage is missing, or nothing fits what is asked for.
        ArtifactChanged: an artifact is not what was exported.
        MissingExtra, EngineError: an engine was asked for that cannot run here.
    """
    asked = request.wanted.engine
    if asked is not None:
        _check_engine(asked)
    able = [n for n in ENGINES if (n == asked or n not in _CHECKERS) and why_not(n) is None]
    formats = formats_read_by(lambda name: name == asked if asked else name in able)
    chosen = wanted_artifacts(request, formats, "host")
    subjects = [
        Subject(artifact, engine)
        for artifact in chosen
        for engine in ([asked] if asked else engines_for(artifact.format))
        if engine in able
    ]
    for subject in subjects:
        check_unchanged(request.bundle.file(subject.artifact), subject.artifact.sha256)
    return _in_order(request, subjects), _left_out(request, formats)


def setting_of(request: Request, subject: Subject, reference: Reference, folder: Path) -> Setting:
    """Write one sample of the inputs to `folder`; raises `BundleError` if there is none."""
    artifact = subject.artifact
    path = folder / "inputs.npz"
    samples = {spec.name: reference.inputs(artifact.stage, spec)[0] for spec in artifact.inputs}
    np.savez(path, **samples)
    return Setting(
        engine=subject.engine,
        path=request.bundle.file(artifact).absolute(),
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        tensors=path,
        threads=request.threads,
        cores=request.cores,
    )


def _check_engine(name: str) -> None:
    if (reason := why_not(name)) is not None:
        if ENGINES.entry(name).missing():
            raise MissingExtra(f"engine '{name}'", ENGINES.entry(name).extra)
        raise EngineError(f"engine '{name}': {reason}")


def _in_order(request: Request, subjects: list[Subject]) -> list[Subject]:
    """Format by format, in each as the model runs its stages."""
    if not subjects:
        raise BundleError(f"{request.bundle.path}: no engine here can run what is asked for")
    stages = [stage.name for stage in request.bundle.manifest.stages]
    kinds = list(
        dict.fromkeys((s.artifact.format, s.artifact.precision, s.engine) for s in subjects)
    )

    def place(subject: Subject) -> tuple[int, int]:
        one = subject.artifact
        kind = kinds.index((one.format, one.precision, subject.engine))
        return kind, stages.index(one.stage)

    return sorted(subjects, key=place)


def _left_out(request: Request, formats: set[str]) -> list[str]:
    """Name formats of the bundle that nothing here runs, unless others were asked for."""
    wanted = request.wanted
    if wanted.engine is not None or wanted.format_name is not None:
        return []
    there = dict.fromkeys(artifact.format for artifact in request.bundle.manifest.artifacts)
    return [f"not profiled: {name} ({_why(name)})" for name in there if name not in formats]


def _why(format_name: str) -> str:
    engines = [name for name in ENGINES if format_of(name) == format_name]
    reasons = [f"{name}: {why_not(name)}" for name in engines if why_not(name) is not None]
    return "; ".join(reasons) or f"no engine for {json.dumps(format_name)}"
