"""Packing: every way in gives the same labels, pixels and cameras fit, bytes are a function of the input, and nothing is half written."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import priorzoo.data.pack as pack_module
import pytest
import torch
from camera_file_writers import (
    LABEL,
    folder,
    labels,
    nerf,
    opengl,
    picture,
    poses,
    save,
    write_colmap_binary,
    write_colmap_text,
    write_json,
)
from PIL import Image
from priorzoo.cli.data import app
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, OutputError
from priorzoo.data.camera_files.frame import pinhole
from priorzoo.data.check import check_dataset, require_sound
from priorzoo.data.dataset import Dataset
from priorzoo.data.heads import write_heads
from priorzoo.data.pack import PackOptions, pack
from typer.testing import CliRunner


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return write_heads(tmp_path / "heads.zip", images=6, resolution=16, held_out=0, supersample=1).images


def test_eg3d_to_eg3d_keeps_every_bit(heads: Path, tmp_path: Path) -> None:
    report = pack(heads, heads, tmp_path / "out.zip")
    a, b = Dataset(heads), Dataset(tmp_path / "out.zip")
    assert torch.equal(a.labels, b.labels) and a.names == b.names
    assert all(torch.equal(a.image(i), b.image(i)) for i in range(6))
    assert (report.images, report.resolution, report.cameras_format, report.left_out, report.enlarged) == (6, 16, "eg3d", 0, 0)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive, zipfile.ZipFile(heads) as before:
        ours, theirs = (json.loads(z.read("dataset.json"))["labels"] for z in (archive, before))
        assert ours == theirs  # the numbers of the file, not their float32
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert archive.read("00000/img00000002.png") == before.read("00000/img00000002.png")


def test_labels_from_a_file_beside_go_with_the_names(tmp_path: Path) -> None:
    images = folder(tmp_path / "in")
    pack(images, labels(tmp_path / "c.json", change=lambda pairs: pairs[::-1]), tmp_path / "out.zip")
    expected = torch.tensor([label for _, label in json.loads((tmp_path / "c.json").read_text())["labels"]][::-1])
    out = Dataset(tmp_path / "out.zip")
    assert torch.equal(out.labels, expected) and out.about["sources"] == ["0.png", "1.png", "2.png"]
    assert np.array_equal(out.image(1).permute(1, 2, 0).numpy(), picture(seed=1))


def test_same_input_same_bytes(tmp_path: Path) -> None:
    images, cameras = folder(tmp_path / "in", 20), labels(tmp_path / "c.json", 20)
    for name, workers in (("a", 1), ("b", 3)):
        pack(images, cameras, tmp_path / f"{name}.zip", PackOptions(resolution=4), workers=workers)
    moved = tmp_path / "elsewhere"
    images.rename(moved)
    pack(moved, cameras, tmp_path / "c.zip", PackOptions(resolution=4))
    assert len({(tmp_path / f"{name}.zip").read_bytes() for name in "abc"}) == 1
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for file in sorted(moved.iterdir()):
            archive.write(file, file.name)
    pack(tmp_path / "zipped.zip", cameras, tmp_path / "d.zip", PackOptions(resolution=4))
    assert (tmp_path / "d.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()


def scene(tmp_path: Path, given: np.ndarray, kind: str) -> Path:
    """The same cameras of pictures of 640 x 480 pixels as COLMAP and as NeRF files."""
    if kind == "nerf":
        frames = [{"file_path": f"a picture {i}", "transform_matrix": opengl(m)} for i, m in enumerate(given)]
        return write_json(tmp_path / "transforms.json", nerf(frames, fl_x=500, fl_y=510, cx=322, cy=239, w=640, h=480))
    write = {"text": write_colmap_text, "binary": write_colmap_binary}[kind]
    return write(tmp_path / kind, given)


@pytest.mark.parametrize("kind", ["text", "binary", "nerf"])
def test_every_way_in_gives_the_same_labels(tmp_path: Path, kind: str) -> None:
    given = poses(4)
    for index in range(4):  # a copy of a quarter of the size
        save(tmp_path / "in" / f"a picture {index}.jpg", picture(160, 120, index))
    options = PackOptions(crop="centre", resolution=16, normalise="sphere")
    pack(tmp_path / "in", scene(tmp_path, given, kind), tmp_path / "out.zip", options)
    camera = Camera.from_label(Dataset(tmp_path / "out.zip").labels)
    # Optical axes meet in the origin, all at distance 4: the pose is only scaled, by 2.7 / 4.
    assert np.allclose(camera.cam2world[:, :3, :3], given[:, :3, :3], atol=1e-6)
    assert np.allclose(camera.position, given[:, :3, 3] * 2.7 / 4, atol=1e-5)
    # The cut keeps columns 80...560 of 640 and all 480 rows.
    expected = pinhole(500 / 480, 510 / 480, (322 - 80) / 480, 239 / 480)
    assert camera.intrinsics[0].numpy() == pytest.approx(expected, abs=1e-6)
    report, _ = check_dataset(tmp_path / "out.zip")
    require_sound(report)
    assert report.about["normalise"] == "sphere" and report.about["world"]["scale"] == pytest.approx(2.7 / 4)


def test_a_point_stays_on_its_pixel(tmp_path: Path) -> None:
    """A bright square drawn where a point projects in the photograph lies where the packed camera projects that point."""
    scene_camera = Camera.looking_at_origin(torch.tensor([0.3]), torch.tensor([0.2]), radius=6.0)
    offset, point = np.array([1.0, -2.0, 3.0]), torch.tensor([[[0.4, 0.5, -0.3]]])
    matrix = scene_camera.cam2world[0].double().numpy().copy()
    matrix[:3, 3] += offset
    size, focal = (400, 300), 700.0
    in_pixels = Camera(scene_camera.cam2world, torch.from_numpy(pinhole(focal, focal, 190, 160)).float()[None])
    x, y = in_pixels.project(point)[0][0, 0].tolist()
    pixels = np.zeros((300, 400, 3), dtype=np.uint8)
    pixels[round(y) - 4 : round(y) + 4, round(x) - 4 : round(x) + 4] = 255
    save(tmp_path / "in" / "a.png", pixels)
    content = nerf([{"file_path": "a", "transform_matrix": opengl(matrix)}], fl_x=focal, cx=190, cy=160, w=size[0], h=size[1])
    options = PackOptions(crop="centre", resolution=128, centre=tuple(offset), scale=0.45)
    pack(tmp_path / "in", write_json(tmp_path / "t.json", content), tmp_path / "out.zip", options)
    data = Dataset(tmp_path / "out.zip")
    place = Camera.from_label(data.labels).project(0.45 * point)[0][0, 0].numpy() * 128
    rows, columns = np.nonzero(data.image(0)[0].numpy() > 128)
    assert np.allclose([columns.mean() + 0.5, rows.mean() + 0.5], place, atol=0.5)


def test_deep3d_with_a_crop_in_pixels(tmp_path: Path) -> None:
    save(tmp_path / "in" / "face.png", picture(16, 16))
    pose = {"face": {"angle": [0, 0, 0], "trans": (np.array([0, 0.006, 0.161]) / 0.27).tolist()}}
    pack(tmp_path / "in", write_json(tmp_path / "p.json", pose), tmp_path / "out.zip", PackOptions(crop=12, resolution=8))
    data = Dataset(tmp_path / "out.zip")
    assert torch.allclose(data.labels[0], torch.tensor(LABEL), atol=1e-6)
    wanted = Image.fromarray(picture(16, 16)).crop((2, 2, 14, 14)).resize((8, 8), Image.Resampling.LANCZOS)
    assert np.array_equal(data.image(0).permute(1, 2, 0).numpy(), np.asarray(wanted))


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    save(tmp_path / "in" / "0.png", board)
    pack(tmp_path / "in", labels(tmp_path / "c.json", 1), tmp_path / "out.zip", PackOptions(resolution=8))
    image = Dataset(tmp_path / "out.zip").image(0).float()
    assert image.shape == (3, 8, 8) and (image - 127.5).abs().max() < 8


def test_grey_palette_and_opaque_alpha_become_rgb(tmp_path: Path) -> None:
    grey = picture(channels=1)
    save(tmp_path / "in" / "0.png", grey)
    opaque = np.dstack([picture(seed=1), np.full((8, 8), 255, np.uint8)])
    save(tmp_path / "in" / "1.png", opaque)
    Image.fromarray(picture(seed=2)).quantize(16).save(tmp_path / "in" / "2.png")
    pack(tmp_path / "in", labels(tmp_path / "c.json"), tmp_path / "out.zip")
    data = Dataset(tmp_path / "out.zip")
    assert np.array_equal(data.image(0)[2].numpy(), grey) and np.array_equal(data.image(1).permute(1, 2, 0).numpy(), opaque[..., :3])
    assert np.array_equal(data.image(2).permute(1, 2, 0).numpy(), np.asarray(Image.open(tmp_path / "in" / "2.png").convert("RGB")))


def test_transparency_over_a_colour(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[..., 0], pixels[4:, :, 3] = 200, 255
    save(tmp_path / "in" / "0.png", pixels)
    for colour, behind in (("white", 255), ("black", 0)):
        pack(tmp_path / "in", labels(tmp_path / "c.json", 1), tmp_path / f"{colour}.zip", PackOptions(alpha=colour))
        image = Dataset(tmp_path / f"{colour}.zip").image(0)
        assert bool((image[:, :4] == behind).all()) and image[:, 4:].amax((1, 2)).tolist() == [200, 0, 0]


def test_skipping_says_how_many(tmp_path: Path) -> None:
    report = pack(folder(tmp_path / "in", 4), labels(tmp_path / "c.json", 3), tmp_path / "out.zip", PackOptions(unmatched="skip"))
    assert (report.images, report.left_out) == (3, 1) and len(Dataset(tmp_path / "out.zip")) == 3


def test_enlarging_is_counted(tmp_path: Path) -> None:
    report = pack(folder(tmp_path / "in"), labels(tmp_path / "c.json"), tmp_path / "out.zip", PackOptions(resolution=16))
    assert report.enlarged == 3


def aside(pairs: list[Any]) -> list[Any]:
    return [[name, [*label[:3], label[3] + 1.5, *label[4:]]] for name, label in pairs]


def test_aim_any_packs_cameras_that_look_past(tmp_path: Path) -> None:
    images, cameras = folder(tmp_path / "in"), labels(tmp_path / "c.json", change=aside)
    assert pack(images, cameras, tmp_path / "out.zip", PackOptions(aim="any")).images == 3


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    images, cameras, out = folder(tmp_path / "in"), labels(tmp_path / "c.json"), tmp_path / "out.zip"
    out.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"out\.zip: exists already; --force replaces it"):
        pack(images, cameras, out)
    assert out.read_bytes() == b"precious"
    pack(images, cameras, out, force=True)
    assert len(Dataset(out)) == 3
    packed = out.read_bytes()
    for given in ((out, cameras), (images, out)):
        with pytest.raises(DataError, match=r"out\.zip: is read to make it; give another name"):
            pack(*given, out, force=True)
    assert out.read_bytes() == packed
    with pytest.raises(OutputError, match=r"c\.json/out\.zip: cannot be written: .*c\.json is a file, not a folder"):
        pack(images, cameras, cameras / "out.zip")
    for wrong, message in ((tmp_path / "out.tar", r"must end in \.zip"), (tmp_path / "in", "must end in")):
        with pytest.raises(DataError, match=message):
            pack(images, cameras, wrong)


def test_writing_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, cameras, out = folder(tmp_path / "in"), labels(tmp_path / "c.json"), tmp_path / "out.zip"
    out.write_bytes(b"precious")
    seen: list[int] = []

    def full(done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        pack(images, cameras, out, force=True, progress=full)
    assert seen == [1, 2] and out.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 3


def other_hand(pairs: list[Any]) -> list[Any]:
    return [[name, [-label[0], *label[1:4], -label[4], *label[5:8], -label[8], *label[9:]]] for name, label in pairs]


def test_cameras_are_checked_before_any_image_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "square_pixels", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match="mirrors space"):
        pack(folder(tmp_path / "in"), labels(tmp_path / "c.json", change=other_hand), tmp_path / "out.zip")


def test_a_name_twice_in_a_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, format="png")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("0.png", buffer.getvalue())
        archive.writestr("0.png", buffer.getvalue())
    with pytest.raises(DataError, match=r"in\.zip: entry '0\.png' stands twice"):
        pack(tmp_path / "in.zip", labels(tmp_path / "c.json", 1), tmp_path / "out.zip")


def test_command_line(tmp_path: Path) -> None:
    images, cameras, out = folder(tmp_path / "in", 4, 12, 8), labels(tmp_path / "c.json"), tmp_path / "out.zip"
    words = ["pack", str(images), str(cameras), str(out), "--crop", "centre", "--resolution", "16", "--unmatched", "skip", "--scale", "1.5"]
    done = CliRunner().invoke(app, [*words, "--centre", "0,0.01,0"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for part in (
        "3 images of 16 x 16",
        "eg3d; centre 0, 0.01, 0, scale 1.5",
        "left out 1 images",
        "3 images were smaller than 16",
        "data preview",
    ):
        assert part in text
    checked = CliRunner().invoke(app, ["check", str(out), "--no-pictures"])
    assert "packed      from eg3d, crop centre; centre 0, 0.01, 0, scale 1.5" in checked.output and "labels      sound" in checked.output
    bad = CliRunner().invoke(app, [*words, "--force", "--centre", "0,1"])
    assert isinstance(bad.exception, DataError) and "--centre: expected three numbers X,Y,Z, got '0,1'" in str(bad.exception)


def test_the_script_of_the_how_to_reads_renderings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "howto" / "own_images.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    given = poses(4).reshape(2, 2, 4, 4)
    for car in range(2):
        place = tmp_path / "cars" / f"car{car}"
        (place / "pose").mkdir(parents=True)
        (place / "intrinsics.txt").write_text("13.125 8.0 8.0 0.\n0. 0. 0.\n1.\n16 16\n")
        for view in range(2):
            save(place / "rgb" / f"{view:06d}.png", picture(16, 16))
            (place / "pose" / f"{view:06d}.txt").write_text(" ".join(repr(float(v)) for v in given[car, view].ravel()))
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "own_images.md", "exec"), {})
    pack("cars", "cars.json", "cars.zip")
    data = Dataset("cars.zip")
    assert np.allclose(data.labels[:, :16].reshape(2, 2, 4, 4), given, atol=1e-6) and len(data) == 4
    assert data.labels[0, 16:].reshape(3, 3).numpy() == pytest.approx(pinhole(13.125 / 16, 13.125 / 16, 0.5, 0.5))
