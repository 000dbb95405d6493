"""Lints look at the interfaces of every function of a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phoneward.runtime.engines.mil.lints import lint
from phoneward.runtime.engines.mil.package import open_package
from tests.mil_packages import changed, convnet


def of_functions(spec: Any) -> None:
    """Describe the interface as that of a function, with a large input of a range of shapes."""
    function = spec.description.functions.add(name="main")
    function.input.extend(spec.description.input)
    function.output.extend(spec.description.output)
    spec.description.ClearField("input")
    spec.description.ClearField("output")
    array = function.input[0].type.multiArrayType
    array.shape[:] = [1, 3, 512, 512]
    for low, high in ((1, 1), (3, 3), (8, 512), (8, 512)):
        array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)


def test_inputs_of_functions_are_looked_at(tmp_path: Path) -> None:
    single = convnet(tmp_path / "single.mlpackage")
    assert not {"float32-border", "dynamic-shapes"} & {
        one.code for one in lint(open_package(single))
    }
    package = open_package(changed(single, tmp_path / "functions.mlpackage", of_functions))
    found = {one.code: one.ops for one in lint(package)}
    assert found["float32-border"] == ("x",)
    assert found["dynamic-shapes"] == ("x",)
