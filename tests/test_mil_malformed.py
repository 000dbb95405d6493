"""A package that is not sound ends in one clear `EngineError`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.program import Program
from tests.mil_packages import (
    MANIFEST,
    MODEL,
    WEIGHTS,
    changed,
    convnet,
    operation,
    operations,
    read,
)

FEEDS = {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}
FOLDER = "@model_path/weights/"
OUTSIDE = "@model_path/weights/../../../../secret.bin"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convnet(tmp_path_factory.mktemp("sound") / "sound.mlpackage")


def ends(path: Path) -> dict[str, Any]:
    return Program.load(path)(FEEDS)


def refused(path: Path, message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        ends(path)
    assert "\n" not in str(caught.value)


def test_the_package_that_the_others_are_made_of_runs(sound: Path) -> None:
    assert float(ends(sound)["scores"].sum()) == pytest.approx(1, abs=2e-3)


def blob_offset(spec: Any) -> int:
    values = [op.attributes["val"] for op in operations(spec) if op.type == "const"]
    return next(v.blobFileValue.offset for v in values if v.WhichOneof("value") != "immediateValue")


def name_weights(name: str) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        for op in operations(spec):
            value = op.attributes["val"]
            if op.type == "const" and value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = name

    return change


def move_weights(by: int) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        for op in operations(spec):
            value = op.attributes["val"]
            if op.type == "const" and value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.offset += by

    return change


def weights_at(offset: int) -> Callable[[Any], None]:
    return lambda spec: move_weights(offset - blob_offset(spec))(spec)


def weights_in_a_list(spec: Any) -> None:
    value = operation(spec, "relu").inputs["x"].arguments.add().value
    blob = value.immediateValue.list.values.add().blobFileValue
    blob.fileName = OUTSIDE


def no_axis(spec: Any) -> None:
    (axis,) = [op for op in operations(spec) if op.outputs[0].name == "scores_axis_0"]
    value = axis.attributes["val"]
    value.type.tensorType.rank = 1
    value.type.tensorType.dimensions.add().constant.size = 0
    value.immediateValue.tensor.ints.ClearField("values")
    axis.outputs[0].type.CopyFrom(value.type)


def retype(kind: str, to: str) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        operation(spec, kind).type = to

    return change


def reread(kind: str, argument: str, name: str) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        operation(spec, kind).inputs[argument].arguments[0].name = name

    return change


def without_block(spec: Any) -> None:
    spec.mlProgram.functions["main"].opset = "CoreML9"


def missing_output(spec: Any) -> None:
    main = spec.mlProgram.functions["main"]
    main.block_specializations[main.opset].outputs[0] = "nothing"


def extra_input(spec: Any) -> None:
    spec.description.input.add().CopyFrom(spec.description.input[0])
    spec.description.input[-1].name = "mask"


def renamed_output(spec: Any) -> None:
    spec.description.output[0].name = "logits"


def other_size(spec: Any) -> None:
    spec.description.input[0].type.multiArrayType.shape[3] = 9


def no_element_type(spec: Any) -> None:
    spec.description.input[0].type.multiArrayType.dataType = 0


def wrong_shape(spec: Any) -> None:
    sizes = operation(spec, "conv").outputs[0].type.tensorType.dimensions
    sizes[1].constant.size = 7


def long_shape(spec: Any) -> None:
    shape = [op for op in operations(spec) if op.outputs[0].name == "reshape_0_shape_0"]
    shape[0].attributes["val"].immediateValue.tensor.ints.values[1] = 2**31 - 1


def version(number: int) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        spec.specificationVersion = number

    return change


def neural_network(spec: Any) -> None:
    spec.neuralNetwork.layers.add().name = "conv"


def pipeline(spec: Any) -> None:
    spec.pipeline.models.add()


def nothing(spec: Any) -> None:
    spec.ClearField("mlProgram")


def no_functions(spec: Any) -> None:
    spec.mlProgram.ClearField("functions")


def other_function(spec: Any) -> None:
    spec.mlProgram.functions["second"].CopyFrom(spec.mlProgram.functions["main"])
    del spec.mlProgram.functions["main"]


def other_opset(spec: Any) -> None:
    operation(spec, "relu").inputs["alpha"].CopyFrom(operation(spec, "relu").inputs["x"])


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "weights in another folder": (name_weights(OUTSIDE), "outside the package"),
    "weights at an absolute path": (name_weights("/etc/hosts"), "outside the package"),
    "weights in a folder": (name_weights("@model_path/weights/.."), "outside the package"),
    "weights without a name": (name_weights("@model_path/weights/"), "outside the package"),
    "weights of another name": (name_weights("@model_path/weights/b.bin"), "weights are missing"),
    "weights of a name too long": (name_weights(f"{FOLDER}{'x' * 5000}"), "weights are missing"),
    "weights of no possible name": (name_weights(f"{FOLDER}a\0b"), "weights are missing"),
    "weights in a list, elsewhere": (weights_in_a_list, "outside the package"),
    "weights past all files": (weights_at(2**62), "no weights at byte"),
    "weights past all numbers": (weights_at(2**63), "no weights at byte"),
    "no number for an axis": (no_axis, r"/changed.mlpackage: op 'scores.*' \(softmax\): .*'axis'"),
    "weights past the end": (move_weights(2**40), "no weights at byte"),
    "weights between two records": (move_weights(64), "no record of weights"),
    "an unknown op": (retype("relu", "frobnicate"), "not known here: frobnicate"),
    "a layer of one's own": (retype("relu", "custom_layer"), "not known here: custom_layer"),
    "an input that the op has not": (other_opset, "alpha"),
    "a dangling reference": (reread("conv", "x", "nowhere"), "nowhere not found"),
    "a cyclic reference": (reread("conv", "x", "rectified_cast_fp16"), "rectified.* not found"),
    "no block for the opset": (without_block, "CoreML9"),
    "an output that no op makes": (missing_output, "nothing not found"),
    "an input that the function has not": (extra_input, "inputs x, mask where .* has x$"),
    "another output": (renamed_output, "outputs logits where .* has scores$"),
    "an input of another size": (other_size, r"'x' as \(1, 3, 8, 9\) where"),
    "an input without element type": (no_element_type, "'x' without its element type"),
    "a shape that contradicts the op": (wrong_shape, "Mismatch between var types"),
    "a shape of more than there is": (long_shape, "not a valid ML program: .*reshape"),
    "a version before ML programs": (version(5), "specification version 5; .* 6 to"),
    "a version to come": (version(99), "specification version 99"),
    "a neural network": (neural_network, "holds neuralNetwork"),
    "a pipeline": (pipeline, "holds pipeline,"),
    "no model": (nothing, "holds no model"),
    "no functions": (no_functions, "no functions"),
    "another function": (other_function, "no function 'main'; it has second"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_contradiction_is_named(name: str, sound: Path, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    refused(changed(sound, tmp_path / "changed.mlpackage", change), message)


def copied(sound: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.mlpackage"
    shutil.copytree(sound, path)
    return path


def test_weights_that_are_cut_missing_or_damaged(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    weights = path / WEIGHTS
    whole, offset = weights.read_bytes(), blob_offset(read(path))
    for part in (len(whole) - 1, offset + 64, offset + 10, 10, 0):
        weights.write_bytes(whole[:part])
        refused(path, "truncated")
    damaged = bytearray(whole)
    damaged[offset] ^= 1
    weights.write_bytes(bytes(damaged))
    refused(path, f"no record of weights at byte {offset}")
    longer = bytearray(whole)
    longer[offset + 8] += 2  # the size in bytes of the record
    weights.write_bytes(bytes(longer))
    refused(path, r"weight.bin: \d+ bytes at byte \d+, where a tensor needs")
    retyped = bytearray(whole)
    retyped[offset + 4] += 1  # its element type
    weights.write_bytes(bytes(retyped))
    refused(path, "not a valid ML program: .* type")
    weights.unlink()
    refused(path, "weights are missing")


def test_links_out_of_the_package(sound: Path, tmp_path: Path) -> None:
    for part in (WEIGHTS, MODEL):
        path = copied(sound, tmp_path)
        (path / part).rename(tmp_path / "elsewhere")
        (path / part).symlink_to(tmp_path / "elsewhere")
        refused(path, "leads outside the package")
        shutil.rmtree(path)


def manifest(item: Any) -> str:
    return json.dumps({"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": item}}})


MANIFESTS = {
    "garbage": ("\0\x01{", "names no model"),
    "a list": ("[]", "names no model"),
    "nesting": ("[" * 100_000, "names no model"),
    "no root": ('{"itemInfoEntries": {}}', "names no model"),
    "no text": (manifest(5), "names no model"),
    "a parent": (manifest("../../other/model.mlmodel"), "outside the package"),
    "a root": (manifest("/etc/hosts"), "outside the package"),
    "nothing there": (manifest("com.apple.CoreML/none.mlmodel"), "its model is missing"),
    "a folder": (manifest("com.apple.CoreML"), "its model is missing"),
    "a name too long": (manifest("x" * 5000), "its model is missing"),
    "the weights": (manifest("com.apple.CoreML/weights/weight.bin"), "cannot be read|no model"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_names_no_model_inside(name: str, sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    text, message = MANIFESTS[name]
    (path / MANIFEST).write_text(text)
    refused(path, message)


def test_no_package_at_all(sound: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none.mlpackage", "no such folder")
    refused(sound / MODEL, "no such folder")
    path = copied(sound, tmp_path)
    (path / MANIFEST).unlink()
    refused(path, "no Manifest.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(path / MANIFEST)
        refused(path, "no Manifest.json")


def test_arrays_that_do_not_fit(sound: Path) -> None:
    program = Program.load(sound)
    image = FEEDS["x"]
    for feeds, message in (
        ({}, "takes x; got none"),
        ({"x": image, "y": image}, "takes x; got x, y"),
        ({"x": image[0]}, r"takes shape \(1, 3, 8, 8\), got \(3, 8, 8\)"),
        ({"x": image.astype("U9")}, "takes numbers"),
    ):
        with pytest.raises(EngineError, match=message):
            program(feeds)


def fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every field of a message that is set, those of messages inside included."""
    for field, value in message.ListFields():
        yield message, field
        inner = [value]
        if field.is_repeated:
            keyed = hasattr(value, "items")
            inner = list(value.values()) if keyed else list(value)
        yield from (pair for one in inner if hasattr(one, "ListFields") for pair in fields(one))


def altered(value: Any, draw: st.DataObject) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = st.sampled_from([0, 1, -1, value + 1, value - 1, 2**31 - 1, 2**40, 2**62])
        return draw.draw(near)
    if isinstance(value, str):
        return draw.draw(st.sampled_from(["", value + "x", "main", "x", "conv", "add"]))
    return type(value)()


def alter(message: Any, field: Any, draw: st.DataObject) -> None:
    value = getattr(message, field.name)
    if not field.is_repeated and not hasattr(value, "ListFields"):
        try:
            setattr(message, field.name, altered(value, draw))
        except ValueError:  # a number that the field cannot hold
            message.ClearField(field.name)
    elif (
        field.is_repeated
        and not hasattr(value, "items")
        and len(value)
        and draw.draw(st.booleans())
    ):
        del value[draw.draw(st.integers(0, len(value) - 1))]
    else:
        message.ClearField(field.name)


fuzzed = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def ends_somehow(path: Path) -> None:
    """It runs to its end, or one clear error says why not."""
    try:
        scores: dict[str, Any] = ends(path)
    except EngineError as error:
        scores = {"error": str(error)}
    assert all(isinstance(a, np.ndarray) or "\n" not in a for a in scores.values())


@fuzzed
@given(draw=st.data())
def test_any_field_may_be_wrong(draw: st.DataObject, sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "fields.mlpackage"
    if not path.exists():
        shutil.copytree(sound, path)
    spec = read(sound)
    every = list(fields(spec))
    for _ in range(draw.draw(st.integers(1, 2))):
        alter(*every[draw.draw(st.integers(0, len(every) - 1))], draw)
    (path / MODEL).write_bytes(spec.SerializeToString())
    ends_somehow(path)


@fuzzed
@given(draw=st.data(), part=st.sampled_from([MODEL, WEIGHTS]))
def test_any_byte_may_be_wrong(draw: st.DataObject, part: str, sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "bytes.mlpackage"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(sound, path)
    data = bytearray((sound / part).read_bytes())
    at = draw.draw(st.integers(0, len(data) - 1))
    kind = draw.draw(st.sampled_from(["cut", "flip", "drop"]))
    if kind == "cut":
        del data[at:]
    elif kind == "flip":
        data[at] ^= draw.draw(st.integers(1, 255))
    else:
        del data[at : at + draw.draw(st.integers(1, 20))]
    (path / part).write_bytes(bytes(data))
    ends_somehow(path)


def test_fields_are_all_found(sound: Path) -> None:
    kinds = {field.containing_type.name for _, field in fields(read(sound))}
    assert {"Model", "FeatureDescription", "Operation", "BlobFileValue", "Argument"} <= kinds
