"""`priorzoo train`: what its flags change, and where a run goes when nobody says it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from priorzoo.cli.main import main
from priorzoo.training import trainer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Path]]:
    """What would be trained, and where."""
    calls: list[tuple[Any, Path]] = []

    def train(recipe: Any, folder: Path, **_: Any) -> Any:
        calls.append((recipe, folder))
        return SimpleNamespace(folder=folder, images=0, weights="nowhere")

    monkeypatch.setattr(trainer, "train", train)
    return calls


def test_devices_and_nodes_are_the_recipes(asked: list[tuple[Any, Path]]) -> None:
    assert main(["train", "heads/eg3d_ssr", "--devices", "4", "--nodes", "2"]) == 0
    assert main(["train", "heads/eg3d_ssr", "--devices", "4", "training.devices=2"]) == 0
    assert main(["train", "heads/eg3d_ssr"]) == 0
    plans = [recipe.training for recipe, _ in asked]
    assert [(p.devices, p.nodes, p.batch) for p in plans] == [(4, 2, 8), (2, 1, 8), (1, 1, 8)]


def test_a_batch_that_does_not_divide_among_the_devices_is_refused(asked: list[tuple[Any, Path]], capsys: Any) -> None:
    assert main(["train", "heads/eg3d_ssr", "--devices", "3"]) == 2
    assert "training.batch: does not divide among 3 processes" in capsys.readouterr().err and not asked
    assert main(["train", "heads/eg3d_ssr", "--devices", "0"]) == 2


def test_a_run_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("a file")
    for out in ("f", "f/r"):
        for words in ([], ["--dry-run"]):
            assert main(["train", "heads/eg3d_base", "training.accelerator=cpu", "--out", out, *words]) == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ") and "cannot be written: " in error and "/f is a file, not a folder" in error
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_runs_of_different_recipes_go_to_different_folders(asked: list[tuple[Any, Path]], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: heads/eg3d_ssr\n")
    assert main(["train", "heads/eg3d_ssr_table1@skin"]) == 0
    assert main(["train", str(tmp_path / "mine.yaml")]) == 0
    assert main(["train", "heads/eg3d_ssr", "--out", "here"]) == 0
    assert [folder for _, folder in asked] == [Path("runs/heads_eg3d_ssr_table1-skin"), Path("runs/mine"), Path("here")]
