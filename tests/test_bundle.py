"""Bundles are whole or absent, and know when a byte of theirs has changed."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    Manifest,
    NotABundle,
    Parity,
    Stage,
    Weights,
    sha256_of,
    size_of,
    staged_output,
)
from phoneward.errors import ArtifactChanged, BundleError, OutputError, OutputExists
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
@pytest.mark.parametrize("field", ["path", "log", "labels", "reference"])
def test_paths_cannot_leave_the_bundle(bundle: Bundle, field: str, path: str) -> None:
    record = json.loads((bundle.path / MANIFEST).read_text())
    holder = record if field in record else record["artifacts"][0]
    assert field in holder
    holder[field] = path
    (bundle.path / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(BundleError, match=f"{field}: .*leaves the bundle"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("field", ["log", "log_sha256", "labels", "labels_sha256"])
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


def test_output_appears_whole(tmp_path: Path) -> None:
    with staged_output(tmp_path / "deep" / "out") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "x").read_text() == "1"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged_output(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="No space left on device"),
        staged_output(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a folder that passes for an old bundle, alone in its folder."""
    folder = tmp_path / "place" / "out"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("old")
    return folder


def test_an_existing_bundle_needs_force(out: Path) -> None:
    with pytest.raises(OutputExists, match="--force"), staged_output(out):
        pass
    with pytest.raises(ValueError, match="stop"), staged_output(out, force=True):
        raise ValueError("stop")
    assert (out / MANIFEST).exists(), "a failed replacement keeps the old folder"
    with staged_output(out, force=True) as folder:
        (folder / "new").write_text("")
    assert [p.name for p in out.iterdir()] == ["new"]
    assert list(out.parent.iterdir()) == [out]


def test_force_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged_output(tmp_path / "out", force=True) as folder:
        (folder / "new").write_text("")
    assert (tmp_path / "out" / "new").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_force_replaces_nothing_but_bundles(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    if kind == "folder":
        precious.mkdir()
        (precious / "photo.jpg").write_text("precious")
    elif kind == "file":
        precious.write_text("precious")
    else:
        precious.symlink_to("nowhere")
    ran = False
    with pytest.raises(NotABundle) as caught, staged_output(precious, force=True):
        ran = True
    assert not ran, "refused before the work"
    assert str(caught.value).startswith(f"{precious} is not a bundle")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OutputExists)
    assert list(tmp_path.iterdir()) == [precious]
    assert kind != "folder" or (precious / "photo.jpg").read_text() == "precious"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("content", ["photo.jpg", MANIFEST])
def test_what_appears_meanwhile_is_kept(tmp_path: Path, content: str, force: bool) -> None:
    out = tmp_path / "out"

    def work() -> None:
        with staged_output(out, force=force) as folder:
            (folder / "new").write_text("")
            out.mkdir()
            (out / content).write_text("")

    if force and content == MANIFEST:
        work()
        assert [p.name for p in out.iterdir()] == ["new"]
    else:
        with pytest.raises(OutputExists):
            work()
        assert [p.name for p in out.iterdir()] == [content]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_replacement_that_fails_puts_the_old_bundle_back(
    out: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    rename, calls = Path.rename, []

    def fails_once(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with (
        pytest.raises(OutputError, match="Input/output error"),
        staged_output(out, force=True) as folder,
    ):
        (folder / "new").write_text("")
        monkeypatch.setattr(Path, "rename", fails_once)
    assert len(calls) == 2 * failing - 1, "the second failure needs a rename back"
    assert (out / MANIFEST).read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


def test_an_old_bundle_that_cannot_be_put_back_is_kept_and_named(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = Path.rename, []

    def works_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with (
        pytest.raises(OutputError, match="it is kept as") as caught,
        staged_output(out, force=True),
    ):
        monkeypatch.setattr(Path, "rename", works_once)
    assert str(caught.value).endswith(str(calls[0]))
    assert (calls[0] / MANIFEST).read_text() == "old"


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from phoneward.apps.cli.interrupt import leave_nothing_behind
from phoneward.bundle import staged_output

out, number, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rename, calls = Path.rename, []

def interrupted(self, target):
    calls.append(self)
    if when == "before" and len(calls) == 2:
        os.kill(os.getpid(), number)
    result = rename(self, target)
    if when == "after" and len(calls) == 2:
        os.kill(os.getpid(), number)
    return result

leave_nothing_behind()
with staged_output(out, force=True) as folder:
    (folder / "bundle.json").write_text("new")
    Path.rename = interrupted
print("not interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("when", "left"), [("before", "old"), ("after", "new")])
def test_an_interrupt_between_the_renames_leaves_one_whole_bundle(
    out: Path, number: signal.Signals, when: str, left: str
) -> None:
    script = [sys.executable, "-c", INTERRUPTED, str(out), str(int(number)), when]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert (out / MANIFEST).read_text() == left
    assert list(out.parent.iterdir()) == [out]


def test_specs_are_frozen_and_checked() -> None:
    with pytest.raises(ValidationError):
        X.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="does not fit"):
        TensorSpec(name="x", shape=(1, 2), layout="NCHW")
    with pytest.raises(ValidationError):
        TensorSpec(name="x", shape=(1, 0))
