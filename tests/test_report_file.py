"""What comes from outside is checked on entry: an error names the file and the key."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phoneward.errors import OutputError, ReportError
from phoneward.profiles.report.compare import compare
from phoneward.profiles.report.file import parse_report, read_report, write_report
from phoneward.profiles.report.page.collection import to_json
from phoneward.profiles.report.page.markdown import to_markdown
from tests import reports

MEASURED = reports.report(warnings=("busy",))
ALL = (MEASURED, reports.tracker_report(), reports.predicted_report(), reports.emulated_report())

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["measured", "predicted", "emulated", "ok", "2026-01-01T00:00:00"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


def document(report: Any = MEASURED) -> Any:
    return json.loads(report.model_dump_json())


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in a document; of long lists only the first two."""
    found = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            found += places(inner, (*at, index))
    return found


def changed(path: tuple[Any, ...], value: Any, report: Any = MEASURED) -> Any:
    made = document(report)
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return made


def refusal(value: Any) -> str:
    with pytest.raises(ReportError) as caught:
        parse_report("phone.json", value if isinstance(value, str) else json.dumps(value))
    return str(caught.value)


@pytest.mark.parametrize("report", ALL, ids=["measured", "tracker", "predicted", "emulated"])
def test_what_is_written_is_read(report: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(report, path)
    assert read_report(path) == report
    assert [found.name for found in tmp_path.iterdir()] == ["report.json"]


RESULT = ("stages", 0, "result")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ((*RESULT, "samples_ns", 1), -5, "samples_ns.1"),
        ((*RESULT, "samples_ns", 1), 0, "samples_ns.1"),
        ((*RESULT, "samples_ns", 0), 10**40, "samples_ns.0"),
        ((*RESULT, "first_ns"), -1, "first_ns"),
        ((*RESULT, "first_ns"), 1.5, "first_ns"),
        ((*RESULT, "first_ns"), "18 ms", "first_ns"),
        ((*RESULT, "process_samples"), [10, 10], "process_samples must add up"),
        ((*RESULT, "median_interval_ns"), [20, 10], "median_interval_ns must go"),
        ((*RESULT, "samples_ns"), [], "samples_ns"),
        ((*RESULT, "memory", "peak_bytes"), -1, "memory.peak_bytes"),
        ((*RESULT, "sustained", 0, "p50_ns"), 0, "sustained.0.p50_ns"),
        (("created",), "2026-03-01T12:00:00", "created: Value error, a time of day needs its zone"),
        (("schema_version",), 2, "schema_version"),
        (("kind",), "bundle", "kind"),
        (("provenance",), "guessed", "provenance"),
        (("provenance",), "predicted", "the report says predicted"),
        (("stages",), [], "stages"),
        (("machine", "facts"), {"load": 1.3}, "machine.facts.load"),
        (("machine", "facts"), {"a": "\x1b[2J"}, "machine.facts.a: has a control character"),
        (("machine", "facts"), {"\x07": "a"}, "machine.facts.?: has a control character"),
        (("warnings",), ["\x9b31m"], "warnings.0: has a control character"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(path: Any, value: Any, told: str) -> None:
    message = refusal(changed(path, value))
    assert message.startswith("phone.json: ")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize("old", ["latency_ms", "interval_ms"])
def test_a_time_without_its_unit_is_refused(old: str) -> None:
    made = document(reports.predicted_report())
    result = made["stages"][0]["result"]
    result[old.removesuffix("_ms")] = result.pop(old)
    assert f"stages.0.result.predicted.{old}: Field required" in refusal(made)
    added = document(reports.predicted_report())
    added["stages"][0]["result"]["latency"] = 3.0
    message = refusal(added)
    assert "stages.0.result.predicted.latency" in message
    assert "times and sizes carry their unit in their name" in message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400", "-1"])
def test_a_time_that_is_no_number_is_refused(word: str) -> None:
    text = reports.predicted_report().model_dump_json()
    wrong = re.sub(r'"latency_ms":24\.0', f'"latency_ms":{word}', text, count=1)
    assert wrong != text
    assert "latency_ms" in refusal(wrong)


def test_provenances_do_not_mix() -> None:
    made = document()
    made["stages"] += document(reports.predicted_report())["stages"]
    assert "stage 'encode' is predicted, the report says measured" in refusal(made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        "nonsense",
        '{"kind": "latency"',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_report_is_refused(text: str) -> None:
    assert len(refusal(text)) < 400


def test_long_numbers_and_keys_are_told_briefly() -> None:
    assert len(refusal(changed(("schema_version",), "1" * 10_000))) < 400
    text = MEASURED.model_dump_json().replace(
        '"schema_version":1', f'"schema_version":{"9" * 10_000}'
    )
    assert len(refusal(text)) < 400
    made = {**document(), "x" * 10_000: 1}
    assert len(refusal(made)) < 400


def test_files_that_cannot_be_reports(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(100_000_000)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x80\x04")
    for path, told in (
        (large, "larger than 64 MB"),
        (binary, "is no text"),
        (tmp_path, "cannot be read"),
        (tmp_path / "absent.json", "No such file"),
    ):
        with pytest.raises(ReportError, match=re.escape(f"{path}: ")) as caught:
            read_report(path)
        assert told in str(caught.value)


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_any_change_is_read_or_refused_and_never_breaks_a_reader(data: st.DataObject) -> None:
    report = data.draw(st.sampled_from((MEASURED, *ALL[2:])))
    path = data.draw(st.sampled_from(places(document(report))))
    made = changed(path, data.draw(anything), report)
    if data.draw(st.booleans()):
        made = copy.deepcopy(made)
        made.pop(data.draw(st.sampled_from(sorted(made))))
    refused = None
    try:
        found = parse_report("phone.json", json.dumps(made))
    except ReportError as error:
        refused = str(error)
    if refused is not None:
        assert refused.startswith("phone.json: ")
        return
    # what was let in can be shown, compared and written again
    assert parse_report("again", found.model_dump_json())
    json.loads(to_json([found]), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert to_markdown([found, report])
    assert compare(report, found).pairs or compare(report, found).only_before


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_report(MEASURED, tmp_path / "absent" / "report.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_report(MEASURED, tmp_path / "taken")
    assert [found.name for found in tmp_path.iterdir()] == ["taken"]
