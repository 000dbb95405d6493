"""Target devices: silicon facts with their sources, and the artifacts each device is given."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from phoneward.errors import InvalidSpec, UnknownName
from phoneward.names import Precision
from phoneward.spec import Spec
from phoneward.toml import parse_toml

Format = Literal["coreml", "executorch", "tflite", "onnx"]
Confidence = Literal["primary", "secondary", "measured", "derived", "conflict"]
DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
FactName = Annotated[str, Field(pattern=r"^(cpu|isa|cache|gpu|npu|dram)_[a-z0-9]+(_[a-z0-9]+)*$")]
Text = Annotated[str, Field(min_length=1)]


class Fact(Spec):
    """One thing known of a device, and who says so.

    A number has a unit; text and true/false have none. `confidence` is `primary` (the maker, a
    compiler, a standard), `secondary` (press, data bases), `measured` (somebody's benchmark),
    `derived` (computed from other facts) or `conflict` (sources disagree; `source` says how).
    """

    value: str | int | float | bool
    unit: Text | None = None
    confidence: Confidence
    source: Text

    @field_validator("value", mode="before")
    @classmethod
    def _is_scalar(cls, value: object) -> object:
        if not isinstance(value, (str, int, float)):
            raise ValueError("must be text, a number, true or false")
        if value == "" or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError("must be neither empty nor infinite nor NaN")
        return value

    @model_validator(mode="after")
    def _numbers_have_units(self) -> Fact:
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if is_number and self.unit is None:
            raise ValueError("a number needs a unit")
        if not is_number and self.unit is not None:
            raise ValueError("only a number has a unit")
        return self


class DeviceExport(Spec):
    """One artifact that a device is given for every stage of a model."""

    format: Format
    precision: Precision


class _Header(Spec):
    """What stands under `[device]`."""

    name: DeviceName
    title: Text
    soc: Text
    os: Literal["ios", "android", "linux"]
    deployment_target: Literal["iOS17", "iOS18"] | None = None
    exports: Annotated[tuple[DeviceExport, ...], Field(min_length=1)]

    @field_validator("exports")
    @classmethod
    def _no_export_twice(cls, exports: tuple[DeviceExport, ...]) -> tuple[DeviceExport, ...]:
        for index, export in enumerate(exports):
            if export in exports[:index]:
                raise ValueError(f"{export.format} {export.precision} is listed twice")
        return exports

    @model_validator(mode="after")
    def _apple_alone_has_core_ml(self) -> _Header:
        if (self.os == "ios") != (self.deployment_target is not None):
            raise ValueError("a deployment_target is required for ios and refused elsewhere")
        if self.os != "ios" and any(export.format == "coreml" for export in self.exports):
            raise ValueError(f"coreml does not run on {self.os}")
        return self


class Device(_Header):
    """A phone or board that models are exported and priced for.

    Attributes:
        name: kebab-case, the stem of the device's file.
        title: the name as its maker writes it.
        soc: the system on chip.
        os: what the device runs.
        deployment_target: for `ios`, the oldest iOS that Core ML artifacts must load on.
        exports: formats with precisions, the preferred one first.
        facts: what is known of the silicon. What is not known is absent, never zero.
    """

    facts: dict[FactName, Fact] = Field(default_factory=dict)


class _DeviceFile(Spec):
    """A whole TOML file."""

    device: _Header
    facts: dict[FactName, Fact] = Field(default_factory=dict)


def device_names() -> tuple[str, ...]:
    """Return the names of all known devices, sorted."""
    return tuple(sorted(_known_files()))


def load_device(name: str) -> Device:
    """Read a device by name.

    Raises:
        UnknownName: there is no such device; the error lists those that there are.
        InvalidSpec: the device's file is malformed; the error names the file and the key.
    """
    known = _known_files()
    if name not in known:
        raise UnknownName("device", name, sorted(known))
    return parse_device(name, known[name].read_bytes())


def parse_device(name: str, content: bytes) -> Device:
    """Check the content of the file `<name>.toml`; raises `InvalidSpec` naming file and key."""
    file = f"{name}.toml"
    document = parse_toml(file, content)
    try:
        parsed = _DeviceFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{file}: {where}: {first['msg']}") from error
    if parsed.device.name != name:
        raise InvalidSpec(f"{file}: device.name: '{parsed.device.name}' is not the file's name")
    return Device.model_validate({**dict(parsed.device), "facts": parsed.facts})


def _known_files() -> dict[str, Any]:
    # Traversable has no import path that is good from Python 3.10 to 3.14, hence Any
    folder = files("phoneward.profiles") / "devices"
    return {
        file.name.removesuffix(".toml"): file
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    }
