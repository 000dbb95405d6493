"""Where the pictures come from: packages of Python, of Debian, and folders of the user.

`docs/clips.md` has the licence of each. No picture serves two splits, and what is held out comes
from packages of Python alone, so that it is the same on every machine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phoneward.errors import DataError, ImageError, MissingExtra
from phoneward.runtime.images import images_in

PHOTO, CUTOUT, DRAWING = "photo", "cutout", "drawing"

_SKIMAGE, _SKLEARN = "scikit-image", "scikit-learn"
_FOLDERS = {
    _SKIMAGE: ("skimage", "data", "clips"),
    _SKLEARN: ("sklearn", "datasets/images", "clips"),
}
_WHOLE = {
    "train": {
        _SKIMAGE: (
            "astronaut.png",
            "brick.png",
            "clock_motion.png",
            "grass.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "retina.jpg",
            "rocket.jpg",
        ),
        _SKLEARN: ("flower.jpg",),
    },
    "held-out": {
        _SKIMAGE: (
            "camera.png",
            "chelsea.png",
            "coffee.png",
            "coins.png",
            "gravel.png",
            "motorcycle_left.png",
            "text.png",
        ),
        _SKLEARN: ("china.jpg",),
    },
}
SPLITS = tuple(_WHOLE)

_STAMPS = Path("/usr/share/tuxpaint/stamps")
_CLIPART = Path("/usr/share/openclipart/png")
_CLIPART_FOLDERS = ("animals", "food", "people", "plants", "tools", "transportation")
_EVERY_CLIPART = 4
_WALLPAPERS = (
    ("/usr/share/backgrounds/gnome", "*-l.webp"),
    ("/usr/share/backgrounds/mate/nature", "*.jpg"),
    ("/usr/share/backgrounds", "*_by_*.jpg"),  # Lomiri's
)
_KDE = Path("/usr/share/wallpapers")


@dataclass(frozen=True)
class Source:
    """A picture file.

    Attributes:
        path: the file.
        kind: `PHOTO`; `CUTOUT`, an object on a transparent ground; `DRAWING`, one that is drawn.
        own: whether the user gave it; then it must be readable and of use.
    """

    path: Path
    kind: str
    own: bool = False


def packaged(split: str) -> list[Source]:
    """Return the pictures of a split that come with packages of Python.

    Raises:
        MissingExtra: scikit-image or scikit-learn is not installed.
        DataError: a picture is not in its package.
    """
    found = [
        Source(_package_folder(package) / name, PHOTO)
        for package, names in _WHOLE[split].items()
        for name in names
    ]
    for source in found:
        if not source.path.is_file():
            raise DataError(source.path, "not there, although its package is installed")
    return found


def of_the_system() -> list[Source]:
    """Return the pictures of those Debian packages that are installed; they are for training."""
    found = [Source(path, CUTOUT) for path in _below(_STAMPS, "*.png") if not _is_sign(path)]
    drawings = [path for name in _CLIPART_FOLDERS for path in _below(_CLIPART / name, "*.png")]
    found += [Source(path, DRAWING) for path in drawings[::_EVERY_CLIPART]]
    wallpapers = [path for place, name in _WALLPAPERS for path in _below(Path(place), name)]
    wallpapers += filter(None, map(_of_kde, _below(_KDE, "contents")))
    return found + [Source(path, PHOTO) for path in wallpapers]


def of_the_user(folders: Sequence[Path]) -> list[Source]:
    """Return the pictures of the user's folders; `PHOTO` says nothing yet of their alpha.

    Raises:
        DataError: a folder is not there or has no picture in it.
    """
    return list(_of_the_user(folders))


def _of_the_user(folders: Iterable[Path]) -> Iterator[Source]:
    for folder in folders:
        if not folder.is_dir():
            raise DataError(folder, "not a folder of pictures")
        try:
            files = images_in(folder)
        except ImageError as error:
            raise DataError(folder, "a folder without pictures in it") from error
        yield from (Source(path, PHOTO, own=True) for path in files)


def _package_folder(package: str) -> Path:
    module, below, extra = _FOLDERS[package]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtra(package, extra)
    return Path(spec.origin).parent / below


def _below(folder: Path, name: str) -> list[Path]:
    return sorted(folder.rglob(name)) if folder.is_dir() else []


def _is_sign(path: Path) -> bool:
    """Tell letters, digits and notes from things; coins are among them and are things."""
    return "symbols" in path.parts and "money" not in path.parts


def _of_kde(contents: Path) -> Path | None:
    """Return a wallpaper's smallest landscape JPEG; of those that are huge PNGs the preview."""
    files = [path for path in _below(contents / "images", "*.jpg") if _is_landscape(path)]
    previews = _below(contents, "screenshot.*")
    return min(files, key=lambda path: path.stat().st_size, default=next(iter(previews), None))


def _is_landscape(path: Path) -> bool:
    """Tell by a name such as 1920x1080."""
    width, _, height = path.stem.partition("x")
    return width.isdigit() and height.isdigit() and int(width) > int(height)
