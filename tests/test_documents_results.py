"""Numbers in the documents come from committed results, and from nowhere else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from priorzoo.export.markdown import results_block

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"<!-- results: (\S+) -->\n.*?<!-- end of results -->", re.DOTALL)


def blocks() -> list[tuple[Path, str, str]]:
    return [(d, m.group(1), m.group(0)) for d in DOCUMENTS for m in BLOCK.finditer(d.read_text(encoding="utf-8"))]


def test_the_readme_shows_results() -> None:
    assert any(document.name == "README.md" for document, _, _ in blocks())


@pytest.mark.parametrize(("document", "file", "text"), blocks(), ids=lambda v: getattr(v, "name", str(v)[:40]))
def test_tables_are_those_of_their_results(document: Path, file: str, text: str) -> None:
    assert text == results_block(ROOT / file, file)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda p: p.name)
def test_results_say_how_they_were_made(path: Path) -> None:
    about = json.loads(path.read_text(encoding="utf-8"))["circumstances"]
    assert about["command"].startswith(("priorzoo ", "python benchmarks/")) and re.fullmatch(r"[0-9a-f]{12}", about["commit"])
    assert about["hardware"]["cores"] > 0 and about["torch"]
