"""Reference inputs: realistic, the same every time, small, and what the stages' specs say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from phoneward.export.models import find
from phoneward.export.models.family import Examples, Knobs, ModelCard
from phoneward.export.reference import run, write_reference
from phoneward.runtime.parity import Reference, compare

if TYPE_CHECKING:
    from torch import nn

CARD, FAMILY = find("efficienttam_ti_512x512")
SMALL = FAMILY.configure(CARD, Knobs(memory_slots=3))


@pytest.fixture(scope="module")
def modules() -> Mapping[str, nn.Module]:
    return FAMILY.build(SMALL, None)


@pytest.fixture(scope="module")
def examples(modules: Mapping[str, nn.Module]) -> Mapping[str, Examples]:
    return FAMILY.examples(SMALL, modules)


def test_every_input_is_as_its_stage_says_and_exact(examples: Mapping[str, Examples]) -> None:
    assert list(examples) == [stage.name for stage in SMALL.stages]
    for stage in SMALL.stages:
        made = examples[stage.name]
        assert set(made.inputs) == {tensor.name for tensor in stage.inputs}
        for tensor in stage.inputs:
            array = made.inputs[tensor.name]
            assert array.shape == (len(made.real), *tensor.shape)
            assert array.size <= 16 * len(made.real) * 2 or array.dtype.itemsize <= 2
            assert np.isfinite(array.astype(np.float32)).all()


def test_prompts_are_a_point_two_a_box_a_mask_and_a_correction(
    examples: Mapping[str, Examples],
) -> None:
    inputs = examples["prompt"].inputs
    kinds = [row[row != -2].tolist() for row in inputs["labels"][:, 0]]
    assert kinds == [[1], [1, 0], [2, 3], [-1], [1]]
    switches = [
        tuple(inputs[name][i, 0, 0] for name in ("initial", "has_mask", "has_previous"))
        for i in range(5)
    ]
    assert switches == [(1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1)]
    assert [bool(mask.any()) for mask in inputs["mask"]] == [False, False, False, True, False]
    assert [bool(old.any()) for old in inputs["previous"]] == [False] * 4 + [True]


def test_one_memory_and_as_many_as_fit(examples: Mapping[str, Examples]) -> None:
    inputs = examples["propagate"].inputs
    assert inputs["memory_age"][:, 0].tolist() == [[0, -1, -1], [0, 1, 2]]
    full = inputs["memory"].reshape(2, 64, 3, -1).any((1, 3))
    assert full.tolist() == [[True, False, False], [True, True, True]]
    assert inputs["pointer_valid"].sum((1, 2)).tolist() == [1, 3]


def test_a_bank_of_seven_has_empty_slots_without_pointers_too() -> None:
    card = FAMILY.configure(CARD, Knobs(object_pointers=False))
    inputs = FAMILY.examples(card, FAMILY.build(card, None))["propagate"].inputs
    assert set(inputs) == {"features", "memory", "memory_age"}
    assert inputs["memory_age"][1, 0].tolist() == [0, 1, 2, 3, -1, -1, -1]


def test_no_choice_hangs_on_the_last_digits(
    modules: Mapping[str, nn.Module], examples: Mapping[str, Examples]
) -> None:
    """Half precision changes features by less than this: the outputs must move by little too."""
    generator = np.random.default_rng(7)
    for stage in SMALL.stages:
        if stage.name == "encode":
            continue
        made = examples[stage.name]
        for i in range(len(made.real)):
            inputs = {name: array[i].astype(np.float32) for name, array in made.inputs.items()}
            before = run(modules[stage.name], stage, inputs)
            noise = generator.standard_normal(inputs["features"].shape).astype(np.float32)
            inputs["features"] += 2.0**-10 * noise
            after = run(modules[stage.name], stage, inputs)
            for name, values in before.items():
                assert compare(name, values, after[name]).relative_error < 2e-2, (stage.name, i)


def test_the_reference_holds_what_the_stages_answer(
    modules: Mapping[str, nn.Module], examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    file = tmp_path / "reference.npz"
    write_reference(modules, SMALL.stages, examples, file)
    assert file.stat().st_size < 11e6
    reference = Reference.load(file)
    for stage in SMALL.stages:
        inputs = {tensor.name: reference.inputs(stage.name, tensor) for tensor in stage.inputs}
        assert {array.dtype for array in inputs.values()} == {np.dtype(np.float32)}
        answers = run(modules[stage.name], stage, {name: a[-1] for name, a in inputs.items()})
        for tensor in stage.outputs:
            stored = reference.outputs(stage.name, tensor)
            assert stored.dtype == np.float32
            np.testing.assert_allclose(stored[-1], answers[tensor.name], rtol=1e-4, atol=1e-4)


def test_classifiers_see_photographs_and_noise() -> None:
    card, family = find("mobilenetv3_small_100")
    made = family.examples(card, {})["classify"]
    assert isinstance(card, ModelCard)
    assert made.real.tolist() == [True] * 5 + [False] * 3
    assert made.inputs["image"].dtype == np.uint8
