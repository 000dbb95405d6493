"""What the autoencoder makes of hard images, as a sheet to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from phoneward.export.models.cbnet.networks import CBNet
from phoneward.export.models.cbnet.settings import settings_of
from phoneward.export.models.cbnet.specs import SIDE
from phoneward.export.train.cbnet.batches import as_tensor
from phoneward.export.train.cbnet.easy_hard import judge
from phoneward.export.train.cbnet.files import read
from phoneward.export.train.data.dataset import Dataset, Split

SHEET = "conversions.png"
_ENLARGED = 2
_COLUMNS = 20
_GAP, _TITLE = 4, 16
_MOST = 4000


@dataclass(frozen=True)
class Row:
    """Images (N, 28, 28) uint8, what they became, and what is to be read above them."""

    title: str
    images: NDArray[np.uint8]
    converted: NDArray[np.uint8]


def write_sheet(dataset: Dataset, folder: Path) -> Path:
    """Draw hard test images that CBNet gets right, and some that it gets wrong; returns the file.

    `folder` is a training's. Hard images are those that do not leave at BranchyNet's exit; of the
    test set's first 4,000. Raises `WeightsError` if a network is missing or damaged.
    """
    rows = conversions(dataset.test, folder)
    file = folder / SHEET
    draw(rows, file)
    return file


def conversions(split: Split, folder: Path) -> tuple[Row, ...]:
    """Return rows of hard images and their conversions: right, wrong; and easy ones gone wrong."""
    part = split.take(np.arange(min(len(split), _MOST)))
    images = as_tensor(part)
    file = folder / "cbnet.safetensors"
    settings = settings_of(file)
    if settings is None:
        raise ValueError(f"{file} has no settings")
    branchynet = read("branchynet", folder / "branchynet.safetensors", settings)
    cbnet = cast(CBNet, read("cbnet", file, settings))
    with torch.no_grad():
        logits, converted = cbnet(images)
    right = logits.argmax(1).numpy() == part.classes
    hard = judge(branchynet, images).entropies >= settings.exit_entropy
    made = (converted[:, 0] * 255).round().to(torch.uint8).numpy()
    kinds = (
        ("hard, converted, classified right", hard & right),
        ("hard, converted, classified wrong", hard & ~right),
        ("easy for the exit, yet wrong after conversion", ~hard & ~right),
    )
    return tuple(
        Row(f"{title} ({int(which.sum())} of {len(part)})", part.images[which], made[which])
        for title, which in kinds
    )


def draw(rows: tuple[Row, ...], file: Path) -> None:
    """Write a PNG: for each row its title, images, and beneath each what it became."""
    cell = SIDE * _ENLARGED
    height = len(rows) * (_TITLE + 2 * cell + _GAP)
    sheet = Image.new("L", (_COLUMNS * (cell + _GAP), height), 40)
    pen = ImageDraw.Draw(sheet)
    top = 0
    for row in rows:
        pen.text((_GAP, top), row.title, fill=255)
        for column in range(min(_COLUMNS, len(row.images))):
            for line, images in enumerate((row.images, row.converted)):
                picture = Image.fromarray(images[column]).resize((cell, cell), 0)
                place = (column * (cell + _GAP), top + _TITLE + line * cell)
                sheet.paste(picture, place)
        top += _TITLE + 2 * cell + _GAP
    sheet.save(file)
