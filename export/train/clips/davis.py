"""Held-out clips, and clips as a folder in the layout of DAVIS (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from phoneward.errors import OutputError, OutputExists
from phoneward.export.train.clips.generate import generate
from phoneward.export.train.clips.pool import open_pool
from phoneward.export.train.clips.recipe import Clip, ClipRecipe
from phoneward.runtime.evaluation.annotation import write_annotation
from phoneward.staging import staging_folder

HELD_OUT_FRAMES = 24
_SIZES = ((256, 256), (320, 240), (384, 288), (426, 240), (480, 270), (270, 480), (360, 360))
_QUALITY = 95


def held_out(
    count: int = 100, *, frames: int = HELD_OUT_FRAMES, level: str = "full"
) -> Iterator[tuple[str, Clip]]:
    """Yield (name, clip) of the held-out split, the same on every machine, however many.

    They are 256 to 480 pixels wide, upright, square and wide ones.

    Raises:
        UnknownName: no such level.
        InvalidSpec: no number of frames for a clip.
        MissingExtra: a package with the pictures is not installed.
        DataError: the cache is damaged.
        OutputError: it cannot be written.
    """
    pool = open_pool("held-out")
    for number in range(count):
        recipe = ClipRecipe(_SIZES[number % len(_SIZES)], frames, level)
        yield f"clip-{number:03d}", generate(pool, recipe, number)


def write_davis(clips: Iterable[tuple[str, Clip]], folder: Path) -> None:
    """Write named clips as `JPEGImages/<name>/00000.jpg` and `Annotations/<name>/00000.png`.

    Annotations are palette images whose indices are the objects' numbers. The folder is whole or
    absent.

    Raises:
        OutputExists: it exists, and is more than an empty folder.
        OutputError: it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputExists(folder)
        parent = folder.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(parent, f".{folder.name}-") as staging:
            for name, clip in clips:
                _write(staging, name, clip)
            staging.chmod(0o755)
            staging.rename(folder.absolute())
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error


def _write(folder: Path, name: str, clip: Clip) -> None:
    images, annotations = folder / "JPEGImages" / name, folder / "Annotations" / name
    for place in (images, annotations):
        place.mkdir(parents=True)
    for number, (frame, mask) in enumerate(zip(clip.frames, clip.masks, strict=True)):
        Image.fromarray(frame).save(images / f"{number:05d}.jpg", quality=_QUALITY)
        write_annotation(annotations / f"{number:05d}.png", mask)
