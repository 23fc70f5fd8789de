"""Foreground and background apart: in samples, sample sheets and the report; and refused where there is no background."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from analytic import AnalyticSphere
from PIL import Image
from priorzoo.backbones.eg3d.ballgan import BallGAN
from priorzoo.cli.main import main
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.recipe import Recipe
from priorzoo.core.scene import Scene
from priorzoo.export.buffer_pictures import needs_of, scene_pictures
from priorzoo.export.monitors import SampleSheet
from priorzoo.export.parts import PARTS, parts
from priorzoo.export.portraits import portraits
from priorzoo.export.report import write_report
from priorzoo.export.sheets import BACKDROP
from priorzoo.training.checkpoints import Checkpoint, write_checkpoint

SMALL = {
    "z_dim": 4, "w_dim": 8, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 8, "decoder_hidden": 4,
    "superresolution": "none", "feature_channels": 3, "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 4,
    "samples_fine": 4, "noise": "none", "conditioning": "none", "discriminator_channel_base": 64, "discriminator_channel_max": 8,
}  # fmt: skip
SPHERE = {"name": "sphere", "z_dim": 4, "w_dim": 4, "mapping_layers": 1, "hidden": 8}


@pytest.fixture(scope="module")
def ballgan() -> BallGAN:
    torch.manual_seed(0)
    return BallGAN(background=SPHERE, **SMALL).eval()


@pytest.fixture
def run(ballgan: BallGAN, tmp_path: Path) -> Path:
    """A run of that model, as training leaves it behind."""
    folder = tmp_path / "ball"
    folder.mkdir()
    plain = {
        "backbone": {"name": "ballgan", **SMALL}, "background": SPHERE, "data": {"name": "heads", "images": 4, "resolution": 16},
        "training": {"images": 8, "batch": 4},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(Recipe.from_plain(plain).to_yaml(), encoding="utf-8")
    tensors = {f"{part}.{k}": v for part in ("generator", "average") for k, v in ballgan.generator.state_dict().items()}
    tensors |= {f"discriminator.{k}": v for k, v in ballgan.discriminator.state_dict().items()}
    write_checkpoint(folder, "000000008", Checkpoint(tensors, {"none": torch.zeros(1)}, {"images": 8}), keep=1)
    return folder


def test_each_part_is_drawn_from_its_buffer() -> None:
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    t = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    black = -torch.ones(1, 3, 1, 3)
    scene = Scene(camera, foreground_raw=black + 2 * (1 - t), background_raw=torch.zeros(1, 3, 1, 3), background_transmittance=t)
    # White skin, half of it, nothing: the sheets' grey shows through as far as light does.
    half = [round(127.5 + c / 2) for c in BACKDROP]
    picture = scene_pictures(scene, "foreground")[0][0].astype(int)
    assert picture[0].tolist() == [255] * 3 and picture[2].tolist() == list(BACKDROP) and np.abs(picture[1] - half).max() <= 1
    assert scene_pictures(scene, "transmittance")[0][0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    assert scene_pictures(scene, "background")[0][0].tolist() == [[128] * 3] * 3


def test_together_is_the_foreground_before_the_background(ballgan: BallGAN) -> None:
    drawn = parts(ballgan, 5)
    assert [list(head) for head, _ in drawn] == [list(PARTS)] * 5 and all(0.0 <= share <= 1.0 for _, share in drawn)
    for head, share in drawn:
        together, foreground, background, grey = (head[what].astype(float) for what in list(PARTS)[:4])
        t = grey / 255.0
        assert np.abs(foreground - t * BACKDROP + t * background - together).max() < 2.5  # four roundings, clamped colours
        assert share == pytest.approx(((grey[..., 0] > 25.5) & (grey[..., 0] < 229.5)).mean(), abs=2 / 64)
    assert drawn[0][0]["background"].std() > 0 and not np.array_equal(drawn[0][0]["background"], drawn[1][0]["background"])
    # Head by head: alone, in fours, or after others.
    again = parts(ballgan, 1)
    assert all(np.array_equal(again[0][0][what], drawn[0][0][what]) for what in PARTS)


def test_a_model_without_background_says_what_it_can_show() -> None:
    ball = AnalyticSphere()
    for name in ("foreground", "background"):
        with pytest.raises(PriorzooError, match=f"--what {name}: this model has no background .* can show image, .*, transmittance$"):
            needs_of(["image", name], ball)
    with pytest.raises(PriorzooError, match="no background"):
        parts(ball, 1)
    assert needs_of(["transmittance"], ball) == {"background_transmittance"}


def test_the_sample_sheet_shows_what_is_behind(ballgan: BallGAN, tmp_path: Path) -> None:
    """Image 16 pixels a side, everything else 8: one size on the sheet."""
    recipe = Recipe.from_plain({
        "backbone": {"name": "eg3d", **SMALL}, "data": {"name": "heads", "images": 4, "resolution": 16},
        "training": {"images": 8, "batch": 4, "samples": {"every": 4, "count": 3}},
    })  # fmt: skip
    sheets = []
    for average in (ballgan, AnalyticSphere(neural_resolution=8, image_resolution=16)):
        SampleSheet(recipe)(SimpleNamespace(average=average, folder=tmp_path, images=4))
        sheets.append(np.asarray(Image.open(tmp_path / "samples" / "000000004.png")))
    rows = [(len(sheet) + 2) // 18 for sheet in sheets]
    assert rows == [8, 5] and sheets[0].shape == (8 * 18 - 2, 3 * 18 - 2, 3)
    drawn = parts(ballgan, 3, conditioned=recipe.objective.pose_swap is not None)
    for row, what in enumerate(("foreground", "background", "transmittance"), start=1):
        tile = sheets[0][18 * row : 18 * row + 16, 18:34]
        assert np.array_equal(tile, drawn[1][0][what].repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(sheets[0][:16, :16], portraits(ballgan, 1, conditioned=recipe.objective.pose_swap is not None)[0].image)


def test_sample_and_report_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = "image,foreground,background,transmittance"
    assert main(["sample", str(run), "--seeds", "0-1", "--what", what, "--out", str(tmp_path / "a.png")]) == 0
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (34, 4 * 18 - 2, 3)
    page = write_report([run], tmp_path / "r.html", heads=2, resolution=8).read_text(encoding="utf-8")
    section = page[page.index('<section id="parts"') :]
    section = section[: section.index("</section>")]
    assert section.count("<img") == 2 * len(PARTS) and all(f">{heading}</th>" in section for heading in PARTS.values())
    assert len(re.findall(r"Undecided rays: ball \d+\.\d %", section)) == 2
    capsys.readouterr()
    assert main(["sample", "heads_eg3d_base", "--seeds", "0", "--what", "background", "--out", str(tmp_path / "b.png")]) == 2
    assert "has no background" in capsys.readouterr().err and not (tmp_path / "b.png").exists()
