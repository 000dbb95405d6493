"""Trained networks on disk: weights, settings and a few images in one safetensors file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from torch import Tensor, nn

from phoneward.errors import InvalidSpec
from phoneward.export.models.cbnet.family import SAMPLES, network
from phoneward.export.models.cbnet.settings import METADATA, Settings
from phoneward.export.train.data.dataset import Split
from phoneward.export.weights import WeightsFile, load, load_strictly

KEY = "training"
"""Key of the metadata that says which training a file is of."""
_PER_CLASS = 2


def save(
    model: nn.Module, path: Path, settings: Settings, samples: Tensor, training: str = ""
) -> None:
    """Write `path`, whole or not at all; `samples` (S, 28, 28) uint8 go with the weights."""
    from safetensors.torch import save_file

    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    metadata = {METADATA: settings.model_dump_json(), KEY: training}
    beside = path.with_suffix(".new")
    save_file({**state, SAMPLES: samples}, beside, metadata)
    _sort_header(beside)
    beside.replace(path)


def _sort_header(path: Path) -> None:
    """Put the header's keys in order: safetensors writes the metadata's in any."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


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


def training_of(path: Path) -> str | None:
    """Return which training a file is of; None if there is no file.

    Raises:
        InvalidSpec: it is there and cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get(KEY, ""))
    except (SafetensorError, OSError) as error:
        raise InvalidSpec(f"{path}: damaged weights; remove it to train them anew") from error


def samples_of(split: Split, classes: int) -> Tensor:
    """Return the first two images of each class, (S, 28, 28) uint8, in the order of classes."""
    rows = [
        row
        for one in range(classes)
        for row in (split.classes == one).nonzero()[0][:_PER_CLASS].tolist()
    ]
    return torch.from_numpy(split.images[rows].copy())
