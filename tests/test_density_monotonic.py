"""Monotonic density against closed forms: a field linear in z, one that turns, both forms' gradients, the term beside it."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import FieldSample, Scene
from priorzoo.core.streams import fixed_streams
from priorzoo.priors.density_monotonic import DensityMonotonic, density_monotonic
from priorzoo.priors.density_tv import density_tv
from torch import Tensor
from torch.testing import assert_close


class Linear:
    """raw = slope . x; keeps the points that it was asked for."""

    kind = "density"

    def __init__(self, slope: Tensor, extent: float = 0.5) -> None:
        self.slope, self.extent = slope, extent
        self.asked: list[Tensor] = []

    def __call__(self, points: Tensor) -> FieldSample:
        self.asked.append(points.detach())
        raw = (points * self.slope[:, None]).sum(dim=-1)
        return FieldSample(raw, raw)


class Shell:
    """raw = cos(pi z / extent) times a scale: rises to the middle and falls behind it."""

    kind, extent = "density", 0.5

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def __call__(self, points: Tensor) -> FieldSample:
        raw = self.scale[:, None] * (math.pi * points[..., 2] / self.extent).cos()
        return FieldSample(raw, raw)


def evaluate(prior: DensityMonotonic, field: object, count: int = 2) -> Tensor:
    return prior(Scene(None, field=field), fixed_streams(0, count)("entry")).value


def test_density_that_falls_towards_the_back_costs_its_slope() -> None:
    """Behind is -z: raw = a z falls there by a step, whatever x and y do; raw = -a z rises, and costs nothing."""
    slope = torch.tensor([[5.0, -2.0, 3.0], [5.0, -2.0, -3.0]], dtype=torch.float64)
    assert_close(evaluate(DensityMonotonic(), Linear(slope)), torch.tensor([3.0 / 256, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("extent", [0.5, 0.8])
def test_the_step_is_the_box_over_256(extent: float) -> None:
    field = Linear(torch.ones(2, 3), extent)
    evaluate(DensityMonotonic(points=7), field)
    (asked,) = field.asked
    assert asked.shape == (2, 14, 3)
    front, behind = asked.chunk(2, dim=1)
    assert_close(behind - front, torch.tensor([0.0, 0.0, -2 * extent / 256]).expand(2, 7, 3), rtol=1e-4, atol=1e-6)


def test_a_shell_costs_its_back_half() -> None:
    # The field is even in z, and 2 pi / 256 times |sin| has a mean over the box of 4 / 256; falling is one half.
    value = evaluate(DensityMonotonic(points=40_000), Shell(torch.ones(2, dtype=torch.float64)))
    assert_close(value, torch.full((2,), 2.0 / 256, dtype=torch.float64), rtol=0.03, atol=0)


def test_constant_costs_nothing() -> None:
    field = Linear(torch.zeros(2, 3))
    assert evaluate(DensityMonotonic(smoothness=1.0), field).tolist() == [0.0, 0.0]


def test_detach_gives_the_front_no_gradient() -> None:
    """raw = f at the front and b behind: d relu(f - b) is +1 for f (fixed alone) and -1 for b."""
    values = torch.tensor([[2.0, 0.5], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)  # front of two points, then behind

    class Given:
        kind, extent = "density", 0.5

        def __call__(self, points: Tensor) -> FieldSample:
            raw = values.flatten()[None]
            return FieldSample(raw, raw)

    points = torch.zeros(1, 2, 3, dtype=torch.float64)
    for form, front in (("detach", 0.0), ("fixed", 0.5)):
        loss = density_monotonic(Given(), points, 0.1, form=form)
        assert loss.tolist() == [0.5]  # (1 + 0) / 2
        (gradient,) = torch.autograd.grad(loss.sum(), values)
        assert gradient.tolist() == [[front, 0.0], [-0.5, 0.0]]


def test_gradient_of_both_forms() -> None:
    points = (torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(0)) - 0.5).double()
    scale = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: density_monotonic(Shell(s), points, 0.01, form="fixed"), scale)


def test_smoothness_adds_density_tv_of_the_same_step() -> None:
    slope = torch.tensor([[0.0, 4.0, -3.0], [12.0, 0.0, -5.0]], dtype=torch.float64)  # rises to the back: the first term is 0
    value = evaluate(DensityMonotonic(smoothness=0.025, smooth_points=40_000), Linear(slope))
    expected = 0.025 * torch.tensor([5.0, 13.0], dtype=torch.float64) * (1 / 256) * math.sqrt(2 / math.pi)
    assert_close(value, expected, rtol=0.02, atol=0)


def test_the_second_term_draws_after_the_first() -> None:
    """With and without it the first term sees the same points, and the second is density_tv itself."""
    field = Linear(torch.tensor([[1.0, 2.0, 3.0]]))
    plain = evaluate(DensityMonotonic(points=50), field, count=1)
    both = evaluate(DensityMonotonic(points=50, smoothness=2.0, smooth_points=30), field, count=1)
    (front, second) = field.asked[1:]
    assert torch.equal(field.asked[0], front)
    first, partner = second.chunk(2, dim=1)
    assert_close(both, plain + 2.0 * density_tv(field, first, partner - first), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("as_published", "half_side"), [(False, 0.5), (True, 1.0)])
def test_points_fill_the_box_or_the_published_cube(as_published: bool, half_side: float) -> None:
    field = Linear(torch.ones(2, 3))
    evaluate(DensityMonotonic(points=20_000, smoothness=1.0, smooth_points=20_000, as_published=as_published), field)
    for asked in field.asked:
        points = asked[:, :20_000]
        assert float(points.abs().max()) == pytest.approx(half_side, rel=1e-3)
        assert float(points.std()) == pytest.approx(half_side / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "detached"}, "density_monotonic: form must be one of detach, fixed; got 'detached', did you mean 'detach'?"),
        ({"points": 0}, "points must be a whole number >= 1, got 0"),
        ({"smoothness": -1.0}, "smoothness must be a number >= 0, got -1.0"),
        ({"smooth_points": 2.5}, "smooth_points must be a whole number"),
        ({"as_published": "yes"}, "as_published must be true or false"),
    ],
)
def test_options_that_cannot_work(options: dict[str, object], text: str) -> None:
    with pytest.raises(PriorzooError) as caught:
        DensityMonotonic.check_options(**options)
    assert text in str(caught.value)
