"""The folder that `export` writes and everything else reads, and its manifest `bundle.json`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from phoneward.errors import ArtifactChanged, BundleError
from phoneward.names import ParityStatus, Precision
from phoneward.spec import ImageSpec, Spec, TensorSpec

MANIFEST = "bundle.json"
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _stays_inside(value: str) -> str:
    path = PurePosixPath(value)
    elsewhere = path.is_absolute() or ".." in path.parts or PureWindowsPath(value).drive
    if elsewhere or not path.parts or "\\" in value or "\0" in value:
        raise ValueError(f"path {value!r} leaves the bundle")
    return value


RelativePath = Annotated[str, AfterValidator(_stays_inside)]


class Weights(Spec):
    """Where the weights came from. `kind` is `random` only if random weights were asked for."""

    kind: Literal["pretrained", "package", "file", "random"]
    source: str
    sha256: Sha256 | None = None
    licence: str | None = None
    seed: int | None = None


class Stage(Spec):
    """One graph of a model as PyTorch sees it; every artifact of the stage honours it."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: ImageSpec | None = None


class Delegation(Spec):
    """What runs inside the fast path (delegate) and what was left outside, by op name."""

    delegate: str
    partitions: Annotated[int, Field(ge=0)]
    delegated_ops: Annotated[int, Field(ge=0)]
    fallback: dict[str, int] = Field(default_factory=dict)


class OutputParity(Spec):
    """Agreement of one output with PyTorch over all reference inputs.

    `max_abs_error` is the largest of all samples, `relative_error` the largest error of a sample
    over the range (max - min) of PyTorch's output for that sample;
    `snr_db` is the signal-to-noise ratio in decibels (null where the error is exactly zero).
    """

    output: str
    max_abs_error: float
    relative_error: float
    snr_db: float | None


class Parity(Spec):
    """The verdict on one artifact, the engine that gave it, and the figures behind it.

    `cached` verdicts were reached by an earlier export of the same bytes on this kind of machine.
    """

    status: ParityStatus
    engine: str | None = None
    outputs: tuple[OutputParity, ...] = ()
    top1_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    images: int = 0
    reason: str | None = None
    cached: bool = False


class KeptOp(Spec):
    """An op that a half-precision artifact computes in single precision, and why.

    `name` is what it was selected by: its own or its result's, or the path of a module.
    """

    op: str
    name: str
    module: str | None = None
    reason: str


class KeptInFloat(Spec):
    """What was kept in single precision: `kept` on purpose, and `float_ops` of `ops` in all.

    `ops` are those that compute floats. More than `kept` may be in single precision: coremltools
    leaves ops alone whose constants half precision cannot hold.
    """

    kept: tuple[KeptOp, ...]
    float_ops: Annotated[int, Field(ge=0)]
    ops: Annotated[int, Field(ge=0)]


class Artifact(Spec):
    """One file (or package folder) for one (stage, format, precision).

    `kernels` names the file with the work of the program it was made from, where there is one.
    """

    stage: str
    format: str
    precision: Precision
    path: RelativePath
    bytes: Annotated[int, Field(gt=0)]
    sha256: Sha256
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: Parity
    delegation: Delegation | None = None
    target: str | None = None
    rewrites: tuple[str, ...] = ()
    keep_fp32: KeptInFloat | None = None
    log: RelativePath | None = None
    log_sha256: Sha256 | None = None
    kernels: RelativePath | None = None
    kernels_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _files_have_checksums(self) -> Artifact:
        if (self.log is None) != (self.log_sha256 is None):
            raise ValueError("log and log_sha256 go together")
        if (self.kernels is None) != (self.kernels_sha256 is None):
            raise ValueError("kernels and kernels_sha256 go together")
        return self


class ClipParity(Spec):
    """Agreement with PyTorch over a clip that the four stages of one format track together.

    `ious` has the intersection over union of the two masks of each frame (1 where both are
    empty), `drift` is the mean of its last third minus that of its first. `relative_error` is the
    largest error of a frame's mask logits over the range of PyTorch's for it. `basis` says what
    was judged: masks (in single precision the logits too), or only logits where PyTorch's masks
    are noise or all empty.
    """

    format: str
    precision: Precision
    status: ParityStatus
    basis: Literal["masks", "logits"]
    engine: str | None = None
    frames: Annotated[int, Field(ge=0)] = 0
    ious: tuple[Share, ...] = ()
    min_iou: Share | None = None
    mean_iou: Share | None = None
    drift: float | None = None
    relative_error: float | None = None
    reason: str | None = None
    cached: bool = False


class Price(Spec):
    """What the knobs of an export cost in agreement with the full model, and gain in time.

    The masks of the model as exported are compared with those of `baseline`, the model with no
    knob turned, both in PyTorch over the clip of the reference: `mean_iou`, `min_iou`, and
    `logit_difference`, the largest of a frame over the range of the baseline's logits. With
    `random_weights` masks are noise and say little. `milliseconds` and `baseline_milliseconds`
    are medians of `rounds` runs of `propagate`, the two artifacts in turns in one process, by
    `engine` with `threads`; all four are null where no engine here runs the formats exported.
    """

    knobs: str
    baseline: str
    random_weights: bool
    mean_iou: Share
    min_iou: Share
    logit_difference: float
    format: str | None = None
    precision: Precision | None = None
    engine: str | None = None
    threads: int | None = None
    rounds: int | None = None
    milliseconds: float | None = None
    baseline_milliseconds: float | None = None
    cached: bool = False


class Manifest(Spec):
    """All of `bundle.json`."""

    schema_version: Literal[1] = 1
    model: str
    family: str
    weights: Weights
    devices: tuple[str, ...]
    stages: tuple[Stage, ...]
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    labels: RelativePath | None = None
    labels_sha256: Sha256 | None = None
    reference: RelativePath
    reference_sha256: Sha256
    tools: dict[str, str]
    constants: dict[str, int | float | str] = Field(default_factory=dict)
    clips: tuple[ClipParity, ...] = ()
    price: Price | None = None

    @model_validator(mode="after")
    def _labels_have_a_checksum(self) -> Manifest:
        if (self.labels is None) != (self.labels_sha256 is None):
            raise ValueError("labels and labels_sha256 go together")
        return self

    def checksums(self) -> tuple[tuple[str, str], ...]:
        """Every (path, SHA-256) the manifest states.

        Those are artifacts, their logs and kernels, labels and reference.
        """
        stated = [
            *((artifact.path, artifact.sha256) for artifact in self.artifacts),
            *((artifact.log, artifact.log_sha256) for artifact in self.artifacts),
            *((artifact.kernels, artifact.kernels_sha256) for artifact in self.artifacts),
            (self.labels, self.labels_sha256),
            (self.reference, self.reference_sha256),
        ]
        return tuple((path, sha256) for path, sha256 in stated if path and sha256)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: the folder and its manifest. Checksums are checked by `check_files`."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Read a bundle's manifest; raises `BundleError` if the folder is not a whole bundle."""
        path = Path(path)
        file = path / MANIFEST
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BundleError(f"{path} is not a bundle: no {MANIFEST} in it") from error
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error
        try:
            return cls(path, Manifest.model_validate_json(text))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise BundleError(f"{file}: {where}: {first['msg']}") from error

    def file(self, artifact: Artifact) -> Path:
        """Return the artifact's path on disk."""
        return self.path / artifact.path

    def stage(self, name: str) -> Stage:
        """Return a stage by name; raises `BundleError` if the bundle has none such."""
        for stage in self.manifest.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.manifest.stages)
        raise BundleError(f"{self.path} has no stage '{name}'; it has: {known}")

    def check_files(self) -> None:
        """Hold every file that the manifest states a checksum of against it.

        Raises:
            BundleError: a file is missing or cannot be read.
            ArtifactChanged: a file has changed.
        """
        for relative, expected in self.manifest.checksums():
            file = self.path / relative
            try:
                found = sha256_of(file)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise BundleError(f"{file} is missing from the bundle") from error
            except OSError as error:
                raise BundleError(f"{file} cannot be read: {error.strerror or error}") from error
            if found != expected:
                raise ArtifactChanged(file)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a package folder (every relative path and its bytes, sorted)."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(sha256_of(file)))
        return digest.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Size in bytes of a file, or of all files of a package folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
