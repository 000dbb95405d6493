"""Normalisation inside the graph equals the usual recipe, channel by channel or row by row."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from phoneward.export.models.normalize import Normalized  # noqa: E402
from phoneward.export.rewrites import apply_all  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_it_is_the_usual_recipe_and_rows_change_nothing() -> None:
    model = Normalized(torch.nn.Identity(), MEAN, STD, width=7).double()
    image = torch.rand((1, 3, 5, 7), dtype=torch.double) * 255
    expected = torch.stack([(image[:, c] / 255 - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-6)
    before = model(image)
    assert apply_all(model, ("normalize_rows",)) == {"normalize_rows": 1}
    assert torch.equal(model(image), before)
    assert apply_all(model, ("normalize_rows",)) == {"normalize_rows": 0}
