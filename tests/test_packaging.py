"""The package list, the declared dependencies and the built wheel say what the tree says."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

NOT_PACKAGE = {"tests", "docs", "benchmarks", "build", "dist", "runs"}

# What is imported under another name than it is installed by.
DISTRIBUTION_OF = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml", "lightning_fabric": "lightning-fabric"}
# Imported by a dependency that does not declare it.
NEEDED_BY_OTHERS = {"click"}


def _code_folders(root: Path) -> set[str]:
    found = {"priorzoo"}
    for part in root.iterdir():
        if not part.is_dir() or part.name.startswith(".") or part.name in NOT_PACKAGE:
            continue
        for file in part.rglob("*.py"):
            found.add(".".join(("priorzoo", *file.parent.relative_to(root).parts)))
    return found


def test_every_folder_with_code_is_listed_as_a_package(root, project):
    listed = project["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == _code_folders(root)


def test_every_package_has_an_init(root, project):
    folders = [root.joinpath(*name.split(".")[1:]) for name in project["tool"]["setuptools"]["packages"]]
    assert [str(f) for f in folders if not (f / "__init__.py").is_file()] == []


def test_no_stray_module_at_the_root(root):
    # build_py would put any other file into the wheel.
    assert {p.name for p in root.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_version_is_said_once(root, project):
    import priorzoo

    assert priorzoo.__version__ == project["project"]["version"]
    assert project["project"]["version"] in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def _third_party_imports(files: list[Path]) -> set[str]:
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return {DISTRIBUTION_OF.get(name, name) for name in found - set(sys.stdlib_module_names)}


def _bare_name(requirement: str) -> str:
    return requirement.split(";")[0].split(">")[0].split("=")[0].split("[")[0].strip().lower()


def test_dependencies_are_what_the_code_imports(package_files, project):
    imported = {name.replace("_", "-").lower() for name in _third_party_imports(package_files)}
    required = {_bare_name(r) for r in project["project"]["dependencies"]}
    extras = project["project"]["optional-dependencies"]
    optional = {_bare_name(r) for extra, rs in extras.items() if extra != "dev" for r in rs}
    assert imported - required - optional == set(), "imported and not declared"
    assert required - imported - NEEDED_BY_OTHERS == set(), "declared and never imported"


def test_constraints_name_every_dependency(root, project):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].replace("_", "-").lower() for line in lines if "==" in line}
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    assert {_bare_name(r) for r in wanted} - pinned == set()
    # A local version (+cpu, +cu126) exists on one machine only.
    assert [line for line in lines if "+" in line] == []


@pytest.mark.slow
def test_wheel_holds_code_recipes_and_weights_and_nothing_else(root, tmp_path, project):
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "-w", tmp_path, _copy(root, tmp_path)], check=True)
    (wheel,) = tmp_path.glob("priorzoo-*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    wanted = {"py.typed", *_tracked(root, "recipes/**/*.yaml"), *_tracked(root, "weights/**/*.safetensors")}
    wanted |= set(_tracked(root, "weights/**/*.json"))
    for package in project["tool"]["setuptools"]["packages"]:
        folder = "/".join(package.split(".")[1:])
        wanted |= set(_tracked(root, f"{folder}/*.py" if folder else "*.py"))
    assert names == {f"priorzoo/{name}" for name in wanted}
    assert any(name.endswith(".yaml") for name in names)
    assert any(name.endswith(".safetensors") for name in names)


def _tracked(root: Path, pattern: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.glob(pattern)]


def _copy(root: Path, tmp_path: Path) -> Path:
    """A copy to build from: setuptools writes build/ and an egg-info beside the source."""
    ignored = shutil.ignore_patterns(".*", "runs", "build", "dist", "tests", "__pycache__", "*.egg-info")
    return Path(shutil.copytree(root, tmp_path / "source", ignore=ignored))
