"""Arrows point one way: apps -> export, runtime, profiles -> kernel; and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNEL = ROOT / "src" / "phoneward"
ROOMS = ("export", "runtime", "profiles", "apps")
VENDORS = {
    "ai_edge_litert",
    "ai_edge_quantizer",
    "coremltools",
    "executorch",
    "litert_torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tflite_runtime",
    "timm",
    "torch",
    "torchao",
    "torchvision",
}

# computes with PyTorch; only what opens it or asks about it may import it, and late
MIL = "phoneward.runtime.engines.mil"
MIL_WITHOUT_TORCH = ("session", "package", "blobs", "modules", "threads", "lints")


def needs_torch(module: str) -> bool:
    parts = module.removeprefix(MIL).split(".")[1:]
    return is_below(module, MIL) and bool(parts) and parts[0] not in MIL_WITHOUT_TORCH


def files_of(room: str) -> list[Path]:
    files = KERNEL.glob("*.py") if room == "kernel" else (ROOT / room).rglob("*.py")
    return sorted(files)


def module_of(path: Path) -> str:
    relative = path.relative_to(KERNEL if path.parent == KERNEL else ROOT)
    parts = ["phoneward", *relative.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported name, dotted, wherever it stands; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_at_module_level(tree: ast.Module) -> Iterator[str]:
    """Like `imports`, without those inside functions and behind TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ClassDef):
            yield from imports_at_module_level(ast.Module(node.body, []))
        else:
            yield from imports(node)


def parsed(room: str) -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_bytes(), path)) for path in files_of(room)]


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("kernel", ROOMS),
        ("runtime", ("export", "apps")),
        ("profiles", ("export", "apps")),
        ("export", ("apps",)),
    ],
)
def test_a_room_never_imports_what_stands_on_it(room: str, forbidden: tuple[str, ...]) -> None:
    wrong = [
        f"{module_of(path)} imports {name}"
        for path, tree in parsed(room)
        if path != KERNEL / "__main__.py"  # hands over to the command line
        for name in imports(tree)
        if any(is_below(name, f"phoneward.{other}") for other in forbidden)
    ]
    assert files_of(room)
    assert not wrong


@pytest.mark.parametrize("room", ["kernel", "profiles", "runtime"])
def test_no_torch_at_module_level_outside_export(room: str) -> None:
    wrong = [
        f"{module_of(path)} imports {name}"
        for path, tree in parsed(room)
        for name in imports_at_module_level(tree)
        if not needs_torch(module_of(path))
        and (name.partition(".")[0] == "torch" or needs_torch(name))
    ]
    assert not wrong


@pytest.mark.parametrize("room", ["kernel", "profiles"])
def test_no_vendor_package_in(room: str) -> None:
    wrong = [
        f"{module_of(path)} imports {name}"
        for path, tree in parsed(room)
        for name in imports(tree)
        if name.partition(".")[0] in VENDORS
    ]
    assert not wrong


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{module_of(path)}:{node.lineno} calls {ast.unparse(node.func)}"
        for room in ("kernel", *ROOMS)
        for path, tree in parsed(room)
        if ROOT / "apps" / "cli" not in path.parents
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "Console"}
    ]
    assert not wrong


IMPORT_EACH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "timm", "torchvision"}:
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Blocked())
import importlib, threading
before = (dict(__import__("os").environ), threading.active_count())
for name in sys.argv[1:]:
    importlib.import_module(name)
assert before == (dict(__import__("os").environ), threading.active_count())
"""


@pytest.mark.parametrize("room", ["kernel", "profiles", "runtime"])
def test_importing_works_without_torch_and_does_nothing(room: str, tmp_path: Path) -> None:
    skipped = {"phoneward.__main__"}
    modules = [m for m in map(module_of, files_of(room)) if m not in skipped and not needs_torch(m)]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH, *modules],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
