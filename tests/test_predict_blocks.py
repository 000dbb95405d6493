"""Blocks as kernels, what they cost, and carrying a table of them to another phone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.apps.bench import block_tables
from phoneward.apps.bench.predict_blocks import transfer_row
from phoneward.errors import PredictionError, UnknownName
from phoneward.profiles.kernels import Kernel
from phoneward.profiles.predict.block_costs import WORK, block_costs, block_ms, block_work
from phoneward.profiles.predict.blocks import block_kernels, block_type
from phoneward.profiles.predict.transfer import Priors, carry, choose_anchors, describe

KEYS = (
    "firstconv_128_3_16_2_3",
    "conv_56_32_48_3_2_hard_swish_3_se",
    "conv_32_32_32_1_1_hard_swish_5_nose",
    "transds_14_112_240_2_6",
    "transds_7_144_144_1_4",
    "transattn_14_64_hard_swish_2_ln",
    "transattn_7_96_hard_swish_4_ln",
    "transffn_14_96_4_hard_swish_ln",
    "mbpool_4_200_1984_6_hard_swish",
)


def kinds(key: str) -> list[str]:
    return [kernel.kind for kernel in block_kernels(key)]


def macs(key: str) -> int:
    return sum(kernel.macs for kernel in block_kernels(key))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("firstconv_128_3_16_2_3", 64 * 64 * 3 * 16 * 9),
        # expand at 56x56, depthwise to 28x28, squeeze and excite, project, and the shortcut's 1x1
        (
            "conv_56_32_48_3_2_hard_swish_3_se",
            56 * 56 * 32 * 96 + 28 * 28 * (96 * 9 + 96 * 48 + 32 * 48) + 2 * 96 * 24,
        ),
        # no expansion, no change of width: no shortcut convolution
        ("conv_32_32_32_1_1_hard_swish_5_nose", 32 * 32 * (32 * 25 + 32 * 32)),
        # an odd side is halved upwards
        (
            "transds_5_16_48_2_4",
            25 * 16 * 64 + 9 * (64 * 9 + 64 * 48 + 16 * 48) + 2 * 64 * 16,
        ),
        # 4 heads of 16: qkv, two products of 196x196, the projection
        (
            "transattn_14_64_hard_swish_2_ln",
            196 * 64 * 256 + 4 * 196 * 196 * (16 + 32) + 196 * 128 * 64,
        ),
        ("transffn_14_96_4_hard_swish_ln", 2 * 196 * 96 * 384),
        ("mbpool_4_200_1984_6_hard_swish", 16 * 200 * 1200 + 1200 * 1984 + 1984 * 1000),
    ],
)
def test_a_key_has_the_work_that_it_spells_out(key: str, expected: int) -> None:
    assert macs(key) == expected


def test_a_block_has_what_its_words_say() -> None:
    with_se = kinds("conv_32_32_32_2_1_hard_swish_5_se")
    without = kinds("conv_32_32_32_2_1_hard_swish_5_nose")
    assert len(with_se) == len(without) + 4
    assert "reduce" in with_se
    assert kinds("transattn_7_64_hard_swish_2_ln").count("matmul") == 2
    assert "pool" in kinds("transds_14_112_240_2_6")
    assert "pool" not in kinds("transds_14_112_240_1_6")
    assert block_kernels("conv_32_16_32_1_2_hard_swish_5_nose")[0].window == (5, 5)


def test_kernels_follow_upon_each_other() -> None:
    first, second, third = block_kernels("transffn_14_96_4_hard_swish_ln")[:3]
    assert first.out_shape == second.in_shape
    assert second.out_shape == third.in_shape == (1, 196, 384)
    assert second.activation == "hardswish"


@pytest.mark.parametrize(
    "key",
    [
        *("", "conv", "conv_56_32", "transformer_14_64", "conv_56_32_48_3_2_hard_swish_3_maybe"),
        *("conv_0_32_48_3_2_hard_swish_3_se", "transffn_14_96_4_8_hard_swish_ln"),
        *("transattn_14_8_hard_swish_2_ln", "firstconv_128_3_16_2"),
    ],
)
def test_what_is_no_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(PredictionError, match=f"no block '{key}'"):
        block_kernels(key)


@given(st.text(alphabet="convtrasdf_0123456789hwi", max_size=40))
def test_any_text_is_a_block_or_refused(key: str) -> None:
    try:
        found = block_kernels(key)
    except PredictionError:
        return
    assert all(isinstance(kernel, Kernel) for kernel in found)


def test_costs_are_of_named_work_and_never_negative() -> None:
    for row in block_costs().values():
        assert row.shape == (len(WORK),)
        assert np.all(row >= 0)
    work = block_work(block_kernels(KEYS[1]))
    assert np.all(work >= 0)
    assert work[WORK.index("inference")] == 1
    assert work[WORK.index("wide_depthwise")] == 0


def test_a_larger_block_takes_longer_and_an_older_phone_too() -> None:
    small, large = (block_kernels(f"transattn_{side}_96_hard_swish_2_ln") for side in (7, 14))
    assert block_ms(small, "pixel-4") < block_ms(large, "pixel-4")
    assert block_ms(large, "pixel-4") < block_ms(large, "pixel-1")


def test_a_phone_without_costs_is_answered_with_those_that_have() -> None:
    with pytest.raises(UnknownName) as caught:
        block_ms(block_kernels(KEYS[0]), "pixel-99")
    assert caught.value.known == tuple(sorted(block_costs()))


@pytest.fixture
def log_ms() -> np.ndarray:
    return np.log([block_ms(block_kernels(key), "pixel-4") for key in KEYS])


def test_one_anchor_carries_a_common_factor(log_ms: np.ndarray) -> None:
    blocks = describe(KEYS, log_ms)
    truth = 2.0 * np.exp(log_ms)
    carried = carry(blocks, log_ms, [3], truth[[3]])
    assert np.abs(carried / truth - 1).max() < 0.03


def test_an_anchor_of_a_type_moves_its_type_most(log_ms: np.ndarray) -> None:
    blocks = describe(KEYS, log_ms)
    truth = np.exp(log_ms) * [1.5 if block_type(key) == "transattn" else 1.0 for key in KEYS]
    anchors = [0, 1, 3, 5, 7]
    moved = carry(blocks, log_ms, anchors, truth[anchors]) / np.exp(log_ms)
    assert moved[6] > 1.15
    assert np.all(moved[[2, 4, 8]] < 1.1)


def test_anchors_are_distinct_and_chosen_without_times_of_the_second_phone(
    log_ms: np.ndarray,
) -> None:
    blocks = describe(KEYS, log_ms)
    chosen = choose_anchors(blocks, 5)
    assert len(set(chosen)) == 5
    assert chosen == choose_anchors(blocks, 5)
    # where types differ much and nothing else does, each type has to be asked
    kinds_matter = Priors(constant=1e-6, type=1, share=1e-9, size=1e-9, noise=1e-4)
    types = {block_type(KEYS[index]) for index in choose_anchors(blocks, 6, kinds_matter)}
    assert types == {block_type(key) for key in KEYS}


@pytest.mark.parametrize("times", [[], [0.0], [-1.0], [float("nan")], [float("inf")], [1.0, 2.0]])
def test_a_transfer_needs_a_positive_time_for_each_anchor(
    log_ms: np.ndarray, times: list[float]
) -> None:
    with pytest.raises(PredictionError, match="anchor|positive"):
        carry(describe(KEYS, log_ms), log_ms, [0], np.array(times))


@pytest.mark.parametrize("count", [0, -1, 10])
def test_as_many_anchors_as_there_are_blocks_at_most(log_ms: np.ndarray, count: int) -> None:
    with pytest.raises(PredictionError, match="cannot be chosen"):
        choose_anchors(describe(KEYS, log_ms), count)


def test_a_missing_table_is_named(tmp_path: object) -> None:
    with pytest.raises(PredictionError, match="pixel1_lut_ln_v3.json: no block table"):
        block_tables.load_tables(block_tables.Path(str(tmp_path)))


@pytest.fixture(scope="module")
def tables() -> block_tables.Tables:
    if not block_tables.TABLES.exists():
        pytest.skip("nn-Meter's block tables are not beside this checkout")
    return block_tables.load_tables()


def test_costs_alone_predict_the_tables(tables: block_tables.Tables) -> None:
    limits = {"pixel-1": 0.04, "pixel-4": 0.07, "xiaomi-mi-11": 0.06}
    for phone, limit in limits.items():
        predicted = tables.work @ block_costs()[phone] / 1e6
        assert block_tables.errors(predicted, tables.ms[phone]).mean() < limit


def test_ten_anchors_carry_the_table_to_another_phone(
    tables: block_tables.Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phoneward.apps.bench.predict_blocks.DRAWS", 20)
    row = transfer_row(tables, "xiaomi-mi-11")
    assert len(row.anchors) == 10
    assert row.rule < 0.065
    assert np.mean(row.random) < 0.08
    assert row.rule < row.scalar
    assert transfer_row(tables, "pixel-1").rule < 0.06
