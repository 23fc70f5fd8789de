"""Readers of camera files: known cameras by pencil in every convention, round trips, and what is refused for its own reason."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from camera_file_writers import FRONTAL, IDENTITY, nerf, poses, write_colmap_binary, write_colmap_text, write_json
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, PriorzooError
from priorzoo.data.camera_files.colmap import pose_from_colmap
from priorzoo.data.camera_files.deep3d import pose_from_face, rotation_from_angles
from priorzoo.data.camera_files.formats import detect_format, read_cameras
from priorzoo.data.camera_files.frame import CameraFrame, packed_intrinsics, pinhole
from priorzoo.data.camera_files.mat_file import read_mat
from priorzoo.data.camera_files.matching import match_cameras

# --- the frontal camera by pencil -----------------------------------------------------------------------------------------------


def test_frontal_camera_of_colmap() -> None:
    # World to camera: turn by pi about x (quaternion 0 1 0 0), then the world's origin lies 2.7 before the camera.
    assert np.allclose(pose_from_colmap("", [0, 1, 0, 0], [0, 0, 2.7]), FRONTAL, atol=1e-15)


def test_frontal_camera_of_nerf(tmp_path: Path) -> None:
    # OpenGL's axes are the world's here: x right, y up, z towards the viewer.
    matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2.7], [0, 0, 0, 1]]
    path = write_json(tmp_path / "t.json", nerf([{"file_path": "a", "transform_matrix": matrix}], camera_angle_x=math.radians(13.37)))
    (frame,) = read_cameras(path)[1]
    assert np.array_equal(frame.cam2world, FRONTAL)
    assert packed_intrinsics(frame, (8, 8), (0, 0, 8, 8)) == pytest.approx(pinhole(4.2647, 4.2647, 0.5, 0.5), abs=2e-3)


def test_frontal_camera_of_eg3d(tmp_path: Path) -> None:
    label = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    form, (frame,) = read_cameras(write_json(tmp_path / "dataset.json", {"labels": [["a.png", label]]}))
    assert form == "eg3d" and np.array_equal(frame.cam2world, FRONTAL)
    assert np.array_equal(frame.intrinsics, pinhole(4.2647, 4.2647, 0.5, 0.5))
    assert np.allclose(Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)).cam2world[0].numpy(), FRONTAL)


def test_frontal_camera_of_deep3d() -> None:
    # t = (0, -0.006 / 0.27, 0.161 / 0.27) puts the published position at (0, 0, 10) * 0.27 - 0.27 t + (0, 0.006, 0.161) = (0, 0.012, 2.7).
    pose = pose_from_face(np.zeros(3), np.array([0, -0.006, 0.161]) / 0.27, radius=None)
    assert np.allclose(pose[:3, :3], FRONTAL[:3, :3]) and np.allclose(pose[:3, 3], [0, 0.012, 2.7])
    onto = pose_from_face(np.zeros(3), np.array([0, 0.006, 0.161]) / 0.27)
    assert np.allclose(onto, FRONTAL, atol=1e-15)


# --- Deep3DFaceRecon's poses ----------------------------------------------------------------------------------------------------


def test_face_pose_by_pencil() -> None:
    # A quarter turn about y: R = R_y^T has rows (0,0,-1), (0,1,0), (1,0,0); c = R (0,0,10) * 0.27 + origin = (-2.7, 0.006, 0.161).
    pose = pose_from_face(np.array([0, math.pi / 2, 0]), np.zeros(3), radius=None)
    assert np.allclose(pose[:3, 3], [-2.7, 0.006, 0.161])
    assert np.allclose(pose[:3, :3], [[0, 0, 1], [0, -1, 0], [1, 0, 0]])  # R with its y and z columns negated
    assert np.allclose(pose[:3, 2] @ [1, 0, 0], 1)  # it looks to +x, from -x


def test_face_pose_keeps_its_rotation_on_the_sphere() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        angles, translation = rng.normal(0, 0.4, 3), rng.normal(0, 0.2, 3)
        free, bound = pose_from_face(angles, translation, radius=None), pose_from_face(angles, translation)
        assert np.array_equal(free[:3, :3], bound[:3, :3]) and np.linalg.norm(bound[:3, 3]) == pytest.approx(2.7)
        assert np.allclose(np.cross(free[:3, 3], bound[:3, 3]), 0, atol=1e-12)
        assert np.linalg.det(bound[:3, :3]) == pytest.approx(1)


def test_face_pose_sees_the_face_where_deep3d_sees_it() -> None:
    """Deep3DFaceRecon: p' = R^T p + t, then a picture plane (x' / (10 - z'), y' / (10 - z')), y up."""
    rng = np.random.default_rng(2)
    angles, translation = np.array([0.2, -0.5, 0.1]), np.array([0.3, -0.2, 0.4])
    points = rng.normal(0, 1, (30, 3))
    x, y, z = (points @ rotation_from_angles(angles) + translation).T
    pose = pose_from_face(angles, translation, radius=None)
    world = points * 0.27 + np.array([0, 0.006, 0.161])
    camera = Camera(torch.from_numpy(pose)[None], torch.from_numpy(pinhole(1, 1, 0, 0))[None])
    places, _ = camera.project(torch.from_numpy(world)[None])
    assert np.allclose(places[0].numpy(), np.stack([x / (10 - z), -y / (10 - z)], axis=1), atol=1e-12)


def deep3d_fields(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.3, (count, 3)), rng.normal(0, 0.1, (count, 3))


@pytest.mark.parametrize("kind", ["mat", "npz", "json"])
def test_deep3d_files_read_alike(tmp_path: Path, kind: str) -> None:
    from scipy.io import savemat

    angle, trans = deep3d_fields()
    names = [f"sub/{i:05d}" for i in range(3)]
    path = tmp_path / f"poses.{kind}"
    if kind == "mat":
        path = tmp_path / "poses"
        (path / "sub").mkdir(parents=True)
        for i, name in enumerate(names):
            savemat(path / f"{name}.mat", {"angle": angle[i : i + 1], "trans": trans[i : i + 1], "id": np.zeros((1, 80))})
    elif kind == "npz":
        np.savez(path, name=np.array(names), angle=angle, trans=trans)
    else:
        write_json(path, {n: {"angle": a.tolist(), "trans": t.tolist()} for n, a, t in zip(names, angle, trans, strict=True)})
    form, frames = read_cameras(path, focal=4.0)
    assert form == "deep3d" and [f.name for f in frames] == names
    for frame, a, t in zip(frames, angle, trans, strict=True):
        assert np.array_equal(frame.cam2world, pose_from_face(a, t)) and frame.unit == "packed"
        assert np.array_equal(packed_intrinsics(frame, (1024, 1024), (162, 162, 862, 862)), pinhole(4, 4, 0.5, 0.5))


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_read_as_scipy_reads_them(compressed: bool) -> None:
    from scipy.io import savemat

    rng = np.random.default_rng(5)
    arrays = {
        "angle": rng.normal(size=(1, 3)), "trans": rng.normal(size=(1, 3)).astype(np.float32),
        "small": np.array([[1, 2], [3, 4]], np.uint8),
        "cube": rng.normal(size=(2, 3, 4)), "text": "abc", "odd": rng.normal(size=(1, 7)) + 1j, "none": np.zeros((0, 3)),
    }  # fmt: skip
    file = io.BytesIO()
    savemat(file, arrays, do_compression=compressed)
    read = read_mat("f", file.getvalue(), arrays)
    assert set(read) == {"angle", "trans", "small", "cube", "none"}
    for name in ("angle", "trans", "small", "cube", "none"):
        assert read[name].shape == arrays[name].shape and np.array_equal(read[name], arrays[name])  # type: ignore[attr-defined]
    assert set(read_mat("f", file.getvalue(), ["trans", "absent"])) == {"trans"}


# --- COLMAP ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_colmap_text, write_colmap_binary])
def test_colmap_reads_back_what_was_written(tmp_path: Path, write: Callable[[Path, np.ndarray], Path]) -> None:
    given = poses(7)
    form, frames = read_cameras(write(tmp_path / "sparse" / "0", given))
    assert form == "colmap" and [f.name for f in frames] == [f"a picture {i}.jpg" for i in range(7)]
    assert np.allclose([f.cam2world for f in frames], given, atol=1e-12)
    assert all(f.size == (640, 480) and f.unit == "pixels" for f in frames)
    assert np.array_equal(frames[0].intrinsics, pinhole(500, 510, 322, 239))
    assert detect_format(tmp_path) == "colmap" and len(read_cameras(tmp_path)[1]) == 7  # found in sparse/0


def test_colmap_binary_goes_before_text(tmp_path: Path) -> None:
    write_colmap_text(tmp_path, poses(2))
    write_colmap_binary(tmp_path, poses(5))
    assert len(read_cameras(tmp_path)[1]) == 5 and len(read_cameras(tmp_path / "images.txt")[1]) == 5


@pytest.mark.parametrize(
    ("camera", "expected"),
    [("1 SIMPLE_PINHOLE 640 480 500 320 240", pinhole(500, 500, 320, 240)),
     ("1 SIMPLE_RADIAL 640 480 500 320 240 0", pinhole(500, 500, 320, 240)),
     ("1 PINHOLE 640 480 500 510 320 240", pinhole(500, 510, 320, 240))],
)  # fmt: skip
def test_colmap_models_without_distortion(tmp_path: Path, camera: str, expected: np.ndarray) -> None:
    (frame,) = read_cameras(write_colmap_text(tmp_path, poses(1), camera))[1]
    assert np.array_equal(frame.intrinsics, expected)


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriorzooError, match="format must be one of auto, eg3d, colmap, nerf, deep3d; got 'colmp', did you mean 'colmap'"):
        read_cameras(tmp_path, "colmp")


# --- NeRF's intrinsics ----------------------------------------------------------------------------------------------------------


def test_nerf_frames_have_intrinsics_of_their_own(tmp_path: Path) -> None:
    content = nerf(
        [{"file_path": "a", "transform_matrix": IDENTITY}, {"file_path": "b", "transform_matrix": IDENTITY, "fl_x": 20, "cx": 3.0},
         {"file_path": "c", "transform_matrix": IDENTITY, "w": 16, "fl_y": 12}],
        fl_x=10, cx=4.5, cy=4, w=8, h=8, k1=0, camera_model="OPENCV", camera_angle_x=1.0,
    )  # fmt: skip
    a, b, c = read_cameras(write_json(tmp_path / "t.json", content))[1]
    assert np.array_equal(a.intrinsics, pinhole(10, 10, 4.5, 4)) and a.size == (8, 8)
    assert np.array_equal(b.intrinsics, pinhole(20, 20, 3, 4))
    assert np.array_equal(c.intrinsics, pinhole(10, 12, 4.5, 4)) and c.size == (16, 8)


def test_an_angle_of_the_width_makes_square_pixels(tmp_path: Path) -> None:
    content = nerf([{"file_path": "a", "transform_matrix": IDENTITY}], camera_angle_x=math.pi / 2)
    (frame,) = read_cameras(write_json(tmp_path / "t.json", content))[1]
    # 90 degrees over 400 pixels: 200 pixels; over the height of 300: 2/3.
    assert packed_intrinsics(frame, (400, 300), (0, 0, 400, 300)) == pytest.approx(pinhole(0.5, 2 / 3, 0.5, 0.5))
    assert packed_intrinsics(frame, (400, 300), (50, 0, 350, 300)) == pytest.approx(pinhole(2 / 3, 2 / 3, 0.5, 0.5))
    both = nerf([{"file_path": "a", "transform_matrix": IDENTITY}], camera_angle_x=math.pi / 2, camera_angle_y=math.pi / 2, w=400, h=300)
    (frame,) = read_cameras(write_json(tmp_path / "t.json", both))[1]
    assert packed_intrinsics(frame, (400, 300), (0, 0, 400, 300)) == pytest.approx(pinhole(0.5, 0.5, 0.5, 0.5))


def test_a_cut_sees_the_same_rays() -> None:
    """A point that falls on a pixel of the picture falls on the same pixel of the cut."""
    frame = CameraFrame("a", "f", FRONTAL, np.array([[700.0, 9, 390], [0, 650, 310], [0, 0, 1]]), "pixels", (800, 600))
    box = (130, 20, 630, 520)
    whole, cut = (packed_intrinsics(frame, (800, 600), b) for b in ((0, 0, 800, 600), box))
    points = torch.rand(1, 20, 3, dtype=torch.float64) - 0.5
    at = {}
    for name, matrix in (("whole", whole), ("cut", cut)):
        camera = Camera(torch.from_numpy(FRONTAL)[None], torch.from_numpy(matrix)[None])
        at[name] = camera.project(points)[0][0].numpy()
    assert np.allclose(at["whole"] * [800, 600] - box[:2], at["cut"] * 500, atol=1e-9)


def test_a_smaller_copy_of_the_pictures_keeps_its_cameras() -> None:
    frame = CameraFrame("a", "f", FRONTAL, pinhole(500, 500, 320, 240), "pixels", (640, 480))
    assert np.allclose(packed_intrinsics(frame, (320, 240), (0, 0, 320, 240)), packed_intrinsics(frame, (640, 480), (0, 0, 640, 480)))
    assert packed_intrinsics(frame, (213, 160), (0, 0, 213, 160))[0, 0] == pytest.approx(500 / 640)
    with pytest.raises(DataError, match="f: the camera of 'a' is one of 640 x 480 pixels, the picture has 480 x 640"):
        packed_intrinsics(frame, (480, 640), (0, 0, 480, 640))


# --- names ----------------------------------------------------------------------------------------------------------------------


def frames(*names: str) -> list[CameraFrame]:
    return [CameraFrame(name, f"cameras, frame {i + 1}", np.eye(4), np.eye(3)) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("camera", "image"),
    [("a.png", "a.png"), ("./train/r_0", "train/r_0.png"), ("images/0001.jpg", "0001.png"), ("0001.jpg", "cam/0001.jpg"),
     ("00000/img1", "00000/img1.webp"), ("dir\\a.png", "a.png"), ("v1.5", "v1.5.png")],
)  # fmt: skip
def test_names_that_belong_together(camera: str, image: str) -> None:
    assert list(match_cameras("c", frames(camera), [image])) == [image]


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        (["a.png"], ["a.png", "b.png"], "c: no camera for 1 of 2 images, the first is 'b.png' .*skip"),
        (["a.png", "img_0.png"], ["a.png", "img_1.png"], "no camera for 1 of 2 images, the first is 'img_1.png', did you mean 'img_0.png'"),
        (["a.png", "b.png"], ["a.png"], "cameras, frame 2: no image for 1 of 2 cameras, the first is 'b.png'"),
        (
            ["a.png", "a.png"],
            ["a.png"],
            "cameras, frame 2: 'a.png' is a second camera of image 'a.png'; the first is 'a.png', cameras, frame 1",
        ),
        (["a"], ["x/a.png", "y/a.png"], "frame 1: 'a' may be the camera of 'x/a.png' or of 'y/a.png'"),
        (["a"], ["a.png", "a.jpg"], "may be the camera of 'a.png' or of 'a.jpg'"),
    ],
)
def test_names_that_do_not_fit(cameras: list[str], images: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        match_cameras("c", frames(*cameras), images)


def test_skipping_leaves_both_out() -> None:
    found = match_cameras("c", frames("b.png", "z.png"), ["a.png", "b.png"], skip=True)
    assert list(found) == ["b.png"]
    with pytest.raises(DataError, match="none of its 1 cameras belongs to one of the 1 images"):
        match_cameras("c", frames("z.png"), ["a.png"], skip=True)


def test_an_eg3d_set_gives_its_own_labels(tmp_path: Path) -> None:
    import zipfile

    label = [float(v) for v in range(25)]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("dataset.json", json.dumps({"labels": [["a.png", label]]}))
    form, (frame,) = read_cameras(tmp_path / "set.zip")
    assert form == "eg3d" and [*frame.cam2world.ravel(), *frame.intrinsics.ravel()] == label
    buffer = io.BytesIO((tmp_path / "set.zip").read_bytes())
    (tmp_path / "short.zip").write_bytes(buffer.getvalue()[:40])
    with pytest.raises(DataError, match=r"short\.zip: not a readable zip"):
        read_cameras(tmp_path / "short.zip")
