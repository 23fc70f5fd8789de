"""Adaptive augmentation's transforms, each alone, against what can be written down by hand."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.streams import Stream, fixed_streams
from priorzoo.training import augment
from priorzoo.training.augment import augmented_images, augmented_views
from priorzoo.training.augment_colours import Colours, brightness, contrast, draw_colours, hue, luma_flip, recoloured, saturation
from priorzoo.training.augment_geometry import Geometry, draw_geometry, rotation, scaling, translation
from priorzoo.training.augment_resampling import OFFSET, SYM6, blit, doubled, halved, resampled, sampled
from torch import Tensor
from torch.testing import assert_close

SIDE = 16


def stream(count: int = 3, step: int = 0) -> Stream:
    return Stream(0, step, "augmentation", tuple(range(count)))


def ramp(side: int = SIDE, x: float = 1.0, y: float = 3.0) -> Tensor:
    """x and y times the place in pixels from the centre, [1,1,S,S]: what any affine map leaves exact."""
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return (x * place[None, :] + y * place[:, None])[None, None]


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def middle(image: Tensor, border: int = 6) -> Tensor:
    return image[..., border:-border, border:-border]


# ------------------------------------------------------------------------------------------------------- the resampling


def test_the_filter_is_sym6() -> None:
    """Orthogonal to its own even shifts, six vanishing moments: with the least phase these determine it."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    for shift in range(6):
        assert float((taps[2 * shift :] * taps[: 12 - 2 * shift]).sum()) == pytest.approx(float(shift == 0), abs=1e-11)
    signs = torch.tensor([(-1.0) ** k for k in range(12)], dtype=torch.float64)
    place = torch.arange(12, dtype=torch.float64)
    moments = [float((taps * signs * place**m).sum()) for m in range(7)]
    assert moments[:6] == pytest.approx([0.0] * 6, abs=1e-8)
    assert abs(moments[6]) > 100, "not seven"
    assert abs(OFFSET) < 0.05


def test_up_and_down_again_is_the_identity() -> None:
    image = noise(2, 3, SIDE, SIDE)
    high = doubled(image)
    assert high.shape == (2, 3, 2 * SIDE - 1, 2 * SIDE - 1)
    padded = torch.nn.functional.pad(high, (5, 6, 5, 6))  # samples -5 .. 2S+4; beyond the image they reach only its border
    assert_close(middle(halved(padded), 3), middle(image, 3), rtol=0, atol=1e-11)
    assert_close(
        resampled(image, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))[:, :, 3:-3, 3:-3], middle(image, 3), rtol=0, atol=1e-11
    )


def test_an_affine_image_stays_affine_under_every_matrix() -> None:
    """f(Aq) at place q, exactly: the filters keep straight lines, and so does the bilinear look-up."""
    inverse = translation(torch.tensor([[0.3, -1.7]])) @ rotation(torch.tensor([0.4])) @ scaling(torch.tensor([0.9]), torch.tensor([0.6]))
    inverse = inverse.double()
    place = torch.arange(32, dtype=torch.float64) - 15.5
    y, x = torch.meshgrid(place, place, indexing="ij")
    taken = torch.einsum("ij,hwj->hwi", inverse[0], torch.stack([x, y, torch.ones_like(x)], dim=-1))
    expected = 1.0 * taken[..., 0] + 3.0 * taken[..., 1]
    assert_close(middle(resampled(ramp(32), inverse)[0, 0], 8), middle(expected, 8), rtol=0, atol=1e-6)


def reference(image: Tensor, inverse: Tensor) -> Tensor:
    """The slow way: mirrored padding, zero-stuffing and full 2-D filters, explicit look-up of four neighbours, filter, every second."""
    side, pad = image.shape[-1], image.shape[-1] - 1
    kernel = torch.tensor(SYM6, dtype=image.dtype)
    square = kernel[:, None] * kernel[None, :]
    wide = torch.nn.functional.pad(image[None], (pad,) * 4, mode="reflect")[0]
    stuffed = torch.zeros(len(image), 2 * wide.shape[-1], 2 * wide.shape[-1], dtype=image.dtype)
    stuffed[:, ::2, ::2] = wide
    full = torch.nn.functional.conv2d(torch.nn.functional.pad(stuffed[:, None], (11,) * 4), (2 * square).flip(0, 1)[None, None])[:, 0]
    first = 5 + 2 * pad  # where pixel 0 came to
    out = torch.zeros(len(image), 2 * side + 10, 2 * side + 10, dtype=image.dtype)
    centre = (side - 1) / 2
    for row in range(2 * side + 10):
        for column in range(2 * side + 10):
            place = torch.tensor([(column - 5) / 2 - centre - OFFSET, (row - 5) / 2 - centre - OFFSET, 1.0], dtype=image.dtype)
            x, y = ((inverse @ place)[:2] + OFFSET + centre).mul(2).tolist()
            left, top = math.floor(x), math.floor(y)
            for dx in (0, 1):
                for dy in (0, 1):
                    weight = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
                    out[:, row, column] += weight * full[:, top + dy + first, left + dx + first]
    return torch.nn.functional.conv2d(out[:, None], (square / 2)[None, None], stride=2)[:, 0]


def test_resampling_against_the_slow_way() -> None:
    image = noise(2, SIDE, SIDE)
    inverse = (rotation(torch.tensor([0.5])) @ translation(torch.tensor([[1.3, -0.4]])))[0].double()
    fast, slow = resampled(image[None], inverse[None])[0], reference(image, inverse)
    # Mirroring before or after the filter differs only where samples come from beyond the image.
    inside = middle(fast, 7) - middle(slow, 7)
    assert float(inside.abs().max()) < 1e-9
    smooth = torch.nn.functional.avg_pool2d(image[None], 5, 1, 2, count_include_pad=False)[0]
    fast, slow = resampled(smooth[None], inverse[None])[0], reference(smooth, inverse)
    assert float((fast - slow).abs().max()) < 0.1 * float(smooth.abs().max())


def test_bilinear_sampling_mirrors_and_is_differentiable_twice() -> None:
    image = noise(1, 2, 4, 5).requires_grad_()
    grid = (3 * torch.rand(1, 3, 4, 2, generator=torch.Generator().manual_seed(1)) - 1.5).double()
    assert_close(sampled(image, grid), torch.nn.functional.grid_sample(image, grid, padding_mode="reflection", align_corners=True))
    assert torch.autograd.gradcheck(lambda x: sampled(x, grid), image)
    assert torch.autograd.gradgradcheck(lambda x: sampled(x, grid).tanh(), image)


def test_resampling_is_differentiable_twice() -> None:
    inverse = rotation(torch.tensor([0.7], dtype=torch.float64)) @ scaling(torch.tensor([1.2]).double(), torch.tensor([0.8]).double())
    image = noise(1, 1, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resampled(x, inverse), image)
    assert torch.autograd.gradgradcheck(lambda x: resampled(x, inverse).square(), image)


# ------------------------------------------------------------------------------------------------- whole pixels, exactly


def test_blits_are_exact() -> None:
    image = torch.arange(9.0).view(1, 3, 3)
    assert blit(image, True, 0, (0, 0)).tolist() == [[[2, 1, 0], [5, 4, 3], [8, 7, 6]]]
    assert blit(image, False, 1, (0, 0)).tolist() == [[[2, 5, 8], [1, 4, 7], [0, 3, 6]]]
    assert blit(image, False, 2, (0, 0)).tolist() == [[[8, 7, 6], [5, 4, 3], [2, 1, 0]]]
    # Down by one: the first row is the mirror image of what left, the second row.
    assert blit(image, False, 0, (0, 1)).tolist() == [[[3, 4, 5], [0, 1, 2], [3, 4, 5]]]
    assert blit(image, False, 0, (-1, 0)).tolist() == [[[1, 2, 1], [4, 5, 4], [7, 8, 7]]]


def geometry(flip: bool = False, turns: int = 0, shift: tuple[int, int] = (0, 0)) -> Geometry:
    return Geometry(
        torch.tensor([flip]), torch.tensor([turns]), torch.tensor([shift]), torch.eye(3, dtype=torch.float64)[None], torch.tensor([True])
    )


@pytest.mark.parametrize(("flip", "turns", "shift"), [(True, 0, (0, 0)), (False, 1, (0, 0)), (False, 0, (2, -1)), (True, 3, (1, 2))])
def test_the_matrix_says_what_the_blit_does(flip: bool, turns: int, shift: tuple[int, int]) -> None:
    """On a straight ramp, which the filters keep exactly."""
    blitted = blit(ramp(24)[0], flip, turns, shift)
    by_matrix = resampled(ramp(24), geometry(flip, turns, shift).inverse())[0]
    assert_close(middle(by_matrix, 9), middle(blitted, 9), rtol=0, atol=1e-6)


def test_whole_transforms_come_before_the_others() -> None:
    drawn = geometry(flip=True)
    drawn.general = translation(torch.tensor([[-2.0, 0.0]], dtype=torch.float64))  # moves the outcome right by 2
    expected = ramp(24)[0].flip(-1).roll(2, -1)
    assert_close(middle(resampled(ramp(24), drawn.inverse())[0], 9), middle(expected, 9), rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- colours


def colour(matrix: Tensor, rgb: tuple[float, float, float]) -> list[float]:
    image = torch.tensor(rgb, dtype=matrix.dtype).view(1, 3, 1, 1)
    return [round(v, 6) + 0.0 for v in recoloured(image, matrix).flatten().tolist()]


def of(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_colour_transforms_by_hand() -> None:
    rgb = (0.2, -0.4, 0.8)
    assert colour(brightness(of(0.1)), rgb) == [0.3, -0.3, 0.9]
    assert colour(contrast(of(2.0)), rgb) == [0.4, -0.8, 1.6]
    # Luma is the mean, 0.2: its mirror image moves every colour by -0.4.
    assert colour(luma_flip(of(1.0)), rgb) == [-0.2, -0.8, 0.4]
    assert colour(luma_flip(of(0.0)), rgb) == list(rgb)
    assert colour(saturation(of(0.0)), rgb) == [0.2, 0.2, 0.2]
    assert colour(saturation(of(2.0)), rgb) == [0.2, -1.0, 1.4]
    assert colour(hue(of(2 * math.pi / 3)), rgb) == [0.8, 0.2, -0.4]
    assert colour(hue(of(-math.pi)), rgb) == colour(hue(of(math.pi)), rgb)


@pytest.mark.parametrize("matrix", [hue(of(1.1)), saturation(of(3.0))], ids=["hue", "saturation"])
def test_grey_stays_where_it_is(matrix: Tensor) -> None:
    assert colour(matrix, (0.3, 0.3, 0.3)) == [0.3, 0.3, 0.3]
    # and luma is kept for every colour
    assert sum(colour(matrix, (0.9, -0.5, 0.1))) == pytest.approx(0.5, abs=1e-5)


def test_hue_is_a_rotation_and_luma_flip_a_reflection() -> None:
    turn, mirror = hue(of(0.7))[0, :3, :3], luma_flip(of(1.0))[0, :3, :3]
    for matrix, determinant in ((turn, 1.0), (mirror, -1.0)):
        assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
        assert float(torch.linalg.det(matrix)) == pytest.approx(determinant)


def test_every_triple_of_channels_has_the_same_colours() -> None:
    image = noise(1, 3, 2, 2)
    twice = recoloured(torch.cat([image, image], dim=1), hue(of(1.0)) @ brightness(of(0.3)))
    assert torch.equal(twice[:, :3], twice[:, 3:])


# ------------------------------------------------------------------------------------------------------- what is drawn


def test_nothing_acts_at_probability_zero() -> None:
    images = noise(3, 6, SIDE, SIDE, dtype=torch.float32)
    assert augmented_images(images, 0.0, stream()) is images
    drawn = draw_geometry(stream(200), 0.0, SIDE)
    assert not bool((drawn.moved | drawn.blitted).any()) and not bool(draw_colours(stream(200), 0.0).moved.any())
    assert_close(drawn.inverse(), torch.eye(3).expand(200, 3, 3))


def test_everything_acts_at_probability_one_and_beyond() -> None:
    for probability in (1.0, 7.0):
        drawn, colours = draw_geometry(stream(2000), probability, 100), draw_colours(stream(2000), probability)
        assert bool(drawn.moved.all()) and bool(colours.moved.all())
        assert float(drawn.flip.double().mean()) == pytest.approx(0.5, abs=0.04)
        assert drawn.turns.bincount().tolist() == pytest.approx([500] * 4, abs=80)
        assert int(drawn.shift.abs().max()) == 12 and int(drawn.shift.min()) == -12  # 0.125 * 100, rounded


def test_strengths_are_the_papers() -> None:
    drawn = draw_geometry(stream(4000), 1.0, 64, torch.float64)
    linear, shift = drawn.general[:, :2, :2], drawn.general[:, :2, 2]
    # Turns and the stretch keep areas; the scale alone changes them: by the square of 1/s.
    log_scale = -0.5 * torch.linalg.det(linear).log2()
    assert float(log_scale.mean()) == pytest.approx(0.0, abs=0.01) and float(log_scale.std()) == pytest.approx(0.2, rel=0.05)
    # The singular values' ratio is the stretch, squared.
    values = torch.linalg.svdvals(linear)
    stretch = 0.5 * (values[:, 0] / values[:, 1]).log2()
    assert float(stretch.square().mean().sqrt()) == pytest.approx(0.2, rel=0.05)
    moved = torch.linalg.solve(linear, shift[..., None])[..., 0] / 64
    assert float(moved.std()) == pytest.approx(0.125, rel=0.05)

    luma = draw_colours(stream(4000), 1.0, torch.float64).matrix
    grey = torch.ones(3, dtype=torch.float64)
    gain = (luma[:, :3, :3] @ grey)[:, 0].abs().log2()  # contrast alone changes what grey becomes
    assert float(gain.std()) == pytest.approx(0.5, rel=0.05) and float(gain.mean()) == pytest.approx(0.0, abs=0.03)
    across = torch.linalg.svdvals(luma[:, :3, :3]).log2()
    chroma = across.sum(dim=1) - gain  # contrast^2 saturation^2
    assert float((0.5 * chroma - gain).std()) == pytest.approx(1.0, rel=0.05)


def test_one_of_the_turns_acts_with_the_probability() -> None:
    drawn = draw_geometry(stream(8000), 0.3, 64, torch.float64)
    linear = drawn.general[:, :2, :2]
    turned = (linear[:, 0, 1].abs() > 1e-9).double().mean()
    assert float(turned) == pytest.approx(0.3, abs=0.02)
    for mask, share in ((drawn.flip, 0.15), (drawn.turns != 0, 0.225), (drawn.moved, 1 - 0.7**4)):
        assert float(mask.double().mean()) == pytest.approx(share, abs=0.02)


def test_draws_belong_to_their_sample() -> None:
    """The split into slices does not matter, and more probability keeps what acted."""
    whole, last = draw_geometry(stream(4), 0.8, SIDE), draw_geometry(Stream(0, 0, "augmentation", (3,)), 0.8, SIDE)
    assert torch.equal(whole.inverse()[3:], last.inverse())
    images = noise(4, 3, SIDE, SIDE)
    together = augmented_images(images, 0.8, stream(4))
    alone = torch.cat([augmented_images(images[i : i + 1], 0.8, Stream(0, 0, "augmentation", (i,))) for i in range(4)])
    assert_close(together, alone, rtol=1e-12, atol=1e-12)
    less, more = draw_geometry(stream(300), 0.2, SIDE), draw_geometry(stream(300), 0.6, SIDE)
    assert bool((more.flip | ~less.flip).all()) and bool((more.moved | ~less.moved).all())


# --------------------------------------------------------------------------------------------- the pipeline as a whole


def only(monkeypatch: pytest.MonkeyPatch, drawn: Geometry, colours: Tensor | None = None) -> None:
    matrix = torch.eye(4, dtype=torch.float64)[None] if colours is None else colours
    monkeypatch.setattr(augment, "draw_geometry", lambda *_: drawn)
    monkeypatch.setattr(augment, "draw_colours", lambda *_: Colours(matrix, torch.tensor([colours is not None])))


def test_whole_pixels_are_moved_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(1, 3, SIDE, SIDE)
    drawn = geometry(flip=True, turns=1, shift=(2, -3))
    drawn.moved = torch.tensor([False])
    only(monkeypatch, drawn)
    assert torch.equal(augmented_images(image, 0.5, stream(1))[0], blit(image[0], True, 1, (2, -3)))


def test_image_and_raw_take_the_same_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(1, 3, SIDE, SIDE)
    drawn = geometry(flip=True)
    drawn.moved = torch.tensor([False])
    only(monkeypatch, drawn, brightness(of(0.25)))
    seen = augmented_views({"image": image, "image_raw": image[..., :8, :8]}, 0.5, stream(1))
    assert_close(seen["image"], image.flip(-1) + 0.25)
    there = torch.nn.functional.interpolate(image[..., :8, :8], (SIDE, SIDE), mode="bilinear", antialias=True)
    back = torch.nn.functional.interpolate(there.flip(-1) + 0.25, (8, 8), mode="bilinear", antialias=True)
    assert seen["image_raw"].shape == (1, 3, 8, 8)
    assert_close(seen["image_raw"], back)


def test_one_view_needs_no_other() -> None:
    image = noise(3, 3, SIDE, SIDE)
    assert_close(augmented_views({"image": image}, 1.0, stream())["image"], augmented_images(image, 1.0, stream()))


def test_the_pipeline_can_be_differentiated_twice() -> None:
    images = noise(2, 3, 8, 8).requires_grad_()
    weight = noise(3, 8, 8)

    def penalty(x: Tensor) -> Tensor:
        score = (augmented_images(x, 0.9, stream(2, step=3)) * weight).sum().tanh()
        (slope,) = torch.autograd.grad(score, x, create_graph=True)
        return slope.square().sum()

    assert torch.autograd.gradcheck(penalty, images, atol=1e-6)


def test_half_precision_is_augmented_in_single() -> None:
    image = noise(3, 3, SIDE, SIDE, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = augmented_views({"image": image}, 1.0, fixed_streams(0, 3)("a"))["image"]
    assert cast.dtype == torch.float32
    assert torch.equal(cast, augmented_views({"image": image}, 1.0, fixed_streams(0, 3)("a"))["image"])


def test_the_layout_in_memory_does_not_matter() -> None:
    image, raw = noise(3, 3, SIDE, SIDE), noise(3, 3, 8, 8)
    plain = augmented_views({"image": image, "image_raw": raw}, 1.0, stream())
    last = augmented_views({n: x.to(memory_format=torch.channels_last) for n, x in (("image", image), ("image_raw", raw))}, 1.0, stream())
    for name, expected in plain.items():
        assert_close(last[name], expected)
