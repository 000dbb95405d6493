"""The comparison of trunks: all learn, on as many parameters, and the page says how well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from phoneward.apps.bench.nano_trunks import TRUNKS, TrunkResults, TrunkRow, part_of, render
from phoneward.apps.bench.records import Machine
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.variants import Variant
from phoneward.export.train.clips import open_pool
from phoneward.export.train.loop import Phase, optimizer_of
from phoneward.export.train.tam.batch import Sampling, draw
from phoneward.export.train.tam.run import step_of
from phoneward.export.train.tam.start import begin
from phoneward.export.train.tam.views import Stock


class Silent:
    def write(self, *_: Any) -> None:
        """Keep nothing."""


@pytest.mark.parametrize("variant", TRUNKS.values(), ids=lambda variant: variant.name)
def test_a_step_reaches_what_is_to_learn(variant: Variant) -> None:
    part = part_of(variant, 40)
    assert part.schedule.epochs == 2
    assert 2_300_000 < sum(each.numel() for each in EfficientTAM(variant).parameters()) <= 2_500_000
    model = begin(replace(variant, image=64, slots=1), 0)
    how = Sampling("image", 64, 1, clips=2, objects=1, masks=0.0)
    batch = draw(Stock(open_pool("held-out")), how, (0, 0))
    optimizer_of(model, Phase(part.name, part.schedule, 0, part.rates, muon=True))
    step_of(model, part, Silent())(batch).backward()  # type: ignore[arg-type]
    encoder = model.image_encoder
    learns = [each.grad is not None for each in encoder.trunk.parameters()]
    assert any(learns) == (variant.trunk == "vit")
    assert encoder.neck.convs[0].conv_1x1.weight.grad.abs().max() > 0
    if encoder.fine is not None:
        assert encoder.fine.conv_s0.weight.grad.abs().max() > 0
        assert encoder.fine.conv_s1.weight.grad.abs().max() > 0


def test_the_page() -> None:
    rows = tuple(
        TrunkRow(
            trunk=name,
            parameters=2_400_000,
            loss=(9.0,) * 20 + (0.5,) * 100,
            iou=(0.0,) * 20 + (0.25 + place / 4,) * 100,
            seconds=tuple(2.0 * step for step in range(120)),
        )
        for place, name in enumerate(TRUNKS)
    )
    results = TrunkResults(
        machine=Machine(cpu="a processor", cores=2, system="Linux", versions={"numpy": "2"}),
        date="2026-01-01",
        command="python -m phoneward.apps.bench.nano_trunks",
        side=128,
        rows=rows,
    )
    page = render(results)
    assert "120 steps of the first part" in page
    assert "| EfficientNet-Lite0 | 2.40 M | 0.500 | 0.500 | 2.00 |" in page
    assert "| plain ViT, 12 blocks, from nothing | 2.40 M | 0.500 | 0.750 | 2.00 |" in page
