"""Bundles are whole or absent, and know when a byte of theirs has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    ClipParity,
    Manifest,
    Parity,
    Price,
    Stage,
    Weights,
    sha256_of,
    size_of,
)
from phoneward.errors import ArtifactChanged, BundleError
from phoneward.names import ParityStatus, Precision
from phoneward.spec import TensorSpec

X = TensorSpec(name="image", shape=(1, 3, 4, 4), layout="NCHW")
Y = TensorSpec(name="logits", shape=(1, 2), layout="NC")


def artifact(folder: Path, path: str = "artifacts/a.bin") -> Artifact:
    return Artifact(
        stage="classify",
        format="onnx",
        precision=Precision.FP32,
        path=path,
        bytes=size_of(folder / path),
        sha256=sha256_of(folder / path),
        inputs=(X,),
        outputs=(Y,),
        parity=Parity(status=ParityStatus.NOT_EXECUTED),
        log="logs/a.log",
        log_sha256=sha256_of(folder / "logs/a.log"),
        kernels="kernels/a.json",
        kernels_sha256=sha256_of(folder / "kernels/a.json"),
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    (folder / "artifacts" / "p.mlpackage" / "Data").mkdir(parents=True)
    (folder / "artifacts" / "a.bin").write_bytes(b"artifact")
    (folder / "artifacts" / "p.mlpackage" / "Data" / "w").write_bytes(b"weights")
    (folder / "reference.npz").write_bytes(b"reference")
    (folder / "labels.txt").write_bytes(b"one\ntwo\n")
    (folder / "logs").mkdir()
    (folder / "logs" / "a.log").write_bytes(b"log")
    (folder / "kernels").mkdir()
    (folder / "kernels" / "a.json").write_bytes(b"kernels")
    manifest = Manifest(
        model="m",
        family="f",
        weights=Weights(kind="random", source="seed", seed=0),
        devices=("pixel-8",),
        stages=(Stage(name="classify", inputs=(X,), outputs=(Y,)),),
        artifacts=(artifact(folder), artifact(folder, "artifacts/p.mlpackage")),
        labels="labels.txt",
        labels_sha256=sha256_of(folder / "labels.txt"),
        reference="reference.npz",
        reference_sha256=sha256_of(folder / "reference.npz"),
        tools={"torch": "1"},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return Bundle.open(folder)


def test_clips_and_a_price_round_trip_and_are_in_range(bundle: Bundle) -> None:
    clip = ClipParity(
        format="onnx",
        precision=Precision.FP16,
        status=ParityStatus.OK,
        basis="masks",
        engine="onnxruntime",
        frames=2,
        ious=(1.0, 0.5),
        min_iou=0.5,
        mean_iou=0.75,
        drift=-0.5,
        relative_error=0.25,
    )
    price = Price(
        knobs="3 memory slots",
        baseline="7 memory slots",
        random_weights=False,
        mean_iou=0.9,
        min_iou=0.8,
        logit_difference=0.1,
    )
    manifest = bundle.manifest.model_copy(update={"clips": (clip,), "price": price})
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    for change in ({"ious": (1.1,)}, {"basis": "both"}, {"colour": 1}):
        with pytest.raises(ValidationError, match=next(iter(change))):
            ClipParity.model_validate({**clip.model_dump(), **change})


def test_round_trip_keeps_every_field(bundle: Bundle) -> None:
    assert Manifest.model_validate_json(bundle.manifest.model_dump_json()) == bundle.manifest
    bundle.check_files()


@pytest.mark.parametrize(
    "path",
    [
        "artifacts/a.bin",
        "artifacts/p.mlpackage/Data/w",
        "reference.npz",
        "labels.txt",
        "logs/a.log",
        "kernels/a.json",
    ],
)
def test_a_changed_byte_is_found_and_named(bundle: Bundle, path: str) -> None:
    file = bundle.path / path
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactChanged, match=path.split("/Data")[0]):
        bundle.check_files()


def test_a_missing_file_is_named(bundle: Bundle) -> None:
    (bundle.path / "artifacts/a.bin").unlink()
    with pytest.raises(BundleError, match=r"a\.bin is missing"):
        bundle.check_files()


def test_a_file_added_to_a_package_changes_its_checksum(bundle: Bundle) -> None:
    (bundle.path / "artifacts/p.mlpackage/extra").write_bytes(b"")
    with pytest.raises(ArtifactChanged):
        bundle.check_files()


OUTSIDE = ["/etc/passwd", "../outside", "a/../../b", "a\\b", "C:/b", "", ".", "a\0b"]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("field", ["path", "log", "kernels", "labels", "reference"])
def test_paths_cannot_leave_the_bundle(bundle: Bundle, field: str, path: str) -> None:
    record = json.loads((bundle.path / MANIFEST).read_text())
    holder = record if field in record else record["artifacts"][0]
    assert field in holder
    holder[field] = path
    (bundle.path / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(BundleError, match=f"{field}: .*leaves the bundle"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    "field", ["log", "log_sha256", "kernels", "kernels_sha256", "labels", "labels_sha256"]
)
def test_a_file_cannot_be_named_without_its_checksum(bundle: Bundle, field: str) -> None:
    record = json.loads((bundle.path / MANIFEST).read_text())
    holder = record if field in record else record["artifacts"][0]
    for absent in ({field: None}, {}):
        del holder[field]
        holder.update(absent)
        (bundle.path / MANIFEST).write_text(json.dumps(record))
        with pytest.raises(BundleError, match="go together"):
            Bundle.open(bundle.path)
        holder[field] = None


def test_a_bundle_without_artifacts_is_none(bundle: Bundle) -> None:
    record = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / MANIFEST).write_text(json.dumps(record | {"artifacts": []}))
    with pytest.raises(BundleError, match="artifacts: .*at least 1 item"):
        Bundle.open(bundle.path)


def test_a_path_that_cannot_be_read_is_a_bundle_error(bundle: Bundle) -> None:
    record = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / MANIFEST).write_text(json.dumps(record | {"reference": "r" * 5000}))
    with pytest.raises(BundleError, match="File name too long"):
        Bundle.open(bundle.path).check_files()


def test_unknown_keys_and_versions_are_errors(bundle: Bundle) -> None:
    record = json.loads((bundle.path / MANIFEST).read_text())
    for change in ({"colour": 1}, {"schema_version": 2}):
        (bundle.path / MANIFEST).write_text(json.dumps(record | change))
        with pytest.raises(BundleError, match=next(iter(change))):
            Bundle.open(bundle.path)


@given(st.text())
def test_no_manifest_text_escapes_as_another_error(tmp_path_factory, text: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("b")
    (folder / MANIFEST).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(BundleError):
        Bundle.open(folder)


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path / "file")


def test_specs_are_frozen_and_checked() -> None:
    with pytest.raises(ValidationError):
        X.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="does not fit"):
        TensorSpec(name="x", shape=(1, 2), layout="NCHW")
    with pytest.raises(ValidationError):
        TensorSpec(name="x", shape=(1, 0))
