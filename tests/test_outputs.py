"""What tracking leaves, read back: the video's times and colors, the masks, track.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoneward.errors import EngineError, MissingExtra, NotResults, OutputError, OutputExists
from phoneward.runtime.frames import Frame, open_frames
from phoneward.runtime.outputs import TRACKS, TrackFolder, bbox_of, check_apart, row_of
from phoneward.runtime.overlay import OverlayVideo, color_of, draw, outline
from phoneward.runtime.rle import decode
from phoneward.runtime.tracked_frame import TrackedFrame

TIMES = (0.0, 0.04, 0.05, 0.3, 1.3)


def frame(index: int, height: int = 30, width: int = 40) -> Frame:
    return Frame(index, TIMES[index], np.full((height, width, 3), 40 * index, np.uint8))


def tracked(
    index: int, masks: NDArray[np.bool_], ids: tuple[int, ...], score: float = 3.0
) -> TrackedFrame:
    count = len(ids)
    return TrackedFrame(
        index=index,
        object_ids=ids,
        masks=masks,
        logits=np.zeros((count, 4, 4), np.float32),
        scores=(score,) * count,
        ious=(0.75,) * count,
        timings={"encode": 2.5},
    )


def square(height: int = 30, width: int = 40, at: int = 5) -> NDArray[np.bool_]:
    mask = np.zeros((1, height, width), np.bool_)
    mask[0, at : at + 10, at : at + 20] = True
    return mask


def test_a_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "out"
    with TrackFolder(folder, {"video": "street.mp4"}) as out:
        assert not folder.exists()
        for index in range(5):
            masks = np.concatenate([square(at=index), np.zeros((1, 30, 40), np.bool_)])
            out.write(frame(index), tracked(index, masks, (1, 7)))
    assert sorted(path.name for path in folder.iterdir()) == ["masks", "overlay.mp4", "track.json"]
    with open_frames(folder / "overlay.mp4") as video:
        frames = list(video)
    assert [one.time for one in frames] == pytest.approx(TIMES, abs=1e-5)
    assert frames[0].pixels.shape == (30, 40, 3)
    track = json.loads((folder / "track.json").read_text())
    assert (track["video"], track["size"], track["error"]) == ("street.mp4", [30, 40], None)
    assert [row["frame"] for row in track["frames"]] == list(range(5))
    assert [row["time_s"] for row in track["frames"]] == list(TIMES)
    for index, row in enumerate(track["frames"]):
        one, empty = row["objects"]
        assert (one["object"], one["present"], one["score"], one["iou"]) == (1, True, 3.0, 0.75)
        assert (one["bbox"], one["area"]) == ([index, index, 20, 10], 200)
        assert (empty["object"], empty["bbox"], empty["area"]) == (7, [0, 0, 0, 0], 0)
        png = np.asarray(Image.open(folder / "masks" / "1" / f"{index:05d}.png"))
        assert np.array_equal(png, square(at=index)[0] * np.uint8(255))
        assert np.array_equal(decode(one["rle"]), png > 0)
        assert not np.asarray(Image.open(folder / "masks" / "7" / f"{index:05d}.png")).any()
    assert track["frames"][0]["timings_ms"] == {"encode": 2.5}


def test_what_was_tracked_is_kept_when_tracking_fails(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(EngineError), TrackFolder(folder, {}) as out:
        for index in range(3):
            out.write(frame(index), tracked(index, square(), (1,)))
            unfinished = json.loads((folder / "track.json").read_text())
            assert unfinished["error"] == "tracking was not ended"
            assert len(unfinished["frames"]) == index + 1
        raise EngineError("the engine gave up")
    track = json.loads((folder / "track.json").read_text())
    assert track["error"] == "the engine gave up"
    assert len(track["frames"]) == 3
    with open_frames(folder / "overlay.mp4") as video:
        assert len(list(video)) == 3
    assert len(list((folder / "masks" / "1").iterdir())) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="limits a file's size as Linux does")
def test_half_a_mask_is_not_left(tmp_path: Path) -> None:
    script = f"""
import resource, signal
import numpy as np
from pathlib import Path
from test_outputs import frame, square, tracked
from phoneward.errors import OutputError
from phoneward.runtime.outputs import TrackFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with TrackFolder(Path({str(tmp_path / "out")!r}), {{}}) as out:
    out.write(frame(0), tracked(0, square(), (1,)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        out.write(frame(1), tracked(1, square(), (1,)))
    except OutputError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"cannot write {tmp_path / 'out'}: File too large\n"
    assert [path.name for path in (tmp_path / "out" / "masks" / "1").iterdir()] == ["00000.png"]
    assert len(json.loads((tmp_path / "out" / "track.json").read_text())["frames"]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits a file's size as Linux does")
def test_track_json_is_whole_when_there_is_no_room_for_more(tmp_path: Path) -> None:
    """A limit on a file's size, in a process of its own, stands in for a full disk."""
    script = f"""
import resource, signal
from pathlib import Path
from phoneward.runtime.outputs import TrackFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
file = TrackFile(Path({str(tmp_path / "track.json")!r}), {{"video": "é"}})
try:
    for number in range(100):
        file.add({{"frame": number, "rle": "x" * 700}})
except OSError:
    print(number)
    file.close({{"stream": {{"dropped": 3}}, "error": "no room"}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    track = json.loads((tmp_path / "track.json").read_text(encoding="utf-8"))
    assert [row["frame"] for row in track["frames"]] == list(range(int(done.stdout)))
    assert 3 < len(track["frames"]) < 15
    assert (track["video"], track["stream"], track["error"]) == ("é", {"dropped": 3}, "no room")


def test_failing_before_the_first_result_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineError), TrackFolder(tmp_path / "out", {}):
        raise EngineError("at once")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_by_force_and_only_if_tracking_wrote_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with TrackFolder(folder, {"run": 1}) as out:
        out.write(frame(0), tracked(0, square(), (9,)))
    with pytest.raises(OutputExists, match="give --force"):
        TrackFolder(folder, {"run": 2})
    with pytest.raises(EngineError), TrackFolder(folder, {"run": 2}, force=True):
        raise EngineError("before the first result")
    assert json.loads((folder / "track.json").read_text())["run"] == 1
    with TrackFolder(folder, {"run": 3}, force=True) as out:
        out.write(frame(0), tracked(0, square(), (1,)))
    assert json.loads((folder / "track.json").read_text())["run"] == 3
    assert [path.name for path in (folder / "masks").iterdir()] == ["1"]
    (folder / "notes.txt").write_text("mine")
    for place in (folder, folder / "notes.txt"):
        with pytest.raises(NotResults):
            TrackFolder(place, {}, force=True)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db"])
def test_what_a_file_browser_leaves_is_in_nobodys_way(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("icons")
    for run, force in ((1, False), (2, True)):
        with TrackFolder(folder, {"run": run}, force=force) as out:
            out.write(frame(0), tracked(0, square(), (1,)))
        assert json.loads((folder / "track.json").read_text())["run"] == run
    assert (folder / name).read_text() == "icons"
    with pytest.raises(OutputExists, match="give --force"):
        TRACKS.check_free(folder)


def test_a_source_in_the_output_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    masks = folder / "masks" / "1"
    check_apart(folder, tmp_path)
    masks.mkdir(parents=True)
    (tmp_path / "link").symlink_to(masks)
    for source in (folder, masks, tmp_path / "link", tmp_path / "out" / ".." / "out" / "masks"):
        with pytest.raises(OutputError, match="lies in the output folder"):
            check_apart(folder, source)
    (tmp_path / "outside.mp4").touch()
    for source in (tmp_path, tmp_path / "outside.mp4"):
        check_apart(folder, source)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with TrackFolder(tmp_path / "file" / "out", {}) as out, pytest.raises(OutputError):
        out.write(frame(0), tracked(0, square(), (1,)))


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 1), (31, 40)])
def test_odd_and_tiny_videos_are_padded_to_even_sizes(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    height, width = size
    video = OverlayVideo(tmp_path / "v.mp4", height, width)
    video.write(np.full((height, width, 3), 200, np.uint8), 0.0)
    video.close()
    with open_frames(tmp_path / "v.mp4") as frames:
        (one,) = frames
    assert one.pixels.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(one.pixels.astype(int) - 200).max() <= 3


def test_a_video_is_h264_where_there_is_an_encoder(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "v.mp4", 16, 16)
    video.write(np.zeros((16, 16, 3), np.uint8), 0.0)
    with pytest.raises(OutputError, match="does not come after"):
        video.write(np.zeros((16, 16, 3), np.uint8), 0.0)
    video.close()
    with av.open(str(tmp_path / "v.mp4")) as container:
        codec: Any = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")


def test_without_h264_it_is_mpeg4_at_the_same_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phoneward.runtime import overlay

    monkeypatch.setattr(overlay, "_ENCODERS", (("no-such-encoder", {}, 1), *overlay._ENCODERS[3:]))
    video = OverlayVideo(tmp_path / "v.mp4", 16, 16)
    for time in TIMES:
        video.write(np.zeros((16, 16, 3), np.uint8), time)
    video.close()
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    with open_frames(tmp_path / "v.mp4") as frames:
        assert [one.time for one in frames] == pytest.approx(TIMES, abs=1e-5)


def test_without_pyav_or_an_encoder_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phoneward.runtime import overlay

    with TrackFolder(tmp_path / "out", {}) as out:
        out.write(frame(0), tracked(0, square(), (1,)))
    with monkeypatch.context() as patch:
        patch.setattr(overlay, "_ENCODERS", (("no-such-encoder", {}, 1),))
        with pytest.raises(OutputError, match="no encoder"):
            TrackFolder(tmp_path / "out", {}, force=True)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"phoneward\[video\]"):
        TrackFolder(tmp_path / "out", {}, force=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["masks", "overlay.mp4", "track.json"]


def test_colors_are_stable_and_apart() -> None:
    assert color_of(1) == color_of(1)
    colors = [np.array(color_of(i)) for i in range(8)]
    apart = [np.abs(a - b).max() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(apart) > 40
    alone = draw(frame(2).pixels, (5,), square())
    beside = draw(frame(2).pixels, (3, 5), np.concatenate([np.zeros_like(square()), square()]))
    assert np.array_equal(alone, beside)


def test_a_mask_is_filled_and_outlined() -> None:
    pixels = frame(2).pixels
    drawn = draw(pixels, (4,), square())
    assert np.array_equal(drawn[~square()[0]], pixels[~square()[0]])
    assert tuple(drawn[5, 5]) == color_of(4)
    expected = np.array([80, 80, 80]) * 0.6 + np.array(color_of(4)) * 0.4
    assert np.abs(drawn[9, 12] - expected).max() <= 0.5
    assert (pixels == 80).all()


def test_an_outline_by_hand() -> None:
    mask = np.zeros((6, 6), np.bool_)
    mask[1:6, 2:6] = True  # the lower and the right edge are the frame's
    edge = mask.copy()
    edge[2:6, 3:6] = False
    assert np.array_equal(outline(mask, 1), edge)
    assert not outline(np.ones((3, 3), np.bool_), 1).any()


def test_boxes_by_hand() -> None:
    mask = np.zeros((5, 9), np.bool_)
    mask[2, 3] = mask[4, 8] = True
    assert bbox_of(mask) == [3, 2, 6, 3]


def test_an_absent_object_and_a_score_that_is_no_number() -> None:
    empty = np.zeros((1, 30, 40), np.bool_)
    row = row_of(frame(0), tracked(0, empty, (1,), score=-2.0))
    assert row["objects"][0]["present"] is False
    with pytest.raises(EngineError, match="score of object 1 is not finite"):
        row_of(frame(0), tracked(0, empty, (1,), score=float("nan")))
