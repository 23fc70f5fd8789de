"""Mirror images with their cameras, the check of sets that hold them, and the picture that shows a set."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from priorzoo.cli.data import app
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, OutputError
from priorzoo.data.check import check_dataset, require_sound
from priorzoo.data.dataset import Dataset
from priorzoo.data.heads import HeadsFiles, HeadsPlan, plan_camera, plan_heads, write_heads
from priorzoo.data.mirror import mirror, mirrored_labels
from priorzoo.data.preview import axes_in_picture, sheet_with_axes
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> HeadsFiles:
    return write_heads(tmp_path_factory.mktemp("mirror") / "heads.zip", images=5, resolution=32, seed=3, held_out=0, supersample=1)


@pytest.fixture(scope="module")
def mirrored(heads: HeadsFiles) -> Dataset:
    out = heads.images.with_name("both.zip")
    assert mirror(heads.images, out) == 10
    return Dataset(out)


def test_images_are_flipped_and_stand_beside_their_originals(heads: HeadsFiles, mirrored: Dataset) -> None:
    before = Dataset(heads.images)
    assert mirrored.names[:3] == ["00000/img00000000.png", "00000/img00000000_mirror.png", "00000/img00000001.png"]
    for index in range(5):
        assert torch.equal(mirrored.image(2 * index), before.image(index))
        assert torch.equal(mirrored.image(2 * index + 1), before.image(index).flip(-1))
        assert mirrored.file_bytes(before.names[index]) == before.file_bytes(before.names[index])


def test_labels_are_the_mirrored_cameras(heads: HeadsFiles, mirrored: Dataset) -> None:
    before = Dataset(heads.images).labels
    assert torch.equal(mirrored.labels[::2], before)
    assert torch.equal(mirrored.labels[1::2], Camera.from_label(before).mirrored().label())
    plan = HeadsPlan(5, 32, 3)
    angles = torch.tensor([plan.angles_of(i) for i in range(5)])
    other = Camera.looking_at_origin(-angles[:, 0], angles[:, 1]).label()
    assert torch.allclose(mirrored.labels[1::2], other, atol=1e-6)


def test_the_pose_is_negated_in_five_places_and_the_principal_point_mirrored() -> None:
    label = np.arange(1.0, 26.0)[None] / 100
    label[0, 12:16] = 0, 0, 0, 1
    changed = np.flatnonzero(mirrored_labels(label)[0] != label[0])
    assert changed.tolist() == [1, 2, 3, 4, 8, 17, 18]  # (0,1) (0,2) (0,3) (1,0) (2,0); skew and cx
    expected = label.copy()
    expected[0, [1, 2, 3, 4, 8, 17]] *= -1
    expected[0, 18] = 1 - expected[0, 18]
    assert np.array_equal(mirrored_labels(label), expected)
    assert np.allclose(mirrored_labels(mirrored_labels(label)), label, atol=1e-16)


def test_a_mirrored_point_falls_on_the_mirrored_place() -> None:
    camera = plan_camera(HeadsPlan(6, 32, 3), range(6)).to(torch.float64)
    camera.intrinsics[:, 0, 1], camera.intrinsics[:, 0, 2], camera.intrinsics[:, 1, 2] = 0.03, 0.47, 0.55
    other = Camera.from_label(torch.from_numpy(mirrored_labels(camera.label().numpy())))
    points = torch.rand(6, 20, 3, dtype=torch.float64) - 0.5
    seen, depth = camera.project(points)
    turned, turned_depth = other.project(points * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.allclose(turned[..., 0], 1 - seen[..., 0]) and torch.allclose(turned[..., 1], seen[..., 1])
    assert torch.allclose(depth, turned_depth)


def test_a_flipped_head_is_the_mirrored_head_seen_by_the_mirrored_camera() -> None:
    """Bald heads (locks of hair turn one way round), the other one with every asymmetry reversed: depth agrees pixel by pixel."""
    from priorzoo.shapes.head_parameters import ASYMMETRY, HeadParameters
    from priorzoo.shapes.head_render import render_heads

    plan = HeadsPlan(4, 32, 3)
    parameters, camera = plan_heads(plan, range(4)), plan_camera(plan, range(4))
    bald = {**parameters.values, "has_hair": torch.zeros_like(parameters.values["has_hair"])}
    turned = {k: -v if k in ASYMMETRY or k == "gaze_x" else v for k, v in bald.items()}
    seen = render_heads(HeadParameters(bald), camera, 32, "plain", 1)
    other = render_heads(
        HeadParameters(turned), Camera.from_label(torch.from_numpy(mirrored_labels(camera.label().numpy()))), 32, "plain", 1
    )
    agree = ((seen.depth.flip(-1) - other.depth).abs() < 1e-4) | (~seen.foreground.flip(-1) & ~other.foreground)[:, None]
    assert float(agree.float().mean()) > 0.999
    assert float((seen.foreground != other.foreground).float().mean()) > 0.05  # unflipped it is another picture


def test_a_set_that_is_mirrored_already_is_refused(heads: HeadsFiles, mirrored: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"both\.zip: holds mirror images already, e\.g\. '00000/img00000000_mirror\.png'"):
        mirror(mirrored.path, tmp_path / "out.zip")
    with pytest.raises(DataError, match=r"heads\.truth\.zip: is a file of truth"):
        mirror(heads.truth, tmp_path / "out.zip")
    assert list(tmp_path.iterdir()) == []


def test_the_file_that_is_read_is_not_written(heads: HeadsFiles, mirrored: Dataset, tmp_path: Path) -> None:
    before = heads.images.read_bytes()
    (tmp_path / "other.zip").symlink_to(heads.images)
    for out in (heads.images, tmp_path / "other.zip"):
        with pytest.raises(DataError, match=rf"{out.name}: is read to make it; give another name"):
            mirror(heads.images, out, force=True)
    assert heads.images.read_bytes() == before
    with pytest.raises(OutputError, match=r"both\.zip: exists already; --force"):
        mirror(heads.images, mirrored.path)


def test_names_that_differ_in_the_suffix_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    label = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)).label()[0].tolist()
    (folder / "dataset.json").write_text(json.dumps({"labels": [["a.png", label], ["a.jpg", label]]}))
    with pytest.raises(DataError, match="'a' is the name of two images"):
        mirror(folder, tmp_path / "out.zip")


def test_whatever_else_the_file_says_stays(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    label = Camera.looking_at_origin(torch.full((1,), 0.3), torch.zeros(1)).label()[0].double() + 1e-12
    content = {"labels": [["a.jpg", label.tolist()]], "licence": "mine", "priorzoo": {"crop": "centre"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    outs = [tmp_path / "1.zip", tmp_path / "2.zip"]
    for out in outs:
        mirror(folder, out)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with zipfile.ZipFile(outs[0]) as archive:
        written = json.loads(archive.read("dataset.json"))
        assert sorted(archive.namelist()) == ["a.jpg", "a_mirror.png", "dataset.json"]
    assert written["licence"] == "mine" and written["priorzoo"] == {"crop": "centre", "mirrored": True}
    assert written["labels"][0] == ["a.jpg", label.tolist()]  # every digit


def test_check_knows_mirror_images(mirrored: Dataset, tmp_path: Path) -> None:
    report, _ = check_dataset(mirrored.path)
    require_sound(report)
    assert (report.images, report.mirrored) == (10, 5)
    # What flipping pixels without the pose makes: every image's copy of its label.
    with zipfile.ZipFile(mirrored.path) as old, zipfile.ZipFile(tmp_path / "wrong.zip", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "dataset.json":
                pairs = json.loads(data)["labels"]
                data = json.dumps({"labels": [[n, pairs[i - i % 2][1]] for i, (n, _) in enumerate(pairs)]}).encode()
            new.writestr(name, data)
    report, _ = check_dataset(tmp_path / "wrong.zip")
    with pytest.raises(DataError, match=r"_mirror\.png: a mirror image whose label is not the mirrored one of .* 5 of 5 are\)"):
        require_sound(report)


def test_axes_are_drawn_where_the_camera_sees_them(mirrored: Dataset) -> None:
    camera = Camera.looking_at_origin(torch.tensor([0.0, torch.pi / 2]), torch.zeros(2))
    places, depth = axes_in_picture(camera, 0.3)
    reach = 4.2647 * 0.3 / 2.7
    assert places[0, :3].flatten().tolist() == pytest.approx([0.5, 0.5, 0.5 + reach, 0.5, 0.5, 0.5 - reach], abs=1e-5)
    assert places[1, 3].tolist() == pytest.approx([0.5 - reach, 0.5], abs=1e-5)  # from +x the front points to the left
    assert depth[0].tolist() == pytest.approx([2.7, 2.7, 2.7, 2.4], abs=1e-5)
    sheet = sheet_with_axes(mirrored, columns=2, rows=1, tile=64)
    camera = Camera.from_label(mirrored.labels[[0, 5]])
    ends = (axes_in_picture(camera)[0] * 64).round().long()
    for place in range(2):
        x, y = ends[place, 2].tolist()  # the tip of the y axis, seen against the white background or hair
        assert tuple(sheet[y + 1, 64 * place + x]) == (44, 160, 44)


def test_command_line(heads: HeadsFiles, tmp_path: Path) -> None:
    run, out, picture = CliRunner(), tmp_path / "both.zip", tmp_path / "both.png"
    done = run.invoke(app, ["mirror", str(heads.images), str(out)])
    assert done.exit_code == 0 and "10 images" in done.output
    assert "heads.truth.zip is true of the original images only" in " ".join(done.output.split())
    shown = run.invoke(app, ["preview", str(out), str(picture)])
    assert shown.exit_code == 0, shown.output
    assert "images      10 of 32 x 32 pixels, 5 of them mirror images" in shown.output
    assert "view        mean 13.4" in shown.output and Image.open(picture).size[0] > 1000
    again = run.invoke(app, ["preview", str(out), str(picture)])
    assert isinstance(again.exception, OutputError) and "exists already" in str(again.exception)
