"""Where clips' pictures come from: splits apart, users' folders checked, kept once in the cache."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoneward.errors import DataError, ImageError, MissingExtra, OutputError, UnknownName
from phoneward.export.train.clips import ClipRecipe, generate, open_pool, sources
from phoneward.export.train.clips.pictures import read_picture, regions_of
from phoneward.export.train.clips.pool import REGION, TEXTURE
from phoneward.export.train.clips.sources import CUTOUT, DRAWING, PHOTO, Source

RNG = np.random.default_rng(0)


def photo(path: Path, size: tuple[int, int] = (120, 90)) -> Path:
    Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
    return path


def cutout(path: Path, opaque: int = 60) -> Path:
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[10 : 10 + opaque, 20 : 20 + opaque] = RNG.integers(110, 140, (opaque, opaque, 4))
    pixels[10 : 10 + opaque, 20 : 20 + opaque, 3] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_splits_have_nothing_in_common() -> None:
    train, held = open_pool("train", system=False), open_pool("held-out")
    assert not train.names() & held.names()
    assert not {Path(name).name for name in train.names()} & {
        Path(name).name for name in held.names()
    }
    for pool in (train, held):
        assert all(pool.count(group) for group in (PHOTO, REGION, TEXTURE))


def test_held_out_is_the_same_without_the_systems_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    with_them = open_pool("held-out")
    assert not any(name.startswith("/usr/share/") for name in with_them.names())
    for name in ("_STAMPS", "_CLIPART", "_KDE"):
        monkeypatch.setattr(sources, name, Path("/nowhere"))
    monkeypatch.setattr(sources, "_WALLPAPERS", ())
    assert sources.of_the_system() == []
    assert open_pool("held-out").places == with_them.places


def test_the_systems_pictures_serve_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("animals", "symbols/alphabets", "symbols/money"):
        (tmp_path / "stamps" / name).mkdir(parents=True)
        cutout(tmp_path / "stamps" / name / "thing.png")
    (tmp_path / "kde" / "A" / "contents" / "images").mkdir(parents=True)
    for name in ("1920x1080", "2560x1440", "1080x1920"):
        size = (190, 108) if name != "2560x1440" else (256, 144)
        photo(tmp_path / "kde" / "A" / "contents" / "images" / f"{name}.jpg", size)
    monkeypatch.setattr(sources, "_STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(sources, "_KDE", tmp_path / "kde")
    monkeypatch.setattr(sources, "_CLIPART", tmp_path / "none")
    monkeypatch.setattr(sources, "_WALLPAPERS", ())
    train = open_pool("train")
    ours = {Path(n).relative_to(tmp_path) for n in train.names() if n.startswith(str(tmp_path))}
    assert {str(path) for path in ours} == {
        "stamps/animals/thing.png",
        "stamps/symbols/money/thing.png",
        "kde/A/contents/images/1920x1080.jpg",
    }
    assert train.count(CUTOUT) == 2
    assert open_pool("train", system=False).count(CUTOUT) == 0


def test_the_users_pictures_are_used(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    cutout(tmp_path / "b.png")
    pool, without = open_pool("train", [tmp_path], system=False), open_pool("train", system=False)
    assert pool.digest != without.digest
    assert pool.count(PHOTO) == without.count(PHOTO) + 1
    assert pool.count(CUTOUT) == 1
    rng = np.random.default_rng(0)
    picked = pool.pick(CUTOUT, rng)
    assert picked.shape == (60, 60, 4)  # cropped to what shows
    assert generate(pool, ClipRecipe(64, 2), 0).objects >= 1
    shapes = [pool.pick(PHOTO, rng).shape for _ in range(40)]
    assert 10 < shapes.count((90, 120, 3)) < 30


def test_few_pictures_look_alike(tmp_path: Path) -> None:
    """A few photographs, what is cut from those and no others, and what has no photograph."""
    cutout(tmp_path / "cutout.png")
    for number in range(3):
        photo(tmp_path / f"{number}.jpg")
    pool = open_pool("train", [tmp_path], system=False)
    seen = set()
    for seed in range(12):
        few = pool.few(np.random.default_rng(seed))
        photographs = {name for name in few.names() if not name.startswith("train-texture")}
        assert few.count(PHOTO) == len(photographs) == 6
        assert few.count(TEXTURE) == pool.count(TEXTURE)
        assert few.count(CUTOUT) == 0
        assert few.names() == pool.few(np.random.default_rng(seed)).names()
        seen |= photographs
        same = pickle.loads(pickle.dumps(few))
        assert generate(few, ClipRecipe(64, 2), seed).frames.tobytes() == (
            generate(same, ClipRecipe(64, 2), seed).frames.tobytes()
        )
    assert len(seen) == pool.count(PHOTO) == 12
    assert len(pool.names()) == 12 + 1 + pool.count(TEXTURE)  # it is as it was


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pictures"
    if kind == "empty":
        folder.mkdir()
    if kind == "file":
        folder.write_text("no folder")
    with pytest.raises(DataError, match="folder") as caught:
        open_pool("train", [folder], system=False)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_damaged_picture_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    photo(tmp_path / "good.png")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(photo(tmp_path / "whole.jpg", (300, 300)).read_bytes()[:4000])
    with pytest.raises(ImageError, match="bad.jpg"):
        open_pool("train", [tmp_path], system=False)
    bad.unlink()
    assert open_pool("train", [tmp_path], system=False).count(PHOTO) > 2


@pytest.mark.parametrize(("opaque", "word"), [(5, "too small"), (0, "too small")])
def test_a_users_cut_out_of_nothing_is_refused(tmp_path: Path, opaque: int, word: str) -> None:
    path = cutout(tmp_path / "speck.png", opaque)
    with pytest.raises(DataError, match=word) as caught:
        open_pool("train", [tmp_path], system=False)
    assert str(path) in str(caught.value)


def test_a_users_tiny_photograph_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "tiny.png", (20, 20))
    with pytest.raises(DataError, match="20x20"):
        open_pool("train", [tmp_path], system=False)


def test_flat_drawings_are_told_from_photographs(tmp_path: Path) -> None:
    flat = np.zeros((100, 100, 4), np.uint8)
    flat[20:80, 20:80] = (255, 0, 0, 255)
    Image.fromarray(flat).save(tmp_path / "flat.png")
    assert read_picture(Source(tmp_path / "flat.png", CUTOUT)) is None
    found = read_picture(Source(tmp_path / "flat.png", PHOTO, own=True))
    assert found is not None
    assert found[0] == CUTOUT  # what the user gives is used
    _, x = np.mgrid[:100, :100]
    shaded = flat.copy()
    shaded[..., 1] = (128 + 60 * np.sin(x / 3) + RNG.normal(0, 3, (100, 100))).astype(np.uint8)
    Image.fromarray(shaded).save(tmp_path / "grain.png")
    read = read_picture(Source(tmp_path / "grain.png", CUTOUT))
    assert read is not None
    assert read[0] in (CUTOUT, DRAWING)


def test_a_disk_is_cut_out_of_its_ground() -> None:
    y, x = np.mgrid[:200, :240]
    disk = np.hypot(x - 120, y - 100) < 50
    pixels = np.where(disk[..., None], (220, 60, 40), (40, 90, 160)) + RNG.normal(
        0, 4, (200, 240, 3)
    )
    first = next(iter(regions_of(np.clip(pixels, 0, 255).astype(np.uint8))))
    solid = first[..., 3] > 127
    assert solid.sum() == pytest.approx(disk.sum(), rel=0.06)
    assert first[solid][:, 0].mean() > 200


def test_an_unknown_split_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="held-out"):
        open_pool("test")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"phoneward\[clips\]"):
        open_pool("train", system=False)


def test_the_cache_is_written_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path))
    pool = open_pool("held-out")
    (place,) = pool.places
    file = place / "pixels.bin"
    before = file.stat().st_mtime_ns
    assert open_pool("held-out").places == pool.places
    assert file.stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "clips").iterdir()] == [place.name]
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="truncated"):
        open_pool("held-out")
    (place / "index.json").write_text("[")
    with pytest.raises(DataError, match="damaged"):
        open_pool("held-out")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot write"):
        open_pool("held-out")
