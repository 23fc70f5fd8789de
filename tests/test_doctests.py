"""Every example in a docstring of the package runs."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _modules_with_examples() -> list[str]:
    names = []
    for file in ROOT.glob("*/**/*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[0].startswith(".") or parts[0] in ("tests", "docs", "benchmarks", "build", "dist", "runs"):
            continue
        if ">>> " in file.read_text(encoding="utf-8"):
            names.append(".".join(part for part in parts if part != "__init__"))
    return sorted(names)


@pytest.mark.parametrize("name", _modules_with_examples())
def test_examples_of(name):
    module = importlib.import_module(f"priorzoo.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0, "the report is in the captured output"
