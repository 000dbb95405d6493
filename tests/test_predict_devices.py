"""The devices of public measurements, and the files and chips they are known by here."""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path

import pytest

from phoneward.profiles.device import device_names, load_device
from phoneward.profiles.predict.socs import soc_name, socs

ROWS = list(
    csv.DictReader(
        (files("phoneward.profiles.predict") / "data" / "devices.csv")
        .read_text(encoding="utf-8")
        .splitlines()
    )
)
PUBLISHED = Path(__file__).parents[2] / "shared" / "reference" / "published_latency.csv"


def test_names_are_those_of_device_files() -> None:
    assert {row["name"] for row in ROWS if row["name"]} <= set(device_names())


def test_no_device_is_listed_twice() -> None:
    keys = [(row["device"], row["soc"]) for row in ROWS]
    assert len(keys) == len(set(keys))


def test_where_no_file_is_named_the_reason_is() -> None:
    unnamed = [row for row in ROWS if not row["name"] and row["form"] == "phone"]
    assert unnamed
    assert all(row["note"] for row in unnamed)


@pytest.mark.parametrize("row", [row for row in ROWS if row["name"]], ids=lambda row: row["device"])
def test_a_device_has_the_chip_of_its_file(row: dict[str, str]) -> None:
    assert soc_name(load_device(row["name"]).soc) == soc_name(row["soc"])


@pytest.mark.parametrize("name", device_names())
def test_the_chip_of_every_device_file_is_known(name: str) -> None:
    """Else nothing carries over to it from chips of its year and speed."""
    assert soc_name(load_device(name).soc) in socs()


def test_every_published_device_is_listed() -> None:
    if not PUBLISHED.exists():
        pytest.skip("the published latencies are not beside this checkout")
    with PUBLISHED.open(encoding="utf-8") as file:
        published = {(row["device"], row["soc"]) for row in csv.DictReader(file)}
    assert published == {(row["device"], row["soc"]) for row in ROWS}
