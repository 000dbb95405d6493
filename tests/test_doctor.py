"""The doctor, run for real: here, and in an environment that has no torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from phoneward.apps.cli.pieces import (
    Finding,
    Need,
    Scope,
    examine,
    failures,
    known_good_versions,
    load_pieces,
    normalized,
)
from phoneward.toml import parse_toml

ROOT = Path(__file__).parent.parent
PROJECT = parse_toml("pyproject.toml", (ROOT / "pyproject.toml").read_bytes())["project"]


def doctor(
    python: Path | str, *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "phoneward", "doctor", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PHONEWARD_CACHE": str(cwd / "cache"), **environment},
    )


def told(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


def piece(answer: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [row for row in answer["pieces"] if row["name"] == name]
    return dict(found)


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Names of distributions and of all they need here, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normalized(waiting.pop())
        if name not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [n.name for n in needs if not n.marker or n.marker.evaluate({"extra": ""})]
    return found


def link_distribution(name: str, site: Path) -> None:
    """Install a distribution by linking what it installed here."""
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        link = site / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))))


def stated(folder: Path, **versions: str) -> str:
    """Metadata that comes before an environment's own: distribution names to versions."""
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        name_line = f"Name: {name.replace('_', '-')}"
        text = f"Metadata-Version: 2.1\n{name_line}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    return str(folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what `pip install phoneward` brings, and no more."""
    root = tmp_path_factory.mktemp("bare")
    venv.create(root, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(root)}))
    for name in with_dependencies(Requirement(need).name for need in PROJECT["dependencies"]):
        link_distribution(name, site)
    (site / "phoneward.pth").write_text(str(ROOT / "src"))
    return root / "bin" / "python"


def test_all_is_well_here(tmp_path: Path) -> None:
    result = doctor(sys.executable, "--json", cwd=tmp_path)
    answer = told(result)
    assert (result.returncode, answer["ok"], answer["for"]) == (0, True, "export")
    assert answer["problems"] == []
    assert {row["state"] for row in answer["pieces"]} == {"ok"}
    assert {row["install"] for row in answer["pieces"]} == {None}
    torch = piece(answer, "torch")
    assert torch["installed"].partition("+")[0] == torch["known_good"]
    assert answer["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_table_names_every_piece_and_the_outcome(tmp_path: Path) -> None:
    result = doctor(sys.executable, cwd=tmp_path)
    lines = result.stdout.splitlines()
    for name in ("torch", "coremltools", "executorch", "litert-torch", "onnx"):
        assert any(re.match(rf"│ {name} +│", line) for line in lines)
    assert lines[-1] == "Everything for export is here at its known-good version."


def test_it_imports_no_vendor_package(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['phoneward', 'doctor']\n"
        "from phoneward.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'coremltools', 'executorch', 'onnx', 'onnxruntime',"
        " 'ai_edge_litert', 'ai_edge_quantizer', 'litert_torch', 'tflite_runtime'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_size_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache" / "entry").mkdir(parents=True)
    (tmp_path / "cache" / "entry" / "artifact").write_bytes(b"x" * 1234)
    answer = told(doctor(sys.executable, "--json", cwd=tmp_path))
    assert answer["cache"] == {"path": str(tmp_path / "cache"), "bytes": 1234}


def test_without_torch_and_engine(bare: Path, tmp_path: Path) -> None:
    result = doctor(bare, "--json", cwd=tmp_path)
    answer = told(result)
    assert (result.returncode, answer["ok"], answer["for"]) == (1, False, "runtime")
    (problem,) = answer["problems"]
    assert problem.startswith("no engine (one of ")
    assert piece(answer, "numpy")["state"] == "ok"
    engine = piece(answer, "ai-edge-litert")
    assert (engine["state"], engine["installed"]) == ("missing", None)
    assert engine["install"] == "pip install 'phoneward[litert]'"


def test_one_engine_is_enough_to_run(bare: Path, tmp_path: Path) -> None:
    known = known_good_versions()["ai-edge-litert"]
    path = stated(tmp_path / "meta", ai_edge_litert=f"{known}+local")
    result = doctor(bare, "--json", cwd=tmp_path, PYTHONPATH=path)
    answer = told(result)
    assert (result.returncode, answer["problems"]) == (0, [])
    assert piece(answer, "ai-edge-litert")["installed"] == f"{known}+local"
    assert piece(answer, "onnxruntime")["state"] == "missing"


def test_exporting_without_torch(bare: Path, tmp_path: Path) -> None:
    result = doctor(bare, "--for", "export", cwd=tmp_path)
    assert result.returncode == 1
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("│ coremltools ")]
    assert "missing" in row
    assert "pip install 'phoneward[coreml]'" in row
    assert "torch missing" in result.stderr
    assert "efficientnet" not in result.stderr
    last = result.stdout.splitlines()[-1]
    constraints = re.search(r"pip install -c '(.+)' 'phoneward\[export\]'", last)
    assert constraints
    assert Path(constraints[1]).read_bytes() == (ROOT / "constraints.txt").read_bytes()


def test_another_version_differs(bare: Path, tmp_path: Path) -> None:
    """Which is a failure for the converters; the runtime takes ranges."""
    path = stated(tmp_path / "meta", rich="13.8.0", onnxruntime="1.21.0")
    result = doctor(bare, "--json", "--for", "export", cwd=tmp_path, PYTHONPATH=path)
    assert result.returncode == 1
    assert "rich differs" in told(result)["problems"]
    result = doctor(bare, "--json", cwd=tmp_path, PYTHONPATH=path)
    answer = told(result)
    known = known_good_versions()
    assert (result.returncode, answer["problems"]) == (0, [])
    assert piece(answer, "rich")["install"] == f"pip install 'rich=={known['rich']}'"
    assert piece(answer, "onnxruntime")["state"] == "differs"


def test_the_old_engine_goes_with_an_old_numpy(bare: Path, tmp_path: Path) -> None:
    path = stated(tmp_path / "meta", tflite_runtime="2.14.0", numpy="1.26.4")
    result = doctor(bare, "--json", cwd=tmp_path, PYTHONPATH=path)
    assert (result.returncode, told(result)["problems"]) == (0, [])
    alone = stated(tmp_path / "alone", numpy="1.26.4")
    answer = told(doctor(bare, "--json", cwd=tmp_path, PYTHONPATH=alone))
    assert piece(answer, "numpy")["state"] == "differs"


def test_numpy_2_does_not_go_with_the_old_engine(bare: Path, tmp_path: Path) -> None:
    path = stated(tmp_path / "meta", tflite_runtime="2.14.0", numpy="2.4.0")
    answer = told(doctor(bare, "--json", "--for", "runtime", cwd=tmp_path, PYTHONPATH=path))
    assert answer["problems"] == ["numpy differs"]


def test_what_is_older_than_phoneward_asks_for_is_a_failure() -> None:
    (rich,) = [one for one in examine(Scope.RUNTIME, load_pieces()) if one.piece.name == "rich"]
    assert rich.lowest == "13"
    assert failures(Scope.RUNTIME, [replace(rich, installed="13.0")]) == []
    assert failures(Scope.RUNTIME, [replace(rich, installed="12.6.1")]) == ["rich differs"]


def test_an_unknown_scope_is_bad_input(tmp_path: Path) -> None:
    result = doctor(sys.executable, "--for", "cooking", cwd=tmp_path)
    assert result.returncode == 2
    assert "cooking" in result.stderr


def test_every_piece_has_a_known_good_version_and_a_real_extra() -> None:
    known, extras = known_good_versions(), PROJECT["optional-dependencies"]
    for each in load_pieces():
        assert each.known_good or known[each.name]
        assert not each.extra or each.extra in extras
        assert set(each.known_good_beside) <= set(known)


def test_whatever_phoneward_asks_for_is_a_piece() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(need for e in extras if e != "dev" for need in extras[e])]
    names = {Requirement(need).name for need in asked} - {"phoneward", "tomli"}
    assert names - {each.name for each in load_pieces()} == set()


def test_a_missing_optional_piece_is_no_failure() -> None:
    (demo,) = [each for each in load_pieces() if each.extra == "demo"]
    assert demo.need(Scope.EXPORT) is Need.OPTIONAL
    assert failures(Scope.EXPORT, [Finding(demo, Need.OPTIONAL, None, "0.1.0")]) == []
    for scope in Scope:
        missing = [Finding(demo, Need.REQUIRED, None, "0.1.0")]
        assert failures(scope, missing) == [f"{demo.name} missing"]
    assert examine(Scope.RUNTIME, [demo]) == []
