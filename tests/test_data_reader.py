"""The reader of the EG3D format, its validation before the first step, `data check`, and the command line."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from priorzoo.cli.data import app
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, OutputError
from priorzoo.data.check import check_dataset, label_problems, require_sound
from priorzoo.data.dataset import Dataset
from priorzoo.data.preview import samples_sheet, write_camera_plot
from typer.testing import CliRunner

Entries = dict[str, bytes]


def png(size: tuple[int, int] = (8, 8), mode: str = "RGB", value: int = 0) -> bytes:
    buffer = io.BytesIO()
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(value).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def labels(count: int) -> list[list[float]]:
    yaw = torch.linspace(-0.5, 0.5, count)
    return Camera.looking_at_origin(yaw, 0.1 * yaw).label().tolist()


def entries(count: int = 3) -> Entries:
    names = [f"00000/img{i:08d}.png" for i in range(count)]
    made = {name: png(value=i) for i, name in enumerate(names)}
    pairs = [[name, label] for name, label in zip(names, labels(count), strict=True)]
    return {**made, "dataset.json": json.dumps({"labels": pairs}).encode()}


def write_zip(path: Path, content: Entries) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, content: Entries) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def relabelled(change: Callable[[list[Any]], Any]) -> Entries:
    content = entries()
    pairs = json.loads(content["dataset.json"])["labels"]
    content["dataset.json"] = json.dumps({"labels": change(pairs)}).encode()
    return content


def test_zip_and_folder_read_alike(tmp_path: Path) -> None:
    a, b = Dataset(write_zip(tmp_path / "a.zip", entries())), Dataset(write_folder(tmp_path / "b", entries()))
    assert len(a) == len(b) == 3 and a.names == b.names == sorted(a.names)
    images, given = a.batch([2, 0])
    assert images.dtype == torch.uint8 and images.shape == (2, 3, 8, 8) and given.shape == (2, 25)
    assert torch.equal(images, b.batch([2, 0])[0]) and torch.equal(given, torch.tensor(labels(3))[[2, 0]])
    expected = np.array(Image.open(io.BytesIO(png(value=2)))).transpose(2, 0, 1)
    assert np.array_equal(a[2][0].numpy(), expected)
    a.validate()
    b.validate()


def test_labels_go_with_names_not_with_their_order(tmp_path: Path) -> None:
    shuffled = write_zip(tmp_path / "a.zip", relabelled(lambda pairs: pairs[::-1]))
    assert torch.equal(Dataset(shuffled).labels, torch.tensor(labels(3)))


def test_grey_images_become_three_channels(tmp_path: Path) -> None:
    content = {name: png(mode="L") if name.endswith(".png") else data for name, data in entries().items()}
    image = Dataset(write_zip(tmp_path / "a.zip", content)).image(0)
    assert image.shape == (3, 8, 8) and torch.equal(image[0], image[2])


def test_smaller_resolution_averages(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", entries())
    full, half = Dataset(path).image(1).float(), Dataset(path, resolution=4).image(1).float()
    mean = full.view(3, 4, 2, 4, 2).mean((2, 4))
    assert half.shape == (3, 4, 4) and (half - mean).abs().max() <= 0.5
    with pytest.raises(DataError, match="8 pixels a side; 3 is no divisor"):
        Dataset(path, resolution=3)


def _sum_of(data: Dataset, index: int) -> int:
    return int(data.image(index).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_one_reader(tmp_path: Path, method: str) -> None:
    data = Dataset(write_zip(tmp_path / "a.zip", entries(6)))
    expected = [int(Dataset(data.path).image(i).sum()) for i in range(6)]
    if method == "fork":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.starmap(_sum_of, [(data, i) for i in range(6)]) == expected
    else:  # what a spawned worker receives: a pickle without the open file
        assert [_sum_of(pickle.loads(pickle.dumps(data)), i) for i in range(6)] == expected


SECOND = "00000/img00000001.png"
BAD: dict[str, tuple[Callable[[], Entries], str]] = {
    "corrupt png": (lambda: {**entries(), SECOND: png()[:60]}, "1.png.*(damaged|readable)"),
    "not a png": (lambda: {**entries(), "00000/img00000002.png": b"hello"}, "2.png.*not a readable image"),
    "not square": (lambda: {**entries(), SECOND: png((8, 6))}, "1.png.*8 x 6 pixels.*square"),
    "another size": (lambda: {**entries(), SECOND: png((4, 4))}, "1.png.*4 pixels a side.*8"),
    "transparent": (lambda: {**entries(), SECOND: _rgba()}, "1.png.*mode RGBA.*allowed"),
    "no dataset.json": (lambda: {k: v for k, v in entries().items() if k != "dataset.json"}, "no dataset.json"),
    "labels null": (lambda: {**entries(), "dataset.json": b'{"labels": null}'}, "has no labels"),
    "labels missing": (lambda: {**entries(), "dataset.json": b"{}"}, "has no labels"),
    "a list": (lambda: {**entries(), "dataset.json": b"[]"}, "has no labels"),
    "not json": (lambda: {**entries(), "dataset.json": b'{"labels": ['}, "not JSON"),
    "labels of another form": (lambda: {**entries(), "dataset.json": b'{"labels": [1, 2]}'}, "list of .name, 25"),
    "a missing label": (lambda: relabelled(lambda p: p[:2]), "2.png' has no label"),
    "a short label": (lambda: relabelled(lambda p: [*p[:2], [p[2][0], p[2][1][:16]]]), "2.png.*25 numbers, got 16"),
    "an integer label": (lambda: relabelled(lambda p: [*p[:2], [p[2][0], 7]]), "2.png.*25 numbers, got int"),
    "words in a label": (lambda: relabelled(lambda p: [*p[:2], [p[2][0], ["a"] * 25]]), "2.png.*25 numbers"),
    "not finite": (lambda: relabelled(lambda p: [*p[:2], [p[2][0], [float("nan")] * 25]]), "2.png.*not finite"),
    "no images": (lambda: {"dataset.json": b'{"labels": []}'}, "holds no image"),
}  # fmt: skip


def _rgba() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_named_before_the_first_step(tmp_path: Path, name: str, kind: str) -> None:
    make, message = BAD[name]
    path = write_zip(tmp_path / "bad.zip", make()) if kind == "zip" else write_folder(tmp_path / "bad", make())
    with pytest.raises(DataError, match=f"(?s)bad.*{message}"):
        Dataset(path).validate()


def test_a_zip_cut_short(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.zip", entries()).read_bytes()
    short = tmp_path / "short.zip"
    short.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=r"short\.zip: not a readable zip.*cut short"):
        Dataset(short)


def test_a_flipped_byte_in_a_zip_is_found(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", entries())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        data[archive.getinfo("00000/img00000001.png").header_offset + 150] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"img00000001\.png"):
        Dataset(path).validate()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        Dataset(tmp_path / "absent.zip")


def test_large_sets_are_sampled_but_every_header_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorzoo.data.dataset.DECODE_ALL_PIXELS", 0)
    monkeypatch.setattr("priorzoo.data.dataset.DECODE_SAMPLE", 2)
    path = write_zip(tmp_path / "a.zip", {**entries(6), "00000/img00000004.png": png((8, 6))})
    with pytest.raises(DataError, match=r"img00000004\.png.*square"):
        Dataset(path).validate()


def test_check_of_sound_data(tmp_path: Path) -> None:
    report, data = check_dataset(write_zip(tmp_path / "a.zip", entries()))
    assert (report.images, report.resolution, report.cameras, report.problems, report.remarks) == (3, 8, 3, [], [])
    assert report.focal == pytest.approx((4.2647, 4.2647)) and report.radius == pytest.approx((2.7, 2.7))
    assert report.yaw[2:] == pytest.approx((-0.5, 0.5), abs=1e-5)
    require_sound(report)
    assert samples_sheet(data, columns=2, rows=2, tile=16).shape == (32, 32, 3)
    write_camera_plot(data, tmp_path / "cameras.png")
    assert Image.open(tmp_path / "cameras.png").size[0] > 800


def changed(position: int, value: float) -> Camera:
    label = torch.tensor(labels(2))
    label[1, position] = value
    return Camera.from_label(label)


@pytest.mark.parametrize(
    ("camera", "message"),
    [(changed(0, 2.0), "b: .*not orthonormal"), (changed(15, 0.0), "b: last row of cam2world"),
     (changed(24, 0.5), "b: last row of the intrinsics"), (changed(16, -4.0), "b: focal length -4 is not positive"),
     (changed(16, 2183.0), "b: focal length 2.18e.03 is too long")],
)  # fmt: skip
def test_impossible_cameras_are_problems(camera: Camera, message: str) -> None:
    import re

    found = label_problems(["a", "b"], camera)
    assert len(found) == 1 and re.match(message, found[0])


def test_a_mirrored_rotation_is_a_problem() -> None:
    camera = Camera.looking_at_origin(torch.tensor([0.1, 0.2]), torch.zeros(2))
    camera.cam2world[:, :3, 0] *= -1
    assert label_problems(["a", "b"], camera) == ["a: rotation mirrors space: its determinant is -1, not +1 (and 1 more)"]


def test_check_remarks_on_copies_and_odd_cameras(tmp_path: Path) -> None:
    def odd(pairs: list[Any]) -> list[Any]:
        pairs[1][1][16] = 6.0  # focal
        pairs[2][1][18] = 0.7  # principal point
        for row in range(3):  # OpenGL's axes: y and z the other way
            pairs[0][1][4 * row + 1] *= -1
            pairs[0][1][4 * row + 2] *= -1
        return pairs

    content = relabelled(odd)
    content["00000/img00000001.png"] = content["00000/img00000000.png"]
    report, _ = check_dataset(write_zip(tmp_path / "a.zip", content))
    text = "\n".join(report.remarks)
    assert report.problems == [] and report.duplicates == [["00000/img00000000.png", "00000/img00000001.png"]]
    for part in (
        "1 images are copies",
        "focal lengths spread",
        "pixels are not square",
        "0.200 image widths off",
        "1 cameras do not look",
    ):
        assert part in text


def test_command_line_writes_and_checks(tmp_path: Path) -> None:
    run, out = CliRunner(), tmp_path / "h.zip"
    options = ["--images", "4", "--resolution", "16", "--held-out", "1", "--workers", "1", "--background", "gradient"]
    made = run.invoke(app, ["heads", str(out), *options])
    assert made.exit_code == 0, made.output
    assert {p.name for p in tmp_path.iterdir()} == {"h.zip", "h.held_out.zip", "h.truth.zip"}
    again = run.invoke(app, ["heads", str(out), *options])
    assert isinstance(again.exception, OutputError)
    assert run.invoke(app, ["heads", str(out), *options, "--force"]).exit_code == 0
    checked = run.invoke(app, ["check", str(out), "--pictures", str(tmp_path / "pictures")])
    assert checked.exit_code == 0, checked.output
    assert "images      4 of 16 x 16" in checked.output and "labels      sound" in checked.output
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"h.cameras.png", "h.samples.png"}


def test_command_line_refuses_impossible_labels(tmp_path: Path) -> None:
    def mirrored(pairs: list[Any]) -> list[Any]:
        pairs[1][1][0] *= 3
        return pairs

    path = write_zip(tmp_path / "a.zip", relabelled(mirrored))
    result = CliRunner().invoke(app, ["check", str(path), "--no-pictures"])
    assert isinstance(result.exception, DataError) and "img00000001.png" in str(result.exception)
    assert "images      3" in result.output and len(list(tmp_path.iterdir())) == 1
