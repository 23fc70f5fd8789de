"""Surfaces along rays: roots of a ball against the closed form, brackets by hand, regions, occupancies composited by hand."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.rendering.roots import Surface, first_surface, level_of, region_distances, surface_region
from priorzoo.rendering.samples import march_occupancies, published_occupancy_weights
from torch import Tensor
from torch.testing import assert_close

RADIUS, DISTANCE, NEAR, FAR = 0.5, 2.7, 2.0, 3.4


def ball() -> tuple[Tensor, Tensor, Tensor]:
    """Rays from z = 2.7 past a ball; where they meet it (nan: nowhere), and coarse distances."""
    offset = torch.linspace(-0.3, 0.3, 25, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.stack([offset, 0.3 * offset, -torch.ones_like(offset)], dim=-1), dim=-1)[None]
    along = -DISTANCE * directions[..., 2]
    truth = along - (along.square() - (DISTANCE**2 - RADIUS**2)).sqrt()
    return directions, truth, torch.linspace(NEAR, FAR, 15, dtype=torch.float64).expand(1, 25, 15)


def logit(directions: Tensor, t: Tensor) -> Tensor:
    points = directions[:, :, None] * t[..., None] + torch.tensor([0.0, 0.0, DISTANCE], dtype=torch.float64)
    return 20.0 * (RADIUS - points.norm(dim=-1))


@pytest.mark.parametrize("method", ["secant", "bisection"])
@pytest.mark.parametrize("steps", [0, 4, 8])
def test_roots_of_a_ball_against_the_closed_form(method: str, steps: int) -> None:
    directions, truth, coarse = ball()
    surface = first_surface(
        lambda t: logit(directions, t[..., None])[..., 0], logit(directions, coarse), coarse, FAR, method=method, steps=steps
    )  # fmt: skip
    assert torch.equal(surface.found, truth.isfinite()) and 5 < int(surface.found.sum()) < 25
    error = (surface.distances - truth)[surface.found].abs().max()
    step = (FAR - NEAR) / 14
    bound = step / 2 ** (steps + 1) if method == "bisection" else {0: 0.05, 4: 5e-3, 8: 5e-4}[steps]
    assert float(error) <= bound * (1 + 1e-9)
    assert bool((surface.distances[~surface.found] == FAR).all())


def test_another_level_is_another_surface() -> None:
    directions, _, coarse = ball()
    level = level_of(0.3)
    assert level == pytest.approx(math.log(3 / 7))
    surface = first_surface(
        lambda t: logit(directions, t[..., None])[..., 0], logit(directions, coarse), coarse, FAR, level=level, steps=30
    )  # fmt: skip
    along = -DISTANCE * directions[..., 2]
    larger = RADIUS - level / 20.0
    truth = along - (along.square() - (DISTANCE**2 - larger**2)).sqrt()
    assert_close(surface.distances[surface.found], truth[surface.found], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.0, -1.0, 1.0, 1.0], 1.5),
        ([-1.0, 3.0, -1.0, 1.0], 0.25),  # the first of two
        ([-1.0, 0.0, 1.0, 1.0], 1.0),  # a sample on the surface
        ([1.0, -1.0, 1.0, 1.0], None),  # starts inside
        ([-1.0, -1.0, -1.0, -1.0], None),
        ([1.0, 1.0, -1.0, -1.0], None),  # only leaves
    ],
)
def test_brackets_by_hand(values: list[float], expected: float | None) -> None:
    distances, given = torch.arange(4.0)[None, None], torch.tensor(values)[None, None]
    surface = first_surface(lambda t: t, given, distances, 9.0, steps=0)
    assert (bool(surface.found), float(surface.distances)) == (expected is not None, 9.0 if expected is None else expected)


def test_regions_are_moved_inside_and_cut() -> None:
    found = torch.tensor([[True, True, True, False]])
    surface = Surface(torch.tensor([[2.0, 2.75, 3.375, 3.5]]), found)
    low, high = surface_region(surface, 0.25, 2.0, 3.5)
    assert low.tolist() == [[2.0, 2.5, 3.0, 2.0]] and high.tolist() == [[2.5, 3.0, 3.5, 3.5]]
    low, high = surface_region(surface, 5.0, 2.0, 3.5)
    assert low.tolist() == [[2.0] * 4] and high.tolist() == [[3.5] * 4]
    moved = region_distances(low, high, torch.tensor([0.0, 0.5, 1.0]).expand(1, 4, 3))
    assert moved[0, 0].tolist() == [1.625, 2.75, 3.875]


def test_bad_requests_are_refused() -> None:
    distances = torch.arange(4.0)[None, None]
    with pytest.raises(PriorzooError, match=r"roots: method must be one of secant, bisection; got 'newton'"):
        first_surface(lambda t: t, distances, distances, 9.0, method="newton")
    with pytest.raises(PriorzooError, match=r"roots: steps must be at least 0, got -1"):
        first_surface(lambda t: t, distances, distances, 9.0, steps=-1)


@pytest.mark.parametrize("last_back", [False, True])
def test_occupancies_by_hand_and_as_the_running_product(last_back: bool) -> None:
    raw = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul_(4).requires_grad_(True)
    distances = torch.linspace(0.5, 1.5, 7, dtype=torch.float64).expand(2, 5, 7)
    march = march_occupancies(raw, distances, 1.6, last_back=last_back)
    expected = published_occupancy_weights(raw)
    left = 1 - expected.sum(dim=-1)
    if last_back:
        expected = torch.cat([expected[..., :-1], expected[..., -1:] + left[..., None]], dim=-1)
        assert_close(march.opacity, torch.ones_like(left))
    assert_close(march.weights, expected, atol=1e-8, rtol=0)
    assert_close(march.background_transmittance, left, atol=1e-8, rtol=0)
    one, two = (torch.autograd.grad((w * distances).sum(), raw)[0] for w in (march.weights, expected))
    assert_close(one, two, atol=1e-8, rtol=0)
    assert torch.autograd.gradcheck(lambda r: march_occupancies(r, distances, 1.6, last_back=last_back).weights, raw)


def test_full_and_empty_rays_have_finite_gradients() -> None:
    raw = torch.tensor([[[-1e4] * 3, [1e4] * 3, [0.0] * 3]], requires_grad=True)
    march = march_occupancies(raw, torch.tensor([1.0, 2.0, 3.0]).expand(1, 3, 3), 4.0)
    assert march.opacity[0].tolist() == [0.0, 1.0, 0.875]
    (slope,) = torch.autograd.grad(march.weights.square().sum(), raw)
    assert bool(slope.isfinite().all()) and float(slope[0, 2].abs().max()) > 0
