"""The page is one safe file: nothing of a report acts in it, and every figure is marked."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from phoneward.bundle import Delegation
from phoneward.errors import MissingExtra
from phoneward.profiles.report.file import parse_report
from phoneward.profiles.report.page.collection import to_json
from phoneward.profiles.report.page.html import to_html
from phoneward.profiles.report.page.markdown import to_markdown
from phoneward.profiles.report.schema import LatencyReport
from tests import reports

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    "\"'><style>*{}</style>{{7*7}}$x^2$"
)
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)

    def classed(self, name: str) -> int:
        return sum(name in (one.get("class") or "").split() for _, one in self.tags)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def full() -> list[LatencyReport]:
    return [
        reports.tracker_report(),
        reports.predicted_report(52.0),
        reports.emulated_report(),
    ]


@pytest.fixture(scope="module")
def text(full: list[LatencyReport]) -> str:
    return to_html(full)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def poisoned(value: Any, key: str = "") -> Any:
    """Put markup wherever a report has free text."""
    fixed = {"kind", "provenance", "created", "precision", "status", "artifact_sha256"}
    if isinstance(value, dict):
        return {
            (HOSTILE if key in ("facts", "tools", "fallback", "by_class") else name): poisoned(
                inner, name
            )
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [poisoned(inner, key) for inner in value]
    return HOSTILE if isinstance(value, str) and key not in fixed | {"ops_kinds"} else value


def test_the_page_is_one_file_that_asks_for_nothing(text: str, page: Page) -> None:
    assert len(text) < 500_000
    assert page.count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "base")]
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#")
    assert not re.search(r"@import|url\((?!#)|http-equiv=.refresh", text)
    policies = [one["content"] for tag, one in page.tags if "http-equiv" in one]
    assert policies
    assert (policies[0] or "").startswith("default-src 'none'")


def test_equal_reports_give_equal_pages(full: list[LatencyReport], text: str) -> None:
    assert text == to_html([parse_report("x", one.model_dump_json()) for one in full])


def test_ids_are_unique_and_references_meet_them(page: Page) -> None:
    ids = [one["id"] for _, one in page.tags if "id" in one]
    assert len(ids) == len(set(ids))
    used = [one["xlink:href"] for _, one in page.tags if "xlink:href" in one]
    used += [found for _, one in page.tags for found in re.findall(r"url\((#[^)]*)\)", str(one))]
    assert used
    assert {name[1:] for name in used if name} <= set(ids)


@pytest.mark.parametrize(
    "report",
    [reports.tracker_report(), reports.predicted_report(), reports.emulated_report()],
    ids=["measured", "predicted", "emulated"],
)
def test_text_of_a_hostile_report_stays_text(report: LatencyReport) -> None:
    document = poisoned(json.loads(report.model_dump_json()))
    for stage in document["stages"]:
        for kernel in stage["kernels"]:
            kernel["kind"] = "conv"
    hostile = LatencyReport.model_validate({**document, "kind": "latency"})
    plain, found = Page(to_html([report])), Page(to_html([hostile]))
    for tag in ("script", "style", "img"):
        assert found.count(tag) == plain.count(tag)
    assert HOSTILE in found.text
    markdown = to_markdown([hostile])
    assert not re.search(r"(?<!\\)<", markdown)
    assert {
        line.count("|") - line.count(r"\|") for line in markdown.splitlines() if line[:1] == "|"
    }


def test_every_figure_has_its_provenance(page: Page) -> None:
    # ten stages, nine of them with bars for time, distribution, memory and ops
    assert page.classed("badge") >= 9 * 5
    for word in ("measured", "predicted", "emulated"):
        assert page.classed(word) > 0
    tracks = [one for _, one in page.tags if one.get("class") == "track"]
    assert len(tracks) == 9 + 1 + 9
    bars = [
        one["class"] for tag, one in page.tags if tag == "i" and "width" in (one["style"] or "")
    ]
    assert "emulated" not in bars
    assert bars.count("predicted") == 1


def test_the_page_tells_what_the_reports_hold(page: Page) -> None:
    for told in (
        "efficienttam_ti_512x512",
        "the machine was busy: load average 1.3",
        "encoder.trunk.blocks.0.attn.qkv",
        "20 more ops take",
        "2 aten.grid_sampler (no measurement has it)",
        "half precision is not faster on this core",
        "17.0 GB/s",
        "performance",
        "2 GATHER_ND",
        "equal in 2 runs",
    ):
        assert told in page.text, told
    assert page.count("svg") == 9 + 5 + 3


def test_charts_take_the_pages_colours(text: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawings
    for drawing in drawings:
        assert "var(--" in drawing
        assert not re.search(r"(?:fill|stroke): #", drawing)
        assert "<text" in drawing


def test_empty_parts_are_left_out() -> None:
    bare = reports.measured(
        samples_ns=(), process_samples=(), median_interval_ns=None, first_ns=None, memory=None,
        cold_load_ns=(), warm_load_ns=(), ops=(), sustained=(), aggregate=reports.aggregate(),
    )  # fmt: skip
    stage = reports.stage(result=bare, parity=None, delegation=None, format=None, precision=None)
    report = reports.report(stage, tools={})
    found = Page(to_html([report]))
    assert "20.0 ms (mean)" in found.text
    assert "No engine in these reports told the times of single ops." in found.text
    for absent in ("Distribution", "Sustained", "Peak memory", "Roofline", "Prediction next"):
        assert absent not in found.text
    assert not re.search(r"\b(nan|None)\b", found.text)
    assert "20.0 ms" in to_markdown([report])


def test_a_prediction_is_judged_on_its_own_device_only() -> None:
    measured, same = reports.report(), reports.predicted_report(20.0)
    other = same.model_copy(
        update={"machine": same.machine.model_copy(update={"device": "pixel-8"})}
    )
    judged = json.loads(to_json([measured, same, other]))["predictions"]
    assert [one["inside"] for one in judged] == [True, None]
    assert judged[0]["ratio"] == pytest.approx(1, abs=0.05)
    far = json.loads(to_json([measured, reports.predicted_report(200.0)]))["predictions"]
    assert far[0]["inside"] is False


def test_a_prediction_that_tells_no_precision_meets_the_measurement() -> None:
    predicted = reports.predicted_report(20.0)
    stage = predicted.stages[0].model_copy(update={"precision": None})
    bare = predicted.model_copy(update={"stages": (stage,)})
    assert len(json.loads(to_json([reports.report(), bare]))["predictions"]) == 1


def test_stages_of_two_models_are_kept_apart() -> None:
    one = reports.report()
    other = one.model_copy(update={"subject": one.subject.model_copy(update={"model": "other"})})
    text = Page(to_html([one, other])).text
    assert "other: encode" in text
    assert "efficienttam_ti_512x512: encode" in text


def test_json_holds_the_reports_as_they_were(full: list[LatencyReport]) -> None:
    document = json.loads(to_json(full))
    again = [LatencyReport.model_validate_json(json.dumps(one)) for one in document["reports"]]
    assert again == full
    assert {one["unit"] for row in document["figures"] for one in row["figures"]} == {
        "ms",
        "MB",
        "",
    }
    assert {row["provenance"] for row in document["figures"]} == {
        "measured",
        "predicted",
        "emulated",
    }


def test_what_fell_back_is_told() -> None:
    delegation = Delegation(delegate="XNNPACK", partitions=1, delegated_ops=3, fallback={})
    assert "none" in to_markdown([reports.report(reports.stage(delegation=delegation))])


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_told(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} .*phoneward\[report\]"):
        to_html([reports.report()])
