"""What a bundle says of its classifier: the image, when to leave early, and the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from phoneward.errors import BundleError
from phoneward.runtime.artifacts import check_unchanged
from phoneward.runtime.cascade import check_entropy
from phoneward.runtime.cascade_flow import check_cascade, exits_of
from phoneward.spec import logits_in

if TYPE_CHECKING:
    from phoneward.bundle import Artifact, Bundle
    from phoneward.spec import ImageSpec

EXIT_ENTROPY = "exit_entropy"


def image_of(bundle: Bundle, artifacts: Mapping[str, Artifact]) -> tuple[ImageSpec, str]:
    """Return the image that the stages see, and the name of its tensor.

    Raises:
        BundleError: no stage sees an image, the last returns no logits, or stages see different
            images.
    """
    seen = [stage for stage in bundle.manifest.stages if stage.image is not None]
    last = artifacts[bundle.manifest.stages[-1].name]
    if not seen or logits_in(last.outputs) is None:
        raise BundleError(f"{bundle.path} holds no classifier")
    image = seen[0].image
    names = [t.name for t in artifacts[seen[0].name].inputs if image is not None and image.fits(t)]
    if image is None or not names:
        raise BundleError(f"{bundle.path}: no input of stage '{seen[0].name}' is an image")
    if others := [stage.name for stage in seen if stage.image != image]:
        raise BundleError(f"{bundle.path}: stage '{others[0]}' sees other images than the first")
    return image, names[0]


def threshold_of(
    bundle: Bundle, artifacts: Mapping[str, Artifact], given: str, asked: float | None
) -> float | None:
    """Return the entropy in nats below which images leave early; None without an exit.

    Args:
        bundle: where the constant `exit_entropy` is.
        artifacts: one for each stage, in the order of the stages.
        given: the name of the image's tensor.
        asked: takes the place of the constant.

    Raises:
        BundleError: the stages do not fit each other, or the constant is missing or no entropy.
        InvalidSpec: `asked` is no entropy, or there is no exit.
    """
    try:
        check_cascade(artifacts, (given,))
    except BundleError as error:
        raise BundleError(f"{bundle.path}: {error}") from error
    exits = exits_of(artifacts)
    if asked is not None:
        check_entropy(asked, exits)
        return asked
    if not exits:
        return None
    stated = bundle.manifest.constants.get(EXIT_ENTROPY)
    if stated is None:
        raise BundleError(
            f"{bundle.path}: images may leave at stage '{exits[0]}', and the constant "
            f"'{EXIT_ENTROPY}', which says which, is missing"
        )
    if isinstance(stated, str) or not stated >= 0:
        raise BundleError(f"{bundle.path}: the constant '{EXIT_ENTROPY}' is {stated}, no entropy")
    return float(stated)


def labels_of(bundle: Bundle, artifact: Artifact) -> tuple[str, ...]:
    """Return a label for each of the artifact's logits; without a file they are numbered.

    Raises:
        BundleError: the file is missing, cannot be read, or has another number of labels.
        ArtifactChanged: it is not what was exported.
    """
    scores = logits_in(artifact.outputs)
    count = 0 if scores is None else scores.shape[-1]
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
