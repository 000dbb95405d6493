"""Generated clips: the same everywhere, with objects in sight, moving within their level."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from phoneward.errors import InvalidSpec, UnknownName
from phoneward.export.train.clips import LEVELS, Clip, ClipRecipe, Pool, generate, open_pool
from phoneward.export.train.clips.drawing import draw_scene
from phoneward.export.train.clips.generate import LEAST_SHARE

SMALL = 64


@pytest.fixture(scope="module")
def pool() -> Pool:
    return open_pool("held-out")


def areas(clip: Clip) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Pixels of each object in each frame, (objects, n)."""
    return np.stack([(clip.masks == n).sum((1, 2)) for n in range(1, clip.objects + 1)])


def digest(clip: Clip) -> str:
    return hashlib.sha256(clip.frames.tobytes() + clip.masks.tobytes()).hexdigest()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [SMALL, (128, 80)])
def test_every_object_is_in_sight_at_first(
    pool: Pool, level: str, size: int | tuple[int, int]
) -> None:
    several = 0
    recipe = ClipRecipe(size, 2, level)
    for seed in range(8):
        clip = generate(pool, recipe, seed)
        assert clip.frames.shape == (2, recipe.height, recipe.width, 3)
        assert clip.masks.shape == clip.frames.shape[:3]
        assert clip.frames.dtype == clip.masks.dtype == np.uint8
        assert clip.masks.max() <= clip.objects
        assert (areas(clip)[:, 0] > LEAST_SHARE * recipe.width * recipe.height).all()
        assert clip.frames.std() > 2  # neither black nor blank
        several += clip.objects > 1
    assert several > 1


def test_another_process_makes_the_same_bytes(pool: Pool) -> None:
    script = (
        "import hashlib, sys\n"
        "from phoneward.export.train.clips import ClipRecipe, generate, open_pool\n"
        "clip = generate(open_pool('held-out'), ClipRecipe((112, 96), 4), 7)\n"
        "print(hashlib.sha256(clip.frames.tobytes() + clip.masks.tobytes()).hexdigest())\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest(generate(pool, ClipRecipe((112, 96), 4), 7))


def test_a_pickled_pool_makes_the_same_clips_and_another_seed_others(pool: Pool) -> None:
    again = pickle.loads(pickle.dumps(pool))
    assert again.digest == pool.digest
    recipe = ClipRecipe(SMALL, 2)
    assert digest(generate(again, recipe, 3)) == digest(generate(pool, recipe, 3))
    assert digest(generate(pool, recipe, 4)) != digest(generate(pool, recipe, 3))


@pytest.mark.parametrize("level", ["image", "still"])
def test_nothing_moves(pool: Pool, level: str) -> None:
    changed = 0
    for seed in range(10):
        clip = generate(pool, ClipRecipe(SMALL, 4, level), seed)
        assert (clip.masks == clip.masks[0]).all()
        changed += bool((clip.frames != clip.frames[0]).any())
    assert changed > 3


def test_slow_is_slow_and_loses_nothing(pool: Pool) -> None:
    recipe = ClipRecipe(SMALL, 16, "slow")
    moved = []
    for seed in range(8):
        scene = draw_scene(pool, recipe, np.random.default_rng(seed))
        for layer in scene.layers:
            steps = np.linalg.norm(np.diff(layer.path.centres, axis=0), axis=1)
            moved.append(float(steps.mean()) / recipe.side)
        assert (areas(generate(pool, recipe, seed)) > 0).all()
    fastest, pan = LEVELS["slow"].fastest, LEVELS["slow"].pan
    assert 0 < np.median(moved) < max(moved) < 2 * (fastest + pan)


def test_full_is_faster_and_things_leave_and_return(pool: Pool) -> None:
    returned = left = covered = 0
    for seed in range(50):
        clip = generate(pool, ClipRecipe(SMALL, 24), seed)
        seen = areas(clip) > 0
        for row in seen:
            gone = np.flatnonzero(~row)
            left += gone.size > 0
            returned += gone.size > 0 and bool(row[gone[0] :].any())
        covered += bool((areas(clip)[:, :1] > 3 * areas(clip)).any())
    assert left > returned > 4
    assert covered > 10


def test_full_moves_as_videos_do(pool: Pool) -> None:
    recipe, moved = ClipRecipe(SMALL, 24), []
    for seed in range(15):
        scene = draw_scene(pool, recipe, np.random.default_rng(seed))
        for layer in scene.layers:
            steps = np.linalg.norm(np.diff(layer.path.centres, axis=0), axis=1)
            moved.append(float(steps.mean()) / recipe.side)
    assert 0.004 < np.median(moved) < 0.06
    assert max(moved) < 0.3


def test_the_asked_for_number_of_objects_is_drawn(pool: Pool) -> None:
    found = [
        generate(pool, ClipRecipe(SMALL, 1, "image", (2, 3)), seed).objects for seed in range(20)
    ]
    assert set(found) <= {1, 2, 3}
    assert np.mean(found) > 1.7


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"level": "hard"}, UnknownName),
        ({"size": 8}, InvalidSpec),
        ({"size": (256, 4000)}, InvalidSpec),
        ({"frames": 0}, InvalidSpec),
        ({"objects": (0, 3)}, InvalidSpec),
        ({"objects": (3, 2)}, InvalidSpec),
    ],
)
def test_a_recipe_out_of_range_is_refused(
    fields: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ClipRecipe(**fields)  # type: ignore[arg-type]


def test_a_negative_seed_is_refused(pool: Pool) -> None:
    with pytest.raises(InvalidSpec, match="seed -1"):
        generate(pool, ClipRecipe(SMALL, 1), -1)
