"""Frames of real videos, folders and what is neither: order, times, turning, damage."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoneward.errors import ImageError, PhonewardError, VideoError
from phoneward.runtime.frames import Frame, natural_key, open_frames
from phoneward.runtime.video import is_fragmented, upright

Pixels = NDArray[np.uint8]
CODECS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "libx264"}


def noise(count: int, height: int = 48, width: int = 64) -> list[Pixels]:
    """A texture that moves, so that no two frames are alike and none is small when coded."""
    texture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return [np.roll(texture, 3 * index, axis=1) for index in range(count)]


def write_video(
    path: Path,
    frames: Sequence[Pixels],
    ticks: Sequence[int] | None = None,  # of 1/1000 s
    codec: str = "",
    **options: str,
) -> Path:
    """Write with PyAV itself; at 25 frames a second unless `ticks` tell the times."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(codec or CODECS[path.suffix[1:]], rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000 if ticks else 25)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = ticks[index] if ticks else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(source: Path | str) -> tuple[list[Frame], str | None]:
    """All frames, and the error after them."""
    frames: list[Frame] = []
    try:
        with open_frames(source) as opened:
            frames.extend(opened)
    except PhonewardError as error:
        return frames, str(error)
    return frames, None


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the display matrix into an mp4's track header (ISO 14496-12, tkhd, version 0)."""
    content = bytearray(path.read_bytes())
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = matrix
    path.write_bytes(content)
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(content[: int(len(content) * share)])
    return short


def test_lossless_frames_come_back_in_order(tmp_path: Path) -> None:
    written = noise(7, 5, 3)
    frames, error = read(write_video(tmp_path / "v.mkv", written, codec="ffv1"))
    assert error is None
    assert [frame.index for frame in frames] == list(range(7))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(7)], abs=5e-4)
    for frame, pixels in zip(frames, written, strict=True):
        assert frame.pixels.dtype == np.uint8
        assert np.array_equal(frame.pixels, pixels)


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_is_read_whole(tmp_path: Path, suffix: str) -> None:
    written = noise(12)
    path = write_video(tmp_path / f"v.{suffix}", written)
    with open_frames(path) as opened:
        assert opened.expected == 12
        frames = list(opened)
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)
    errors = [
        [np.abs(frame.pixels.astype(int) - pixels).mean() for pixels in written] for frame in frames
    ]
    assert np.argmin(errors, axis=1).tolist() == list(range(12))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_of_a_variable_rate_are_the_sources(tmp_path: Path, suffix: str) -> None:
    ticks = [100, 140, 150, 400, 1400, 1410]
    frames, error = read(write_video(tmp_path / f"v.{suffix}", noise(6), ticks))
    assert error is None
    times = [(tick - 100) / 1000 for tick in ticks]
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-6)


@pytest.mark.parametrize(
    ("matrix", "quarters"),
    [((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2), ((0, 1, -1, 0), 3), ((1, 0, 0, 1), 0)],
)
def test_rotation_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], quarters: int
) -> None:
    """By a phone's matrix for portrait, (0, 1, -1, 0), the left side is shown on top."""
    corner = np.zeros((32, 64, 3), np.uint8)
    corner[:8, :16] = (255, 0, 0)
    frames, error = read(turn(write_video(tmp_path / "v.mp4", [corner] * 2), *matrix))
    assert error is None
    expected = np.rot90(corner, quarters)
    assert frames[0].pixels.shape == expected.shape
    assert np.abs(frames[0].pixels.astype(int) - expected).mean() < 3


def test_a_mirroring_matrix_and_an_oblique_one() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    one = 65536
    mirror = np.array([[-one, 0, 0], [0, one, 0], [0, 0, 1 << 30]], np.int32)
    assert np.array_equal(upright("v", pixels, mirror), pixels[:, ::-1])
    transpose = np.array([[0, one, 0], [one, 0, 0], [0, 0, 1 << 30]], np.int32)
    assert np.array_equal(upright("v", pixels, transpose), pixels.transpose(1, 0, 2))
    oblique = np.array([[46341, 46341, 0], [-46341, 46341, 0], [0, 0, 1 << 30]], np.int32)
    with pytest.raises(VideoError, match="no quarter turn"):
        upright("v", pixels, oblique)


def test_a_tiny_video(tmp_path: Path) -> None:
    frames, error = read(write_video(tmp_path / "v.mp4", noise(3, 4, 4)))
    assert error is None
    assert [frame.pixels.shape for frame in frames] == [(4, 4, 3)] * 3


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("share", [0.55, 0.8, 0.93])
def test_what_is_whole_of_a_cut_video_comes_before_the_error(
    tmp_path: Path, suffix: str, share: float
) -> None:
    front = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = write_video(tmp_path / f"v.{suffix}", noise(40), **front)
    whole, _ = read(path)
    short = cut(path, share)
    if suffix == "ts" and short.stat().st_size % 188 == 0:  # as a whole one ends
        short.write_bytes(short.read_bytes()[:-1])
    frames, error = read(short)
    assert 0 < len(frames) < 40
    for frame, same in zip(frames, whole, strict=False):
        assert (frame.index, frame.time) == (same.index, same.time)
        assert np.array_equal(frame.pixels, same.pixels)
    assert error is not None
    assert "cut" in error or "damaged" in error


@pytest.mark.parametrize("unit", [192, 204])
def test_a_cut_broadcast_shows_no_half_frame(tmp_path: Path, unit: int) -> None:
    """Cut where packets of another size than its own would end, it is noticed all the same."""
    path = write_video(tmp_path / "v.ts", noise(40))
    whole, _ = read(path)
    content, short = path.read_bytes(), tmp_path / "cut.ts"
    sizes = [n for n in range(len(content) // 2 // unit * unit, len(content), unit) if n % 188]
    assert len(sizes) > 20
    for size in sizes[:: len(sizes) // 20]:
        short.write_bytes(content[:size])
        frames, error = read(short)
        assert error is not None
        for frame, same in zip(frames, whole, strict=False):
            assert np.array_equal(frame.pixels, same.pixels)


def test_an_mp4_in_fragments_does_not_say_how_many_frames_it_has(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", noise(12), codec="mpeg4", movflags="frag_every_frame")
    with av.open(str(path)) as container:  # what is stated
        assert 0 < container.streams.video[0].frames < 12
    with open_frames(path) as opened:
        assert (opened.expected, opened.most) == (None, None)
        assert len(list(opened)) == 12


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        (b"\0\0\0\x08ftyp" + b"\0\0\0\x10moof", True),
        (b"\0\0\0\x01mdat" + (20).to_bytes(8, "big") + b"1234" + b"\0\0\0\x08moof", True),
        (b"\0\0\0\x10free....moof" + b"\0\0\0\0mdat" + b"\0\0\0\x08moof", False),
        (b"\0\0\0\x01mdat\0", False),
        (b"", False),
    ],
)
def test_fragments_are_found_among_the_outermost_boxes(
    tmp_path: Path, boxes: bytes, expected: bool
) -> None:
    (tmp_path / "v.mp4").write_bytes(boxes)
    assert is_fragmented(tmp_path / "v.mp4") is expected


def test_damage_that_a_decoder_would_conceal(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", noise(40), codec="mpeg4", movflags="faststart")
    whole, _ = read(path)
    content = bytearray(path.read_bytes())
    for offset in range(len(content) * 6 // 10, len(content) * 6 // 10 + 60):
        content[offset] ^= 0x5A
    path.write_bytes(content)
    with av.open(str(path)) as container:  # left to itself FFmpeg paints over it
        assert len(list(container.decode(video=0))) == 40
    frames, error = read(path)
    assert 0 < len(frames) < 40
    assert all(np.array_equal(f.pixels, s.pixels) for f, s in zip(frames, whole, strict=False))
    assert error is not None
    assert "damaged" in error


def test_an_index_that_is_missing(tmp_path: Path) -> None:
    """An mp4 whose index was to come last is no video at all once it is cut."""
    frames, error = read(cut(write_video(tmp_path / "v.mp4", noise(10)), 0.7))
    assert frames == []
    assert error is not None
    assert error.endswith("cut.mp4: not a video that FFmpeg can read")


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_a_size_that_changes(tmp_path: Path, suffix: str) -> None:
    one = write_video(tmp_path / f"1.{suffix}", noise(9), codec="libx264")
    two = write_video(tmp_path / f"2.{suffix}", noise(9, 96, 80), codec="libx264")
    both = tmp_path / f"both.{suffix}"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    frames, error = read(both)
    assert len(frames) == 9
    assert error == f"{both}: frame 9 is 80x96, those before are 64x48"


def test_files_that_hold_no_frames(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 50)
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").touch()
    bare = [tmp_path / "bare.mkv", tmp_path / "bare.mp4"]
    for path in bare:
        with av.open(str(path), "w") as container:
            silent: Any = container.add_stream("mpeg4", rate=25)
            silent.width, silent.height, silent.pix_fmt = 4, 4, "yuv420p"
            container.start_encoding()
    for path, message in (
        (empty, "holds no frame: the file is empty"),
        (text, "not a video that FFmpeg can read"),
        (sound, "has no video stream, only audio"),
        (tmp_path / "nowhere.mp4", "no such file or folder"),
        (folder, "holds no frame: no jpg, png or webp image is in it"),
        (bare[0], "holds no frame"),
        (bare[1], "holds no frame"),
    ):
        assert read(path) == ([], f"{path}: {message}")


def test_a_songs_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("mp3", rate=44100)
        cover: Any = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 8, 8, "rgb24"
        picture = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16p", "mono")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert read(path) == ([], f"{path}: has no video stream, only audio")


def test_a_camera_that_is_absent() -> None:
    frames, error = read("camera:97")
    assert frames == []
    assert error is not None
    assert error.startswith("camera:97: ")


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    for number, suffix in ((10, "png"), (9, "PNG"), (1, "webp"), (100, "jpg")):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"f{number}.{suffix}")
    (tmp_path / "._f2.png").write_bytes(b"left by another system")
    (tmp_path / "list.txt").touch()
    with open_frames(tmp_path, rate=10) as opened:
        assert opened.expected == 4
        frames = list(opened)
    assert [frame.time for frame in frames] == [0.0, 0.1, 0.2, 0.3]
    assert [frame.pixels.shape for frame in frames] == [(4, 6, 3)] * 4
    shades = [int(frame.pixels[0, 0, 0]) for frame in frames]
    assert np.abs(np.array(shades) - [1, 9, 10, 100]).max() <= 3
    assert shades == sorted(shades)


def test_natural_order_of_all_kinds_of_names() -> None:
    names = ["b", "a10", "a2", "2", "10", "A3", "a2b"]
    assert sorted(names, key=natural_key) == ["2", "10", "a2", "a2b", "A3", "a10", "b"]


def test_an_image_of_another_size_or_none(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (6, 4)).save(tmp_path / f"{number}.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "2.png")
    frames, error = read(tmp_path)
    assert len(frames) == 2
    assert error == f"{tmp_path}: frame 2 is 4x6, those before are 6x4"
    (tmp_path / "1.png").write_bytes(b"no image")
    with open_frames(tmp_path) as opened:
        assert next(opened).index == 0
        with pytest.raises(ImageError, match=r"1\.png"):
            next(opened)


def test_one_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "photo.JPG"
    photo, exif = Image.new("RGB", (16, 8), (200, 0, 0)), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    photo.save(path, exif=exif)
    with open_frames(path) as opened:
        assert (opened.expected, opened.most) == (1, 1)
        (only,) = opened
    assert (only.index, only.time, only.pixels.shape) == (0, 0.0, (16, 8, 3))


def test_motion_jpeg_with_exif_is_upright(tmp_path: Path) -> None:
    """PyAV knows no EXIF and then hands out no display matrix either."""
    photo, exif = Image.new("RGB", (32, 16)), Image.Exif()
    photo.paste((255, 255, 255), (0, 0, 8, 8))
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    path = tmp_path / "v.mjpeg"
    path.write_bytes((tmp_path / "photo.jpg").read_bytes() * 3)
    frames, error = read(path)
    assert error is None
    assert [frame.pixels.shape for frame in frames] == [(32, 16, 3)] * 3
    expected = np.rot90(np.asarray(photo), -1).astype(int)
    assert np.abs(frames[0].pixels - expected).mean() < 3


def test_a_rate_that_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "0.png")
    with pytest.raises(VideoError, match="0 frames a second are not a rate"):
        open_frames(tmp_path, rate=0)


def test_closing_early_and_without_a_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", noise(5))
    opened = open_frames(path)
    next(opened)
    opened.close()
    assert list(opened) == []
    with open_frames(path):
        pass
    path.unlink()
