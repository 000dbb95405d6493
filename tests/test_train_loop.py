"""Training: an interruption changes nothing, and checkpoints are of one training alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from phoneward.errors import InvalidSpec
from phoneward.export.train.checkpoint import Checkpoint
from phoneward.export.train.loop import Phase, Schedule, fit

SCHEDULE = Schedule(epochs=4, batch=8, rate=0.05)


class Stop(Exception):
    pass


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))


def epoch(generator: Generator) -> list[tuple[Tensor, Tensor]]:
    inputs = [torch.randn(8, 3, generator=generator) for _ in range(3)]
    return [(x, x.sum(1, keepdim=True)) for x in inputs]


def train(
    folder: Path,
    stop_at: int | None = None,
    key: str = "a",
    rate: float = 0.05,
    average: float = 0.0,
) -> tuple[nn.Module, list[float]]:
    network = model()

    def report(name: str, done: int, total: int) -> None:
        if done == stop_at:
            raise Stop

    losses = fit(
        network,
        epoch,
        lambda b: (network(b[0]) - b[1]).square().mean(),
        Phase("sum", Schedule(4, 8, rate), 5, average=average),
        Checkpoint(folder / "sum.pt", key),
        report,
    )
    return network, losses


@pytest.mark.parametrize("average", [0.0, 0.8])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupted_training_ends_as_one_that_was_not(
    tmp_path: Path, at: int, average: float
) -> None:
    whole, losses = train(tmp_path / "whole", average=average)
    with pytest.raises(Stop):
        train(tmp_path / "cut", stop_at=at, average=average)
    resumed, again = train(tmp_path / "cut", average=average)
    assert again == losses
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_training_may_end_with_the_mean_of_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [model()[0].weight.detach()]  # type: ignore[index]
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW) -> None:
        step(self)
        weights.append(self.param_groups[0]["params"][0].detach().clone())

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    averaged, losses = train(tmp_path / "one", average=0.8)
    expected, *steps = weights
    assert len(steps) == 12
    for each in steps:
        expected = 0.8 * expected + 0.2 * each
    torch.testing.assert_close(averaged[0].weight, expected)  # type: ignore[index]
    # the steps themselves are the same ones
    assert train(tmp_path / "other")[1] == losses


def test_it_learns_and_ends_in_eval_mode(tmp_path: Path) -> None:
    network, losses = train(tmp_path)
    assert losses[-1] < losses[0]
    assert not network.training


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tmp_path, stop_at=2)
    with pytest.raises(InvalidSpec, match="of a training with other settings"):
        train(tmp_path, key="b")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sum.pt").write_bytes(content)
    with pytest.raises(InvalidSpec, match=r"sum\.pt: damaged checkpoint; remove it"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="sum: the loss of epoch"):
        train(tmp_path, rate=1e30)


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    network, kept = nn.Linear(3, 1), tmp_path / "sum.pt"
    # the loss is 0, its gradient is not a number
    with pytest.raises(InvalidSpec, match="sum: after epoch 1 weights are not finite"):
        fit(
            network,
            lambda _: [torch.ones(1, 3)],
            lambda x: (0 * network(x)).sqrt().sum(),
            Phase("sum", Schedule(4), 0),
            Checkpoint(kept, "a"),
            lambda *_: None,
        )
    assert not kept.exists()


def test_the_rate_rises_and_falls_to_nothing() -> None:
    assert SCHEDULE.rate_at(0) == 0
    assert SCHEDULE.rate_at(0.05) == pytest.approx(0.025)
    assert SCHEDULE.rate_at(0.1) == pytest.approx(0.05)
    assert SCHEDULE.rate_at(1) == pytest.approx(0, abs=1e-9)
    rates = [SCHEDULE.rate_at(done / 100) for done in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_the_rate_may_end_above_nothing() -> None:
    schedule = Schedule(10, rate=2.0, end=0.25)
    assert schedule.rate_at(0.1) == pytest.approx(2.0)
    assert schedule.rate_at(0.55) == pytest.approx(2.0 * (0.25 + 0.75 / 2))
    assert schedule.rate_at(1.0) == pytest.approx(0.5)


def test_parameters_learn_at_their_share_of_the_rate(tmp_path: Path) -> None:
    network, before = model(), model()
    fit(
        network,
        epoch,
        lambda b: (network(b[0]) - b[1]).square().mean(),
        Phase("sum", Schedule(2, 8, 0.05, clip=1e-3), 5, {"0.": 0.0, "2.bias": 0.5}),
        Checkpoint(tmp_path / "sum.pt", "a"),
        lambda *_: None,
    )
    moved = {
        name: float((one - other).detach().abs().max())
        for (name, one), other in zip(network.named_parameters(), before.parameters(), strict=True)
    }
    assert moved["0.weight"] == moved["0.bias"] == 0
    assert 0 < moved["2.bias"] < moved["2.weight"]


def test_gradients_are_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if gradients:
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return 100 * (network(batch[0]) - batch[1]).square().mean()

    network = model()
    monkeypatch.setattr(torch.optim.AdamW, "zero_grad", lambda self: None)
    phase = Phase("sum", Schedule(1, 8, 0.05, clip=0.1), 5)
    fit(network, epoch, loss, phase, Checkpoint(tmp_path / "s.pt", "a"), lambda *_: None)
    assert norms
    assert max(norms) == pytest.approx(0.1, rel=0.01)
