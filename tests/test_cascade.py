"""A cascade answers a batch as it answers image by image, whatever the sizes of its stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phoneward.errors import BundleError, EngineError, InvalidSpec, TensorMismatch
from phoneward.runtime.cascade import Answers, Cascade, Rows, entropy, softmax
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

CLASSES = 3
SIDE = 4
FEATURES = (2, 3, 3)


def image(batch: int, name: str = "image") -> TensorSpec:
    return TensorSpec(name=name, shape=(batch, 1, SIDE, SIDE), layout="NCHW")


def logits(batch: int) -> TensorSpec:
    return TensorSpec(name="logits", shape=(batch, CLASSES), layout="NC")


def features(batch: int) -> TensorSpec:
    return TensorSpec(name="features", shape=(batch, *FEATURES), layout="NCHW")


@dataclass
class Fake:
    """A stage that computes each row from that row alone, and remembers what it was fed."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    compute: Callable[[Arrays], Arrays]
    fed: list[Arrays] = field(default_factory=list)

    def __call__(self, tensors: Arrays) -> Arrays:
        assert set(tensors) == {spec.name for spec in self.inputs}
        for spec in self.inputs:
            spec.check(tensors[spec.name])
        self.fed.append(tensors)
        answers = {name: array.astype(np.float32) for name, array in self.compute(tensors).items()}
        for spec in self.outputs:
            spec.check(answers[spec.name])
        return answers


def looked_at(tensors: Arrays) -> Arrays:
    """Logits are corners of the image, features its rows turned round."""
    pixels = tensors["image"][:, 0]
    return {
        "logits": np.stack([pixels[:, 0, 0], pixels[:, 1, 1], pixels[:, 2, 2]], axis=1) / 8,
        "features": np.stack([pixels[:, :3, :3], pixels[:, 1:, 1:][:, ::-1]], axis=1),
    }


def finished(tensors: Arrays) -> Arrays:
    parts = tensors["features"]
    return {"logits": np.stack([parts[:, 0, i, i] - parts[:, 1, 2, i] for i in range(3)], axis=1)}


def looked_again(tensors: Arrays) -> Arrays:
    pixels = tensors["image"][:, 0]
    return {"logits": np.stack([pixels[:, 3, i] for i in range(3)], axis=1), "depth": pixels[:, 0]}


def branchy(first: int, second: int) -> dict[str, Fake]:
    return {
        "exit": Fake([image(first)], [logits(first), features(first)], looked_at),
        "finish": Fake([features(second)], [logits(second)], finished),
    }


def hybrid(first: int, second: int) -> dict[str, Fake]:
    depth = TensorSpec(name="depth", shape=(second, SIDE), layout=None)
    return {
        "exit": Fake([image(first)], [features(first), logits(first)], looked_at),
        "finish": Fake([image(second)], [logits(second), depth], looked_again),
    }


def pipeline(first: int, second: int) -> dict[str, Fake]:
    return {
        "convert": Fake(
            [image(first)], [image(first, "converted")], lambda t: {"converted": 255 - t["image"]}
        ),
        "classify": Fake(
            [image(second, "converted")],
            [logits(second)],
            lambda t: {"logits": looked_at({"image": t["converted"]})["logits"]},
        ),
    }


def alone(first: int, second: int) -> dict[str, Fake]:
    return {"classify": Fake([image(first)], [logits(first), features(first)], looked_at)}


KINDS = {"branchy": branchy, "hybrid": hybrid, "pipeline": pipeline, "alone": alone}

# whole numbers, so that no order of sums changes an entropy
images_of = st.integers(0, 23).flatmap(
    lambda count: arrays(
        np.float32, (count, 1, SIDE, SIDE), elements=st.integers(0, 255).map(float)
    )
)


def by_hand(stages: dict[str, Fake], threshold: float | None, pixels: NDArray[Any]) -> Answers:
    """Image by image, as the paper writes it; the stages take one at a time."""
    rows, left, others = [], [], {}
    for index, one in enumerate(pixels):
        known: dict[str, NDArray[Any]] = {"image": one[None]}
        for number, stage in enumerate(stages.values()):
            given = {spec.name: known[spec.name] for spec in stage.inputs}
            answer = {n: a.astype(np.float32) for n, a in stage.compute(given).items()}
            known |= {spec.name: answer[spec.name] for spec in stage.outputs}
            for spec in stage.outputs:
                if spec.name != "logits":
                    others.setdefault(spec.name, []).append(
                        Rows(np.array([index]), answer[spec.name])
                    )
            is_last = number == len(stages) - 1
            if is_last or (
                "logits" in answer
                and any(spec.name == "logits" for spec in stage.outputs)
                and threshold is not None
                and plain_entropy(answer["logits"][0].tolist()) < threshold
            ):
                rows.append(answer["logits"][0])
                left.append(number)
                break
    shape = (len(pixels), CLASSES)
    return Answers(np.reshape(rows, shape), tuple(stages), np.array(left, np.intp), others)


def plain_entropy(row: list[float]) -> float:
    powers = [math.exp(value - max(row)) for value in row]
    shares = [power / math.fsum(powers) for power in powers]
    return -math.fsum(share * math.log(share) for share in shares if share > 0)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    # not a value that an entropy of such images has
    threshold=st.sampled_from(
        [0.0, 1e-9, 0.0123, 0.0517, 0.3011, 0.6543, 0.9877, 1.0985, 1.1, 9.0]
    ),
    pixels=images_of,
)
def test_a_batch_is_answered_as_image_by_image(
    kind: str, sizes: tuple[int, int], threshold: float, pixels: NDArray[np.float32]
) -> None:
    used = threshold if kind in ("branchy", "hybrid") else None
    stages = KINDS[kind](*sizes)
    got = Cascade(stages, used)({"image": pixels})
    wanted = by_hand(KINDS[kind](1, 1), used, pixels)
    np.testing.assert_array_equal(got.logits, wanted.logits)
    np.testing.assert_array_equal(got.answered, wanted.answered)
    assert got.stages == wanted.stages
    assert got.exited.tolist() == [number < len(stages) - 1 for number in wanted.answered]
    assert {n: set(rows) for n, rows in got.others.items()} == {
        n: set(rows) for n, rows in wanted.others.items()
    }
    for name, rows in wanted.others.items():
        for index, row in rows.items():
            np.testing.assert_array_equal(got.others[name][index], row)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    threshold=st.sampled_from([0.0, 0.0517, 0.6543, 9.0]),
    pixels=images_of,
)
def test_those_that_go_on_fill_the_chunks_of_the_next_stage(
    sizes: tuple[int, int], threshold: float, pixels: NDArray[np.float32]
) -> None:
    stages = hybrid(*sizes)
    answers = Cascade(stages, threshold)({"image": pixels})
    going = pixels[~answers.exited]
    assert len(stages["exit"].fed) == -(-len(pixels) // sizes[0])
    assert len(stages["finish"].fed) == -(-len(going) // sizes[1])
    if len(going):
        fed = np.concatenate([tensors["image"] for tensors in stages["finish"].fed])
        np.testing.assert_array_equal(fed[: len(going)], going)
        assert all((row == going[-1]).all() for row in fed[len(going) :]), "padded with the last"


def certain(values: Sequence[float]) -> NDArray[np.float32]:
    """Images whose logits at the exit are a value and two zeros."""
    pixels = np.zeros((len(values), 1, SIDE, SIDE), np.float32)
    pixels[:, 0, 0, 0] = np.asarray(values) * 8
    return pixels


def test_exits_are_counted() -> None:
    answers = Cascade(branchy(4, 4), 0.5)({"image": certain([9, 0, 9, 9, 0])})
    assert answers.exited.tolist() == [True, False, True, True, False]
    assert [answers.stages[i] for i in answers.answered] == [
        "exit", "finish", "exit", "exit", "finish",
    ]  # fmt: skip


def test_no_entropy_lets_none_leave_and_a_large_one_all() -> None:
    pixels = certain([0, 1, 9, 30])
    assert not Cascade(branchy(2, 2), 0.0)({"image": pixels}).exited.any()
    stages = branchy(2, 2)
    answers = Cascade(stages, math.log(CLASSES) + 1e-9)({"image": pixels})
    assert answers.exited.all()
    assert stages["finish"].fed == []
    assert set(answers.others) == {"features"}


def test_a_later_output_takes_the_place_of_an_earlier_one() -> None:
    """Also for the stages after it, and in another shape."""
    narrow = TensorSpec(name="features", shape=(2, 5), layout="NC")
    stages = {
        "exit": Fake([image(2)], [logits(2), features(2)], looked_at),
        "pool": Fake([features(2)], [narrow], lambda t: {"features": np.full((2, 5), 7.0)}),
        "finish": Fake([narrow], [logits(2)], lambda t: {"logits": t["features"][:, :3]}),
    }
    answers = Cascade(stages, 0.5)({"image": certain([9, 0, 0])})
    np.testing.assert_array_equal(answers.logits[1:], np.full((2, 3), 7))
    assert [answers.others["features"][i].shape for i in range(3)] == [FEATURES, (5,), (5,)]


def test_two_exits_in_a_row() -> None:
    stages = {
        "first": Fake([image(2)], [logits(2)], looked_at),
        "second": Fake([image(3)], [logits(3)], looked_again),
        "third": Fake([image(1)], [logits(1)], lambda t: {"logits": np.full((1, 3), 5.0)}),
    }
    pixels = certain([9, 0, 0, 9])
    pixels[1, 0, 3, 1] = 40
    cascade = Cascade(stages, 0.5)
    assert cascade.exits == ("first", "second")
    answers = cascade({"image": pixels})
    assert answers.answered.tolist() == [0, 1, 2, 0]
    assert answers.exited.tolist() == [True, True, False, True]
    assert cascade.batches == (2, 3, 1)


@given(arrays(np.float32, (5, 4), elements=st.floats(-50, 50, width=32)))
def test_entropy_and_scores_equal_a_plain_calculation(values: NDArray[np.float32]) -> None:
    got = entropy(values)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [plain_entropy(row) for row in values.tolist()], atol=1e-12)
    for row, scores in zip(values.tolist(), softmax(values), strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        np.testing.assert_allclose(scores, np.array(powers) / sum(powers), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_extreme_logits_have_an_entropy(dtype: type[np.floating[Any]]) -> None:
    top = float(np.finfo(dtype).max)
    rows = np.array([[top, -top, -top], [top, top, -top], [-top, -top, -top]], dtype)
    np.testing.assert_allclose(entropy(rows), [0, math.log(2), math.log(3)], atol=1e-15)
    assert np.isfinite(softmax(rows)).all()


def test_an_entropy_below_single_precision_still_decides() -> None:
    """The log of 3 less 4e-8: in single precision equal to the threshold."""
    rows = np.array([[0, 0, 4e-4]], np.float32)
    missing = math.log(3) - entropy(rows)[0]
    assert 1e-8 < missing < 6e-8
    assert missing == pytest.approx(math.log(3) - plain_entropy(rows[0].tolist()), rel=1e-6)


@pytest.mark.parametrize("output", ["logits", "features"])
def test_what_is_not_finite_is_an_error(output: str) -> None:
    def broken(tensors: Arrays) -> Arrays:
        answers = dict(looked_at(tensors))
        answers[output] = answers[output] * np.float32("nan")
        return answers

    stages = branchy(2, 2)
    stages["exit"].compute = broken
    with pytest.raises(EngineError, match=f"stage 'exit': not all {output} are finite"):
        Cascade(stages, 0.5)({"image": certain([1])})


def test_an_exit_needs_an_entropy_and_an_entropy_an_exit() -> None:
    with pytest.raises(BundleError, match="'exit' is an exit, and 'exit_entropy' is missing"):
        Cascade(branchy(1, 1))
    for kind in (pipeline, alone):
        with pytest.raises(InvalidSpec, match="without an exit"):
            Cascade(kind(1, 1), 0.5)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(InvalidSpec, match="at least 0 nats"):
            Cascade(branchy(1, 1), wrong)


def refused(stages: dict[str, Fake], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Cascade(stages, 0.5)


def test_stages_that_do_not_fit_each_other_are_refused() -> None:
    stages = branchy(1, 1)
    refused({}, "no logits")
    refused({"exit": stages["exit"], "convert": pipeline(1, 1)["convert"]}, "no logits")
    refused({"finish": stages["finish"]}, "'finish' takes 'features', which no stage before it")
    turned = {"finish": stages["finish"], "exit": stages["exit"]}
    refused(turned, "'finish' takes 'features', which no stage before it")

    last = TensorSpec(name="features", shape=(1, 3, 3, 2), layout="NHWC")
    stages["finish"].inputs = [last]
    refused(stages, r"as float32 NHWC \(3, 3, 2\), and is given float32 NCHW \(2, 3, 3\)")

    stages = branchy(2, 2)
    stages["exit"].outputs = [logits(2), features(3)]
    refused(stages, "'exit' are not batches of one size")

    stages = branchy(2, 2)
    stages["finish"].outputs = [TensorSpec(name="logits", shape=(2, 9), layout="NC")]
    refused(stages, r"different numbers of classes: \[3, 9\]")
    with pytest.raises(BundleError, match="takes 'image', which no stage"):
        Cascade(branchy(1, 1), 0.5, given=("photo",))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"photo": certain([1])},
        {"image": certain([1]), "more": certain([1])},
        {"image": certain([1])[0]},
        {"image": certain([1]).astype(np.uint8)},
        {"image": certain([1])[:, :, :2]},
    ],
)
def test_other_tensors_than_the_stages_take_are_refused(tensors: Arrays) -> None:
    with pytest.raises(TensorMismatch):
        Cascade(branchy(2, 2), 0.5)(tensors)


def test_given_tensors_are_of_as_many_images() -> None:
    both = Fake([image(2), features(2)], [logits(2)], finished)
    cascade = Cascade({"classify": both}, given=("image", "features"))
    assert [spec.name for spec in cascade.inputs] == ["image", "features"]
    parts = np.ones((3, *FEATURES), np.float32)
    assert cascade({"image": certain([1, 2, 3]), "features": parts}).logits.shape == (3, CLASSES)
    with pytest.raises(TensorMismatch, match="different numbers of images"):
        cascade({"image": certain([1, 2]), "features": parts})
