"""Small real bundles of classifiers with several stages, for grey images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    Manifest,
    Parity,
    Stage,
    Weights,
    sha256_of,
    size_of,
)
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.models.family import Examples
from phoneward.export.recipe import Recipe
from phoneward.export.reference import write_reference
from phoneward.names import ParityStatus
from phoneward.quiet import noise_to
from phoneward.runtime.parity import Reference, check_artifact
from phoneward.spec import ImageSpec, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("ant", "bee", "cat", "dog")
SIDE = 12
GREY = ImageSpec(height=SIDE, width=SIDE, channel_order="GRAY")


class Exit(nn.Module):
    """Grey images to logits and features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.head = nn.Conv2d(1, 5, 3, stride=2), nn.Linear(5, len(CLASSES))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(image * (1 / 64) - 2).relu()
        pooled = features.mean((2, 3), keepdim=True).flatten(1)
        return 8 * self.head(pooled), features


class Finish(nn.Module):
    """Features to logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv, self.head = nn.Conv2d(5, 6, 3), nn.Linear(6, len(CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.conv(features).relu().amax((2, 3)))
        return out


class Direct(nn.Module):
    """Grey images to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.exit, self.finish = Exit(), Finish()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.finish(self.exit(image)[1])
        return out


class Negative(nn.Module):
    """Grey images to their negatives, which are not whole numbers."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 255 - image * 0.99


def tensor(name: str, batch: int, *sizes: int) -> TensorSpec:
    layout = "NCHW" if len(sizes) == 3 else "NC"
    return TensorSpec.model_validate({"name": name, "shape": (batch, *sizes), "layout": layout})


def stages(kind: str, batches: tuple[int, int]) -> dict[str, tuple[nn.Module, Stage]]:
    """Modules and specs by name, of `branchy`, `hybrid` or `pipeline`."""
    first, second = batches
    seen = {n: tensor("image", n, 1, SIDE, SIDE) for n in batches}
    known = {n: tensor("logits", n, len(CLASSES)) for n in batches}
    left = Stage(
        name="exit",
        inputs=(seen[first],),
        outputs=(known[first], tensor("features", first, 5, 5, 5)),
        image=GREY,
    )
    features = tensor("features", second, 5, 5, 5)
    if kind == "branchy":
        last = Stage(name="finish", inputs=(features,), outputs=(known[second],))
        return {"exit": (Exit(), left), "finish": (Finish(), last)}
    if kind == "hybrid":
        last = Stage(name="finish", inputs=(seen[second],), outputs=(known[second],), image=GREY)
        return {"exit": (Exit(), left), "finish": (Direct(), last)}
    made = tensor("converted", first, 1, SIDE, SIDE)
    handed = tensor("converted", second, 1, SIDE, SIDE)
    return {
        "convert": (
            Negative(),
            Stage(name="convert", inputs=(seen[first],), outputs=(made,), image=GREY),
        ),
        "classify": (
            Direct(),
            Stage(name="classify", inputs=(handed,), outputs=(known[second],)),
        ),
    }


@dataclass(frozen=True)
class Made:
    """A bundle, and PyTorch's modules in the order of its stages."""

    bundle: Bundle
    modules: Mapping[str, nn.Module]

    def outputs(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """All outputs of all stages, `<stage>/<tensor>`, for all images (B, H, W)."""
        known = {"image": torch.from_numpy(images.astype(np.float32))[:, None]}
        found: dict[str, NDArray[np.float32]] = {}
        for stage in self.bundle.manifest.stages:
            with torch.no_grad():
                answer = self.modules[stage.name](*(known[spec.name] for spec in stage.inputs))
            row = (answer,) if isinstance(answer, torch.Tensor) else answer
            known |= {spec.name: one for spec, one in zip(stage.outputs, row, strict=True)}
            found |= {f"{stage.name}/{n.name}": known[n.name].numpy() for n in stage.outputs}
        return found


def write(
    folder: Path,
    kind: str,
    formats: Iterable[str],
    batches: tuple[int, int] = (1, 1),
    constants: Mapping[str, float] | None = None,
) -> Made:
    """Lower every stage to every format with the real backends, and check it against PyTorch."""
    found = stages(kind, batches)
    modules = {name: module.eval() for name, (module, _) in found.items()}
    specs = tuple(stage for _, stage in found.values())
    write_reference(modules, specs, _examples(specs), folder / "reference.npz")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in CLASSES))
    artifacts = [
        _artifact(folder, modules[spec.name], spec, format_name)
        for format_name in formats
        for spec in specs
    ]
    manifest = Manifest(
        model=kind,
        family="tests",
        weights=Weights(kind="random", source="seeds", seed=3),
        devices=(),
        stages=specs,
        artifacts=tuple(artifacts),
        labels="labels.txt",
        labels_sha256=sha256_of(folder / "labels.txt"),
        reference="reference.npz",
        reference_sha256=sha256_of(folder / "reference.npz"),
        tools={},
        constants=dict(constants or {}),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return Made(Bundle.open(folder), modules)


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Grey images (count, H, W), flat and busy ones, so that some answers are certain."""
    draws = np.random.default_rng(seed)
    span = draws.integers(1, 128, (count, 1, 1))
    middle = draws.integers(0, 256, (count, 1, 1))
    noise = draws.integers(-127, 128, (count, SIDE, SIDE))
    return (middle + noise * span / 128).clip(0, 255).astype(np.uint8)


def _examples(specs: tuple[Stage, ...]) -> dict[str, Examples]:
    real = np.array([True, True])
    draws = np.random.default_rng(9)
    return {
        spec.name: Examples(
            {t.name: draws.integers(0, 256, (2, *t.shape)).astype(np.uint8) for t in spec.inputs},
            real,
        )
        for spec in specs
    }


def _artifact(folder: Path, module: nn.Module, stage: Stage, format_name: str) -> Artifact:
    backend = BACKENDS.get(format_name)
    path = folder / f"{stage.name}{backend.suffix}"
    recipe = Recipe(format_name)
    with noise_to(folder / "log"):
        lowered = backend.lower(
            Graph(module, stage, About("small", "", "none", "0", CLASSES)), recipe, path
        )
        artifact = Artifact(
            stage=stage.name,
            format=format_name,
            precision=recipe.precision,
            path=path.name,
            bytes=size_of(path),
            sha256=sha256_of(path),
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            parity=Parity(status=ParityStatus.NOT_EXECUTED, reason="not measured yet"),
            delegation=lowered.delegation,
        )
        parity = check_artifact(path, artifact, Reference.load(folder / "reference.npz"))
    assert parity.status is ParityStatus.OK, parity
    return artifact.model_copy(update={"parity": parity})
