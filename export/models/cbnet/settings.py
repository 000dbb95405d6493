"""What a trained network of this family is: its sizes, its classes, when it leaves early."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from phoneward.errors import WeightsError
from phoneward.spec import Spec

METADATA = "phoneward"
"""Key of a safetensors file's metadata that holds the settings as JSON."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Width = Annotated[int, Field(gt=0, le=4096)]

# the authors' notebooks: KMNIST's last model; MNIST's notebook; for FashionMNIST they show none,
# and the one of KMNIST is taken
PUBLISHED_AUTOENCODERS: dict[str, tuple[int, ...]] = {
    "mnist": (512, 256, 512),
    "fashion-mnist": (512, 384, 256, 64),
    "kmnist": (512, 384, 256, 64),
}
DEFAULT_AUTOENCODER = PUBLISHED_AUTOENCODERS["kmnist"]

# of the paper's experiments, in nats; other data get one that is chosen on held-out images
PUBLISHED_EXIT_ENTROPIES = {"mnist": 0.05, "fashion-mnist": 0.5, "kmnist": 0.025}


class LightSize(Spec):
    """Sizes of the light network: a convolution 5 x 5, one 3 x 3, and a matrix.

    With `downsampling="pool"` each convolution is followed by a maximum over 2 x 2, as in
    BranchyNet; with `stride` each has a stride of 2 instead, so that no pixel is computed to be
    thrown away.
    """

    stem: Width = 5
    branch: Width = 10
    downsampling: Literal["pool", "stride"] = "pool"


class HybridSize(Spec):
    """Channels and depth of the hybrid behind the exit; see `hybrid.py`."""

    widths: tuple[Width, Width, Width] = (16, 24, 48)
    transformers: tuple[Width, Width] = (32, 48)
    depth: Annotated[int, Field(gt=0, le=12)] = 1


class Settings(Spec):
    """Everything besides the weights.

    Attributes:
        data: name of the data set it was trained on; None: on none.
        labels: of the classes, in the order of the logits.
        light: sizes of the light network.
        autoencoder: widths of its hidden layers; the last before the middle is linear, the others
            are rectified. It ends in 784 sigmoids.
        hybrid: sizes of the network behind the exit of `exit_hybrid`.
        exit_entropy: an image leaves at the exit if the entropy of its classes' scores, in nats,
            is below this.
    """

    data: str | None = None
    labels: Annotated[tuple[str, ...], Field(min_length=2)] = tuple("0123456789")
    light: LightSize = LightSize()
    autoencoder: Annotated[tuple[Width, ...], Field(min_length=1)] = DEFAULT_AUTOENCODER
    hybrid: HybridSize = HybridSize()
    exit_entropy: Annotated[FiniteFloat, Field(ge=0)] = 0.05

    @model_validator(mode="after")
    def _labels_are_lines(self) -> Settings:
        if any("\n" in label or not label for label in self.labels):
            raise ValueError("a label must not be empty or have several lines")
        return self


def settings_of(weights: Path) -> Settings | None:
    """Return the settings in a safetensors file's metadata; None for other files, or without.

    Reads only the file's header: a length (8 bytes, little endian) and JSON. A header that is no
    such thing is left for whoever loads the weights to report.

    Raises:
        WeightsError: there are settings, and they are not this version's.
    """
    text = _metadata(weights).get(METADATA)
    if text is None:
        return None
    try:
        return Settings.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise WeightsError(f"{weights}: {where}: {first['msg']}") from error


def parameters_in(weights: Path, *others: str) -> int:
    """Count a safetensors file's parameters; batch norms' statistics and `others` are none."""
    return sum(
        math.prod(entry["shape"])
        for name, entry in _header(weights).items()
        if name not in ("__metadata__", *others) and not name.endswith(_STATISTICS)
    )


def _metadata(path: Path) -> dict[str, str]:
    found = _header(path).get("__metadata__")
    return found if isinstance(found, dict) else {}


def _header(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    with path.open("rb") as stream:
        length = stream.read(8)
        if len(length) < 8:
            return {}
        text = stream.read(min(struct.unpack("<Q", length)[0], path.stat().st_size))
    try:
        header: Any = json.loads(text)
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}
