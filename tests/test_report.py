"""The report: pictures, plots, tables and the page, from analytic scenes and invented measures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic import AnalyticSphere, sphere_scene
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.recipe import Recipe
from priorzoo.core.scene import Scene
from priorzoo.export import page
from priorzoo.export.curves import Profile, curves_png, depth_profile_png, eye_row, panel_keys
from priorzoo.export.measures import Measured, findings, full_table, number, short_table, verdict
from priorzoo.export.portraits import VIEWS, portraits, scene_portraits
from priorzoo.export.report import write_report
from priorzoo.export.sheets import (
    BACKDROP,
    contact_sheet,
    enlarged,
    heat_ceiling,
    heat_pictures,
    image_pictures,
    normal_pictures,
    png_bytes,
    shaded_pictures,
)  # fmt: skip
from priorzoo.export.subjects import read_subjects
from priorzoo.metrics.protocol import Result
from priorzoo.rendering.smoothness import smoothness_map
from priorzoo.training.checkpoints import Checkpoint, write_checkpoint

NEEDS = frozenset({"image", "depth", "opacity", "rays"})


def scene(yaw: float = 0.0, count: int = 1, size: int = 33) -> Scene:
    with torch.no_grad():
        return sphere_scene(NEEDS, count=count, size=size, yaw=yaw)[0]


def camera_of(made: Scene) -> Camera:
    assert made.camera is not None
    return made.camera


# ------------------------------------------------------------------------------------------------------------- pictures


def test_a_ball_is_light_blue_in_the_middle_of_every_view_and_red_to_its_right() -> None:
    for yaw in VIEWS:
        made = scene(yaw)
        picture = normal_pictures(made.normals, made.opacity, camera_of(made))[0]
        middle, right, top = picture[16, 16].astype(int), picture[16, 25].astype(int), picture[7, 16].astype(int)
        assert np.abs(middle - (128, 128, 255)).max() <= 2
        assert right[0] > 190 and abs(right[1] - 128) < 12  # the normal points to the right
        assert top[1] > 190 and abs(top[0] - 128) < 12  # and up
        assert tuple(picture[0, 0]) == BACKDROP


def test_world_colours_turn_with_the_camera() -> None:
    made = scene(VIEWS[2])
    picture = normal_pictures(made.normals, made.opacity, camera_of(made), frame="world")[0]
    towards = torch.tensor([np.sin(VIEWS[2]), 0.0, np.cos(VIEWS[2])])
    assert np.abs(picture[16, 16].astype(int) - ((towards + 1) / 2 * 255).numpy()).max() <= 2
    with pytest.raises(ValueError, match="'camera' or 'world'"):
        normal_pictures(made.normals, made.opacity, camera_of(made), frame="head")


def test_light_comes_from_above_left_in_every_view_and_the_backdrop_stays() -> None:
    views = [shaded_pictures(s.normals, s.opacity, camera_of(s))[0] for s in map(scene, VIEWS)]
    for picture in views:
        assert picture[11, 11].mean() > picture[16, 16].mean() > picture[21, 21].mean()
        assert (picture[..., 0] == picture[..., 1])[16, 8:25].all()  # grey
        assert tuple(picture[0, 0]) == BACKDROP
    # A ball looks alike from everywhere.
    assert np.abs(views[0].astype(int) - views[2].astype(int)).max() <= 8


def test_a_dent_is_seen_in_the_shaded_surface() -> None:
    made = scene()
    dented = Scene(made.camera, depth=made.depth.clone(), opacity=made.opacity, rays=made.rays)
    dented["depth"][0, 0, 14:19, 14:19] += 0.03
    whole = shaded_pictures(made.normals, made.opacity, camera_of(made))[0].astype(int)
    broken = shaded_pictures(dented.depth_normals, made.opacity, camera_of(made))[0].astype(int)
    assert np.abs(whole - broken)[12:21, 12:21].max() > 40


def test_heat_has_one_scale_and_shows_what_it_did_not_look_at_dimmed() -> None:
    heat = torch.tensor([[[[0.0, 0.25], [1.0, 4.0]]]])
    under = [np.full((2, 2, 3), 200, np.uint8)]
    picture = heat_pictures(heat, 1.0, under)[0].astype(int)
    assert picture[0, 0].tolist() == [round(0.45 * 200 + 0.55 * c) for c in BACKDROP]
    assert picture[1, 0].tolist() == picture[1, 1].tolist()  # above the ceiling: the last colour
    assert picture[0, 1].sum() < picture[1, 0].sum()
    assert heat_ceiling([heat, heat * 100]) > heat_ceiling([heat])
    with pytest.raises(ValueError, match="above 0"):
        heat_pictures(heat, 0.0)


def test_sheets_and_png_files_are_exact_and_repeatable() -> None:
    tiles = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet([tiles[:2], tiles[2:]], gap=1)
    assert sheet.shape == (9, 9, 3) and sheet[0, 0, 0] == 10 and sheet[0, 5, 0] == 20 and sheet[5, 0, 0] == 30
    assert tuple(sheet[4, 4]) == BACKDROP == tuple(sheet[8, 8])
    assert png_bytes(sheet) == png_bytes(sheet.copy())
    assert enlarged(tiles[0], 9).shape == (12, 12, 3)
    assert image_pictures(torch.tensor([-2.0, 0.0, 1.0]).view(1, 3, 1, 1))[0].tolist() == [[[0, 128, 255]]]
    with pytest.raises(ValueError, match="one size"):
        contact_sheet([[tiles[0], np.zeros((5, 4, 3), np.uint8)]])


def test_portraits_are_the_same_heads_for_the_same_seed_in_any_batch() -> None:
    ball = AnalyticSphere(neural_resolution=16, image_resolution=16)
    six, five = portraits(ball, 6, seed=1), portraits(ball, 5, seed=1)
    for one, other in zip(five, six, strict=False):
        assert (one.image == other.image).all() and (one.normals == other.normals).all()
    other = portraits(ball, 1, seed=2)[0]
    assert not (other.image == six[0].image).all()
    assert len(six[0].surfaces) == len(VIEWS)


def test_portraits_carry_the_heat_of_the_frontal_view() -> None:
    made = scene_portraits({yaw: scene(yaw, count=2) for yaw in VIEWS}, lambda s: smoothness_map(s.depth))
    assert torch.equal(made[1].heat[None], smoothness_map(scene(0.0, count=2).depth)[1:])


# ---------------------------------------------------------------------------------------------------------------- plots


def test_curves_show_priors_first_and_leave_out_counts() -> None:
    record = {"images": 0, "step": 0, "D/real": 1.0, "G/adversarial": 1.0, "prior/skin/raw": 1.0, "prior/skin/weighted": 1.0,
              "prior/skin/pixels": 3.0, "depth/jitter": 0.1, "seconds": 1.0, "note": "text"}  # fmt: skip
    assert panel_keys({"a": [record]}) == ["prior/skin/raw", "depth/jitter", "G/adversarial", "D/real"]
    one = curves_png({"a$b$": [record, {**record, "images": 10}]})
    assert one is not None and one == curves_png({"a$b$": [record, {**record, "images": 10}]})
    assert curves_png({"a": []}) is None


def test_a_profile_is_drawn_through_gaps() -> None:
    line = np.array([np.nan, 2.6, 2.5, 2.6, np.nan])
    eyes = np.array([False, True, True, False, False])
    one = depth_profile_png([Profile("true head", line), Profile("x", line + 1, "#0072B2")], eyes, pitch=0.01)
    nothing = depth_profile_png([Profile("true head", line), Profile("x", line * np.nan, "#0072B2")], eyes, pitch=0.01)
    assert one.startswith(b"\x89PNG") and one != nothing
    assert eye_row(np.zeros((3, 3), bool)) is None


# --------------------------------------------------------------------------------------------------------------- tables


def invented(name: str, normals: float, sr: float, frechet: float = 10.0, protocol: dict[str, Any] | None = None) -> Result:
    noise = np.random.default_rng(0).normal(size=12)
    terms = {
        "fd_heads": frechet + noise, "truth_normal_skin": normals + noise, "truth_normal_eyes": np.full(12, np.nan),
        "truth_image": 0.1 + 0.01 * noise, "truth_iou": 0.9 + 0.01 * noise, "sr_skin": sr + 0.1 * noise, "estimated_depth": 0.3 + noise,
    }  # fmt: skip
    return Result(name, protocol or {"seed": 0}, terms, {"sr_skin": 5.0 + 0.1 * noise})


def rows() -> list[Measured]:
    spread = np.random.default_rng(1).normal(size=12)
    variant = invented("skin <b>", 18.0, 5.5)
    for key in variant.terms:
        variant.terms[key] = variant.terms[key] + 0.01 * spread
    return [
        Measured("base", invented("base", 21.0, 9.0), {"R1": False, "skin": False}),
        Measured("finetune", invented("finetune", 20.0, 8.0), {"R1": True, "skin": False}),
        Measured("skin <b>", variant, {"R1": True, "skin": True}),
    ]


def test_the_short_table_has_the_shape_of_the_papers() -> None:
    headings, table = short_table(rows(), "finetune")
    assert headings[:4] == ["model", "R1", "skin", "FD(heads) ↓"] and headings[-1] == "SR skin (px²) → true"
    assert [row.name for row in table] == ["base", "finetune (control)", "skin <b>", "true heads"]
    assert [[cell.text for cell in row.cells[:2]] for row in table[:3]] == [["", ""], ["×", ""], ["×", "×"]]
    normals = headings.index("normals, skin (deg) ↓") - 1
    assert table[2].cells[normals].verdict == "better" and table[2].cells[normals].note.startswith("▲ −2.0")
    assert table[1].cells[normals].note == ""
    assert table[3].cells[-1].text.startswith(("5.0", "4.9"))


def test_closer_to_true_heads_is_better_and_smaller_is_not() -> None:
    control = invented("control", 20.0, 8.0)
    noise = 0.01 * np.random.default_rng(2).normal(size=12)
    for sr, expected in ((6.0, "better"), (11.0, "worse"), (4.5, "better"), (0.5, "worse")):
        other = invented("other", 20.0, sr)
        other.terms["sr_skin"] = other.terms["sr_skin"] + noise
        assert verdict(other, control, "sr_skin") == expected, sr


def test_only_truth_and_statistics_beside_true_heads_count_as_truer() -> None:
    (found,) = findings(rows(), "finetune")  # the start is no finding, nor is the control
    assert found.name == "skin <b>"
    measures = [*found.truer, *found.less_true, *found.undecided]
    assert sorted(text.split(" −")[0] for text in measures) == ["(a) foreground IoU", "(a) normals, skin", "(c) SR skin off true"]
    assert len(found.truer) == 2 and found.undecided == ["(a) foreground IoU"]
    text = " ".join(found.sentences())
    assert "Truer than finetune in 2 of 3" in text and "no difference beyond chance" in text
    assert findings(rows(), None) == []


def test_all_measures_are_grouped_and_empty_ones_are_blank() -> None:
    headings, table = full_table(rows(), "finetune")
    assert headings == ["measure", "base", "finetune", "skin <b>", "true heads"]
    assert [row.name[:3] for row in table if not row.cells] == ["Ima", "(a)", "(b)", "(c)"]
    empty = next(row for row in table if row.name.startswith("normals, eyes"))
    assert [(cell.text, cell.note) for cell in empty.cells[:3]] == [("–", "")] * 3
    assert number(0.0) == "0" and number(12345.6) == "12346" and number(-0.5) == "−0.500"


def test_unequal_protocols_are_refused() -> None:
    pair = [Measured("a", invented("a", 1.0, 1.0)), Measured("b", invented("b", 1.0, 1.0, protocol={"seed": 1}))]
    with pytest.raises(PriorzooError, match="protocol field `seed` is 1 in b and 0 in a"):
        full_table(pair, "a")


def test_the_page_escapes_every_plain_text() -> None:
    evil = '<script>alert("x")</script>'
    body = page.paragraph(evil) + page.definitions([(evil, evil)]) + page.bullets([evil]) + page.preformatted(evil)
    body += page.table([evil], [page.Row(evil, [page.Cell(evil, evil, evil)], evil), page.Row(evil, (), evil)])
    body += page.picture_table(["", evil], [(evil, [b"png"])]) + page.figure(b"png", evil, evil)
    text = page.page(evil, [page.Section(evil, evil, body)])
    assert "<script" not in text and 'alert("' not in text


# ------------------------------------------------------------------------------------------------------------- the page


def small_recipe(**changes: Any) -> Recipe:
    plain: dict[str, Any] = {
        "backbone": {"name": "analytic_sphere", "neural_resolution": 16, "image_resolution": 16},
        "data": {"name": "heads", "images": 8, "resolution": 16, "held_out": 2},
        "segmenter": {"name": "analytic_colours"},
        "training": {"images": 8, "batch": 4},
    }
    return Recipe.from_plain({**plain, **changes})


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, result: Result | None = None, radius: float = 0.25) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.yaml").write_text(small_recipe(seed=len(name)).to_yaml())
        ball = AnalyticSphere(radius=radius, neural_resolution=16, image_resolution=16)
        tensors = {f"{part}.{k}": v for part in ("generator", "average") for k, v in ball.generator.state_dict().items()}
        tensors |= {f"discriminator.{k}": v for k, v in ball.discriminator.state_dict().items()}
        write_checkpoint(folder, "000000008", Checkpoint(tensors, {"none": torch.zeros(1)}, {"images": 8}), keep=1)
        record = {"priorzoo": "0.1.0", "commit": "abc123", "seconds": 75, "hardware": {"processor": "A <fast> one", "threads": 2}}
        (folder / "run.json").write_text(json.dumps(record))
        lines = [{"images": n, "G/adversarial": 1.0 / (n + 1), "prior/skin/raw": 0.5} for n in (4, 8)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if result is not None:
            result.save(folder / "results" / "evaluation.json")
        return folder

    return make


def inverted_heads() -> dict[str, Any]:
    """Truth and 'reconstruction' of one ball with eyes, as evaluation keeps them."""
    made = scene(size=24)
    labels = torch.zeros(1, 24, 24, dtype=torch.uint8)
    labels[0, 10:12, 7:10] = 4
    hit = made.opacity > 0.5
    return {
        "image": made.image.numpy(), "depth": made.depth.numpy(), "opacity": made.opacity.numpy(), "true_image": made.image.numpy(),
        "true_depth": torch.where(hit, made.depth, torch.inf).numpy(), "labels": labels.numpy(), "camera": camera_of(made).label().numpy(),
    }  # fmt: skip


def test_report_of_two_runs_has_every_section_and_fetches_nothing(make_run: Callable[..., Path]) -> None:
    control, other = invented("a", 20.0, 8.0), rows()[2].result
    control.inverted = other.inverted = inverted_heads()
    places = [make_run("control & <co>", control), make_run("other", other, radius=0.3)]
    out = write_report(places, heads=2, resolution=16)
    assert out == places[0] / "report.html"
    text = out.read_text(encoding="utf-8")
    for name in ("short", "table", "heads", "profile", "measures", "reading", "curves", "run"):
        assert f'<section id="{name}">' in text and f'href="#{name}"' in text
    assert "Truer than control &amp; &lt;co&gt; in 2 of 3" in text and "(c) alone" in text
    assert "seed: 14 -&gt; 5" in text and "1 min 15 s" in text and "abc123" in text and "A &lt;fast&gt; one" in text
    assert "<co>" not in text and "<script" not in text
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:image/png;base64,|#)""", text) and "url(" not in text and "@import" not in text
    # Two latents, two models, six pictures each; truth and two reconstructions of three pictures; profile and curves.
    assert text.count("data:image/png;base64,") == 2 * 2 * 6 + 3 * 3 + 2
    assert write_report(places, out.with_name("again.html"), heads=2, resolution=16).read_text(encoding="utf-8") == text


def test_report_of_one_run_that_was_not_measured(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run("alone")
    (folder / "metrics.jsonl").unlink()
    text = write_report([folder], tmp_path / "page.html", heads=1, resolution=16).read_text(encoding="utf-8")
    assert "Nothing was measured yet" in text and 'id="table"' not in text and "No training log" in text
    assert text.count("data:image/png;base64,") == 6


def test_a_measured_run_alone_has_values_and_no_differences(make_run: Callable[..., Path]) -> None:
    text = write_report([make_run("alone", invented("alone", 20.0, 8.0))], heads=1, resolution=16).read_text(encoding="utf-8")
    assert "no second measured model" in text and "▲ −" not in text and "No held-out head was inverted" in text


def test_runs_of_one_name_are_told_apart(make_run: Callable[..., Path], tmp_path: Path) -> None:
    first = make_run("same")
    (tmp_path / "elsewhere").mkdir()
    second = first.rename(tmp_path / "elsewhere" / "same")
    first = make_run("same")
    assert [model.name for model in read_subjects([first, second]).models] == [str(first), str(second)]


def test_nothing_to_report_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(PriorzooError, match="no such run"):
        read_subjects([tmp_path / "absent"])
    with pytest.raises(PriorzooError, match="name a run"):
        read_subjects([])


def test_results_carry_inverted_heads_through_files(tmp_path: Path) -> None:
    result = invented("a", 1.0, 1.0)
    result.inverted = inverted_heads()
    result.save(tmp_path / "a.json")
    read = Result.load(tmp_path / "a.json")
    assert read.features is None and set(read.inverted) == set(result.inverted)
    assert all(np.array_equal(read.inverted[key], result.inverted[key]) for key in read.inverted)
