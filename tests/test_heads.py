"""The procedural head: exact truth, readable features at 64x64, honest asymmetry, repaired defects."""

from __future__ import annotations

import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.classes import CLASS_COLOURS, CLASS_IDS, CLASS_NAMES
from priorzoo.shapes.head_model import head_distance, head_labels, head_parts
from priorzoo.shapes.head_parameters import ACCESSORIES, COLOURS, LAWS, SCALARS, sample_heads
from priorzoo.shapes.head_render import HeadImages, pixel_rays, render_heads
from scipy import ndimage
from torch.nn.functional import max_pool2d, normalize


def cameras(yaw: list[float], pitch: float = 0.0) -> Camera:
    return Camera.looking_at_origin(torch.tensor(yaw), torch.full((len(yaw),), pitch))


@pytest.fixture(scope="module")
def frontal() -> HeadImages:
    return render_heads(sample_heads(24, seed=11, accessories=False), cameras([0.0] * 24), 64)


def classes(images: HeadImages, *names: str) -> torch.Tensor:
    return torch.stack([images.labels == CLASS_IDS[name] for name in names]).any(0)


def eroded(mask: torch.Tensor) -> torch.Tensor:
    return -max_pool2d(-mask.float()[:, None], 3, 1, 1)[:, 0]


def test_a_head_depends_on_seed_and_index_alone() -> None:
    many, one, late = sample_heads(5, seed=3), sample_heads(1, seed=3, first=4), sample_heads(2, seed=3, first=3)
    for name in (*SCALARS, *COLOURS):
        assert torch.equal(many.values[name][4:], one.values[name])
        assert torch.equal(many.values[name][3:], late.values[name])
    assert not torch.equal(many["jaw_width"][4], sample_heads(5, seed=4)["jaw_width"][4])


def test_switching_accessories_off_moves_no_other_draw() -> None:
    with_, without = sample_heads(40, seed=0, accessories=True), sample_heads(40, seed=0, accessories=False)
    for name in (*SCALARS, *COLOURS):
        if name in ACCESSORIES:
            assert with_[name].sum() > 0 and without[name].sum() == 0
        else:
            assert torch.equal(with_[name], without[name])


def test_parameters_keep_their_laws() -> None:
    heads = sample_heads(200, seed=1)
    for name, (mean, std, low, high) in LAWS.items():
        if name != "mouth_open":  # zero while the mouth is closed
            value = heads[name]
            assert value.min() >= low - 1e-6 and value.max() <= high + 1e-6
            assert abs(float(value.mean()) - mean) < 0.4 * std
    assert torch.allclose(sample_heads(3, seed=1, truncation=0.0)["eye_x"], torch.tensor(LAWS["eye_x"][0]))


def test_replace_names_an_unknown_parameter() -> None:
    with pytest.raises(KeyError, match="nose_colour"):
        sample_heads(1, seed=0).replace(nose_colour=1.0)


def test_distance_takes_batches_and_flat_lists_alike() -> None:
    heads, points = sample_heads(2, seed=0), torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    batched = head_distance(points, heads)
    flat = head_distance(points.view(-1, 3), {k: v.expand(2, 50).reshape(-1) for k, v in heads.values.items() if v.shape[1] == 1})
    assert torch.allclose(batched.flatten(), flat, atol=1e-6)


def test_distance_never_oversteps_the_surface_far_away() -> None:
    """A tracer may trust the field: walking 0.85 of the distance from outside must not enter the head."""
    heads = sample_heads(4, seed=2)
    direction = normalize(torch.randn(4, 200, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    points = direction * 0.57
    outside = head_distance(points, heads) > 0.01
    inward = points - 0.85 * head_distance(points, heads)[..., None] * direction
    assert outside.float().mean() > 0.5
    assert (head_distance(inward, heads)[outside] > -2e-3).float().mean() > 0.995


def test_float64_in_float64_out() -> None:
    heads = sample_heads(1, seed=0)
    exact = head_distance(torch.full((1, 1, 3), 0.2, dtype=torch.float64), heads.to(dtype=torch.float64))
    assert exact.dtype == torch.float64
    assert abs(float(exact) - float(head_distance(torch.full((1, 1, 3), 0.2), heads))) < 1e-6


def test_rendered_points_lie_on_the_surface() -> None:
    heads, camera = sample_heads(6, seed=5, accessories=True), cameras([-1.0, -0.5, 0.0, 0.3, 0.7, 1.0], pitch=0.1)
    images = render_heads(heads, camera, 64)
    origins, directions = pixel_rays(camera, 64)
    hit = images.foreground.flatten(1)
    points = origins + directions * images.depth.flatten(1).nan_to_num(posinf=0.0)[..., None]
    error = head_distance(points, heads).abs()[hit]
    assert error.quantile(0.99) < 2e-4 and error.max() < 4e-3
    before = head_distance(points - 0.01 * directions, heads)[hit]
    assert (before > 0).float().mean() > 0.99  # the first surface, met from outside


def test_depth_is_along_the_unit_ray_and_labels_are_those_of_the_points() -> None:
    heads, camera = sample_heads(2, seed=5), cameras([0.4, -0.4])
    images = render_heads(heads, camera, 32)
    origins, directions = pixel_rays(camera, 32)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(2, 1024), atol=1e-6)
    assert torch.allclose((origins[:, :1] + 2.7 * camera.forward_axis[:, None]), torch.zeros(2, 1, 3), atol=1e-5)
    points = origins + directions * images.depth.flatten(1).nan_to_num(posinf=0.0)[..., None]
    found = head_labels(points, heads).view(2, 32, 32)
    assert (found == images.labels)[images.foreground].float().mean() > 0.999
    assert (images.labels[~images.foreground] == 0).all() and (images.labels[images.foreground] > 0).all()
    assert (images.normals.norm(dim=1)[images.foreground] - 1).abs().max() < 1e-4
    assert images.normals.permute(0, 2, 3, 1)[~images.foreground].abs().sum() == 0


def test_normals_agree_with_depth() -> None:
    heads, camera, n = sample_heads(3, seed=8), cameras([0.0, 0.5, -0.5]), 128
    images = render_heads(heads, camera, n)
    origins, directions = pixel_rays(camera, n)
    points = (origins + directions * images.depth.flatten(1).nan_to_num(posinf=0.0)[..., None]).view(3, n, n, 3)
    across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    from_depth = normalize(torch.linalg.cross(down, across, dim=-1), dim=-1)
    skin = eroded(classes(images, "skin"))[:, 1:-1, 1:-1] > 0
    cosine = (from_depth * images.normals.permute(0, 2, 3, 1)[:, 1:-1, 1:-1]).sum(-1)[skin]
    assert cosine.clamp(-1, 1).acos().rad2deg().median() < 3.0


def test_class_names_and_colours() -> None:
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(set(CLASS_COLOURS)) == 19
    assert CLASS_NAMES[:6] == ("background", "skin", "nose", "eyeglasses", "left_eye", "right_eye")


def test_left_is_left_in_the_image(frontal: HeadImages) -> None:
    columns = torch.arange(64.0)
    for part in ("eye", "brow"):
        at = [
            (classes(frontal, f"{side}_{part}") * columns).sum((1, 2)) / classes(frontal, f"{side}_{part}").sum((1, 2))
            for side in ("left", "right")
        ]
        assert (at[0] < 31).all() and (at[1] > 32).all()


def test_features_are_large_enough_at_64_pixels(frontal: HeadImages) -> None:
    eyes = eroded(classes(frontal, "left_eye", "right_eye")).sum((1, 2))
    assert eyes.mean() >= 40 and eyes.min() >= 25
    skin = classes(frontal, "skin")
    assert (eroded(skin).sum((1, 2)) >= 0.5 * skin.sum((1, 2))).all()
    assert classes(frontal, "left_brow", "right_brow").sum((1, 2)).min() >= 20
    assert classes(frontal, "upper_lip", "lower_lip").sum((1, 2)).min() >= 20


def test_eyeballs_are_convex(frontal: HeadImages) -> None:
    """The middle of an eye stands before its rim, so that a dent in a learnt shape can be told."""
    for side in ("left_eye", "right_eye"):
        eye = classes(frontal, side)
        inner = eroded(eye) > 0
        depth = frontal.depth[:, 0].nan_to_num(posinf=0.0)
        rim = eye & ~inner
        middle_depth = (depth * inner).sum((1, 2)) / inner.sum((1, 2))
        rim_depth = (depth * rim).sum((1, 2)) / rim.sum((1, 2))
        assert (middle_depth < rim_depth - 0.003).all()


def test_each_lip_is_one_piece() -> None:
    images = render_heads(sample_heads(16, seed=21, accessories=False), cameras([0.0] * 16), 128)
    pieces = [
        ndimage.label(classes(images, lip)[i].numpy(), structure=torch.ones(3, 3).numpy())[1]
        for lip in ("upper_lip", "lower_lip")
        for i in range(16)
    ]
    assert sum(count == 1 for count in pieces) >= 30 and max(pieces) <= 2


def test_an_open_mouth_keeps_both_lips() -> None:
    heads = sample_heads(4, seed=2, accessories=False)
    opened = render_heads(heads.replace(mouth_open=0.022), cameras([0.0] * 4), 128)
    closed = render_heads(heads.replace(mouth_open=0.0), cameras([0.0] * 4), 128)
    assert classes(opened, "mouth").sum((1, 2)).min() > 60 and classes(closed, "mouth").sum() == 0
    for lip in ("upper_lip", "lower_lip"):
        assert (classes(opened, lip).sum((1, 2)) > 0.7 * classes(closed, lip).sum((1, 2))).all()


def test_hat_is_one_solid_and_one_patch_of_the_image() -> None:
    """The brim is no ring that floats below the dome: one connected solid, one connected region from most views."""
    heads = sample_heads(4, seed=9).replace(has_hat=1.0)
    x, y, z = torch.linspace(-0.3, 0.3, 61), torch.linspace(0.08, 0.34, 53), torch.linspace(-0.3, 0.34, 65)
    grid = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), dim=-1).reshape(1, -1, 3)
    solid = (head_parts(grid, heads).hat < 0).view(4, 61, 53, 65)
    images = render_heads(heads, cameras([-0.6, 0.0, 0.4, 0.9], pitch=0.1), 96)
    for i in range(4):
        assert solid[i].sum() > 1000
        assert ndimage.label(solid[i].numpy())[1] == 1
        hat = classes(images, "hat")[i].numpy()
        pieces, count = ndimage.label(hat, structure=torch.ones(3, 3).numpy())
        assert ndimage.sum(hat, pieces, range(1, count + 1)).max() > 0.97 * hat.sum()


def test_heads_are_not_mirror_images(frontal: HeadImages) -> None:
    mirrored = frontal.labels.flip(-1).long()
    swap = torch.arange(19)
    for a, b in ((4, 5), (6, 7), (8, 9)):
        swap[a], swap[b] = b, a
    differing = (swap[mirrored] != frontal.labels.long()).float().mean((1, 2))
    assert (differing > 0.01).all() and differing.mean() < 0.3


def test_brows_give_way_to_hair() -> None:
    """Where a fringe covers a brow the label is hair: brows are painted on visible skin only."""
    heads = sample_heads(3, seed=4, accessories=False).replace(has_hair=1.0)
    low = render_heads(heads.replace(hair_line=0.06), cameras([0.0] * 3), 64)
    high = render_heads(heads.replace(hair_line=0.20), cameras([0.0] * 3), 64)
    assert (classes(low, "left_brow", "right_brow").sum((1, 2)) < 0.3 * classes(high, "left_brow", "right_brow").sum((1, 2))).all()


def test_supersampling_changes_edges_alone() -> None:
    heads, camera = sample_heads(1, seed=0), cameras([0.2])
    sharp, smooth = render_heads(heads, camera, 32), render_heads(heads, camera, 32, supersample=3)
    changed = (sharp.rgb - smooth.rgb).abs().amax(1) > 1e-6
    assert 0.05 < changed.float().mean() < 0.6
    for name in ("depth", "normals", "labels"):
        assert torch.equal(getattr(sharp, name), getattr(smooth, name))


@pytest.mark.parametrize("background", ["plain", "gradient", "textured"])
def test_backgrounds(background: str) -> None:
    images = render_heads(sample_heads(2, seed=0), cameras([0.0, 0.3]), 32, background)
    behind = images.rgb.permute(0, 2, 3, 1)[~images.foreground]
    assert (behind.std(0) < 1e-6).all() == (background == "plain")
    assert images.rgb.min() >= 0 and images.rgb.max() <= 1
    if background == "plain":
        assert (behind == 1).all()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="starry"):
        render_heads(sample_heads(1, 0), cameras([0.0]), 8, "starry")
    with pytest.raises(ValueError, match="2 heads"):
        render_heads(sample_heads(2, 0), cameras([0.0]), 8)


def test_off_centre_intrinsics_shift_the_image() -> None:
    heads, camera = sample_heads(1, seed=0), cameras([0.0])
    moved = Camera(camera.cam2world, camera.intrinsics.clone())
    moved.intrinsics[:, 0, 2] += 4 / 32
    plain, shifted = render_heads(heads, camera, 32), render_heads(heads, moved, 32)
    assert (plain.labels[..., :28] == shifted.labels[..., 4:]).float().mean() > 0.999
