"""An emulated Arm processor: right answers on Arm, and instructions by class. It tells no time.

`qemu:CPU` runs the artifact with the engines' own aarch64 libraries in QEMU's user mode. A plugin
of ours counts what one inference retires.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from phoneward import __version__
from phoneward.errors import PlaceError
from phoneward.names import Provenance
from phoneward.profiles.measure.emulator.cores import find_core
from phoneward.profiles.measure.emulator.guest import Counted, Emulator, Program
from phoneward.profiles.measure.emulator.sandbox import WHEELS, open_sandbox
from phoneward.profiles.measure.stage import Ran, stage_report
from phoneward.profiles.measure.subset import wanted_artifacts
from phoneward.profiles.report.schema import (
    Emulated,
    LatencyReport,
    Machine,
    StageReport,
    Subject,
)
from phoneward.runtime.artifacts import check_unchanged
from phoneward.runtime.parity import THRESHOLDS, Reference, compare

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.profiles.measure import Request

# emulation takes seconds where a phone takes milliseconds, and inferences do not differ
MOST_RUNS = 3
_ENGINES = {"tflite": "litert", "executorch": "executorch"}
_DISTRIBUTIONS = {engine: name for name, engine in WHEELS.items()}


def profile(address: str, request: Request, progress: Callable[[str], None]) -> LatencyReport:
    """Run each artifact on one reference input, and count the instructions of an inference.

    Of the request, `runs` counts up to `MOST_RUNS`; what concerns time does not apply.

    Args:
        address: the core, e.g. `cortex-a76`.
        request: what to profile.
        progress: is told each step.

    Raises:
        UnknownName: no such core.
        BundleError, ArtifactChanged: the bundle has nothing to run, or is not what was exported.
        WrongArchitecture: an artifact's kernels need instructions that the core lacks.
        PlaceError: the emulator is not there or not prepared, or an artifact failed in it.
    """
    place = f"qemu:{address}"
    core = find_core(address)
    _check_request(place, request)
    emulator = Emulator(place, core, open_sandbox(place))
    emulator.check_core()
    bundle = request.bundle
    artifacts = wanted_artifacts(request, set(_ENGINES), place)
    check_unchanged(bundle.path / bundle.manifest.reference, bundle.manifest.reference_sha256)
    reference = Reference.load(bundle.path / bundle.manifest.reference)
    stages, warnings = [], list(_what_does_not_apply(request))
    for number, artifact in enumerate(artifacts, start=1):
        progress(
            f"{artifact.stage} as {artifact.format}-{artifact.precision} on {core.name} "
            f"({number} of {len(artifacts)})"
        )
        stage, said = _profile_one(emulator, artifact, request, reference)
        stages.append(stage)
        warnings += said
    return LatencyReport(
        provenance=Provenance.EMULATED,
        created=datetime.now(timezone.utc),
        phoneward=__version__,
        place=place,
        subject=Subject(model=bundle.manifest.model, weights=bundle.manifest.weights.kind),
        machine=_machine(emulator, request),
        tools={**emulator.sandbox.record.tools, "qemu": _qemu_version(emulator)},
        stages=tuple(stages),
        warnings=tuple(warnings),
    )


def _check_request(place: str, request: Request) -> None:
    if request.threads != 1:
        raise PlaceError(place, "counts need one thread; leave out the number of threads")
    if request.runner is not None:
        raise PlaceError(place, "runs its own runners; leave out the runner")
    engine = request.wanted.engine
    if engine is not None and engine not in _ENGINES.values():
        raise PlaceError(place, f"runs {', '.join(_ENGINES.values())}, not {engine}")


def _what_does_not_apply(request: Request) -> list[str]:
    said = []
    if request.runs > MOST_RUNS:
        said.append(
            f"{MOST_RUNS} inferences were counted of the {request.runs} asked for: emulation is "
            "slow, and one inference retires what another does"
        )
    ignored = {
        "a sustained run": request.sustained_s,
        "binding to processors": request.cores,
        "tracking end to end": request.frames,
    }
    said += [f"{what}: not on an emulated processor" for what, asked in ignored.items() if asked]
    return said


def _profile_one(
    emulator: Emulator, artifact: Artifact, request: Request, reference: Reference
) -> tuple[StageReport, list[str]]:
    path = request.bundle.file(artifact)
    check_unchanged(path, artifact.sha256)
    engine = _ENGINES[artifact.format]
    program = Program(engine, path, artifact.inputs, artifact.outputs)
    # a photograph, where there is one: the model was made for such
    sample = int(np.argmax(reference.real(artifact.stage)))
    inputs = {spec.name: reference.inputs(artifact.stage, spec)[sample] for spec in artifact.inputs}
    counted = emulator.run(program, inputs, min(request.runs, MOST_RUNS))
    error, said = _parity(counted, artifact, reference, sample)
    result = Emulated(
        cpu=emulator.core.name,
        instructions=counted.instructions[-1],
        by_class=counted.by_class,
        runs=len(counted.instructions),
        identical=counted.identical,
        max_relative_error=error,
    )
    ran = Ran(
        engine,
        engine_version=emulator.sandbox.record.tools[_DISTRIBUTIONS[engine]],
        delegate="XNNPACK",
        unit="cpu",
        threads=1,
    )
    return stage_report(artifact, ran, result), said


def _parity(
    counted: Counted, artifact: Artifact, reference: Reference, sample: int
) -> tuple[float | None, list[str]]:
    """The largest relative error of all outputs on one sample, and what is wrong with them."""
    errors, said = [], []
    name = f"{artifact.stage} as {artifact.format}-{artifact.precision}"
    for spec in artifact.outputs:
        expected = reference.outputs(artifact.stage, spec)[sample : sample + 1]
        try:
            figures = compare(spec.name, expected, counted.outputs[spec.name][np.newaxis])
        except ValueError as error:
            return None, [f"{name}: {error}"]
        errors.append(figures.relative_error)
    limit = THRESHOLDS[artifact.precision].relative_error
    worst = max(errors)
    if worst > limit:
        said.append(f"{name}: relative error {worst:.1e} over {limit:.0e} on this processor")
    return worst, said


def _machine(emulator: Emulator, request: Request) -> Machine:
    core = emulator.core
    return Machine(
        name=f"emulated {core.name}",
        device=request.device,
        os="Linux (user mode)",
        cpu=core.name,
        architecture="aarch64",
        cores=1,
        facts={"core": core.note, "qemu_cpu": core.qemu, "host": platform.machine()},
    )


def _qemu_version(emulator: Emulator) -> str:
    found = re.search(r"version (\S+)", emulator.ask_qemu("--version"))
    if found is None:
        raise PlaceError(emulator.place, f"{emulator.sandbox.qemu} does not tell its version")
    return found[1]
