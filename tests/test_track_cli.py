"""`phoneward track`: results on disk and on standard output, and every bad input in one line.

What tracks here is a stand-in that tests the plumbing and nothing of EfficientTAM: it answers a
prompt with a square around it, which then stays where it is. The tests at the end run the real
one, with random weights.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoneward.apps.cli.prompts import parse_prompts
from phoneward.apps.cli.tracking import Run
from phoneward.bundle import Bundle
from phoneward.errors import EngineError, PromptError
from phoneward.runtime.follow import Follower, PromptAt
from phoneward.runtime.frames import Frame, open_frames
from phoneward.runtime.outputs import TrackFolder
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.rle import decode
from phoneward.runtime.tracked_frame import TrackedFrame

HEIGHT, WIDTH = 48, 64


class StandIn:
    """Takes a tracker's place: squares that do not move. Fails on frame `fails_at`."""

    engine = "stand-in"

    def __init__(self, fails_at: int = -1, seconds: float = 0.0) -> None:
        self.calls: list[tuple[str, int]] = []
        self._squares: dict[int, NDArray[np.bool_]] = {}
        self._fails_at, self._seconds = fails_at, seconds

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(self._squares)

    def prompt(self, index: int, pixels: NDArray[np.uint8], prompt: Prompt) -> TrackedFrame:
        mask = np.zeros(pixels.shape[:2], np.bool_)
        if prompt.points:
            x, y = map(int, prompt.points[-1])
            mask[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
        if prompt.box is not None:
            x0, y0, x1, y1 = map(int, prompt.box)
            mask[y0:y1, x0:x1] = True
        self._squares[prompt.object_id] = mask if prompt.mask is None else prompt.mask
        return self._answer(f"prompt {prompt.object_id}", index)

    def track(self, index: int, pixels: NDArray[np.uint8]) -> TrackedFrame:
        return self._answer("track", index)

    def _answer(self, call: str, index: int) -> TrackedFrame:
        if index == self._fails_at:
            raise EngineError(f"stage 'encode' gave up on frame {index}")
        time.sleep(self._seconds)
        self.calls.append((call, index))
        count = len(self._squares)
        return TrackedFrame(
            index=index,
            object_ids=self.object_ids,
            masks=np.stack(list(self._squares.values())),
            logits=np.zeros((count, 4, 4), np.float32),
            scores=(1.0,) * count,
            ious=(0.5,) * count,
            timings={"encode": 1.0},
        )


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_track_cli import StandIn
from phoneward.runtime.tracker import Tracker
Tracker.open = lambda bundle, **asked: StandIn(**{stand_in!r})
sys.argv = ["phoneward", *{arguments!r}]
from phoneward.__main__ import main
main()
"""


def start(
    *arguments: object, cwd: Path, stand_in: dict[str, Any] | None = None
) -> subprocess.Popen[str]:
    """`phoneward track` in a process of its own; with the stand-in unless that is None."""
    words = ["track", *map(str, arguments)]
    command = [sys.executable, "-m", "phoneward", *words]
    if stand_in is not None:
        here = str(Path(__file__).parent)
        script = SCRIPT.format(tests=here, stand_in=stand_in, arguments=words)
        command = [sys.executable, "-c", script]
    environment = {**os.environ, "COLUMNS": "200"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True, env=environment)


def run(
    *arguments: object, cwd: Path, stand_in: dict[str, Any] | None = None
) -> tuple[int, str, str]:
    process = start(*arguments, cwd=cwd, stand_in=stand_in)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of ten images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(10):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


def play(
    images: Path, out: Path, prompts: Sequence[PromptAt], tracker: StandIn, **options: Any
) -> Run:
    with open_frames(images) as frames:
        one = Run(frames, tuple(prompts), TrackFolder(out, {}), lambda *_: None, keep_rows=True)
        one.play(tracker, realtime=options.get("realtime", False))
    return one


def track_json(folder: Path) -> dict[str, Any]:
    answer = json.loads((folder / "track.json").read_text())
    assert isinstance(answer, dict)
    return answer


def test_tracking_starts_at_the_first_prompts_frame(images: Path, tmp_path: Path) -> None:
    tracker = StandIn()
    prompts = parse_prompts(["2@3:30,20", "5@6:10,10", "2@6:40,20,0"], [], [])
    one = play(images, tmp_path / "out", prompts, tracker)
    assert (one.tracked, one.error) == (7, None)
    assert tracker.calls[:5] == [
        ("prompt 2", 3),
        ("track", 4),
        ("track", 5),
        ("track", 6),
        ("prompt 2", 6),
    ]
    assert tracker.calls[5:7] == [("prompt 5", 6), ("track", 7)]
    rows = track_json(tmp_path / "out")["frames"]
    assert rows == json.loads(json.dumps(one.rows))
    assert [row["frame"] for row in rows] == list(range(3, 10))
    assert [row["time_s"] for row in rows] == pytest.approx([i / 30 for i in range(3, 10)])
    assert [[each["object"] for each in row["objects"]] for row in rows] == [[2]] * 3 + [[2, 5]] * 4
    assert rows[3]["timings_ms"] == {"encode": 3.0}  # of the three calls that frame 6 took
    masks = tmp_path / "out" / "masks"
    assert len(list((masks / "2").iterdir())) == 7
    assert len(list((masks / "5").iterdir())) == 4


def test_an_engine_that_fails_midway(images: Path, tmp_path: Path) -> None:
    one = play(images, tmp_path / "out", parse_prompts(["0:9,9"], [], []), StandIn(fails_at=4))
    assert isinstance(one.error, EngineError)
    answer = track_json(tmp_path / "out")
    assert answer["error"] == "stage 'encode' gave up on frame 4"
    assert [row["frame"] for row in answer["frames"]] == [0, 1, 2, 3]
    with open_frames(tmp_path / "out" / "overlay.mp4") as video:
        assert len(list(video)) == 4


def test_an_engine_that_fails_at_once(images: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        play(images, tmp_path / "out", parse_prompts(["0:9,9"], [], []), StandIn(fails_at=0))
    assert not (tmp_path / "out").exists()


def test_in_real_time_frames_are_dropped_and_counted(images: Path, tmp_path: Path) -> None:
    prompts = parse_prompts(["0:30,20", "2@4:8,8"], [], [])
    one = play(images, tmp_path / "out", prompts, StandIn(seconds=0.3), realtime=True)
    assert one.error is None
    answer = track_json(tmp_path / "out")
    stream = answer["stream"]
    assert stream["frames"] == one.tracked == len(answer["frames"])
    assert stream["frames"] + stream["dropped"] == 10
    assert stream["dropped"] > 0  # all ten come within the time that one or two of them take
    assert sorted(stream["latency_ms"]) == ["p50", "p90", "p99"]
    assert min(row["latency_ms"] for row in answer["frames"]) >= 300
    assert [row["frame"] for row in answer["frames"]][-1] == 9
    assert {each["object"] for each in answer["frames"][-1]["objects"]} == {1, 2}


def test_a_late_prompt_comes_on_the_next_frame_that_is_processed() -> None:
    def frame(index: int) -> Frame:
        return Frame(index, index / 30, np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    prompts = [PromptAt(3, Prompt(1, ((5, 5),), (1,)))]
    tracker = StandIn()
    follower = Follower(tracker, prompts, late=True)
    assert follower(frame(2)) is None
    assert follower(frame(5)) is not None
    follower.end()
    assert tracker.calls == [("prompt 1", 5)]
    missed = Follower(StandIn(), prompts)
    assert missed(frame(2)) is None
    assert missed(frame(5)) is None
    with pytest.raises(PromptError, match=r"frame 3, which .* its frames are 0 to 5"):
        missed.end()


def test_the_whole_command(images: Path, tmp_path: Path, bundle: Bundle) -> None:
    command = (bundle.path, images, "--point", "0:30,20", "--box", "2@1:4,4,20,30", "-o", "out")
    code, out, err = run(*command, cwd=tmp_path, stand_in={})
    assert (code, err) == (0, "")
    assert out.startswith("10 frames tracked (stand-in), ")
    code, out, err = run(*command, cwd=tmp_path, stand_in={})
    assert code == 2
    assert "give --force" in err
    code, out, _ = run(*command, "--force", "--json", cwd=tmp_path, stand_in={})
    answer = json.loads(out)
    assert (code, answer["error"], answer["engine"]) == (0, None, "stand-in")
    one = answer["frames"][5]["objects"][1]
    assert (one["object"], one["bbox"], one["area"]) == (2, [4, 4, 16, 26], 16 * 26)
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "2" / "00005.png"))
    assert np.array_equal(decode(one["rle"]), mask > 0)


def test_force_does_not_remove_its_own_source(images: Path, tmp_path: Path, bundle: Bundle) -> None:
    play(images, tmp_path / "out", parse_prompts(["0:30,20"], [], []), StandIn())
    arguments = (bundle.path, "out/masks/1", "--point", "0:30,20", "-o", "out", "--force")
    code, out, err = run(*arguments, cwd=tmp_path, stand_in={})
    assert (code, out) == (2, "")
    assert err == ("error: out/masks/1 lies in the output folder out; choose another folder\n")
    assert len(list((tmp_path / "out" / "masks" / "1").iterdir())) == 10


def test_json_alone_writes_nothing(images: Path, tmp_path: Path, bundle: Bundle) -> None:
    arguments = (bundle.path, images, "--point", "0:30,20", "--json", "--realtime")
    code, out, err = run(*arguments, cwd=tmp_path, stand_in={})
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert answer["stream"]["frames"] + answer["stream"]["dropped"] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_reader_that_has_had_enough_is_no_failure(
    images: Path, tmp_path: Path, bundle: Bundle
) -> None:
    arguments = (bundle.path, images, "--point", "0:30,20", "-o", "out", "--json")
    process = start(*arguments, cwd=tmp_path, stand_in={})
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert len(track_json(tmp_path / "out")["frames"]) == 10


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor as a POSIX shell does")
@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_failure(
    images: Path, tmp_path: Path, bundle: Bundle, closed: str
) -> None:
    words = ["track", str(bundle.path), str(images), "--point", "0:30,20", "-o", "out"]
    here = str(Path(__file__).parent)
    script = SCRIPT.format(tests=here, stand_in={}, arguments=words)
    command = ["sh", "-c", f'"$0" -c "$1" {closed}>&-', sys.executable, script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(track_json(tmp_path / "out")["frames"]) == 10


def test_a_failure_midway_is_told_beside_what_is_kept(
    images: Path, tmp_path: Path, bundle: Bundle
) -> None:
    Image.new("RGB", (8, 8)).save(images / "6.png")
    arguments = (bundle.path, images, "--point", "0:30,20", "-o", "out", "--json")
    for more in ((), ("--realtime", "--force")):
        code, out, err = run(*arguments, *more, cwd=tmp_path, stand_in={})
        message = f"{images}: frame 6 is 8x8, those before are 64x48"
        assert code == 2
        answer = json.loads(out)
        assert answer["error"] == message
        kept = len(answer["frames"])
        assert err == f"error: {message}; {kept} frames are kept in out\n"
        assert kept == 6 - (answer["stream"]["dropped"] if more else 0)
        assert track_json(tmp_path / "out")["error"] == message


def test_a_cut_video_is_told_beside_what_is_kept(tmp_path: Path, bundle: Bundle) -> None:
    texture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    options = {"movflags": "faststart"}  # the index comes first and survives the cut
    with av.open(str(tmp_path / "whole.mp4"), "w", options=options) as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(40):
            pixels = np.roll(texture, 5 * index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 7 // 10])
    arguments = (bundle.path, "cut.mp4", "--point", "0:30,20", "-o", "out")
    code, out, err = run(*arguments, cwd=tmp_path, stand_in={})
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: cut.mp4: cut inside a frame; ")
    kept = len(track_json(tmp_path / "out")["frames"])
    assert 0 < kept < 40
    assert f"{kept} frames are kept in out" in line
    assert out.startswith(f"{kept} frames tracked")


def interrupted(process: subprocess.Popen[str], out: Path, number: int) -> tuple[str, str]:
    deadline = time.monotonic() + 60
    while not list(out.glob("masks/1/*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=120)


@pytest.mark.parametrize("more", [(), ("--realtime",)], ids=["all", "realtime"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_tracked(
    images: Path, tmp_path: Path, bundle: Bundle, more: tuple[str, ...], number: int
) -> None:
    arguments = (bundle.path, images, "--point", "0:30,20", "-o", "out", "--rate", "1", *more)
    process = start(*arguments, cwd=tmp_path, stand_in={"seconds": 0.5})
    out, err = interrupted(process, tmp_path / "out", number)
    assert process.returncode == 2
    assert err.startswith("error: interrupted; ")
    answer = track_json(tmp_path / "out")
    assert answer["error"] == "interrupted"
    assert 0 < len(answer["frames"]) < 10
    with open_frames(tmp_path / "out" / "overlay.mp4") as video:
        assert len(list(video)) == len(answer["frames"])
    assert out.startswith(f"{len(answer['frames'])} frame")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give at least one --point, --box or --mask"),
        (("--point", "5"), "--point 5 is not [OBJECT@]FRAME:X,Y"),
        (("--point", "0:64,1"), "frame 0: point 64,1 is outside the frame of 64x48"),
        (("--point", "0:1,1", "--box", "7:0,0,65,9"), "frame 7: box 0,0,65,9 is outside the frame"),
        (("--point", "10:1,1"), "frame 10, which the video does not have; its frames are 0 to 9"),
        (("--mask", "0:small.png"), "mask of 8x8 is not of the size of the frame of 64x48"),
        (("--mask", "0:absent.png"), "absent.png: not a readable image"),
    ],
)
def test_bad_prompts_are_one_line(
    images: Path, tmp_path: Path, bundle: Bundle, arguments: tuple[str, ...], message: str
) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "small.png")
    command = (bundle.path, images, "-o", "out", *arguments)
    code, out, err = run(*command, cwd=tmp_path, stand_in={})
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_other_bad_input_is_one_line(images: Path, tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").touch()
    point = ("--point", "0:1,1")
    for command, message in (
        ((bundle.path, images, *point), "give -o DIR, or --json"),
        (("nowhere", images, *point, "-o", "out"), "is not a bundle"),
        ((bundle.path, images, *point, "-o", "out"), "has no stage 'encode'"),
        ((bundle.path, "nowhere.mp4", *point, "-o", "out"), "no such file or folder"),
        ((bundle.path, "empty.mp4", *point, "-o", "out"), "holds no frame"),
        ((bundle.path, "camera:97", *point, "-o", "out"), "camera:97: "),
        ((bundle.path, images, *point, "-o", "work", "--force"), "never replaced"),
    ):
        code, out, err = run(*command, cwd=tmp_path)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not (tmp_path / "out").exists()


def test_tracking_for_real(images: Path, tmp_path: Path, tam_bundle: Bundle) -> None:
    arguments = (
        tam_bundle.path,
        images,
        "--point",
        "0:30,20",
        "--box",
        "2@1:4,4,20,30",
        "-o",
        "out",
    )
    code, _, err = run(*arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    rows = track_json(tmp_path / "out")["frames"]
    assert [row["frame"] for row in rows] == list(range(10))
    assert [len(row["objects"]) for row in rows] == [1] + [2] * 9
    assert {"encode", "propagate", "memorize"} <= set(rows[5]["timings_ms"])
    for row in rows:
        for each in row["objects"]:
            assert decode(each["rle"]).shape == (HEIGHT, WIDTH)
            assert int(decode(each["rle"]).sum()) == each["area"]


def test_real_time_for_real(images: Path, tmp_path: Path, tam_bundle: Bundle) -> None:
    arguments = (tam_bundle.path, images, "--point", "0:30,20", "--json", "--realtime")
    code, out, _ = run(*arguments, cwd=tmp_path)
    stream = json.loads(out)["stream"]
    assert code == 0
    assert stream["frames"] + stream["dropped"] == 10
    assert stream["frames"] >= 1  # a busy machine may come to no more than the last one
    assert stream["latency_ms"]["p50"] > 0
