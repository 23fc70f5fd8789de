"""Density TV against closed forms: a linear field, a constant one, the box and the published cube."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import SphereField
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import FieldSample, Scene
from priorzoo.core.streams import fixed_streams
from priorzoo.priors.density_tv import DensityTV, density_tv
from torch import Tensor
from torch.testing import assert_close


class LinearField:
    """raw = slope . x; keeps the points that it was asked for."""

    kind = "density"

    def __init__(self, slope: Tensor, extent: float = 0.5) -> None:
        self.slope, self.extent = slope, extent
        self.asked: list[Tensor] = []

    def __call__(self, points: Tensor) -> FieldSample:
        self.asked.append(points.detach())
        raw = (points * self.slope[:, None]).sum(dim=-1)
        return FieldSample(raw, raw)


class TentField:
    """raw = distance to the nearest face of the box of side 1, 0 outside: its slope is 1 everywhere inside."""

    kind, extent = "density", 0.5

    def __call__(self, points: Tensor) -> FieldSample:
        raw = (0.5 - points.abs().amax(dim=-1)).clamp_min(0.0)
        return FieldSample(raw, raw)


def evaluate(prior: DensityTV, field: object, count: int = 2, entry: str = "density") -> Tensor:
    return prior(Scene(None, field=field), fixed_streams(0, count)(entry)).value


def test_linear_field_has_the_mean_of_a_folded_normal() -> None:
    # a . d with d ~ N(0, s^2) is N(0, |a|^2 s^2), whose mean absolute value is |a| s sqrt(2 / pi).
    field = LinearField(torch.tensor([[3.0, 0.0, 4.0], [0.0, 12.0, 5.0]], dtype=torch.float64))
    value = evaluate(DensityTV(points=40_000, distance=0.004), field)
    expected = torch.tensor([5.0, 13.0], dtype=torch.float64) * 0.004 * math.sqrt(2 / math.pi)
    assert_close(value, expected, rtol=0.02, atol=0)


def test_constant_field_costs_nothing() -> None:
    assert evaluate(DensityTV(), LinearField(torch.zeros(2, 3))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("as_published", "half_side"), [(False, 0.5), (True, 1.0)])
def test_points_fill_the_box_or_the_published_cube(as_published: bool, half_side: float) -> None:
    field = LinearField(torch.ones(2, 3))
    evaluate(DensityTV(points=1000, as_published=as_published), field)
    (asked,) = field.asked  # one query of points and partners
    points, offsets = asked[:, :1000], asked[:, 1000:] - asked[:, :1000]
    assert points.abs().max() <= half_side
    assert points.amax(dim=1).min() > 0.98 * half_side and points.amin(dim=1).max() < -0.98 * half_side
    assert offsets.std().item() == pytest.approx(0.004, rel=0.05)
    assert abs(offsets.mean().item()) < 2e-4


def test_seven_of_eight_published_points_miss_a_box_of_side_one() -> None:
    inside, published = (
        evaluate(DensityTV(points=100_000, distance=1e-3, as_published=flag), TentField(), count=1) for flag in (False, True)
    )
    assert (published / inside).item() == pytest.approx(1 / 8, rel=0.05)


def test_pure_function_by_hand() -> None:
    field = LinearField(torch.tensor([[1.0, 2.0, 0.0]]))
    offsets = torch.tensor([[[1.0, 0.0, 9.0], [0.0, -1.0, 0.0], [1.0, 1.0, 0.0]]])
    assert density_tv(field, torch.randn(1, 3, 3), offsets).item() == pytest.approx((1 + 2 + 3) / 3, rel=1e-5)


def test_gradcheck_in_the_shape() -> None:
    points = torch.rand(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    offsets = torch.randn(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.1
    radius = torch.tensor([0.25, 0.3], dtype=torch.float64, requires_grad=True)

    def loss(r: Tensor) -> Tensor:
        # The radius enters the raw value as a factor too: a mere shift would cancel in the difference.
        field = SphereField(r, 1.0, 0.1)
        return density_tv(lambda p: FieldSample(field(p).raw * r[:, None], field(p).value), points, offsets)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, radius)


def test_draws_are_those_of_the_entry_and_of_the_sample() -> None:
    field, prior = LinearField(torch.ones(1, 3)), DensityTV(points=10)
    both = evaluate(prior, field, count=2)
    assert torch.equal(both, evaluate(prior, field, count=2))
    assert torch.equal(both[:1], evaluate(prior, field, count=1))
    assert not bool((both == evaluate(prior, field, count=2, entry="other")).any())


def test_counts_its_points() -> None:
    result = DensityTV(points=7)(Scene(None, field=LinearField(torch.ones(2, 3))), fixed_streams(0, 2)("density"))
    assert result.pixels is not None and result.pixels.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": 0}, "density_tv: points must be a whole number >= 1, got 0"),
        ({"points": 1.5}, "points must be a whole number >= 1, got 1.5"),
        ({"distance": 0}, "distance must be a number > 0, got 0"),
        ({"distance": float("inf")}, "distance must be a number > 0, got inf"),
        ({"as_published": "true"}, "as_published must be true or false, got 'true'"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(PriorzooError, match=words):
        DensityTV(**options)  # type: ignore[arg-type]
