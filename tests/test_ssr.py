"""SSR by pencil: planes, constants, invariances, hardest shares, gates, gradients; slow forms beside the fast."""

from __future__ import annotations

import pytest
import torch
from analytic import AnalyticSphere, sphere_scene
from priorzoo.core.camera import Camera
from priorzoo.core.errors import MissingBufferError, PriorzooError
from priorzoo.core.scene import Scene, Segmentation
from priorzoo.core.streams import fixed_streams
from priorzoo.priors.ssr import SR, SSR, ssr, view_gate
from priorzoo.rendering.selection import erode, hardest_mean
from priorzoo.rendering.smoothness import smoothness_map
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close


def random_depth(batch: int = 2, size: int = 12, seed: int = 0) -> Tensor:
    noise = torch.rand(batch, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 2.7 + 0.05 * noise


def blob(batch: int = 2, size: int = 12) -> Tensor:
    mask = torch.zeros(batch, 1, size, size, dtype=torch.bool)
    mask[:, :, 2:10, 3:11] = True
    return mask


def everywhere(depth: Tensor) -> Tensor:
    return torch.ones_like(depth, dtype=torch.bool)


def plane(across: float, down: float, size: int = 9) -> Tensor:
    index = torch.arange(size, dtype=torch.float64)
    return (across * index[None] + down * index[:, None])[None, None]


def smoothness_by_convolution(depth: Tensor, window: int) -> Tensor:
    """The report's eq. 2: k^2 - 1 kernels, +1 at the centre and -1 at one neighbour."""
    count, centre = window**2, window**2 // 2
    kernels = -torch.eye(count, dtype=depth.dtype)
    kernels[:, centre] += 1.0
    padded = functional.pad(depth, (window // 2,) * 4, mode="replicate")
    return functional.conv2d(padded, kernels.view(count, 1, window, window)).square().sum(dim=1, keepdim=True)


def smoothness_by_loops(depth: Tensor, window: int, second_order: bool) -> Tensor:
    """The definition, pixel by pixel."""
    radius, (height, width) = window // 2, depth.shape[2:]
    rows = []
    for y in range(height):
        for x in range(width):
            terms = [
                depth[:, 0, min(max(y + i, 0), height - 1), min(max(x + j, 0), width - 1)] - depth[:, 0, y, x]
                for i in range(-radius, radius + 1)
                for j in range(-radius, radius + 1)
            ]
            stacked = torch.stack(terms)
            rows.append(stacked.sum(dim=0) ** 2 if second_order else (stacked**2).sum(dim=0))
    return torch.stack(rows, dim=-1).view_as(depth)


# The map


@pytest.mark.parametrize(("window", "factor"), [(3, 6), (5, 50), (7, 196)])
def test_plane_costs_its_slope(window: int, factor: int) -> None:
    # k columns (rows) of 2 (1 + 4 + ... + r^2) each: k=3: 3*2*1, k=5: 5*2*5, k=7: 7*2*14.
    depth, radius = plane(0.3, -0.2, size=15), window // 2
    inner = smoothness_map(depth, window)[0, 0, radius:-radius, radius:-radius]
    assert_close(inner, torch.full_like(inner, factor * (0.3**2 + 0.2**2)))


@pytest.mark.parametrize("second_order", [False, True])
def test_constant_costs_nothing(second_order: bool) -> None:
    assert smoothness_map(torch.full((2, 1, 6, 5), 2.7), 3, second_order=second_order).abs().max() == 0


def test_second_order_ignores_slopes_and_sees_bumps() -> None:
    bumpy = plane(0.3, -0.2)
    assert smoothness_map(bumpy, second_order=True)[0, 0, 1:-1, 1:-1].abs().max() < 1e-25
    bumpy[0, 0, 4, 4] += 1.0
    # At the bump the Laplacian is -8, at each of its neighbours 1.
    inner = smoothness_map(bumpy, second_order=True)[0, 0, 3:6, 3:6]
    assert_close(inner, torch.tensor([[1.0, 1.0, 1.0], [1.0, 64.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64))


def test_mean_divides_by_the_neighbours() -> None:
    depth = random_depth()
    assert_close(smoothness_map(depth, 5, "mean"), smoothness_map(depth, 5) / 24)
    assert_close(smoothness_map(depth, 5, "mean", True), smoothness_map(depth, 5, "sum", True) / 24**2)


def test_invariances() -> None:
    depth = random_depth()
    result = smoothness_map(depth)
    assert_close(smoothness_map(depth + 3.0), result, rtol=1e-9, atol=1e-12)
    assert_close(smoothness_map(3.0 * depth), 9.0 * result)
    for axes in ((2,), (3,), (2, 3)):
        assert_close(smoothness_map(depth.flip(axes)), result.flip(axes))
    assert_close(smoothness_map(depth.transpose(2, 3)), result.transpose(2, 3))


@pytest.mark.parametrize("window", [3, 5])
def test_fast_form_equals_convolutions_in_value_and_gradient(window: int) -> None:
    fast, slow = random_depth().requires_grad_(True), random_depth().requires_grad_(True)
    weight = random_depth(seed=1)
    one, two = smoothness_map(fast, window), smoothness_by_convolution(slow, window)
    assert_close(one, two)
    (one * weight).sum().backward()
    (two * weight).sum().backward()
    assert_close(fast.grad, slow.grad)


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("window", [3, 5])
def test_fast_form_equals_loops(window: int, second_order: bool) -> None:
    depth = random_depth(size=6)
    assert_close(smoothness_map(depth, window, second_order=second_order), smoothness_by_loops(depth, window, second_order))


# Masks and shares


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_erosion_needs_the_whole_square_inside_mask_and_image(size: int) -> None:
    mask = torch.rand(2, 1, 14, 11, generator=torch.Generator().manual_seed(0)) > 0.02
    radius = size // 2
    padded = functional.pad(mask.float(), (radius,) * 4)
    expected = padded.unfold(2, size, 1).unfold(3, size, 1).amin(dim=(-1, -2))
    assert torch.equal(erode(mask, size), expected)
    assert size == 1 or 0 < expected.sum() < mask.sum()


def test_hardest_mean_by_hand() -> None:
    values = torch.tensor([[5.0, 1.0, 4.0, 2.0, 9.0], [7.0, 7.0, 7.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]])[:, None, None]
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()[:, None, None]
    result = hardest_mean(values, mask, 0.5)  # ceil of 2, 2.5 and 0
    assert result.value.tolist() == [4.5, 7.0, 0.0]
    assert result.count.tolist() == [2.0, 3.0, 0.0]
    assert result.pixels.tolist() == [4, 5, 0]
    pooled = hardest_mean(values, mask, 0.5, "batch")  # the 5 largest of 9: 7, 7, 7, 5, 4
    assert pooled.value.tolist() == [4.5, 7.0, 0.0]
    assert pooled.count.tolist() == [2.0, 3.0, 0.0]
    one = hardest_mean(values, mask, 1e-6)
    assert one.value.tolist() == [5.0, 7.0, 0.0] and one.count.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("percent", [7, *range(10, 100, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_share_is_exact_for_every_number_of_pixels(percent: int, dtype: torch.dtype) -> None:
    rows = 500  # row i has i + 1 pixels
    mask = torch.ones(rows, rows).tril().bool()[:, None, None]
    found = hardest_mean(torch.zeros(rows, 1, 1, rows, dtype=dtype), mask, percent / 100).count
    assert found.tolist() == [-(-percent * (i + 1) // 100) for i in range(rows)]


def test_whole_share_is_the_plain_mean() -> None:
    values, mask = random_depth(), blob()
    mean = torch.stack([v[m].mean() for v, m in zip(values, mask, strict=True)])
    assert_close(hardest_mean(values, mask, 1.0).value, mean)
    assert_close(hardest_mean(values, mask, 1.0 - 1e-12).value, mean)


def test_unselected_values_take_no_part_even_where_not_finite() -> None:
    values = torch.tensor([[[[1.0, float("inf"), 2.0, float("nan")]]]], requires_grad=True)
    result = hardest_mean(values, torch.tensor([[[[True, False, True, False]]]]), 1.0)
    result.value.sum().backward()
    assert result.value.item() == 1.5
    assert values.grad is not None and values.grad.flatten().tolist() == [0.5, 0.0, 0.5, 0.0]


# The loss


def test_gradient_is_zero_outside_the_dilated_mask() -> None:
    depth, mask = random_depth().requires_grad_(True), blob()
    ssr(depth, mask, erosion=5, window=3).value.sum().backward()
    seen = functional.max_pool2d(erode(mask, 5), 3, 1, 1) > 0
    assert depth.grad is not None
    assert depth.grad[~seen].abs().max() == 0
    assert (depth.grad[seen] != 0).all()


@pytest.mark.parametrize("options", [{}, {"hardest": 0.6}, {"second_order": True}, {"scope": "batch", "hardest": 0.4}])
def test_gradcheck(options: dict[str, object]) -> None:
    depth, mask = random_depth(size=8).requires_grad_(True), blob(size=8)
    pitch = torch.tensor([0.1, 0.2], dtype=torch.float64)
    torch.autograd.gradcheck(lambda d: ssr(d, mask, erosion=1, pitch=pitch, **options).value, depth)


@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("hardest", [0.7, 1.0])
def test_empty_mask_is_zero_without_nan(hardest: float, scope: str) -> None:
    depth = random_depth().requires_grad_(True)
    result = ssr(depth, torch.zeros(2, 1, 12, 12, dtype=torch.bool), hardest=hardest, scope=scope)
    result.value.sum().backward()
    assert result.value.tolist() == [0.0, 0.0]
    assert result.pixels is not None and result.pixels.tolist() == [0, 0]
    assert depth.grad is not None and depth.grad.abs().max() == 0


def test_empty_sample_counts_zero_or_is_skipped() -> None:
    depth, mask = random_depth(), blob()
    mask[1] = False
    zero, skip = ssr(depth, mask), ssr(depth, mask, empty="skip")
    assert zero.counts().tolist() == [1.0, 1.0] and skip.counts().tolist() == [1.0, 0.0]
    assert zero.value.tolist() == skip.value.tolist() and zero.value[1] == 0 < zero.value[0]


def test_heatmap_holds_the_chosen_pixels() -> None:
    depth, mask = random_depth(), blob()
    result = ssr(depth, mask, hardest=0.3)
    assert result.heatmap is not None and result.heatmap.shape == depth.shape
    chosen = result.heatmap > 0
    assert not bool((chosen & ~erode(mask, 3).bool()).any())
    mean = result.heatmap.flatten(1).sum(dim=1) / chosen.flatten(1).sum(dim=1)
    assert_close(mean, result.value)
    assert chosen.flatten(1).sum(dim=1).tolist() == [11, 11]  # ceil(0.3 * 36)


def test_gate_by_hand() -> None:
    depth, mask = random_depth(), blob()
    plain, gated = ssr(depth, mask), ssr(depth, mask, gate=torch.tensor([0.25, 0.0]))
    assert_close(gated.value, plain.value * torch.tensor([0.25, 0.0], dtype=torch.float64))
    assert gated.pixels is not None and gated.pixels.tolist() == [36, 0]
    assert ssr(depth, mask, gate=torch.tensor([0.25, 0.0]), empty="skip").counts().tolist() == [1.0, 0.0]


def test_view_gate_counts_yaw_and_pitch_together() -> None:
    yaw, pitch = torch.tensor([0.2, 0.2, 0.0]), torch.tensor([0.0, 0.2, 0.26])
    angle = Camera.looking_at_origin(yaw, pitch).view_angle
    assert view_gate(angle, 15.0).tolist() == [1.0, 0.0, 1.0]  # 11.5, 16.1 and 14.9 degrees
    ramp = view_gate(torch.tensor([9.0, 10.0, 15.0, 20.0, 21.0]).deg2rad(), 15.0, 10.0)
    assert_close(ramp, torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]), atol=1e-5, rtol=0)


# The class on scenes


def labelled_scene(depth: Tensor, opacity: Tensor | None = None) -> Scene:
    """Left half background, right half skin; frontal cameras."""
    batch, _, height, width = depth.shape
    skin = torch.zeros(batch, 1, 2 * height, 2 * width, dtype=torch.float64)
    skin[..., width:] = 1.0
    camera = Camera.looking_at_origin(torch.zeros(batch), torch.zeros(batch))
    opacity = torch.ones_like(depth) if opacity is None else opacity
    segmentation = Segmentation(torch.cat([1.0 - skin, skin], dim=1), ("background", "skin"))
    return Scene(camera, depth=depth, opacity=opacity, segmentation=segmentation)


def evaluate(prior: SR, scene: Scene) -> list[float]:
    return prior(scene, fixed_streams(0, len(scene.depth))("ssr")).value.tolist()


def test_region_is_class_and_opacity_before_erosion() -> None:
    depth = random_depth(size=16)
    opacity = torch.ones_like(depth)
    opacity[:, :, 7, 12] = 0.8  # not above 0.8: takes its eight neighbours out too
    result = SSR(region="skin", erosion=3)(labelled_scene(depth, opacity), fixed_streams(0, 2)("ssr"))
    assert result.pixels is not None and result.pixels.tolist() == [6 * 14 - 9] * 2
    free = SSR(region="skin", erosion=3, min_opacity=0)(labelled_scene(depth, opacity), fixed_streams(0, 2)("ssr"))
    assert free.pixels is not None and free.pixels.tolist() == [6 * 14] * 2


def test_whole_image_and_union_of_regions() -> None:
    scene = labelled_scene(random_depth(size=16))
    union = evaluate(SSR(region=["background", "skin"]), scene)
    assert union == evaluate(SR(), scene) == evaluate(SR(min_opacity=0), scene)
    assert union != evaluate(SSR(region="skin"), scene)


def test_soft_mask_adds_the_probabilities_of_the_region() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.3]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    names = ("background", "left_eye", "right_eye")
    depth = random_depth(1, 8)
    scene = Scene(None, depth=depth, opacity=torch.ones_like(depth), segmentation=Segmentation(probabilities, names))
    assert evaluate(SSR(region=["left_eye", "right_eye"]), scene) == [0.0]
    assert evaluate(SSR(region=["left_eye", "right_eye"], soft_mask=True), scene)[0] > 0
    assert evaluate(SSR(region=["left_eye"], soft_mask=True), scene) == [0.0]


def test_eye_gate_leaves_the_skin_term_alone() -> None:
    scene, _ = sphere_scene({"depth", "opacity", "segmentation"}, yaw=0.4)
    eyes = SSR(region=["left_eye", "right_eye"], erosion=1, max_view_angle=15)
    frontal, _ = sphere_scene({"depth", "opacity", "segmentation"}, yaw=0.2)
    assert min(evaluate(eyes, frontal)) > 0
    assert evaluate(eyes, scene) == [0.0, 0.0]
    assert min(evaluate(SSR(region="skin"), scene)) > 0


def test_pixel_normalisation_is_that_of_eg3d_at_128() -> None:
    depth = random_depth(1, 128)
    scene = labelled_scene(depth)
    plain, divided = evaluate(SR(), scene)[0], evaluate(SR(normalise="pixel"), scene)[0]
    assert divided / plain == pytest.approx(4.09e4, rel=1e-3)


def test_pixel_normalisation_does_not_depend_on_resolution_or_units() -> None:
    values = []
    for size in (48, 96):
        scene, _ = sphere_scene({"depth", "opacity"}, size=size, double=True, backbone=AnalyticSphere(density=1000.0))
        inner = (scene.normals[:, 2:] > 0.9) & (scene.opacity > 0.5)
        pitch = scene.camera.pixel_pitch(size)
        values.append(ssr(scene.depth, inner, pitch=pitch, erosion=1).value)
    assert_close(values[0], values[1], rtol=0.03, atol=0)
    depth = random_depth(1, 16)
    near, far = labelled_scene(depth), labelled_scene(10 * depth)
    far.camera.cam2world[:, :3, 3] *= 10
    assert evaluate(SR(normalise="pixel"), near) == pytest.approx(evaluate(SR(normalise="pixel"), far), rel=1e-6)


def test_pooled_value_does_not_depend_on_who_asks() -> None:
    scene = labelled_scene(random_depth(4, 16))
    result = SSR(region="skin", hardest=0.5, scope="batch")(scene, fixed_streams(0, 4)("ssr"))
    inner = smoothness_map(scene.depth)[:, :, 1:-1, 9:-1].flatten()
    expected = inner.sort(descending=True).values[: (len(inner) + 1) // 2].mean()
    assert_close((result.value * result.counts()).sum() / result.counts().sum(), expected)


def test_mask_gives_no_gradient() -> None:
    depth = random_depth(1, 16)
    opacity = torch.full_like(depth, 0.9).requires_grad_(True)
    result = SSR(region="skin")(labelled_scene(depth.requires_grad_(True), opacity), fixed_streams(0, 1)("ssr"))
    assert torch.autograd.grad(result.value.sum(), opacity, allow_unused=True) == (None,)


def test_half_precision_depth_is_computed_in_float32() -> None:
    depth = random_depth().bfloat16()
    result = ssr(depth, blob())
    assert result.value.dtype == torch.float32
    assert_close(result.value, ssr(depth.float(), blob()).value)


# Wrong input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 4}, ["window", "odd whole number >= 3", "4"]),
        ({"window": 1}, ["window", "1"]),
        ({"window": True}, ["window", "True"]),
        ({"erosion": 0}, ["erosion", ">= 1", "0"]),
        ({"erosion": 2.5}, ["erosion", "2.5"]),
        ({"hardest": 0.0}, ["hardest", "> 0 and <= 1", "0.0"]),
        ({"hardest": 1.01}, ["hardest", "1.01"]),
        ({"hardest": "most"}, ["hardest", "number", "'most'"]),
        ({"hardest": float("nan")}, ["hardest", "nan"]),
        ({"max_view_angle": -3}, ["max_view_angle", "> 0 and <= 180", "-3"]),
        ({"view_angle_ramp": 10}, ["view_angle_ramp", "max_view_angle"]),
        ({"min_opacity": 1.0}, ["min_opacity", "< 1", "1.0"]),
        ({"normalise": "pixels"}, ["normalise", "none, pixel", "did you mean 'pixel'"]),
        ({"reduction": "average"}, ["reduction", "sum, mean", "'average'"]),
        ({"scope": "batches"}, ["scope", "did you mean 'batch'"]),
        ({"empty": "ignore"}, ["empty", "zero, skip", "'ignore'"]),
        ({"second_order": "yes"}, ["second_order", "true or false", "'yes'"]),
        ({"soft_mask": 1}, ["soft_mask", "true or false", "1"]),
        ({"region": []}, ["region", "class name", "[]"]),
        ({"region": ["skin", 3]}, ["region", "class name", "3"]),
        ({"region": None}, ["region", "class name", "None"]),
    ],
)
def test_wrong_options_say_what_was_got_and_what_is_allowed(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(PriorzooError) as caught:
        SSR(**{"region": "skin", **options})  # type: ignore[arg-type]
    for word in ("ssr", *words):
        assert word in str(caught.value)


def test_unknown_class_names_the_nearest() -> None:
    with pytest.raises(PriorzooError, match=r"'skim' is unknown.*did you mean 'skin'"):
        evaluate(SSR(region="skim"), labelled_scene(random_depth(1, 16)))


def test_scene_without_camera_is_refused_by_the_option_that_reads_it() -> None:
    depth = random_depth(1, 16)
    scene = Scene(None, depth=depth, opacity=torch.ones_like(depth))
    with pytest.raises(MissingBufferError, match="sr: max_view_angle reads the scene's camera"):
        evaluate(SR(max_view_angle=15), scene)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(PriorzooError, match=r"\[B,1,h,w\], got \[2, 12, 12\]"):
        smoothness_map(random_depth()[:, 0])
    with pytest.raises(PriorzooError, match="they must be equal"):
        ssr(random_depth(), blob(size=13))


def test_region_names_and_needs_without_building() -> None:
    assert SSR.region_names(region=["left_eye", "right_eye"], erosion=3) == ("left_eye", "right_eye")
    assert SSR.region_names(region="skin") == ("skin",)
    assert SSR.needs(region="skin") == {"depth", "opacity", "segmentation"}
    assert SSR.needs(region="skin", min_opacity=0) == {"depth", "segmentation"}
    assert SR.needs() == {"depth", "opacity"} and SR.needs(min_opacity=0.0) == {"depth"}
