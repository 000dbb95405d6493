"""What `efficienttam-nano` is trained on, and that the training is of what will be run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from phoneward.export.clip import TorchStage
from phoneward.export.models.efficienttam.family import card_of
from phoneward.export.models.efficienttam.image_encoder import ImageEncoder
from phoneward.export.models.efficienttam.lite0_trunk import Lite0Trunk
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.stages import Encode, Memorize, Prompt, Propagate
from phoneward.export.models.efficienttam.variants import NANO, PARAMETERS, Variant
from phoneward.export.train.clips import Pool, open_pool
from phoneward.export.train.tam.batch import Batch, Sampling, draw, place, shown
from phoneward.export.train.tam.frozen import FrozenTrunk
from phoneward.export.train.tam.losses import LossWeights, dice, focal, iou, loss_of, outline
from phoneward.export.train.tam.start import begin
from phoneward.export.train.tam.unroll import Guess, Unroll, clicked
from phoneward.export.train.tam.views import Stock
from phoneward.runtime.evaluation.prompting import PromptKind, prompt_of
from phoneward.runtime.prompts import Prompt as Said
from phoneward.runtime.tracker import Tracker

SIDE = 64


@pytest.fixture(scope="module")
def pool() -> Pool:
    return open_pool("held-out")


@pytest.fixture(scope="module")
def model() -> EfficientTAM:
    made = begin(replace(NANO, image=SIDE, slots=3), 0).eval().requires_grad_(False)
    # every object counts as in sight
    made.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5)
    return made


def sampling(**changes: object) -> Sampling:
    how = Sampling("slow", SIDE, 3, clips=2, objects=2)
    return replace(how, **changes)  # type: ignore[arg-type]


def test_it_is_as_small_as_its_card_says() -> None:
    made = EfficientTAM(NANO)
    assert sum(p.numel() for p in made.parameters()) == PARAMETERS[NANO.name] <= 2_500_000
    assert 2 * sum(t.numel() for t in made.state_dict().values()) < 6_000_000


def test_equal_keys_draw_equal_batches(pool: Pool) -> None:
    one, same, other = (draw(Stock(pool), sampling(), key) for key in ((1, 2), (1, 2), (1, 3)))
    for name in ("frames", "masks", "clips", "points", "labels", "has_mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.frames, other.frames)


def test_an_object_is_shown_where_it_is() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[20:40, 10:50] = True
    kinds = set()
    for _ in range(200):
        points, labels, masked = shown(mask, 0.3, rng)
        real = labels >= 0
        kinds.add((masked, tuple(labels[real])))
        if masked:
            assert not real.any()
            continue
        if labels[0] == 2:
            np.testing.assert_allclose(points[:2], [[10, 20], [50, 40]], atol=4)
            continue
        for (x, y), label in zip(points[real], labels[real], strict=True):
            assert mask[int(y), int(x)] == bool(label)
    assert {(True, ()), (False, (2.0, 3.0)), (False, (1.0,))} <= kinds


def test_a_click_is_where_a_user_puts_it() -> None:
    """The middle of a pixel, as the evaluation clicks."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[20, 30] = True
    drawn = place(mask, np.random.default_rng(0))
    assert (tuple(drawn),) == prompt_of(PromptKind.CLICK, 1, mask).points
    # where a mask is wrong, too
    points, labels = torch.zeros(1, 5, 2), torch.full((1, 5), -2.0)
    truth = torch.from_numpy(mask)[None].float()
    points, labels = clicked(points, labels, torch.full((1, 1, SIDE, SIDE), -1.0), truth)
    assert points[0, 4].tolist() == list(drawn)
    assert labels[0, 4] == 1


def test_dice_focal_and_iou_by_hand() -> None:
    sure = torch.tensor([[[[50.0, 50.0], [-50.0, -50.0]]]])
    target = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    # one pixel in common, two said, one true
    assert iou(sure, target).item() == pytest.approx(0.5)
    assert dice(sure, target).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 1 + 1))
    # of four pixels one is wrong, with an entropy of 50
    assert focal(sure, target).item() == pytest.approx(0.75 * 50 / 4, rel=1e-4)


def test_of_a_masks_pixels_those_near_its_outline_count() -> None:
    target = torch.zeros(1, 1, 12, 12)
    target[..., :6] = 1
    sure = 50 * (2 * target - 1)
    assert outline(sure, target).item() == pytest.approx(0, abs=1e-6)
    near, far = sure.clone(), sure.clone()
    near[0, 0, 3, 5] *= -1
    far[0, 0, 3, 2] *= -1
    # two columns either side of it are near; one of those pixels is wrong, with an entropy of 50
    assert outline(near, target).item() == pytest.approx(50 / (4 * 12), rel=1e-4)
    assert outline(far, target).item() == pytest.approx(0, abs=1e-6)
    # nothing has no outline
    assert outline(sure, torch.zeros_like(target)).item() == 0


def guess(logits: torch.Tensor, frame: int = 0) -> Guess:
    count, candidates = logits.shape[:2]
    return Guess(
        logits,
        torch.full((count, candidates), 0.5),
        torch.zeros(count, 1),
        frame,
        torch.ones(count),
    )


def test_of_candidates_the_best_one_learns() -> None:
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., :8, :] = 1
    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 1, :4] = 1.0
    logits.requires_grad_(True)
    loss_of([guess(logits)], truth, LossWeights(focal=10.0, outline=0.5)).backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum((2, 3))[0]
    assert moved[1] > 0
    assert moved[0] == moved[2] == 0


def test_what_is_out_of_sight_has_no_mask_to_learn() -> None:
    truth = torch.zeros(2, 1, 16, 16)
    truth[1, 0, :4] = 1
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
    loss_of([guess(logits)], truth, LossWeights(focal=10.0, outline=0.5)).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().max() == 0
    assert logits.grad[1].abs().max() > 0


def test_the_frozen_trunk_is_the_trunk(model: EfficientTAM) -> None:
    trunk = model.image_encoder.trunk
    assert isinstance(trunk, Lite0Trunk)
    images = torch.rand(2, 3, 96, 96) * 2 - 1
    expected = trunk(images, trunk.positions(6))
    frozen = FrozenTrunk(trunk)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen.trunk.modules())
    torch.testing.assert_close(frozen(images), expected, rtol=1e-4, atol=1e-3)


def test_a_plain_vision_transformer_takes_several_images_at_once() -> None:
    torch.manual_seed(0)
    # 20 places in windows of 14: some are filled up
    plain = Variant("plain", embedding=24, heads=2, image=320)
    encoder = ImageEncoder(plain).eval().requires_grad_(False)
    images, positions = torch.randn(2, 3, 320, 320), encoder.trunk.positions(plain.grid)
    alone = torch.cat([encoder(each, positions) for each in images.split(1)])
    torch.testing.assert_close(encoder(images, positions), alone, rtol=1e-4, atol=1e-4)


def test_the_trunk_keeps_its_statistics_in_training() -> None:
    trunk = Lite0Trunk().train()
    before = trunk.bn1.running_mean.clone()
    trunk(torch.rand(2, 3, 32, 32), trunk.positions(2))
    assert torch.equal(trunk.bn1.running_mean, before)


def test_memory_is_searched_for_what_looks_alike(model: EfficientTAM) -> None:
    """From the start, a place finds itself in a frame that is the same but for a shift."""
    side = SIDE // 16
    features = torch.randn(1, side * side, NANO.widths.features)
    shifted = features.roll(1, 1)
    memory = Memorize(model)(
        features, torch.full((1, 1, 4 * side, 4 * side), -10.0), torch.ones(1, 1)
    )
    layer = model.memory_attention.layers[0].cross_attn_image
    q = layer.q_proj(shifted[..., : NANO.widths.channels])
    k = layer.k_proj(memory.transpose(1, 2))
    found = torch.bmm(q, k.transpose(1, 2)).argmax(2)[0]
    expected = torch.arange(side * side).roll(1)
    assert (found == expected).float().mean() > 0.8


@pytest.mark.parametrize("masks", [1.0, 0.0])
def test_a_training_computes_what_a_tracker_does(
    model: EfficientTAM, pool: Pool, masks: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks of all frames are the same, but that a tracker keeps memories in bfloat16."""
    monkeypatch.setattr("phoneward.runtime.tracker.narrow", lambda values: values)
    monkeypatch.setattr("phoneward.runtime.memory_bank.widen", lambda values: values)
    # more frames than the memory bank holds
    batch = draw(Stock(pool), sampling(clips=1, objects=1, masks=masks, frames=6), (7,))
    frames = torch.from_numpy(batch.frames).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    truth = torch.from_numpy(batch.masks).float()
    guesses = Unroll(model, None)(batch, frames, truth, correct=False)
    card = card_of(model.variant)
    modules = {
        "encode": Encode(model),
        "prompt": Prompt(model),
        "propagate": Propagate(model),
        "memorize": Memorize(model),
    }
    stages = {}
    for spec in card.stages:
        module = modules[spec.name]
        if spec.name == "encode":
            module = Scaled(module)
        stages[spec.name] = TorchStage(module.eval(), spec)
    tracker = Tracker(stages)
    tracker.prompt(0, batch.frames[0, 0], said(batch))
    for index in range(1, 6):
        tracked = tracker.track(index, batch.frames[0, index])
        mine = next(g for g in guesses if g.frame == index)
        best = mine.logits[0, int(mine.ious[0].argmax())].numpy()
        assert tracked.scores[0] == pytest.approx(float(mine.score), abs=2e-3)
        assert tracked.scores[0] > 0
        assert np.abs(tracked.logits[0] - best).max() < 2e-3 * np.ptp(best)


class Scaled(torch.nn.Module):
    """The encoder for pixels of 0 to 255."""

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode pixels."""
        features: torch.Tensor = self.body(image / 127.5 - 1)
        return features


def said(batch: Batch) -> Said:
    if batch.has_mask[0, 0]:
        return Said(1, mask=batch.masks[0, 0])
    labels = batch.labels[0]
    places = [tuple(map(float, point)) for point in batch.points[0]]
    real = [i for i in range(len(labels)) if labels[i] in (0, 1)]
    if labels[0] == 2:
        return Said(1, box=(*places[0], *places[1]))
    return Said(
        1, points=tuple(places[i] for i in real), labels=tuple(int(labels[i]) for i in real)
    )
