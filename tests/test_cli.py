"""The command line as a user has it: real processes, exit codes, one clear line, only JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from phoneward import __version__
from phoneward.apps.cli.app import VERBS
from tests.command_line import run

ONNX_ONLY = ("--format", "onnx", "--weights", "random")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    result = run("export", "mobilenetv3_small_100", *ONNX_ONLY, "-o", "small", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "small"


@pytest.fixture(scope="module")
def photo() -> Path:
    from phoneward.export.photographs import photographs

    return next(path for path in photographs() if path.stem == "cat")


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(tmp_path: Path, verb: str) -> None:
    result = run(verb, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"phoneward {verb}" in result.stdout.split("Example:")[1]
    # square brackets that are not escaped vanish as markup, and leave the full stop alone
    assert not re.search(r"\s\.\s", result.stdout)


def test_help_is_quick_and_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['phoneward', 'export', '--help']\n"
        "from phoneward.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "resnet50", "--device", "pixel-8"), "unknown model 'resnet50'; known: eff"),
        (("export", "mobilevit_s", "--device", "nokia"), "unknown device 'nokia'; known: "),
        (("export", "mobilevit_s", "--format", "caffe"), "unknown format 'caffe'; known: core"),
        (("export", "mobilevit_s"), "at least one --device or --format"),
        (("export", "mobilevit_s", "--format", "onnx", "--weights", "no.pt"), "no such file"),
        (("export", "mobilevit_s", "--format", "onnx", "--memory-slots", "3"), "remembers nothing"),
        (("export", "efficienttam_ti", "--format", "onnx", "--memory-slots", "17"), "1 to 16"),
        (
            ("export", "efficienttam_ti", "--format", "onnx", "--weights", "efficienttam_ti_1.pt"),
            "bear the name of efficienttam_ti_1, not of efficienttam_ti",
        ),
        (("verify", "nowhere"), "is not a bundle"),
        (("run", "nowhere", "x.jpg"), "is not a bundle"),
        (("devices", "nokia"), "unknown device"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_with_json_an_error_is_json_too(tmp_path: Path) -> None:
    result = run("export", "resnet50", "--device", "pixel-8", "--json", cwd=tmp_path)
    assert result.returncode == 2
    assert "unknown model" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize("damage", ["truncated", "legacy", "missing", "extra", "code"])
def test_weights_that_do_not_fit_leave_nothing(tmp_path: Path, damage: str) -> None:
    import timm

    state = timm.create_model("mobilenetv3_small_100").state_dict()
    message = {
        "truncated": "truncated or not a weights file",
        "legacy": "truncated or not a weights file",
        "missing": "missing 1: classifier.bias",
        "extra": "unexpected 1: surplus",
        "code": "holds code",
    }[damage]
    if damage == "missing":
        del state["classifier.bias"]
    if damage == "extra":
        state["surplus"] = torch.zeros(1)
    torch.save(
        print if damage == "code" else state,
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=damage != "legacy",
    )
    if damage in ("truncated", "legacy"):
        (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:100_000])
    result = run(
        "export", "mobilenetv3_small_100", "--format", "onnx", "--weights", "w.pt", cwd=tmp_path
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["w.pt"]


def test_an_existing_folder_needs_force(bundle: Path) -> None:
    arguments = ("export", "mobilenetv3_small_100", *ONNX_ONLY, "-o", bundle)
    before = (bundle / "bundle.json").stat().st_ino
    result = run(*arguments, cwd=bundle.parent)
    assert result.returncode == 2
    assert "give --force" in result.stderr
    assert (bundle / "bundle.json").stat().st_ino == before
    assert run(*arguments, "--force", cwd=bundle.parent).returncode == 0
    assert (bundle / "bundle.json").stat().st_ino != before


def test_the_same_export_again_takes_under_five_seconds(bundle: Path) -> None:
    """Seconds of processor time, which other work on the machine does not stretch."""
    before = os.times()
    result = run("export", "mobilenetv3_small_100", *ONNX_ONLY, "-o", "again", cwd=bundle.parent)
    after = os.times()
    assert result.returncode == 0
    assert "ok (onnxruntime, cached)" in result.stdout
    used = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    assert used < 5


def test_export_json_has_every_figure(bundle: Path) -> None:
    result = run(
        "export", "mobilenetv3_small_100", *ONNX_ONLY, "-o", "json", "--json", cwd=bundle.parent
    )
    report = json.loads(result.stdout)
    assert (report["clips"], report["price"], report["error"]) == ([], None, None)
    (artifact,) = report["artifacts"]
    assert (artifact["stage"], artifact["format"], artifact["precision"]) == (
        "classify",
        "onnx",
        "fp32",
    )
    assert Path(artifact["path"]).stat().st_size == artifact["bytes"]
    assert len(artifact["sha256"]) == 64
    assert artifact["parity"]["status"] == "ok"
    assert artifact["parity"]["engine"] == "onnxruntime"
    assert artifact["parity"]["top1_agreement"] == 1.0
    assert 0 < artifact["parity"]["outputs"][0]["relative_error"] <= 1e-4


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = run(
        "export", "mobilevit_s", "--device", "iphone-12", "--weights", "random", "--dry-run",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    plan = json.loads(result.stdout)
    assert plan["dry_run"]
    assert [a["format"] for a in plan["artifacts"]] == ["coreml", "executorch"]
    assert list(tmp_path.iterdir()) == []


def test_dry_run_reads_the_weights(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(bytes(1000))
    result = run(
        "export", "mobilenetv3_small_100", "--format", "onnx", "--weights", "w.safetensors",
        "--dry-run", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 2
    assert "not a whole safetensors file" in json.loads(result.stdout)["error"]


def test_dry_run_tries_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = run("export", "mobilevit_s", *ONNX_ONLY, "-o", "file/out", "--dry-run", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot write file/out")


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"phoneward {__version__}\n"


def test_output_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "phoneward", "devices", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        )  # fmt: skip
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "No space left on device" in line


def test_run_prints_a_list_with_five_labels(bundle: Path, photo: Path) -> None:
    result = run("run", bundle, photo, photo, "--json", cwd=bundle.parent)
    rows = json.loads(result.stdout)
    assert [row["image"] for row in rows] == [str(photo)] * 2
    assert {row["engine"] for row in rows} == {"onnxruntime"}
    top5 = rows[0]["top5"]
    assert len(top5) == 5
    assert sorted(top5, key=lambda one: -one["score"]) == top5
    assert all(isinstance(one["index"], int) and one["label"] for one in top5)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 truncated"])
def test_a_file_that_is_no_image_is_named(bundle: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    result = run("run", bundle, "x.jpg", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: x.jpg: not a readable image")


def test_verify_names_the_file_with_a_changed_byte(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    assert run("verify", copy, cwd=tmp_path).returncode == 0
    file = next((copy / "artifacts").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = run("verify", copy, cwd=tmp_path)
    assert result.returncode == 2
    assert file.name in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "place"
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "phoneward", "export", "mobilevit_s", *ONNX_ONLY, "-o",
         out / "tam", "--no-cache"],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(out.glob(".tam-*/logs/*onnx*.log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr.splitlines()[-1] == "error: interrupted; nothing was written"
    assert list(out.iterdir()) == []


def test_an_interrupt_ends_even_when_nobody_reads(tmp_path: Path) -> None:
    """Ctrl-C in `phoneward ... --json | jq` ends the reader too."""
    script = (
        "import os, signal, sys, time; sys.argv = ['phoneward', '--json']\n"
        "from phoneward.apps.cli.interrupt import leave_nothing_behind\n"
        "leave_nothing_behind()\n"
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "except BaseException: pass\n"
        "sys.exit(0)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=writer, stderr=writer, check=False, cwd=tmp_path
    )
    os.close(writer)
    assert done.returncode == 2


def test_an_interrupt_is_json_too(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; sys.argv = ['phoneward', '--json']\n"
        "from phoneward.apps.cli.interrupt import leave_nothing_behind\n"
        "leave_nothing_behind(); os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, json.loads(done.stdout)) == (2, {"error": "interrupted"})


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        result = run(
            "export", "mobilenetv3_small_100", *ONNX_ONLY, "-o", disk / "out", cwd=tmp_path
        )
        assert result.returncode == 2
        assert "No space left on device" in result.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
