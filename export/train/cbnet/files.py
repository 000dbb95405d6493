"""Trained networks on disk: weights, settings and a few images in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from phoneward.errors import InvalidSpec
from phoneward.export.models.cbnet.family import SAMPLES, network
from phoneward.export.models.cbnet.settings import METADATA, Settings
from phoneward.export.train.data.dataset import Split
from phoneward.export.train.folder import write_whole
from phoneward.export.train.weights_file import serialized
from phoneward.export.weights import WeightsFile, load, load_strictly

TRAINING, LOSSES = "training", "losses"
"""Keys of the metadata that say what the weights were trained with, and how it went."""
_PER_CLASS = 2


@dataclass(frozen=True)
class Origin:
    """Where weights come from: a hash of all that they depend on, and the mean loss by epoch."""

    training: str = ""
    losses: tuple[float, ...] = ()


def save(model: nn.Module, path: Path, settings: Settings, samples: Tensor, origin: Origin) -> None:
    """Write `path`, whole or not at all; `samples` (S, 28, 28) uint8 go with the weights.

    Equal arguments make equal files. Raises `OSError`.
    """
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    metadata = {
        METADATA: settings.model_dump_json(),
        TRAINING: origin.training,
        LOSSES: json.dumps(origin.losses),
    }
    write_whole(path, serialized({**state, SAMPLES: samples}, metadata))


def read(name: str, path: Path, settings: Settings) -> nn.Module:
    """Return the network `name` with the weights of `path`, in eval mode.

    Raises:
        WeightsError: the file is damaged, or does not fit the settings.
    """
    from phoneward.bundle import Weights

    record = Weights(kind="file", source=path.name)
    state = load(WeightsFile(record, path)) or {}
    model = network(name, settings)
    load_strictly(model, {key: v for key, v in state.items() if key != SAMPLES}, name)
    return model.eval().to(memory_format=torch.channels_last)


def origin_of(path: Path) -> Origin | None:
    """Return where a file's weights come from; None if there is no file.

    Raises:
        InvalidSpec: it is there and cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return Origin(
            str(metadata.get(TRAINING, "")), tuple(json.loads(metadata.get(LOSSES, "[]")))
        )
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidSpec(f"{path}: damaged weights; remove it to train them anew") from error


def digest_of(model: nn.Module) -> str:
    """Return the SHA-256 of a network's weights."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def samples_of(split: Split, classes: int) -> Tensor:
    """Return the first two images of each class, (S, 28, 28) uint8, in the order of classes."""
    rows = [
        row
        for one in range(classes)
        for row in (split.classes == one).nonzero()[0][:_PER_CLASS].tolist()
    ]
    return torch.from_numpy(split.images[rows].copy())
