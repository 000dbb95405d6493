"""The registry: lazy, refuses duplicates, answers an unknown name with the known ones."""

from __future__ import annotations

import sys

import pytest

from phoneward.errors import DuplicateName, MissingExtra, UnknownName
from phoneward.registry import Entry, Registry


def test_object_is_imported_when_first_asked_for() -> None:
    sys.modules.pop("colorsys", None)
    registry: Registry[object] = Registry("tool", {"x": Entry("colorsys:rgb_to_hsv")})
    assert "colorsys" not in sys.modules
    assert registry.get("x") is sys.modules["colorsys"].rgb_to_hsv


def test_duplicate_is_refused() -> None:
    registry: Registry[object] = Registry("tool", {"x": Entry("json:loads")})
    with pytest.raises(DuplicateName, match="tool 'x' is registered already"):
        registry.register("x", Entry("json:dumps"))
    assert registry.entry("x").target == "json:loads"


def test_unknown_name_lists_the_known_ones_in_order() -> None:
    registry: Registry[object] = Registry("tool", {"b": Entry("m:x"), "a": Entry("m:y")})
    with pytest.raises(UnknownName, match="unknown tool 'c'; known: b, a"):
        registry.get("c")


def test_missing_package_is_answered_with_the_install_command() -> None:
    entry = Entry("no_such_vendor.module:thing", "vendor", ("no_such_vendor",))
    with pytest.raises(MissingExtra, match=r"pip install 'phoneward\[vendor\]'"):
        Registry("tool", {"x": entry}).get("x")


def test_a_broken_module_is_not_called_a_missing_extra() -> None:
    entry = Entry("no_such_vendor.module:thing", "vendor", ("other_vendor",))
    with pytest.raises(ModuleNotFoundError):
        Registry("tool", {"x": entry}).get("x")
