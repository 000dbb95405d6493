"""The device loader: what it accepts, and how it names what it refuses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from phoneward.errors import InvalidSpec, UnknownName
from phoneward.names import Precision
from phoneward.profiles.device import Device, Fact, device_names, load_device, parse_device
from phoneward.profiles.device_table import device_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parent.parent / "docs" / "devices.md"
TOML = """\
[device]
name = "test-phone"
title = "Test Phone"
soc = "T1"
os = "ios"
deployment_target = "iOS17"
exports = [{ format = "coreml", precision = "fp16" }, { format = "onnx", precision = "fp32" }]

[facts.dram_peak_gbps]
value = 34.1
unit = "GB/s"
confidence = "secondary"
source = "a page"

[facts.isa_i8mm]
value = false
confidence = "primary"
source = "a compiler"
"""


def _parse(old: str = "", new: str = "") -> Device:
    """Parse TOML with one text replaced, which must be there."""
    assert old in TOML
    return parse_device("test-phone", TOML.replace(old, new, 1).encode())


def test_a_whole_file_becomes_a_device() -> None:
    device = _parse()
    assert (device.name, device.soc, device.os) == ("test-phone", "T1", "ios")
    assert [(e.format, e.precision) for e in device.exports] == [
        ("coreml", Precision.FP16),
        ("onnx", Precision.FP32),
    ]
    assert device.facts["dram_peak_gbps"] == Fact(
        value=34.1, unit="GB/s", confidence="secondary", source="a page"
    )
    assert device.facts["isa_i8mm"].value is False


def test_a_device_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _parse().soc = "T2"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('soc = "T1"', 'soc = "T1"\ncolour = "red"', "device.colour"),
        ("[device]", 'colour = "red"\n[device]', "colour"),
        ('unit = "GB/s"', 'unit = "GB/s"\nnote = "x"', "facts.dram_peak_gbps.note"),
        ('source = "a page"\n', "", "facts.dram_peak_gbps.source"),
        ('source = "a page"', 'source = ""', "facts.dram_peak_gbps.source"),
        ('soc = "T1"\n', "", "device.soc"),
        ('soc = "T1"', "soc = 1", "device.soc"),
        ('"secondary"', '"rumour"', "facts.dram_peak_gbps.confidence"),
        ("value = 34.1", "value = [34.1]", "facts.dram_peak_gbps.value"),
        ("value = 34.1", "value = 2020-01-01", "facts.dram_peak_gbps.value"),
        ("value = 34.1", "value = nan", "facts.dram_peak_gbps.value"),
        ('unit = "GB/s"\n', "", "facts.dram_peak_gbps"),
        ("value = 34.1", 'value = "fast"', "facts.dram_peak_gbps"),
        ("facts.isa_i8mm", "facts.colour_red", "facts.colour_red"),
        ('os = "ios"', 'os = "symbian"', "device.os"),
        ('"iOS17"', '"iOS99"', "device.deployment_target"),
        ('"coreml"', '"caffe"', "device.exports.0.format"),
        ('"fp16"', '"fp12"', "device.exports.0.precision"),
        ('"onnx", precision = "fp32"', '"coreml", precision = "fp16"', "device.exports"),
        ('name = "test-phone"', 'name = "other-phone"', "device.name"),
        ('name = "test-phone"', 'name = "Test_Phone"', "device.name"),
        ('deployment_target = "iOS17"\n', "", "device"),
        ('os = "ios"', 'os = "android"', "device"),
        ('os = "ios"\ndeployment_target = "iOS17"', 'os = "linux"', "device"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(old: str, new: str, key: str) -> None:
    with pytest.raises(InvalidSpec, match=rf"^test-phone\.toml: {re.escape(key)}(\.\[key\])?: "):
        _parse(old, new)


def test_a_device_without_exports_is_refused() -> None:
    start, end = TOML.index("exports ="), TOML.index("[facts")
    content = TOML[:start] + "exports = []\n\n" + TOML[end:]
    with pytest.raises(InvalidSpec, match=r"^test-phone\.toml: device\.exports: "):
        parse_device("test-phone", content.encode())


@pytest.mark.parametrize(
    "content", [b"[device", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"9" * 5000]
)
def test_what_is_not_toml_is_named_with_its_file(content: bytes) -> None:
    with pytest.raises(InvalidSpec, match=r"^test-phone\.toml: not a TOML document"):
        parse_device("test-phone", content)


@given(st.binary(max_size=200))
def test_no_content_escapes_the_error_tree(content: bytes) -> None:
    with pytest.raises(InvalidSpec):
        parse_device("test-phone", content)


@given(st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_keeps_its_type_and_numbers_need_units(value: bool | int | float) -> None:
    is_bool = isinstance(value, bool)
    fact = Fact(value=value, unit=None if is_bool else "MB", confidence="primary", source="s")
    assert type(fact.value) is type(value)
    assert fact.value == value
    with pytest.raises(ValidationError, match="unit"):
        Fact(value=value, unit="MB" if is_bool else None, confidence="primary", source="s")


@pytest.mark.parametrize("name", ["iphone-99", "", "iPhone-12", "../devices/iphone-12"])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load_device(name)
    assert caught.value.kind == "device"
    assert caught.value.known == device_names()


def test_the_eight_devices_are_there() -> None:
    assert set(device_names()) >= {
        *("iphone-12", "iphone-14", "iphone-15-pro", "iphone-16-pro"),
        *("pixel-6", "pixel-8", "galaxy-s24", "raspberry-pi-5"),
    }


def test_the_table_in_the_docs_is_the_one_made_here() -> None:
    assert device_table(map(load_device, device_names())) in DOCS.read_text(encoding="utf-8")


def test_the_example_in_the_docs_is_a_device() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    name = tomllib.loads(example)["device"]["name"]
    assert parse_device(name, example.encode()).facts
