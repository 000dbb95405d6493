"""The cache gives back exactly what was put in, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoneward.export.cache import Cache, default_root, key_of, versions
from phoneward.export.recipe import Recipe
from phoneward.names import Precision


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


def test_a_failed_put_leaves_nothing(
    tmp_path: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put("k", made, ("log", "absent"), {})
    assert "No such file" in caplog.text
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


def test_keys_tell_the_target_apart() -> None:
    """A package for iOS 18 does not open on a phone with iOS 17."""
    old, new = (Recipe("coreml", Precision.FP16, target) for target in ("iOS17", "iOS18"))
    assert key_of({"recipe": old}) != key_of({"recipe": new})
    assert key_of({"recipe": old}) == key_of({"recipe": Recipe("coreml", Precision.FP16, "iOS17")})


def test_what_has_no_stable_text_is_no_key() -> None:
    with pytest.raises(TypeError, match="object has no stable text"):
        key_of({"recipe": object()})


def test_a_changed_record_counts_as_absent(tmp_path: Path, made: Path) -> None:
    """It holds the verdict on the files."""
    cache = Cache(tmp_path / "cache")
    cache.put("k", made, NAMES, {"status": "failed"})
    entry = tmp_path / "cache" / "k" / "entry.json"
    entry.write_text(entry.read_text().replace("failed", "ok"))
    assert cache.take("k", tmp_path / "out") is None


@pytest.mark.parametrize(
    "text",
    ['{"files": {}, "record": {}}', "[]", "{}", '{"files": {}}', '{"files": [], "record": 3}'],
)
def test_an_entry_of_another_shape_counts_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "entry.json").write_text(text)
    assert Cache(tmp_path).take("k", tmp_path / "out") is None


def test_a_cache_that_cannot_be_written_says_so_and_does_no_harm(
    tmp_path: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache")
    cache.put("k", made, NAMES, {})
    assert "not cached in" in caplog.text
    assert cache.take("k", tmp_path / "out") is None


def test_the_slower_of_two_exports_keeps_its_result(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's entry appears while this one is being copied."""
    import phoneward.export.cache as module

    cache, copy = Cache(tmp_path / "cache"), module._copy

    def and_then_the_other(source: Path, destination: Path) -> None:
        monkeypatch.setattr(module, "_copy", copy)
        copy(source, destination)
        Cache(tmp_path / "cache").put("k", made, NAMES, {"n": 2})

    monkeypatch.setattr(module, "_copy", and_then_the_other)
    cache.put("k", made, NAMES, {"n": 1})
    assert cache.take("k", tmp_path / "out") == {"n": 2}
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["k"]
