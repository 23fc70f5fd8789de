"""What all tests share: where the package lies and what it is made of."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The tensors of the tests are tiny: a second thread costs more than it gives, several times more on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository, which is the package."""
    return ROOT


@pytest.fixture(scope="session")
def project() -> dict:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def package_files(project: dict) -> list[Path]:
    """Every Python file of the package."""
    folders = [ROOT.joinpath(*name.split(".")[1:]) for name in project["tool"]["setuptools"]["packages"]]
    return sorted(path for folder in folders for path in folder.glob("*.py"))


@pytest.fixture(scope="session")
def bisenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file for the bisenet segmenter, of the public file's names and shapes; 53 MB, written once."""
    from bisenet_weights import write_bisenet

    return write_bisenet(tmp_path_factory.mktemp("bisenet") / "79999_iter.pth")


@pytest.fixture(scope="session")
def published_pickle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model's checkpoint as the published code wrote it; 13 MB, written once."""
    from published_pickle import write_published_pickle

    return write_published_pickle(tmp_path_factory.mktemp("published") / "tiny_official.pkl")
