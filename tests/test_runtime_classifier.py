"""A classifier picks an artifact it can run and answers as PyTorch does, or says what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from phoneward.bundle import MANIFEST, Bundle
from phoneward.errors import (
    ArtifactChanged,
    BundleError,
    EngineError,
    ImageError,
    MissingExtra,
    UnknownName,
)
from phoneward.names import Precision
from phoneward.runtime.classifier import Classifier

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
