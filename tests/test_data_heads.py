"""The heads data set: EG3D's format to the byte, its truth, determinism, whole or not at all."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import priorzoo.data.heads as heads_module
import pytest
import torch
from PIL import Image
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, OutputError
from priorzoo.data.dataset import Dataset
from priorzoo.data.eg3d_format import image_name
from priorzoo.data.heads import (
    FIRST_HELD_OUT,
    HeadsFiles,
    HeadsPlan,
    plan_camera,
    render_images,
    write_heads,
)
from priorzoo.data.truth import ImageTruth, encode_truth
from priorzoo.shapes.head_model import head_distance
from priorzoo.shapes.head_render import pixel_rays

SMALL = {"images": 10, "resolution": 32, "seed": 5, "held_out": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> HeadsFiles:
    return write_heads(tmp_path_factory.mktemp("heads") / "small.zip", **SMALL)  # type: ignore[arg-type]


def contents(files: HeadsFiles) -> list[bytes]:
    return [path.read_bytes() for path in (files.images, files.held_out, files.truth)]


def test_same_seed_same_bytes_for_any_number_of_workers(files: HeadsFiles, tmp_path: Path) -> None:
    again = write_heads(tmp_path / "again.zip", workers=2, **SMALL)  # type: ignore[arg-type]
    assert contents(again) == contents(files)
    other = write_heads(tmp_path / "other.zip", **{**SMALL, "seed": 6})  # type: ignore[arg-type]
    assert all(a != b for a, b in zip(contents(other), contents(files), strict=True))


def test_threads_of_the_caller_are_kept(files: HeadsFiles) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = render_images(HeadsPlan(10, 32, 5, held_out=2), range(2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert made.rgb.shape == (2, 3, 32, 32)


def test_zip_is_eg3d_s_format(files: HeadsFiles) -> None:
    with zipfile.ZipFile(files.images) as archive:
        assert sorted(archive.namelist()) == [*(f"00000/img{i:08d}.png" for i in range(10)), "dataset.json"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        picture = Image.open(io.BytesIO(archive.read("00000/img00000003.png")))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (32, 32))
        content = json.loads(archive.read("dataset.json"))
    assert list(content) == ["labels"] and [name for name, _ in content["labels"]] == [image_name(i) for i in range(10)]
    label = np.array(content["labels"][3][1])
    pose, intrinsics = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    assert np.allclose(intrinsics, [[4.2647, 0, 0.5], [0, 4.2647, 0.5], [0, 0, 1]])
    assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-6) and np.linalg.det(pose[:3, :3]) > 0.999
    assert np.allclose(pose[:3, 3], -2.7 * pose[:3, 2], atol=1e-5)  # stands at radius 2.7 and looks at the origin


def test_labels_round_trip_without_loss(files: HeadsFiles) -> None:
    plan = HeadsPlan(10, 32, 5, held_out=2)
    assert torch.equal(Dataset(files.images).labels, plan_camera(plan, range(10)).label())
    assert torch.equal(Dataset(files.held_out).labels, plan_camera(plan, range(10, 14)).label())


def test_held_out_identities_are_never_trained_on(files: HeadsFiles) -> None:
    truth = ImageTruth(files.truth)
    train, held_out = truth.names("train"), truth.names("held_out")
    assert train == Dataset(files.images).names and held_out == Dataset(files.held_out).names
    heads = [{truth.record(name)["head"] for name in names} for names in (train, held_out)]
    assert heads[0] == set(range(5)) and heads[1] == {FIRST_HELD_OUT, FIRST_HELD_OUT + 1}
    assert truth.names() == train + held_out and len(truth) == 14


def test_held_out_heads_do_not_depend_on_the_number_of_training_images() -> None:
    few, many = HeadsPlan(4, 16, 5, held_out=2), HeadsPlan(20, 16, 5, held_out=2)
    a, b = render_images(few, range(4, 8)), render_images(many, range(20, 24))
    assert torch.equal(a.labels, b.labels) and torch.allclose(a.rgb, b.rgb, atol=1e-5)


def test_truth_is_that_of_the_image(files: HeadsFiles) -> None:
    truth, plan = ImageTruth(files.truth), HeadsPlan(10, 32, 5, held_out=2)
    made = render_images(plan, range(8, 14))
    names = [image_name(i) for i in range(8, 14)]
    read = truth[names]
    assert torch.equal(read.foreground, made.foreground) and torch.equal(read.labels, made.labels)
    assert (read.depth - made.depth)[read.foreground[:, None]].abs().max() < 2e-5
    assert (read.normals - made.normals).abs().max() < 2e-5
    assert torch.equal(read.camera.label(), plan_camera(plan, range(8, 14)).label())
    origins, directions = pixel_rays(read.camera, 32)
    points = origins + directions * read.depth.flatten(1).nan_to_num(posinf=0.0)[..., None]
    assert head_distance(points, read.parameters).abs()[read.foreground.flatten(1)].quantile(0.99) < 3e-4
    image = Dataset(files.images).image(9).float() / 255
    assert (image - made.rgb[1]).abs().max() <= 0.5 / 255 + 1e-6
    one = truth[names[0]]
    assert one.depth.shape == (1, 1, 32, 32) and torch.equal(one.labels[0], read.labels[0])


def test_cameras_follow_the_asked_law() -> None:
    plan = HeadsPlan(3000, 16, 1, held_out=200, wide_yaw=0.5)
    yaw, pitch = np.array([plan.angles_of(i) for i in range(3000)]).T
    assert abs(yaw.std() - np.sqrt(0.5 / 3 + 0.5 * 0.09)) < 0.02 and abs(pitch.std() - 0.155) < 0.01
    assert 0.15 < (np.abs(yaw) > 0.7).mean() < 0.20
    narrow = np.array([HeadsPlan(3000, 16, 1, wide_yaw=0.0).angles_of(i) for i in range(3000)])[:, 0]
    assert abs(narrow.std() - 0.3) < 0.015
    first = np.array([plan.angles_of(3000 + 2 * i)[0] for i in range(200)])
    assert abs(first.std() - 0.3) < 0.05  # whole faces
    both = [plan.angles_of(0), plan.angles_of(1)]
    assert both[0] != both[1] and plan.head_of(0) == plan.head_of(1)


def test_an_existing_file_is_kept_unless_asked(files: HeadsFiles, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    (tmp_path / "a.truth.zip").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"a\.truth\.zip: exists already; --force replaces it"):
        write_heads(target, 2, 16, held_out=0)
    assert not target.exists() and (tmp_path / "a.truth.zip").read_bytes() == b"precious"
    write_heads(target, 2, 16, held_out=0, force=True)
    assert zipfile.is_zipfile(tmp_path / "a.truth.zip") and not (tmp_path / "a.held_out.zip").exists()


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = heads_module._encoded_chunk, []

    def failing(plan: HeadsPlan, start: int, stop: int) -> list[tuple[bytes, bytes]]:
        calls.append(start)
        if len(calls) == 2:
            raise OSError("disk full")
        return real(plan, start, stop)

    monkeypatch.setattr(heads_module, "_encoded_chunk", failing)
    with pytest.raises(OSError, match="disk full"):
        write_heads(tmp_path / "a.zip", 12, 16, held_out=0)
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_overwriting_that_fails_keeps_the_old_files(files: HeadsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_heads(tmp_path / "a.zip", 2, 16, held_out=1)
    before = contents(old)

    def failing(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(heads_module, "_truth_json", failing)
    with pytest.raises(KeyboardInterrupt):
        write_heads(tmp_path / "a.zip", 2, 16, seed=9, held_out=1, force=True)
    assert contents(old) == before and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [("images", 0), ("resolution", 48), ("seed", -1), ("background", "starry"), ("wide_yaw", 1.5),
     ("images_per_identity", 0), ("held_out", -1), ("supersample", 0)],
)  # fmt: skip
def test_options_out_of_range_are_named(option: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{option} must be .*got {value!r}"):
        write_heads(tmp_path / "a.zip", **{**SMALL, option: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_name_must_end_in_zip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.zip"):
        write_heads(tmp_path / "heads", 2)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_heads(tmp_path / "a.zip", 9, 16, held_out=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 11), (11, 11)]


def test_truth_refuses_what_it_cannot_hold() -> None:
    labels, normals = torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(3, 2, 2)
    with pytest.raises(DataError, match=r"1\.000"):
        encode_truth(torch.full((1, 2, 2), 1.0), normals, labels)
    encode_truth(torch.full((1, 2, 2), float("inf")), normals, labels)


def test_truth_errors_name_the_entry(files: HeadsFiles, tmp_path: Path) -> None:
    truth = ImageTruth(files.truth)
    with pytest.raises(DataError, match=r"did you mean '00000/img00000003\.png'"):
        truth["00000/img00000003.pn"]
    with pytest.raises(DataError, match=r"is 'train' or 'held_out', got 'test'"):
        truth.names("test")
    with pytest.raises(DataError, match=r"no truth\.json"):
        ImageTruth(files.images)
    damaged = tmp_path / "bad.truth.zip"
    with zipfile.ZipFile(files.truth) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:200] if name == "00000/img00000001.npz" else old.read(name))
    with pytest.raises(DataError, match=r"00000/img00000001\.npz.*damaged"):
        ImageTruth(damaged)["00000/img00000001.png"]


def test_cameras_of_truth_and_labels_are_one(files: HeadsFiles) -> None:
    data = Dataset(files.images)
    assert torch.equal(ImageTruth(files.truth).camera(data.names).label(), Camera.from_label(data.labels).label())
