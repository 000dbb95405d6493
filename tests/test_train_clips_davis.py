"""Held-out clips, and the layout of DAVIS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoneward.errors import OutputError, OutputExists
from phoneward.export.train.clips import Clip, held_out, write_davis


@pytest.fixture(scope="module")
def clips() -> list[tuple[str, Clip]]:
    return list(held_out(2, frames=3))


def test_held_out_clips_have_names_and_sizes() -> None:
    found = list(held_out(7, frames=1))
    assert [name for name, _ in found] == [f"clip-{number:03d}" for number in range(7)]
    widths = {clip.frames.shape[2] for _, clip in found}
    assert min(widths) >= 256
    assert max(widths) == 480


def test_a_clip_does_not_depend_on_how_many_there_are(clips: list[tuple[str, Clip]]) -> None:
    (name, first), *_ = held_out(1, frames=3)
    assert name == clips[0][0]
    np.testing.assert_array_equal(first.frames, clips[0][1].frames)


def test_the_layout_is_read_back(clips: list[tuple[str, Clip]], tmp_path: Path) -> None:
    folder = tmp_path / "held" / "out"
    write_davis(clips, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["Annotations", "JPEGImages"]
    for name, clip in clips:
        names = [f"{number:05d}" for number in range(3)]
        images = sorted((folder / "JPEGImages" / name).iterdir())
        annotations = sorted((folder / "Annotations" / name).iterdir())
        assert [path.name for path in images] == [f"{each}.jpg" for each in names]
        assert [path.name for path in annotations] == [f"{each}.png" for each in names]
        for number, (image, annotation) in enumerate(zip(images, annotations, strict=True)):
            with Image.open(annotation) as opened:
                assert opened.mode == "P"
                np.testing.assert_array_equal(np.asarray(opened), clip.masks[number])
                palette = opened.getpalette() or []
                assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            difference = np.asarray(Image.open(image)).astype(int) - clip.frames[number]
            assert np.abs(difference).mean() < 6


def test_what_is_there_is_not_overwritten(clips: list[tuple[str, Clip]], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    with pytest.raises(OutputExists):
        write_davis(clips, tmp_path / "mine")
    assert (tmp_path / "mine" / "file").read_text() == "precious"
    with pytest.raises(OutputError, match="cannot write"):
        write_davis(clips, tmp_path / "mine" / "file" / "below")
    (tmp_path / "empty").mkdir()
    write_davis(clips[:1], tmp_path / "empty")
    assert (tmp_path / "empty" / "JPEGImages").is_dir()


def test_a_failure_leaves_nothing(clips: list[tuple[str, Clip]], tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_davis([clips[0], clips[0]], tmp_path / "twice")
    assert list(tmp_path.iterdir()) == []
