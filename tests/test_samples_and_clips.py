"""Samples and clips of generators: the right latents, poses and frames, whole files, errors that say what to do."""

from __future__ import annotations

import math
import sys

import av
import numpy as np
import pytest
import torch
from analytic import AnalyticSphere
from PIL import Image
from priorzoo.backbones.base import Latents
from priorzoo.cli.main import main
from priorzoo.core.camera import Camera
from priorzoo.core.errors import MissingPackageError, PriorzooError
from priorzoo.core.scene import Scene
from priorzoo.core.streams import fixed_streams
from priorzoo.export.buffer_pictures import depth_pictures, needs_of, resized, scene_pictures
from priorzoo.export.clips import Clip, between, clip_frames
from priorzoo.export.samples import Drawing, grid_of_strips, sample_strips
from priorzoo.export.sheets import BACKDROP
from priorzoo.export.sources import Source, parse_seeds
from priorzoo.export.video_files import save_video

HEADS = "heads_eg3d_base"


@pytest.fixture(scope="module")
def source() -> Source:
    """The analytic ball, 16 x 16."""
    return Source(AnalyticSphere())


@pytest.fixture(scope="module")
def heads() -> Source:
    """The shipped heads."""
    return Source.open(HEADS)


# Sources


def test_seed_n_is_sample_n_of_reports(heads):
    front = Camera.looking_at_origin(torch.zeros(3), torch.zeros(3)).label()
    expected = heads.backbone.prepare(heads.backbone.draw(3, fixed_streams(0, 3, first=4)), front, truncation=0.7)
    drawn = heads.latents([4, 6], truncation=0.7)
    assert torch.allclose(drawn["ws"], expected["ws"][[0, 2]], atol=1e-6)


def test_official_latents_are_numpys(heads):
    z = np.concatenate([np.random.RandomState(seed).randn(1, 64) for seed in (3, 8)]).astype(np.float32)
    expected = heads.backbone.prepare(Latents({"z": torch.from_numpy(z)}), None)
    assert torch.equal(heads.latents([3, 8], official=True)["ws"], expected["ws"])


def test_the_mapping_is_conditioned_on_the_frontal_camera(source):
    front = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)).label()
    ball, drawn = source.backbone, source.backbone.draw(1, fixed_streams(0, 1, first=2))
    assert torch.equal(source.latents([2])["w"], ball.prepare(drawn, front)["w"])
    assert not torch.equal(source.latents([2])["w"], ball.prepare(drawn, None)["w"])


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "1-", "0-20000", "1.5"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(PriorzooError, match="--seeds"):
        parse_seeds(text)


def test_a_camera_whose_rays_miss_the_model_is_refused():
    with pytest.raises(PriorzooError, match=r"rays run from 2\.33 to 3\.05: a camera at 1\.7 .* by --radius"):
        Source.open(HEADS, radius=1.7)
    with pytest.raises(PriorzooError, match=r"above 0, got 2\.7 and -1"):
        Source.open(HEADS, focal=-1.0)


# Pictures


def test_pictures_of_depth_run_from_near_to_far_and_leave_out_what_is_not_met():
    depth = torch.tensor([[[[2.0, 2.5, 3.0, math.nan]]]])
    (picture,) = depth_pictures(depth, torch.tensor([[[[1.0, 1.0, 0.5, 0.0]]]]), (2.0, 3.0))
    assert picture[0, 0].tolist() == [253, 231, 36] and picture[0, 2].tolist() == [68, 1, 84]
    assert picture[0, 3].tolist() == list(BACKDROP)
    with pytest.raises(PriorzooError, match="from near to far"):
        depth_pictures(depth, depth, (3.0, 2.0))


def test_the_colours_of_depth_do_not_depend_on_what_is_seen(source):
    # A ball whose front is 2.7 - r away, in a cube of half side 0.5: the share of the range is known.
    drawing = Drawing(["depth"], resolution=17)
    latents = source.latents([0])
    (picture,) = drawing.pictures(source, latents, source.camera([0.0], [0.0]), source.streams([0]))
    scene = source.backbone.render(latents, source.camera([0.0], [0.0]), needs_of(["depth"]), streams=source.streams([0]), resolution=17)
    expected = depth_pictures(scene.depth, scene.opacity, (2.2, 3.2))[0]
    assert np.array_equal(picture, expected)


def test_each_picture_is_drawn_from_its_own_buffer():
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    towards = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    scene = Scene(camera, image=torch.ones(1, 3, 1, 1), image_raw=-torch.ones(1, 3, 1, 1), opacity=torch.ones(1, 1, 1, 1), normals=towards)
    assert [scene_pictures(scene, what)[0].ravel().tolist() for what in ("image", "image_raw", "opacity", "normals")] == [
        [255, 255, 255], [0, 0, 0], [255, 255, 255], [128, 128, 255],
    ]  # fmt: skip
    with pytest.raises(PriorzooError, match="did you mean 'depth'"):
        scene_pictures(scene, "dept")


def test_pictures_of_another_size_are_enlarged_pixel_by_pixel():
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(resized(small, 6), small.repeat(3, axis=0).repeat(3, axis=1))


def test_strips_hold_every_pose_and_the_same_picture_twice(source):
    drawing = Drawing(["image", "opacity"])
    strips = list(sample_strips(source, [0, 1], yaw=[-0.5, 0.5], pitch=[0.0, 0.2], drawing=drawing))
    assert [len(strip) for strip in strips] == [8, 8]
    again = list(sample_strips(source, [1], yaw=[0.5], pitch=[0.2], drawing=drawing))
    assert np.array_equal(strips[1][6], again[0][0])
    assert not np.array_equal(strips[1][0], strips[1][2]) and not np.array_equal(strips[0][0], strips[1][0])


def test_yaw_moves_the_camera_to_the_side(source):
    # Hair is all around but in front: from the left, where x < 0, the face's side is on the image's right.
    (left, right) = next(sample_strips(source, [0], yaw=[-0.9, 0.9], drawing=Drawing(["image"])))
    dark_left, dark_right = (picture[8].astype(int).sum(axis=-1) < 200 for picture in (left, right))
    assert dark_left[3:8].sum() > dark_left[8:13].sum() and dark_right[8:13].sum() > dark_right[3:8].sum()


def test_grids():
    tile = np.zeros((4, 4, 3), np.uint8)
    assert grid_of_strips([[tile]] * 5).shape == (2 * 6 - 2, 3 * 6 - 2, 3)
    assert grid_of_strips([[tile, tile]] * 3).shape == (3 * 6 - 2, 2 * 6 - 2, 3)
    assert grid_of_strips([[tile, tile]] * 4, (2, 2)).shape == (2 * 6 - 2, 4 * 6 - 2, 3)
    with pytest.raises(PriorzooError, match="--grid 2x2 has 4 places for 5 seeds"):
        grid_of_strips([[tile]] * 5, (2, 2))


# Clips


def test_an_orbit_is_a_closed_ellipse():
    clip = Clip(frames=8, sway=(0.4, 0.1))
    poses = np.array([clip.pose(frame) for frame in range(8)])
    assert np.allclose((poses / [0.4, 0.1]) ** 2 @ [1.0, 1.0], 1.0)
    steps = np.linalg.norm(np.diff(np.concatenate([poses, poses[:1]]) / [0.4, 0.1], axis=0), axis=1)
    assert np.allclose(steps, 2 * math.sin(math.pi / 8))
    assert Clip("interpolation").pose(3) == (0.0, 0.0)


@pytest.mark.parametrize("path", ["cubic", "linear"])
def test_paths_pass_through_every_key_and_close(path):
    keys = Latents({"w": torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))})
    for key in range(4):
        assert torch.allclose(between(keys, float(key), path)["w"], keys["w"][[key]], atol=1e-6)
    end = between(keys, 4.0 - 1e-4, path)["w"]
    assert torch.allclose(end, keys["w"][[0]], atol=1e-3)


def test_a_linear_path_is_straight_and_a_cubic_one_has_no_corner():
    keys = Latents({"w": torch.tensor([[0.0], [1.0], [0.5]])})
    assert between(keys, 1.5, "linear")["w"].item() == pytest.approx(0.75)
    assert between(keys, 2.5, "linear")["w"].item() == pytest.approx(0.25)
    step = 1e-2
    for path, corner in (("cubic", 0.1), ("linear", 1.4)):
        before, at, after = (between(keys, 1.0 + d, path)["w"].item() for d in (-step, 0.0, step))
        assert (abs((after - at) - (at - before)) / step < corner) == (path == "cubic")


def test_an_interpolation_shows_the_samples_themselves_at_their_turn(heads):
    clip = Clip("interpolation", frames=4, drawing=Drawing(["image"], resolution=16))
    frames = list(clip_frames(heads, clip, [2, 5]))
    for place, seed in ((0, 2), (2, 5)):
        ((picture,),) = sample_strips(heads, [seed], drawing=Drawing(["image"], resolution=16))
        assert np.abs(frames[place].astype(int) - picture.astype(int)).max() <= 1
    assert np.abs(frames[1].astype(int) - frames[0].astype(int)).max() > 10


def test_an_orbit_shows_each_seed_from_the_frames_pose(source):
    seen = []
    clip = Clip(frames=4, drawing=Drawing(["image", "depth"]), grid=(1, 2))
    frames = list(clip_frames(source, clip, [0, 1], progress=lambda done, total: seen.append((done, total))))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    strips = list(sample_strips(source, [0, 1], yaw=[0.35], drawing=clip.drawing))
    # At a quarter of the ellipse the pitch is 0 but for rounding.
    assert np.abs(frames[1].astype(int) - grid_of_strips(strips, (1, 2)).astype(int)).max() <= 1


def test_frames_are_drawn_one_after_the_other_and_not_before_they_are_asked_for(source):
    clip, done = Clip(frames=1_000_000), []
    frames = clip_frames(source, clip, [0], progress=lambda n, total: done.append(n))
    next(frames)
    next(frames)
    frames.close()
    assert done == [1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "orbits"}, "did you mean 'orbit'"),
        ({"path": "cubical"}, "did you mean 'cubic'"),
        ({"frames": 1}, "--frames must be at least 2"),
    ],
)
def test_clips_that_make_no_sense_are_refused(arguments, said):
    with pytest.raises(PriorzooError, match=said):
        Clip(**arguments)


def test_an_interpolation_needs_two_seeds_and_no_grid():
    with pytest.raises(PriorzooError, match="two seeds or more, got 1"):
        Clip("interpolation").check_seeds(1)
    with pytest.raises(PriorzooError, match="--grid is for an orbit"):
        Clip("interpolation", grid=(1, 1)).check_seeds(2)


def _moving_square(count: int, side: int = 31) -> list[np.ndarray]:
    frames = []
    for i in range(count):
        frame = np.full((side, side, 3), 40, np.uint8)
        frame[8:20, 2 * i : 2 * i + 10] = (220, 60, 60)
        frames.append(frame)
    return frames


def test_an_mp4_holds_the_frames_in_order(tmp_path):
    frames = _moving_square(10)
    save_video(iter(frames), tmp_path / "clip.mp4", fps=25)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.codec_context.pix_fmt) == ("h264", 25, "yuv420p")
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(shown) == 10 and shown[0].shape == (32, 32, 3)
    for given, got in zip(frames, shown, strict=True):
        assert np.abs(got[:31, :31].astype(int) - given).mean() < 8
        assert got[10:18, :31, 0].mean(axis=0).argmax() == pytest.approx(given[10:18, :, 0].mean(axis=0).argmax() + 4.5, abs=6)


def test_a_gif_holds_the_frames_in_order(tmp_path):
    frames = _moving_square(5)
    save_video(iter(frames), tmp_path / "clip.gif", fps=20)
    with Image.open(tmp_path / "clip.gif") as file:
        assert (file.n_frames, file.info["duration"], file.info["loop"]) == (5, 50, 0)
        for i, frame in enumerate(frames):
            file.seek(i)
            assert np.array_equal(np.asarray(file.convert("RGB")), frame)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_clip_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"old")

    def failing():
        yield from _moving_square(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        save_video(failing(), path)
    with pytest.raises(PriorzooError, match=r"of one size: \[31, 31\] and \[4, 4\]"):
        save_video([*_moving_square(1), np.zeros((4, 4, 3), np.uint8)], path)
    with pytest.raises(PriorzooError, match="at least one frame"):
        save_video([], path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_without_av_the_error_says_how_to_get_it_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'priorzoo\[video\]'.*a \.gif needs nothing"):
        save_video(_moving_square(1), tmp_path / "clip.mp4")
    save_video(_moving_square(2), tmp_path / "clip.gif")
    assert main(["video", "no such source", "--out", str(tmp_path / "b.mp4")]) == 2
    assert "priorzoo[video]" in capsys.readouterr().err
