"""Rules of the house that no linter knows: names, lengths, docstrings, imports, and what may stand in a file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

MAX_LINES = 400
MAX_FUNCTION_LINES = 70
EMPTY_NAMES = {"utils", "util", "misc", "helpers", "helper", "common", "stuff"}
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".in", ".cfg", ".html", ".css", ".js", ""}

# Absolute paths of one machine. The brackets keep this file from matching itself.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:[w]ork|[r]oot|[h]ome|[o]pt|[U]sers|[m]nt|[d]ata[0-9]*)/\w")


def _tracked_files(root: Path) -> list[Path]:
    """Files of the repository: git's list where there is git, otherwise everything that is not generated."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True,
    )  # fmt: skip
    if listing.returncode == 0:
        files = [root / name for name in listing.stdout.split("\0") if name]
    else:
        generated = {"build", "dist", "runs", "__pycache__"}
        files = [
            path for path in root.rglob("*")
            if not any(p in generated or p.startswith(".") for p in path.relative_to(root).parts)
        ]  # fmt: skip
    return [path for path in files if path.is_file()]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_the_package_imports_itself_relatively(root, package_files):
    absolute = []
    for path in package_files:
        for node in ast.walk(_tree(path)):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            absolute += [f"{path.relative_to(root)}:{node.lineno}" for name in named if name.split(".")[0] == "priorzoo"]
    assert absolute == []


def test_names_say_something(root):
    empty = [p for p in _tracked_files(root) if p.stem.lower() in EMPTY_NAMES or p.parent.name.lower() in EMPTY_NAMES]
    assert empty == []


def test_files_hold_one_idea(root):
    lengths = {p.relative_to(root).as_posix(): len(p.read_text(encoding="utf-8").splitlines())
               for p in _tracked_files(root) if p.suffix == ".py"}  # fmt: skip
    assert lengths
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_functions_are_short(root, package_files):
    long = []
    for path in package_files:
        for node in ast.walk(_tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(root)}:{node.lineno} {node.name} has {lines} lines")
    assert long == []


def _public_without_docstring(body: list[ast.stmt]) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]
    return [node.name for node in public if not ast.get_docstring(node)]


def test_public_names_have_docstrings(root, package_files):
    missing = [f"{path.relative_to(root)}: {name}" for path in package_files for name in _public_without_docstring(_tree(path).body)]
    assert missing == []


def test_modules_have_docstrings(root, package_files):
    assert [str(p.relative_to(root)) for p in package_files if not ast.get_docstring(_tree(p))] == []


def test_no_path_of_a_machine(root):
    found = []
    for path in _tracked_files(root):
        if path.suffix not in TEXT:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize("text", ["open('/" + "home/me/x')", "/" + "work/y", "(/" + "root/z)"])
def test_the_search_for_machine_paths_finds_them(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["docs/home/x", "https://a.b/" + "home/x", "runs/demo", "a /bin/sh"])
def test_the_search_for_machine_paths_leaves_others(text):
    assert not MACHINE_PATH.search(text)


def test_no_test_is_switched_off(root):
    words = re.compile(r"mark\.(sk[i]p|xf[a]il)|pytest\.(sk[i]p|xf[a]il|imp[o]rtorskip)\b")
    found = []
    for path in (root / "tests").rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if words.search(line):
                found.append(f"{path.relative_to(root)}:{number}")
    assert found == []


def test_import_is_light():
    heavy = ["torch", "numpy", "pydantic", "typer", "rich", "scipy", "matplotlib", "kornia", "lightning_fabric", "PIL"]
    code = f"import sys, priorzoo; print([m for m in {heavy!r} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_import_takes_less_than_a_tenth_of_a_second():
    code = "import time; t = time.perf_counter(); import priorzoo; print(time.perf_counter() - t)"
    # The best of several: other work on the machine only makes it slower.
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(times) < 0.1


def test_public_names_are_there():
    import priorzoo

    for name in priorzoo.__all__:
        assert getattr(priorzoo, name) is not None
    assert set(priorzoo.__all__) <= set(dir(priorzoo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        priorzoo.__getattr__("nothing")
