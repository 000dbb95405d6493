"""What is shipped: every file of the rooms and the kernel, under one top-level name."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNEL = "src/phoneward"
ROOMS = ("export", "runtime", "profiles", "apps")


def git(*arguments: str) -> list[str]:
    result = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.split("\0")[:-1]


def build(source: Path, target: str, output: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(output)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = output.iterdir()
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is tracked, with the tracked files' present content."""
    clone = tmp_path_factory.mktemp("checkout") / "phoneward"
    for name in git("ls-files", "-z"):
        source, copy = ROOT / name, clone / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        else:
            copy.write_bytes(source.read_bytes())
    return clone


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.parametrize("name", [*ROOMS, "constraints.txt"])
def test_the_kernel_links_to(name: str) -> None:
    link = ROOT / KERNEL / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name
    (entry,) = git("ls-files", "-s", "-z", f"{KERNEL}/{name}")
    assert entry.startswith("120000 ")


def test_the_wheel_holds_every_tracked_file(wheel: Path) -> None:
    tracked = git("ls-files", "-z", KERNEL, *ROOMS)
    links = {f"{KERNEL}/{room}" for room in ROOMS}
    expected = {"phoneward/" + name.removeprefix(f"{KERNEL}/") for name in {*tracked} - links}
    shipped = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert shipped == expected
    assert "phoneward/constraints.txt" in shipped


def test_the_wheel_has_one_top_level_name(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"phoneward"}


def test_the_constraints_in_the_wheel_are_a_file_with_their_content(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("phoneward/constraints.txt")
    assert packed == (ROOT / "constraints.txt").read_bytes()
    assert packed == resources.files("phoneward").joinpath("constraints.txt").read_bytes()


def test_the_source_archive_builds_the_same_wheel(
    checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    archive = build(checkout, "sdist", tmp_path / "sdist")
    with tarfile.open(archive) as packed:
        assert not [
            m.name
            for m in packed
            if m.name.split("/")[1:3] == ["src", "phoneward"] and m.name.split("/")[3] in ROOMS
        ]
        packed.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = build(source, "wheel", tmp_path / "again")
    assert names_in(again) == names_in(wheel)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_cannot_be_imported_from_the_checkout(room: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", f"import {room}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"ImportError: import phoneward.{room}, never the checkout folder" in result.stderr
