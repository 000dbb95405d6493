"""A classifier picks an artifact it can run and answers as PyTorch does, or says what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoneward.bundle import MANIFEST, Bundle
from phoneward.errors import (
    ArtifactChanged,
    BundleError,
    EngineError,
    ImageError,
    InvalidSpec,
    MissingExtra,
    TensorMismatch,
    UnknownName,
)
from phoneward.names import Precision
from phoneward.runtime.cascade import entropy
from phoneward.runtime.classifier import Classifier
from phoneward.spec import TensorSpec
from tests.cascade_bundle import CLASSES, SIDE, Made, images, write

PHOTOS = sorted((Path(__file__).parent.parent / "export" / "photos").glob("*.jpg"))
ENGINES = {"litert": "tflite", "executorch": "executorch", "onnxruntime": "onnx"}


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle to do harm to."""
    shutil.copytree(bundle.path, tmp_path / "copy")
    return Bundle.open(tmp_path / "copy")


@pytest.fixture(params=ENGINES)
def classifier(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Classifier]:
    with Classifier.open(bundle, engine=request.param) as classifier:
        assert classifier.engine == request.param
        yield classifier


@pytest.mark.parametrize("index", range(len(PHOTOS)))
def test_labels_and_scores_are_pytorchs(classifier: Classifier, bundle: Bundle, index: int) -> None:
    logits = np.load(bundle.path / "reference.npz")["classify/output/logits"][index, 0]
    expected = np.exp(logits) / np.exp(logits).sum()
    answers = classifier.classify(PHOTOS[index], top=3)
    assert [a.index for a in answers] == list(np.argsort(-logits)[:3])
    assert [a.label for a in answers] == [f"thing {a.index}" for a in answers]
    np.testing.assert_allclose([a.score for a in answers], np.sort(expected)[::-1][:3], rtol=1e-4)


def test_more_labels_than_classes_are_all_labels(classifier: Classifier) -> None:
    answers = classifier.classify(PHOTOS[0], top=99)
    assert sorted(a.index for a in answers) == list(range(10))
    assert sum(a.score for a in answers) == pytest.approx(1)


def test_what_is_no_image_is_an_error(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        classifier.classify(tmp_path / "absent.jpg")


def test_a_closed_classifier_refuses(bundle: Bundle) -> None:
    classifier = Classifier.open(bundle)
    classifier.close()
    with pytest.raises(EngineError, match="closed"):
        classifier.classify(PHOTOS[0])


@pytest.mark.parametrize(("engine", "format_name"), ENGINES.items())
def test_a_format_chooses_its_engine(bundle: Bundle, engine: str, format_name: str) -> None:
    with Classifier.open(bundle, format_name=format_name) as classifier:
        assert classifier.engine == engine


def test_the_first_artifact_that_runs_here_is_the_default(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Classifier.open(bundle) as classifier:
        assert classifier.engine == "litert"
    blocked = {"ai_edge_litert", "tflite_runtime", "executorch"}
    from importlib.util import find_spec

    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in blocked else find_spec(name)
    )
    with Classifier.open(bundle) as classifier:
        assert classifier.engine == "onnxruntime"
    with pytest.raises(MissingExtra, match=r"phoneward\[litert\]"):
        Classifier.open(bundle, engine="litert")
    with pytest.raises(EngineError, match="litert: not installed"):
        Classifier.open(bundle, format_name="tflite")


def test_asking_for_what_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(UnknownName, match="tensorrt"):
        Classifier.open(bundle, engine="tensorrt")
    with pytest.raises(BundleError, match="no such artifact; it has: tflite-fp32, executorch-fp32"):
        Classifier.open(bundle, precision=Precision.FP16)
    with pytest.raises(BundleError, match="no such artifact"):
        Classifier.open(bundle, engine="litert", format_name="onnx")
    with pytest.raises(EngineError, match="no engine here can run"):
        Classifier.open(bundle, format_name="none")


@pytest.mark.parametrize("name", ["classify.tflite", "labels.txt"])
def test_a_changed_or_missing_file_is_not_opened(copy: Bundle, name: str) -> None:
    file = copy.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactChanged, match=name):
        Classifier.open(copy, engine="litert")
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Classifier.open(copy, engine="litert")


def test_labels_must_be_as_many_as_classes(copy: Bundle) -> None:
    (copy.path / "labels.txt").write_text("one\ntwo\n")
    manifest = copy.manifest.model_copy(update={"labels_sha256": None})
    with pytest.raises(BundleError, match="2 labels for 10 classes"):
        Classifier.open(Bundle(copy.path, manifest))


def test_without_labels_classes_are_numbered(copy: Bundle) -> None:
    text = copy.manifest.model_copy(update={"labels": None, "labels_sha256": None})
    (copy.path / MANIFEST).write_text(text.model_dump_json())
    with Classifier.open(Bundle.open(copy.path)) as classifier:
        best = classifier.classify(PHOTOS[0], top=1)[0]
    assert best.label == f"class {best.index}"


def test_a_stage_without_images_is_no_classifier(copy: Bundle) -> None:
    stage = copy.manifest.stages[0].model_copy(update={"image": None})
    manifest = copy.manifest.model_copy(update={"stages": (stage,)})
    with pytest.raises(BundleError, match="holds no classifier"):
        Classifier.open(Bundle(copy.path, manifest))


# a Core ML graph takes single images
BATCHES = {"tflite": (3, 2), "executorch": (2, 5), "onnx": (4, 3), "coreml": (1, 1)}
PIXELS = images(22)


def gap(values: np.ndarray) -> float:
    """The middle of the widest gap between values: rounding moves none of them over it."""
    ordered = np.sort(values)
    place = np.diff(ordered[2:-2]).argmax() + 2
    return float(ordered[place : place + 2].mean())


@pytest.fixture(scope="module", params=BATCHES)
def branchy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    made = write(folder, "branchy", [request.param], BATCHES[request.param])
    threshold = gap(entropy(made.outputs(PIXELS)["exit/logits"]))
    return Made(with_constants(made.bundle, exit_entropy=threshold), made.modules)


def with_constants(bundle: Bundle, **constants: float | str) -> Bundle:
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"constants": constants}))


def test_an_early_exit_answers_as_pytorch_does(branchy: Made) -> None:
    known = branchy.outputs(PIXELS)
    leaves = entropy(known["exit/logits"]) < branchy.bundle.manifest.constants["exit_entropy"]
    assert 2 <= leaves.sum() <= len(PIXELS) - 2
    wanted = np.where(leaves[:, None], known["exit/logits"], known["finish/logits"])
    with Classifier.open(branchy.bundle) as classifier:
        assert classifier.exits == ("exit",)
        assert classifier.exit_entropy == branchy.bundle.manifest.constants["exit_entropy"]
        answers = classifier.answers(PIXELS)
        labels = classifier.classify_arrays(PIXELS, top=2)
    np.testing.assert_allclose(answers.logits, wanted, atol=1e-3)
    np.testing.assert_array_equal(answers.exited, leaves)
    assert set(answers.others) == {"features"}
    for one, row, left in zip(labels, wanted, leaves, strict=True):
        assert [label.index for label in one] == list(np.argsort(-row)[:2])
        assert one[0].label == CLASSES[one[0].index]
        assert (one.stage, one.exited) == ("exit" if left else "finish", left)
        assert one[0].score == pytest.approx(np.exp(row).max() / np.exp(row).sum(), abs=1e-3)


def test_files_in_a_batch_are_answered_as_one_by_one(branchy: Made, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for path, pixels in zip(paths, PIXELS, strict=False):
        Image.fromarray(pixels).save(path)
    seen: list[tuple[str, int, int]] = []
    with Classifier.open(branchy.bundle) as classifier:
        together = classifier.classify_many(
            paths, 3, lambda name, done, total: seen.append((name, done, total))
        )
        alone = [classifier.classify(path, 3) for path in paths]
        assert classifier.classify_many([]) == []
    assert seen == [(path.name, number, 7) for number, path in enumerate(paths)]
    for one, other in zip(together, alone, strict=True):
        assert (one.stage, one.exited) == (other.stage, other.exited)
        assert [label.index for label in one] == [label.index for label in other]
        assert [a.score for a in one] == pytest.approx([a.score for a in other], abs=1e-5)


def test_the_entropy_can_be_chosen_anew(branchy: Made) -> None:
    for threshold, stage in ((0.0, "finish"), (9.0, "exit")):
        with Classifier.open(branchy.bundle, exit_entropy=threshold) as classifier:
            assert {one.stage for one in classifier.classify_arrays(PIXELS)} == {stage}
    without = with_constants(branchy.bundle)
    with pytest.raises(BundleError, match="leave at stage 'exit', and the constant 'exit_entropy'"):
        Classifier.open(without)
    with Classifier.open(without, exit_entropy=9.0) as classifier:
        assert classifier.exit_entropy == 9
    for wrong in (-1.0, "much"):
        with pytest.raises(BundleError, match=f"'exit_entropy' is {wrong}, no entropy"):
            Classifier.open(with_constants(branchy.bundle, exit_entropy=wrong))
    with pytest.raises(InvalidSpec, match="at least 0 nats"):
        Classifier.open(branchy.bundle, exit_entropy=-1)


def test_without_an_exit_there_is_no_entropy_to_choose(bundle: Bundle) -> None:
    with pytest.raises(InvalidSpec, match="without an exit"):
        Classifier.open(bundle, exit_entropy=0.5)
    with Classifier.open(bundle) as classifier:
        assert (classifier.exits, classifier.exit_entropy) == ((), None)
        answer = classifier.classify(PHOTOS[0])
    assert (answer.stage, answer.exited) == ("classify", None)


def test_a_closed_cascade_refuses(branchy: Made) -> None:
    classifier = Classifier.open(branchy.bundle)
    classifier.close()
    with pytest.raises(EngineError, match="closed"):
        classifier.answers(PIXELS)


def test_an_artifact_of_another_stage_may_not_be_missing(branchy: Made) -> None:
    manifest = branchy.bundle.manifest
    kept = tuple(one for one in manifest.artifacts if one.stage == "exit")
    lacking = Bundle(branchy.bundle.path, manifest.model_copy(update={"artifacts": kept}))
    with pytest.raises(BundleError, match="lacks the stage 'finish'"):
        Classifier.open(lacking)


def test_stages_that_do_not_fit_are_named_before_they_are_opened(branchy: Made) -> None:
    manifest = branchy.bundle.manifest
    first, second = manifest.artifacts
    other = TensorSpec(name="parts", shape=second.inputs[0].shape, layout=second.inputs[0].layout)
    changed = (first, second.model_copy(update={"inputs": (other,)}))
    wrong = Bundle(branchy.bundle.path, manifest.model_copy(update={"artifacts": changed}))
    with pytest.raises(BundleError, match=f"{wrong.path}: stage 'finish' takes 'parts', which no"):
        Classifier.open(wrong)


@pytest.mark.parametrize("kind", ["hybrid", "pipeline"])
def test_stages_that_see_the_image_again_or_another_one(kind: str, tmp_path: Path) -> None:
    """Channel-last, where what is handed on has another layout than PyTorch's."""
    made = write(tmp_path, kind, ["tflite"], (2, 3))
    known = made.outputs(PIXELS)
    exits = kind == "hybrid"
    threshold = gap(entropy(known["exit/logits"])) if exits else None
    with Classifier.open(made.bundle, exit_entropy=threshold) as classifier:
        answers = classifier.answers(PIXELS)
    leaves = entropy(known["exit/logits"]) < threshold if exits else np.zeros(len(PIXELS), np.bool_)
    last = known["finish/logits" if exits else "classify/logits"]
    wanted = np.where(leaves[:, None], known["exit/logits"], last) if exits else last
    np.testing.assert_allclose(answers.logits, wanted, atol=1e-3)
    if not exits:
        assert answers.answered.tolist() == [1] * len(PIXELS)
        converted = answers.others["converted"][5]
        assert converted.shape == (SIDE, SIDE, 1)
        np.testing.assert_allclose(converted[..., 0], known["convert/converted"][5, 0], atol=1e-3)


def test_arrays_come_in_two_dtypes_and_grey_ones_without_a_channel(branchy: Made) -> None:
    with Classifier.open(branchy.bundle) as classifier:
        wanted = classifier.answers(PIXELS).logits
        for same in (
            PIXELS[:, None],
            PIXELS.astype(np.float32),
            PIXELS[:, None].astype(np.float32),
        ):
            np.testing.assert_array_equal(classifier.answers(same).logits, wanted)
        assert classifier.answers(PIXELS[:0]).logits.shape == (0, len(CLASSES))
        for wrong in (PIXELS[0], PIXELS[..., None], PIXELS[:, 1:], PIXELS.astype(np.float64)):
            with pytest.raises(TensorMismatch, match="images are uint8 or float32"):
                classifier.answers(wrong)


@pytest.mark.parametrize("branchy", ["tflite", "executorch", "onnx"], indirect=True)
def test_answers_that_are_not_finite_are_errors(branchy: Made) -> None:
    """Core ML is left out: its images are whole numbers to 255, whatever it is given."""
    broken = np.full((1, SIDE, SIDE), np.nan, np.float32)
    with (
        Classifier.open(branchy.bundle) as classifier,
        pytest.raises(EngineError, match="stage 'exit': not all (logits|features) are finite"),
    ):
        classifier.answers(broken)


def test_color_images_are_arrays_of_three_channels(bundle: Bundle) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    rows = {}
    for engine in ENGINES:
        with Classifier.open(bundle, engine=engine) as classifier:
            rows[engine] = classifier.answers(pixels).logits
            with pytest.raises(TensorMismatch):
                classifier.answers(pixels[:, 0])
    np.testing.assert_allclose(rows["litert"], rows["onnxruntime"], atol=1e-3)
    np.testing.assert_allclose(rows["executorch"], rows["onnxruntime"], atol=1e-3)


def test_stages_see_one_kind_of_image(branchy: Made) -> None:
    manifest = branchy.bundle.manifest
    first, second = manifest.stages
    other = second.model_copy(
        update={"image": first.image.model_copy(update={"fit": "stretch"}) if first.image else None}
    )
    wrong = Bundle(branchy.bundle.path, manifest.model_copy(update={"stages": (first, other)}))
    with pytest.raises(BundleError, match="stage 'finish' sees other images than the first"):
        Classifier.open(wrong)
