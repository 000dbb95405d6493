"""What holds for every device file, those added later included."""

from __future__ import annotations

from typing import get_args

import pytest

from phoneward.profiles.device import Confidence, Format, device_names, load_device

ISA_FLAGS = {"isa_neon", "isa_fp16_arith", "isa_dotprod", "isa_i8mm", "isa_bf16"}


@pytest.mark.parametrize("name", device_names())
def test_a_device_file_is_whole(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.title
    assert device.soc
    assert device.exports
    assert {export.format for export in device.exports} <= set(get_args(Format))


@pytest.mark.parametrize("name", device_names())
def test_every_fact_has_a_source_a_confidence_and_a_unit(name: str) -> None:
    for fact in load_device(name).facts.values():
        assert fact.source.strip() == fact.source != ""
        assert fact.confidence in get_args(Confidence)
        if isinstance(fact.value, (int, float)) and not isinstance(fact.value, bool):
            assert fact.unit
            assert fact.value >= 0


@pytest.mark.parametrize("name", device_names())
def test_what_decides_over_arithmetic_is_known(name: str) -> None:
    """The gain of int8 and fp16 on a CPU hangs on these; a device without them cannot be priced."""
    facts = load_device(name).facts
    assert facts.keys() >= ISA_FLAGS
    assert all(isinstance(facts[flag].value, bool) for flag in ISA_FLAGS)
    assert "cpu_cores" in facts


@pytest.mark.parametrize("name", device_names())
def test_the_preferred_export_suits_the_system(name: str) -> None:
    device = load_device(name)
    assert device.exports[0].format == ("coreml" if device.os == "ios" else "tflite")


@pytest.mark.parametrize("name", device_names())
def test_a_fact_has_one_unit_and_one_type_on_all_devices(name: str) -> None:
    """Whoever reads `dram_peak_gbps` need not ask which device it came from."""
    mine = load_device(name).facts
    for other in device_names():
        for key, fact in load_device(other).facts.items():
            if key in mine:
                assert (mine[key].unit, type(mine[key].value)) == (fact.unit, type(fact.value)), (
                    f"{key} differs between {name} and {other}"
                )
