"""Images to labels with a bundle's artifacts: one stage, or several with early exits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from phoneward.closing import Closing
from phoneward.errors import TensorMismatch
from phoneward.runtime.artifacts import Wanted, choose_set, open_artifact
from phoneward.runtime.cascade import Cascade, softmax
from phoneward.runtime.classifier_bundle import image_of, labels_of, threshold_of
from phoneward.runtime.images import load_image, prepare
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.bundle import Bundle
    from phoneward.names import Precision
    from phoneward.runtime.cascade import Answers
    from phoneward.spec import ImageSpec

# images that are held at once while a batch is gathered from files
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Label:
    """One answer: class index, its label, and its softmax score from 0 to 1."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Answer(Sequence[Label]):
    """The best labels of one image, best first, and the stage whose logits they are.

    `exited` says whether the image left early; None in a bundle without an exit.
    """

    labels: tuple[Label, ...]
    stage: str
    exited: bool | None = None

    @overload
    def __getitem__(self, index: int) -> Label: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Label, ...]: ...

    def __getitem__(self, index: int | slice) -> Label | tuple[Label, ...]:
        return self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)


class Classifier(Closing):
    """The stages of a bundle that classifies, opened with one engine."""

    def __init__(self, cascade: Cascade, image: ImageSpec, labels: tuple[str, ...]) -> None:
        """Take stages that need one tensor, an image, and the labels of their logits."""
        self.engine: str | None = None
        self._cascade, self._image, self._labels = cascade, image, labels
        (self._tensor,) = cascade.inputs
        self._resources = ExitStack()

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        engine: str | None = None,
        format_name: str | None = None,
        precision: Precision | None = None,
        threads: int = 1,
        exit_entropy: float | None = None,
    ) -> Classifier:
        """Open the first artifacts of one format and precision that fit and can run here.

        `exit_entropy`, in nats, takes the place of the bundle's constant of that name.

        Raises:
            UnknownName: no such engine.
            BundleError: the bundle has no artifacts of that format and precision, or they are no
                classifier's, or do not fit each other, or a file or constant is missing.
            InvalidSpec: `exit_entropy` is no such number, or the bundle has no exit.
            ArtifactChanged: an artifact or the labels are not what was exported.
            EngineError, MissingExtra: it has them, and they cannot be run here.
        """
        stages = [stage.name for stage in bundle.manifest.stages]
        artifacts, chosen = choose_set(bundle, stages, Wanted(engine, format_name, precision))
        image, given = image_of(bundle, artifacts)
        threshold = threshold_of(bundle, artifacts, given, exit_entropy)
        labels = labels_of(bundle, artifacts[stages[-1]])
        with ExitStack() as opened:
            sessions = {
                name: opened.enter_context(open_artifact(bundle, artifact, chosen, threads))
                for name, artifact in artifacts.items()
            }
            classifier = cls(Cascade(sessions, threshold, (given,)), image, labels)
            classifier.engine = chosen
            classifier._resources = opened.pop_all()
        return classifier

    @property
    def exits(self) -> tuple[str, ...]:
        """The stages after which an image may leave early."""
        return self._cascade.exits

    @property
    def exit_entropy(self) -> float | None:
        """Below which entropy in nats an image leaves early; None without an exit."""
        return self._cascade.exit_entropy

    def classify(self, path: Path, top: int = 5) -> Answer:
        """Return the `top` labels of an image file, best first.

        Raises:
            ImageError: the file is no readable image.
            EngineError: it is closed, an engine failed, or what it returned is not finite.
        """
        (answer,) = self.classify_many((path,), top)
        return answer

    def classify_many(
        self,
        paths: Sequence[Path],
        top: int = 5,
        progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    ) -> list[Answer]:
        """Return the `top` labels of each image file; raises as `classify`.

        Graphs with a batch are run on full batches; `progress` is told of each file before it is
        read.
        """
        answers: list[Answer] = []
        tensor = TensorSpec(name=self._tensor.name, shape=(1, *self._shape), layout="NCHW")
        for start in range(0, len(paths), self._block):
            pixels: list[NDArray[np.float32]] = []
            for path in paths[start : start + self._block]:
                progress(path.name, start + len(pixels), len(paths))
                pixels.append(prepare(load_image(path), self._image, tensor))
            answers += self.classify_arrays(np.concatenate(pixels), top)
        return answers

    def classify_arrays(self, images: NDArray[Any], top: int = 5) -> list[Answer]:
        """Return the `top` labels of each of B images; takes and raises what `answers` does."""
        found = self.answers(images)
        scores = softmax(found.logits)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [
            Answer(
                tuple(Label(int(k), self._labels[k], float(scores[i, k])) for k in best[i]),
                found.stages[found.answered[i]],
                bool(found.exited[i]) if self.exits else None,
            )
            for i in range(len(best))
        ]

    def answers(self, images: NDArray[Any]) -> Answers:
        """Return the logits of B images, and whatever else the stages give.

        Args:
            images: uint8 or float32 (B, C, H, W) of the size that the model takes, RGB or grey,
                0 to 255, whatever the layout of the artifact; grey ones may be (B, H, W).

        Raises:
            TensorMismatch: the images are of another shape or dtype.
            EngineError: it is closed, an engine failed, or what it returned is not finite.
        """
        if images.ndim == len(self._shape) and self._image.channels == 1:
            images = images[:, None]
        if images.shape[1:] != self._shape or images.dtype not in (np.uint8, np.float32):
            raise TensorMismatch(
                f"images are uint8 or float32 of shape (B, {', '.join(map(str, self._shape))}), "
                f"got {images.dtype} of shape {images.shape}"
            )
        rows = np.moveaxis(images, 1, -1) if self._tensor.layout == "NHWC" else images
        return self._cascade({self._tensor.name: np.ascontiguousarray(rows, np.float32)})

    def close(self) -> None:
        """Close the sessions."""
        self._resources.close()

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self._image.channels, self._image.height, self._image.width

    @property
    def _block(self) -> int:
        """How many files are read before the stages run: one where no stage has a batch."""
        largest = max(self._cascade.batches)
        held = _BLOCK_BYTES // (4 * math.prod(self._shape))
        return 1 if largest == 1 else max(largest, held // largest * largest)
