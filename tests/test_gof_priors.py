"""GOF's priors reproduce the published code's losses and gradients, in both readings; by hand; what each of them moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from contract.small_backbones import GOF, SMALL, build
from contract.test_backbones import render
from pigan_golden import weights
from priorzoo.backbones.pigan.field import WORLD_UNITS
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import FieldSample, Rays, Scene
from priorzoo.core.streams import Stream
from priorzoo.priors.base import Prior, PriorResult
from priorzoo.priors.normal_smoothness import NormalSmoothness
from priorzoo.priors.opacity import PUBLISHED_OFFSET, Opacity, binarisation
from test_gof import rendered as still
from test_gof_rendering import CONFIG, DOUBLE, golden, model, rendered
from test_pigan_rendering import StoredStreams
from torch import Tensor
from torch.testing import assert_close

DISTANCE = CONFIG["eps"] * WORLD_UNITS
CASES = {
    "opac_intended": Opacity(),
    "opac_official_redchannel": Opacity(form="as_published"),
    "normal_intended_mse": NormalSmoothness(distance=DISTANCE, surface="root"),
    "normal_official_xy": NormalSmoothness(distance=DISTANCE, surface="root", form="as_published"),
}


def pooled(result: PriorResult) -> Tensor:
    return (result.value * result.counts()).sum() / result.counts().sum()


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_reproduce_the_reference(name: str) -> None:
    stored, backbone, prior = golden(DOUBLE), model(DOUBLE), CASES[name]
    scene = rendered(backbone, "fwd", DOUBLE, stored["fwd_pos"], needs=prior.needs(form=prior.form, surface="root"))  # type: ignore[call-arg]
    directions: Any = StoredStreams(normals=[stored["fwd_draw4_rand"]])
    loss = pooled(prior(scene, directions("normals")))
    rounded = PUBLISHED_OFFSET if name == "opac_intended" else 0.0  # the reference's constant has six digits
    assert_close(loss, stored[f"loss/{name}"] - rounded, atol=1e-8, rtol=0)
    loss.backward()
    reached = 0
    for key, parameter in backbone.generator.named_parameters():
        expected = stored[f"gradnorm/{name}/{key}"]
        found = torch.zeros((), dtype=DOUBLE) if parameter.grad is None else parameter.grad.norm()
        assert_close(found, expected, atol=1e-8, rtol=1e-6)
        reached += float(found) > 0
    assert reached > 10 and len(weights(DOUBLE, "gof")) == 30
    # as published the opacity prior never meets the head that makes the shape
    head = stored[f"gradnorm/{name}/siren.final_layer.weight"]
    assert (float(head) == 0) == (name == "opac_official_redchannel")


def test_binarisation_by_hand() -> None:
    values = torch.tensor([[[0.0, 1.0, 0.5, 0.2]]], dtype=DOUBLE)
    expected = [math.log(0.1 + a) + math.log(1.1 - a) - math.log(0.1) - math.log(1.1) for a in (0.0, 1.0, 0.5, 0.2)]
    assert float(binarisation(values)) == pytest.approx(sum(expected) / 4)
    assert torch.autograd.gradcheck(binarisation, values[..., 2:].clone().requires_grad_(True))


class Saddle:
    """raw = x^2 - z: the normal at (x, y, z) is (-2x, 0, 1), normalised."""

    kind, extent = "density", 1.0

    def __call__(self, points: Tensor) -> FieldSample:
        raw = points[..., 0] ** 2 - points[..., 2]
        return FieldSample(raw, raw)


class Along:
    """A stream whose directions are all +x."""

    def uniform(self, *shape: int) -> Tensor:
        return torch.tensor([0.9, 0.5, 0.5], dtype=DOUBLE).expand(1, *shape)


@pytest.mark.parametrize("method", ["autograd", "finite_differences"])
def test_difference_of_normals_by_hand(method: str) -> None:
    xs = torch.tensor([0.0, 0.3, -0.7], dtype=DOUBLE)
    origins = torch.stack([xs, torch.zeros(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)], dim=-1)[None]
    down = torch.tensor([0.0, 0.0, -1.0], dtype=DOUBLE).expand(1, 3, 3)
    opacity = torch.tensor([1.0, 0.6, 0.4], dtype=DOUBLE).view(1, 1, 1, 3)
    scene = Scene(None, depth=torch.ones_like(opacity), opacity=opacity, rays=Rays(origins, down, 1, 3), field=Saddle())
    along: Any = Along()
    result = NormalSmoothness(distance=0.1, method=method, step=1e-4)(scene, along)

    def normal(x: float) -> Tensor:
        n = torch.tensor([-2 * x, 0.0, 1.0], dtype=DOUBLE)
        return n / n.norm()

    expected = sum(float((normal(x) - normal(x + 0.1)).square().mean()) for x in (0.0, 0.3)) / 2
    assert float(result.value.detach()) == pytest.approx(expected, rel=1e-5)
    assert result.counts().tolist() == [2.0]


def test_without_a_surface_there_is_nothing() -> None:
    ones = torch.zeros(2, 1, 1, 3)
    rays = Rays(torch.rand(2, 3, 3), torch.rand(2, 3, 3), 1, 3)
    result = NormalSmoothness(surface="root")(
        Scene(None, surface_depth=ones, surface_mask=ones, rays=rays, field=Saddle()), Stream(0, 0, "n", (0, 1))
    )  # fmt: skip
    assert result.value.tolist() == [0.0, 0.0] and result.counts().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("prior", [Opacity(), NormalSmoothness(surface="root", distance=0.02)], ids=["opacity", "normal_smoothness"])
def test_twenty_steps_of_the_prior_alone_lower_it(prior: Prior) -> None:
    backbone = build("gof", {**GOF, "box_warp": False})  # waves longer than the distance of neighbours
    optimiser = torch.optim.Adam(backbone.generator.parameters(), lr=3e-5)  # normals turn fast
    values = []
    for _ in range(21):
        needs = type(prior).needs(**({"surface": "root"} if isinstance(prior, NormalSmoothness) else {}))
        loss = pooled(prior(still(backbone, *needs), Stream(0, 0, "p", (0, 1))))  # type: ignore[arg-type]
        values.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert values[0] > 0 and sum(values[-5:]) / 5 < 0.8 * values[0]


@pytest.mark.parametrize("name", ["eg3d", "ballgan", "pigan", "gof"])
@pytest.mark.parametrize("method", ["autograd", "finite_differences"])
def test_normals_of_every_family_reach_its_shape(name: str, method: str) -> None:
    backbone = build(name, SMALL[name][0])
    prior = NormalSmoothness(min_opacity=0.01, method=method)
    result = prior(render(backbone, prior.needs()), Stream(0, 0, "p", (0, 1, 2, 3)))
    assert bool((result.value > 0).all()) and bool((result.counts() > 0).all())
    found = torch.autograd.grad(result.value.sum(), list(backbone.generator.parameters()), allow_unused=True)
    kept = [g for g in found if g is not None]
    assert all(bool(g.isfinite().all()) for g in kept) and max(float(g.abs().max()) for g in kept) > 0


def test_bad_options_are_refused() -> None:
    with pytest.raises(PriorzooError, match=r"opacity: form must be one of intended, as_published; got 'x'"):
        Opacity(form="x")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"distance": 0.0}, "distance must be a number > 0"),
        ({"surface": "x"}, "surface must be one of expected, root"),
        ({"min_opacity": 1.0}, "min_opacity must be a number >= 0 and < 1"),
        ({"method": "x"}, "method must be one of autograd"),
        ({"form": "x"}, "form must be one of intended"),
    ]
    for options, text in refused:
        with pytest.raises(PriorzooError, match=text):
            NormalSmoothness.check_options(**options)
    ones = torch.ones(1, 1, 3)
    scene = Scene(None, field=Saddle(), rays=Rays(ones, ones, 1, 1), distances=torch.ones(1, 1, 2))
    with pytest.raises(PriorzooError, match="form as_published reads colours, and this backbone's field has none"):
        Opacity(form="as_published")(scene, Stream(0, 0, "p", (0,)))
