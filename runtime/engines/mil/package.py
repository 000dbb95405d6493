"""Core ML packages on disk: found, checked, and read as coremltools' programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.blobs import check_blob

_MANIFEST = "Manifest.json"
_MODEL_ROOT = "@model_path/"
_PROGRAM = "mlProgram"


@dataclass(frozen=True)
class Package:
    """A package whose parts are all there: its `Model` message and its folder of weights."""

    path: Path
    spec: Any
    weights: Path

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the program's functions, sorted."""
        return tuple(sorted(self.spec.mlProgram.functions))

    @property
    def default_function(self) -> str:
        """The function that Core ML runs unless told otherwise."""
        return self.spec.description.defaultFunctionName or "main"

    def op_types(self, function: str | None = None) -> Counter[str]:
        """Count the op types of one function, or of all; knows none of the ops."""
        names = self.functions if function is None else (function,)
        blocks = [b for name in names for b in _blocks(self.spec.mlProgram.functions[name])]
        return Counter(op.type for block in blocks for op in _operations(block))

    def program(self) -> Any:
        """Read it with coremltools' own reader, as a `coremltools` MIL program.

        Raises:
            EngineError: the reader refuses it: dangling or cyclic references, unknown ops,
                tensors that do not fit together.
        """
        from coremltools.converters.mil.frontend.milproto.load import load

        try:
            return load(self.spec, self.spec.specificationVersion, str(self.weights))
        except Exception as error:  # the reader raises anything over a damaged program
            raise EngineError(f"{self.path}: not a valid ML program: {_reason(error)}") from error


def open_package(path: Path) -> Package:
    """Find the parts of a `.mlpackage` and check that they fit together.

    Every weight that the program names must lie in the package's own folder of weights, whole.

    Raises:
        EngineError: the folder is no package, holds something else than an ML program, was
            written by a later Core ML, or names weights that are missing, cut or elsewhere.
    """
    model = _model_file(path)
    spec = _read_spec(path, model)
    package = Package(path, spec, model.parent / "weights")
    _check_version(package)
    _check_weights(package)
    return package


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        raise EngineError(f"{path}: not a Core ML package: no such folder")
    # a pipe of that name would never end
    if not _is_file(path / _MANIFEST):
        raise EngineError(f"{path}: not a Core ML package: it has no {_MANIFEST}")
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        relative = PurePosixPath(item)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise EngineError(f"{path}: its {_MANIFEST} names no model") from error
    if relative.is_absolute() or ".." in relative.parts:
        raise EngineError(f"{path}: its model lies outside the package: {item}")
    model = path / "Data" / relative
    if not _is_file(model):
        raise EngineError(f"{path}: its model is missing: {model.relative_to(path)}")
    if not model.resolve().is_relative_to(path.resolve()):
        raise EngineError(f"{path}: its model leads outside the package: {item}")
    return model


def _read_spec(path: Path, model: Path) -> Any:
    from coremltools import proto
    from google.protobuf.message import DecodeError

    spec = proto.Model_pb2.Model()
    try:
        spec.ParseFromString(model.read_bytes())
    except (DecodeError, OSError) as error:
        raise EngineError(f"{path}: {model.name} cannot be read: {_reason(error)}") from error
    kind = spec.WhichOneof("Type")
    if kind != _PROGRAM:
        raise EngineError(f"{path}: holds {kind or 'no model'}, where an ML program is meant")
    if not spec.mlProgram.functions:
        raise EngineError(f"{path}: its program has no functions")
    return spec


def _check_version(package: Package) -> None:
    from coremltools.converters.mil._deployment_compatibility import AvailableTarget

    version = package.spec.specificationVersion
    # ML programs came with iOS 15
    known = [t.value for t in AvailableTarget if t.value >= AvailableTarget.iOS15.value]
    if version not in known:
        raise EngineError(
            f"{package.path}: specification version {version}; ML programs that can be read have "
            f"{min(known)} to {max(known)}"
        )


def _check_weights(package: Package) -> None:
    checked: set[tuple[str, int]] = set()
    for function in package.spec.mlProgram.functions.values():
        for block in _blocks(function):
            for op in _operations(block):
                for value in _values(op):
                    blob = value.blobFileValue
                    if (blob.fileName, blob.offset) not in checked:
                        checked.add((blob.fileName, blob.offset))
                        check_blob(_blob_file(package, blob.fileName, op), blob.offset, value)


def _blob_file(package: Package, name: str, op: Any) -> Path:
    """Where a weight lies; coremltools looks at the last part of the name alone."""
    expected = f"{_MODEL_ROOT}weights/"
    inside = name.removeprefix(expected)
    if not name.startswith(expected) or len(PurePosixPath(inside).parts) != 1 or inside == "..":
        raise EngineError(
            f"{package.path}: op '{_name(op)}' has its weights outside the package: {name}"
        )
    file = package.weights / inside
    if not _is_file(file):
        raise EngineError(f"{package.path}: weights are missing: {file.relative_to(package.path)}")
    # a link would lead out of the package as well
    if not file.resolve().is_relative_to(package.path.resolve()):
        raise EngineError(f"{package.path}: {inside} leads outside the package")
    return file


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _blocks(function: Any) -> Iterator[Any]:
    yield from function.block_specializations.values()


def _operations(block: Any) -> Iterator[Any]:
    for op in block.operations:
        yield op
        for nested in op.blocks:
            yield from _operations(nested)


def _values(op: Any) -> Iterator[Any]:
    values = list(op.attributes.values())
    for argument in op.inputs.values():
        values += [b.value for b in argument.arguments if b.WhichOneof("binding") == "value"]
    yield from (blob for value in values for blob in _blobs(value))


def _blobs(value: Any) -> Iterator[Any]:
    """The values in files among a value and, in a list or dictionary, its items."""
    if value.WhichOneof("value") == "blobFileValue":
        yield value
        return
    immediate = value.immediateValue
    items = [*immediate.list.values, *immediate.tuple.values]
    for pair in immediate.dictionary.values:
        items += [pair.key, pair.value]
    for item in items:
        yield from _blobs(item)


def _name(op: Any) -> str:
    return str(op.outputs[0].name if op.outputs else op.type)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().strip("'\"").splitlines() or [""]
    # a name or a number alone says nothing without its kind of error
    return lines[0] if " " in lines[0] else f"{type(error).__name__} {lines[0]}".strip()
