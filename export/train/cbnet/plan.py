"""What a training of this family is to do; equal plans on equal data make equal weights."""

from __future__ import annotations

from dataclasses import dataclass

from phoneward.errors import InvalidSpec
from phoneward.export.models.cbnet.settings import (
    DEFAULT_AUTOENCODER,
    PUBLISHED_AUTOENCODERS,
    PUBLISHED_EXIT_ENTROPIES,
    HybridSize,
    LightSize,
    Settings,
)
from phoneward.export.train.cbnet.batches import Augmentation
from phoneward.export.train.data import is_known
from phoneward.export.train.data.dataset import Dataset
from phoneward.export.train.loop import Schedule

# clothes fill their images: of 5,000 held-out ones BranchyNet's end gets 91.6 % right, trained on
# images that are moved by two pixels and mirrored 87.7 %, on mirrored ones 90.9 %
_STILL = ("fashion-mnist",)
# a light network of about half the published one's work; strides take the place of pools
_LIGHT = LightSize(stem=8, branch=16, downsampling="stride")

_CLASSIFIERS = Schedule(epochs=8, batch=128, rate=3e-3)
_AUTOENCODER = Schedule(epochs=24, rate=1e-3, decay=0.0)


@dataclass(frozen=True)
class Plan:
    """A training: all sizes, all schedules, the seed.

    Attributes:
        settings: sizes and labels of the published networks; `exit_entropy` counts only if
            `chosen_entropy` is false.
        chosen_entropy: whether the exit entropy is chosen on held-out images.
        augmentation: how images are changed in training.
        seed: of everything that is left to chance.
        held_out: images of the training set that are not trained on, to make choices with.
        classifiers: schedule of LeNet, BranchyNet and light networks.
        autoencoder: schedule of the autoencoder.
        hybrid: schedule of the hybrid; None: there is none.
        hybrid_light: sizes of the light network before the hybrid.
    """

    settings: Settings
    chosen_entropy: bool
    augmentation: Augmentation
    seed: int = 0
    held_out: int = 5000
    classifiers: Schedule = _CLASSIFIERS
    autoencoder: Schedule = _AUTOENCODER
    hybrid: Schedule | None = None
    hybrid_light: LightSize = _LIGHT


def plan_for(
    dataset: Dataset,
    *,
    seed: int = 0,
    autoencoder: tuple[int, ...] | None = None,
    exit_entropy: float | None = None,
    epochs: int | None = None,
    hybrid: bool = False,
) -> Plan:
    """Return the plan for a data set: published sizes and exit entropies where there are any.

    `epochs` replaces those of every schedule.

    Raises:
        InvalidSpec: less than one epoch, a width or an exit entropy out of range.
    """
    if epochs is not None and epochs < 1:
        raise InvalidSpec(f"epochs must be at least 1, not {epochs}")
    named = dataset.name if is_known(dataset) else ""  # a folder may bear a famous name
    hidden = autoencoder or PUBLISHED_AUTOENCODERS.get(named, DEFAULT_AUTOENCODER)
    entropy = exit_entropy if exit_entropy is not None else PUBLISHED_EXIT_ENTROPIES.get(named)
    try:
        settings = Settings(
            data=dataset.name,
            labels=dataset.labels,
            autoencoder=hidden,
            hybrid=HybridSize(),
            exit_entropy=0.0 if entropy is None else entropy,
        )
    except ValueError as error:
        raise InvalidSpec(f"autoencoder {hidden}, exit entropy {entropy}: out of range") from error
    plan = Plan(
        settings=settings,
        chosen_entropy=entropy is None,
        augmentation=Augmentation(shift=0 if named in _STILL else 1),
        seed=seed,
        hybrid=Schedule(epochs=6, batch=128) if hybrid else None,
    )
    return plan if epochs is None else _shortened(plan, epochs)


def _shortened(plan: Plan, epochs: int) -> Plan:
    from dataclasses import replace

    return replace(
        plan,
        classifiers=replace(plan.classifiers, epochs=epochs),
        autoencoder=replace(plan.autoencoder, epochs=epochs),
        hybrid=replace(plan.hybrid, epochs=epochs) if plan.hybrid else None,
    )
