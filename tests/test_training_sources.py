"""Generated heads: made once, made anew when anything about them changes, with a bar while they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from priorzoo.core.recipe import Recipe
from priorzoo.data import heads as heads_module
from priorzoo.data.heads import HeadsPlan, render_images
from priorzoo.shapes.head_render import RENDERER_VERSION
from priorzoo.training import ablation, sources
from priorzoo.training.sources import open_sources


def recipe(**data: object) -> Recipe:
    return Recipe.from_plain({
        "backbone": {"name": "eg3d", "image_resolution": 16, "neural_resolution": 16, "superresolution": "none"},
        "data": {"name": "heads", "images": 2, "resolution": 16, "held_out": 1, **data},
        "training": {"images": 8},
    })  # fmt: skip


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were written, in order."""
    names: list[str] = []
    real = heads_module.write_heads

    def write(out: Path, *args: Any, **options: Any) -> Any:
        names.append(out.name)
        return real(out, *args, **{**options, "supersample": 1, "workers": 1})

    monkeypatch.setattr(heads_module, "write_heads", write)
    return names


def test_heads_are_made_once(tmp_path: Path, written: list[str]) -> None:
    first, second = open_sources(recipe(), tmp_path), open_sources(recipe(), tmp_path)
    assert len(written) == 1
    assert first.held_out == second.held_out and first.held_out is not None and first.held_out.exists()
    assert open_sources(recipe(held_out=0), tmp_path).held_out is None


def test_another_renderer_makes_them_anew(tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    open_sources(recipe(), tmp_path)
    monkeypatch.setattr(sources, "RENDERER_VERSION", RENDERER_VERSION + 1)
    open_sources(recipe(), tmp_path)
    assert len(set(written)) == 2


@pytest.mark.parametrize("lost", ["images", "held_out", "truth"])
def test_a_lost_file_is_made_again(tmp_path: Path, written: list[str], lost: str) -> None:
    open_sources(recipe(), tmp_path)
    path = getattr(heads_module.HeadsFiles.of(tmp_path / written[0]), lost)
    path.unlink()
    open_sources(recipe(), tmp_path)
    assert len(written) == 2 and path.exists()


def test_making_heads_moves_a_bar(tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[int, int, bool]] = []

    class Bar(sources.Progress):
        def update(self, done: int) -> None:
            moves.append((done, self.total, self.wanted))

        def __init__(self, *args: Any, shown: bool = True, **options: Any) -> None:
            self.wanted = shown
            super().__init__(*args, shown=shown, **options)

    monkeypatch.setattr(sources, "Progress", Bar)
    open_sources(recipe(), tmp_path, progress=True)
    assert moves == [(4, 4, True)]


def test_an_ablation_that_reports_shows_that_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(ablation, "evaluator_for", lambda *_, progress=False, **__: asked.append(progress))
    monkeypatch.setattr(ablation, "measure_run", lambda *_, **__: None)
    for report in (None, lambda part, done, total: None):
        ablation._Measuring(recipe(), tmp_path, report)(None, "a")  # type: ignore[arg-type]
    assert asked == [False, True]


def test_the_renderer_is_the_one_of_its_version() -> None:
    """Where these numbers change, raise RENDERER_VERSION with them: heads on disk are then made anew."""
    made = render_images(HeadsPlan(4, resolution=32, supersample=1), range(4))
    near = torch.where(made.foreground, made.depth[:, 0], 0.0).flatten(1).sum(1) / made.foreground.flatten(1).sum(1)
    numbers = [*made.rgb.mean((0, 2, 3)).tolist(), *near.tolist(), float(made.normals.mean((0, 2, 3))[2])]
    assert RENDERER_VERSION == 1
    assert numbers == pytest.approx([0.7294, 0.6646, 0.6469, 2.6127, 2.6168, 2.6066, 2.6097, 0.3192], abs=2e-3)
