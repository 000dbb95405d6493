"""Images to labels with a bundle's artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.closing import Closing
from phoneward.errors import BundleError, EngineError
from phoneward.runtime.artifacts import Wanted, check_unchanged, choose, fitting, open_artifact
from phoneward.runtime.images import load_image, prepare

if TYPE_CHECKING:
    from phoneward.bundle import Artifact, Bundle
    from phoneward.names import Precision
    from phoneward.runtime.engines.session import Session
    from phoneward.spec import ImageSpec


@dataclass(frozen=True)
class Label:
    """One answer: class index, its label, and its softmax score from 0 to 1."""

    index: int
    label: str
    score: float


class Classifier(Closing):
    """A classification stage of a bundle, opened with one engine."""

    def __init__(
        self, session: Session, engine: str, image: ImageSpec, labels: tuple[str, ...]
    ) -> None:
        self.engine = engine
        self._session, self._image, self._labels = session, image, labels

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        engine: str | None = None,
        format_name: str | None = None,
        precision: Precision | None = None,
        threads: int = 1,
    ) -> Classifier:
        """Open the first artifact that fits what is asked for and can run here.

        Raises:
            UnknownName: no such engine.
            BundleError: the bundle has no artifact of that format and precision, or it is not
                a classifier's, or a file is missing.
            ArtifactChanged: the artifact or the labels are not what was exported.
            EngineError, MissingExtra: it has one, and it cannot be run here.
        """
        wanted = Wanted(engine, format_name, precision)
        artifact, chosen = choose(bundle, fitting(bundle, wanted), engine)
        stage = bundle.stage(artifact.stage)
        if stage.image is None or artifact.outputs[0].layout != "NC":
            raise BundleError(f"{bundle.path} holds no classifier")
        labels = _labels(bundle, artifact)
        session = open_artifact(bundle, artifact, chosen, threads)
        return cls(session, chosen, stage.image, labels)

    def classify(self, path: Path, top: int = 5) -> tuple[Label, ...]:
        """Return the `top` labels of an image file, best first.

        Raises:
            ImageError: the file is no readable image.
            EngineError: the session is closed, the engine failed, or its logits are not finite.
        """
        tensor = self._session.inputs[0]
        image = prepare(load_image(path), self._image, tensor)
        logits = next(iter(self._session({tensor.name: image}).values()))[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise EngineError(f"{self._session.path}: not all logits are finite")
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        best = np.argsort(-scores, kind="stable")[:top]
        return tuple(Label(int(i), self._labels[i], float(scores[i])) for i in best)

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def _labels(bundle: Bundle, artifact: Artifact) -> tuple[str, ...]:
    count = artifact.outputs[0].shape[-1]
    if bundle.manifest.labels is None:
        return tuple(f"class {i}" for i in range(count))
    path = bundle.path / bundle.manifest.labels
    if bundle.manifest.labels_sha256 is not None:
        check_unchanged(path, bundle.manifest.labels_sha256)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: labels cannot be read") from error
    labels = tuple(text.removesuffix("\n").split("\n"))
    if len(labels) != count:
        raise BundleError(f"{bundle.path}: {len(labels)} labels for {count} classes")
    return labels
