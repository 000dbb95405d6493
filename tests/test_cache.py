"""The cache gives back exactly what was put in, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoneward.export.cache import Cache, default_root, key_of, versions


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "artifacts" / "p.mlpackage").mkdir(parents=True)
    (folder / "artifacts" / "p.mlpackage" / "weights").write_bytes(b"w")
    (folder / "log").write_bytes(b"l")
    return folder


NAMES = ("artifacts/p.mlpackage", "log")


def test_files_and_record_come_back(tmp_path: Path, made: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.take("k", tmp_path / "out") is None
    cache.put("k", made, NAMES, {"a": [1, None]})
    assert cache.take("k", tmp_path / "out") == {"a": [1, None]}
    assert (tmp_path / "out/artifacts/p.mlpackage/weights").read_bytes() == b"w"
    assert (tmp_path / "out/log").read_bytes() == b"l"


@pytest.mark.parametrize("damage", ["artifacts/p.mlpackage/weights", "log", "entry.json"])
def test_a_damaged_entry_counts_as_absent(tmp_path: Path, made: Path, damage: str) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put("k", made, NAMES, {})
    (tmp_path / "cache" / "k" / damage).write_bytes(b"damaged")
    assert cache.take("k", tmp_path / "out") is None
    assert not (tmp_path / "out").exists()
    cache.put("k", made, NAMES, {"again": True})
    assert cache.take("k", tmp_path / "out") == {"again": True}


def test_the_first_of_two_equal_entries_stays(tmp_path: Path, made: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put("k", made, NAMES, {"n": 1})
    cache.put("k", made, NAMES, {"n": 2})
    assert cache.take("k", tmp_path / "out") == {"n": 1}
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["k"]


def test_a_failed_put_leaves_nothing(tmp_path: Path, made: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(FileNotFoundError):
        cache.put("k", made, ("log", "absent"), {})
    assert list((tmp_path / "cache").iterdir()) == []


def test_keys_differ_when_anything_does() -> None:
    base = {"recipe": "a", "tools": {"torch": "1"}}
    keys = {key_of(base), key_of(base | {"recipe": "b"}), key_of(base | {"tools": {"torch": "2"}})}
    assert len(keys) == 3
    assert key_of(base) == key_of(dict(reversed(list(base.items()))))


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("PHONEWARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "phoneward"


def test_versions_leave_out_what_is_not_installed() -> None:
    found = versions(["numpy", "no-such-distribution"])
    assert list(found) == ["numpy"]
