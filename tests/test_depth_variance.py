"""GOF's variance of depth: by hand, against the published code's numbers, on shapes with closed forms, over backbones."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import AnalyticSphere
from priorzoo.backbones.pigan.backbone import PiGAN
from priorzoo.backbones.pigan.field import SirenField
from priorzoo.backbones.pigan.siren import SirenNetwork
from priorzoo.core.camera import Camera, focal_from_field_of_view
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import FieldSample
from priorzoo.core.streams import fixed_streams
from priorzoo.metrics.depth_variance import (
    MISS,
    PUBLISHED,
    SCALE,
    DepthVarianceProtocol,
    depth_variance,
    depth_variance_of_field,
    depth_variances,
    occupancy_weights,
    ray_variances,
    surface_of_samples,
)
from torch import Tensor

SMALL = DepthVarianceProtocol(images=3, resolution=8)
GOLDEN = Path(__file__).parent / "golden" / "depth_variance" / "sum_of_ti.npz"


@cache
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]).double() for name in file.files}


class Ball:
    """A ball about the origin: raw = sharpness (radius - |x|), as an occupancy or a density."""

    extent = 1.0

    def __init__(self, kind: str = "occupancy", radius: float = 0.25, sharpness: float = 100.0) -> None:
        self.kind, self.radius, self.sharpness = kind, radius, sharpness

    def __call__(self, points: Tensor) -> FieldSample:
        raw = self.sharpness * (self.radius - points.norm(dim=-1))
        return FieldSample(raw, raw.sigmoid() if self.kind == "occupancy" else raw.relu())


def front(radius: float = 2.7) -> Camera:
    return Camera.looking_at_origin(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), radius=radius, focal=8.0)


def test_a_rays_variance_by_hand():
    weights, distances = torch.tensor([[[0.25, 0.5, 0.25]]]).double(), torch.tensor([[[1.0, 2.0, 4.0]]]).double()
    # mean 2.25; 0.25 * 1.5625 + 0.5 * 0.0625 + 0.25 * 3.0625 = 1.1875; divided by 2/3
    assert ray_variances(weights, distances).item() == pytest.approx(1.1875 * 1.5, rel=1e-4)


def test_a_hard_surface_has_no_variance_and_two_have_their_distance():
    distances = torch.linspace(0, 1, 5).expand(1, 1, 5).double()
    hard = torch.tensor([[[0.0, 0, 1, 0, 0]]]).double()
    assert ray_variances(hard, distances).item() == pytest.approx(0, abs=1e-9)
    two = torch.tensor([[[0.5, 0, 0, 0, 0.5]]]).double()
    assert ray_variances(two, distances).item() == pytest.approx(0.25 * 5 / 4, rel=1e-4)


def test_rays_that_are_not_opaque_take_no_part():
    distances = torch.tensor([[[1.0, 3.0]]]).double().expand(2, 3, 2)
    weights = torch.tensor([[[0.5, 0.5], [0.48, 0.5], [0.0, 1.0]], [[0.0, 0.3], [0.1, 0.1], [0.0, 0.0]]]).double()
    got = depth_variance(weights, distances)
    assert got[0].item() == pytest.approx((2.0 + 0.0) / 2, rel=1e-4)
    assert math.isnan(got[1].item())
    assert not math.isnan(depth_variance(weights, distances, least_opacity=0.1)[1].item())


def test_variance_shifts_and_scales_as_a_variance_does():
    seeded = torch.Generator().manual_seed(0)
    weights = torch.rand(2, 4, 6, generator=seeded, dtype=torch.float64).softmax(dim=-1)
    distances = torch.rand(2, 4, 6, generator=seeded, dtype=torch.float64).sort().values
    one = ray_variances(weights, distances)
    assert torch.allclose(ray_variances(weights, distances * 3), one * 9, rtol=1e-3)
    assert torch.allclose(ray_variances(weights, distances + 0.5), one, rtol=1e-3)


def test_weights_of_occupancies_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0), 0.0]]]).double()  # occupancies 1/2, 3/4, 1/2
    distances = torch.tensor([[[1.0, 2.0, 3.0]]]).double()
    surface = torch.tensor([[2.0]]).double()
    assert occupancy_weights(logits, distances, surface, 5.0).flatten().tolist() == pytest.approx([1 / 2, 3 / 8, 1 / 16])
    assert occupancy_weights(logits, distances, surface, 0.5).flatten().tolist() == pytest.approx([0, 3 / 4, 1 / 8])
    assert occupancy_weights(logits, distances, surface, 1.0).flatten().tolist() == pytest.approx([0, 3 / 4, 1 / 8])  # at the cut: out


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([-1.0, -1, 2, 1], True),
        ([-1.0, 2, -2, 1], True),
        ([1.0, -1, 2, 1], False),
        ([-1.0, -2, -1, -1], False),
        ([1.0, 2, 1, 1], False),
        ([0.0, -1, 2, 1], False),
    ],
    ids=["enters", "enters twice", "begins inside", "misses", "all inside", "begins on the surface"],
)
def test_where_a_ray_enters(values, found):
    distances = torch.arange(4.0).expand(1, 1, 4).double()
    logits = torch.tensor(values).double().view(1, 1, 4)

    def evaluate(at: Tensor) -> Tensor:  # linear between samples
        place = at.clamp(0, 2.999).floor()
        low, high = (logits[0, 0][(place + k).long()] for k in (0, 1))
        return low + (high - low) * (at - place)

    got = surface_of_samples(logits, distances, evaluate).item()
    first = next((i for i in range(3) if values[i] * values[i + 1] < 0), 0)
    expected = first + values[first] / (values[first] - values[first + 1]) if found else MISS
    assert got == pytest.approx(expected)


def test_refinements_come_nearer():
    distances = torch.tensor([[[0.0, 1.0]]]).double()
    root = math.log(2.0)
    errors = [
        abs(surface_of_samples(distances.exp() - 2, distances, lambda at: at.exp() - 2, refinements=n).item() - root) for n in (0, 2, 4)
    ]
    assert errors[0] > 20 * errors[1] > 400 * errors[2]


@pytest.mark.parametrize("sample", [0, 1])
def test_weights_and_variances_are_those_of_the_published_code(sample):
    stored = golden()
    logits, cut = stored[f"{sample}_coarse_logit"], stored[f"{sample}_cut_depth"][..., 0, 0]
    distances = stored["distances"].expand_as(logits)
    weights = occupancy_weights(logits, distances, cut, 0.0)
    kept = weights.sum(dim=-1) > 0.99
    assert torch.allclose(ray_variances(weights, distances)[kept], stored[f"{sample}_per_ray_var"].flatten(), rtol=1e-10, atol=1e-16)
    assert depth_variance(weights, distances).item() == pytest.approx(stored[f"{sample}_value"].item(), rel=1e-10)


@pytest.mark.parametrize("sample", [0, 1])
def test_the_whole_measure_is_that_of_the_published_code(sample):
    """Camera, rays, samples, surface, cut and variance, from the model's tensors and the drawn angles on."""
    stored = golden()
    network = SirenNetwork(z_dim=16, hidden=32).double()
    loaded = network.load_state_dict({k.removeprefix("siren."): v for k, v in stored.items() if k.startswith("siren.")}, strict=False)
    assert all(name.startswith("mapping_network") for name in loaded.missing_keys)
    assert not loaded.unexpected_keys
    field = SirenField(
        network.folded(stored["frequencies"][sample, None], stored["phases"][sample, None]), "occupancy", torch.sigmoid, extent=0.4
    )
    camera = Camera.from_pitch_yaw(stored[f"{sample}_pitch"], stored[f"{sample}_yaw"], focal=focal_from_field_of_view(12.0))
    got = depth_variance_of_field(field, camera, DepthVarianceProtocol(resolution=16))
    assert got.item() == pytest.approx(stored[f"{sample}_value"].item(), rel=1e-8)


def test_a_sharper_ball_is_thinner_and_lengths_are_in_radii_of_the_camera():
    whole = DepthVarianceProtocol(resolution=5, least_opacity=0.5)
    values = [depth_variance_of_field(Ball(sharpness=s), front(), whole).item() for s in (50.0, 200.0, 5000.0)]
    assert values[0] > 2 * values[1] > 4 * values[2]
    twice = depth_variance_of_field(Ball(radius=0.5, sharpness=25.0), front(5.4), whole)
    assert twice.item() == pytest.approx(values[0], rel=1e-6)


def test_a_density_has_no_cut_and_the_variance_of_its_exponential():
    """Constant density q over the whole ray: distances are exponential with the variance 1 / q^2, in steps a little more."""

    class Fog(Ball):
        def __call__(self, points: Tensor) -> FieldSample:
            value = torch.full(points.shape[:-1], self.sharpness, dtype=points.dtype)
            return FieldSample(value, value)

    density = 200.0
    fine = DepthVarianceProtocol(resolution=2, samples=4000)
    got = depth_variance_of_field(Fog("density", sharpness=density), front(), fine).item()
    assert got == pytest.approx((1 / (density * 2.7)) ** 2, rel=0.01)
    uncut, cut = (DepthVarianceProtocol(resolution=2, cut=c) for c in (1.0, 0.0))
    same = [depth_variance_of_field(Fog("density", sharpness=density), front(), p).item() for p in (uncut, cut)]
    assert same[0] == same[1]


def test_only_rays_that_meet_the_shape_count():
    sharp = Ball(radius=0.05, sharpness=5000.0)
    few = depth_variance_of_field(sharp, front(), DepthVarianceProtocol(resolution=3)).item()
    assert 0 <= few < 1e-9  # the middle ray's, whose surface is hard
    assert math.isnan(depth_variance_of_field(Ball(radius=-1.0), front(), DepthVarianceProtocol(resolution=9)).item())


def test_another_kind_of_field_is_refused():
    with pytest.raises(PriorzooError, match="of kind density or occupancy is needed, got sdf"):
        depth_variance_of_field(Ball("sdf"), front())


def pigan() -> PiGAN:
    return PiGAN(z_dim=4, hidden=8, layers=2, samples_coarse=4, samples_fine=4, discriminator_channel_max=4)


def test_many_rays_are_measured_in_pieces(monkeypatch):
    from priorzoo.metrics import depth_variance as module

    whole = depth_variance_of_field(Ball(), front(), SMALL)
    monkeypatch.setattr(module, "RAYS_AT_ONCE", 7)
    assert torch.allclose(depth_variance_of_field(Ball(), front(), SMALL), whole)


def test_the_measure_of_a_backbone_by_its_own_cameras():
    backbone = pigan()
    with torch.no_grad():
        backbone.generator.siren.final_layer.bias.fill_(1000.0)  # opaque from the first sample on
    got = depth_variances(backbone, SMALL)
    assert got.shape == (3,)
    assert bool((got >= 0).all())
    assert torch.equal(got, depth_variances(backbone, SMALL))
    first = depth_variances(backbone, DepthVarianceProtocol(images=1, resolution=8))
    assert first[0] == got[0]
    drawn = fixed_streams(0, 1, first=2).within("depth_variance")
    camera = backbone.draw_cameras(1, drawn)
    field = backbone.field(backbone.prepare(backbone.draw(1, drawn), None, truncation=0.7))
    assert got[2].item() == pytest.approx(depth_variance_of_field(field, camera, SMALL).item() * SCALE)


def test_the_measure_of_a_backbone_without_a_camera_law_takes_cameras():
    backbone = AnalyticSphere()
    with pytest.raises(PriorzooError, match="no camera law"):
        depth_variances(backbone, SMALL)
    with pytest.raises(PriorzooError, match="3 images need as many cameras, got 2"):
        depth_variances(backbone, SMALL, cameras=Camera.looking_at_origin(torch.zeros(2), torch.zeros(2)))
    cameras = Camera.looking_at_origin(torch.tensor([0.0, 0.2, -0.2]), torch.zeros(3))
    done: list[int] = []
    got = depth_variances(backbone, SMALL, cameras=cameras, progress=done.append)
    assert done == [1, 2, 3]
    # A density of 100 per world unit is exponential with 1 / 270 of a radius; the samples are 1 / 146 apart.
    assert bool((got > 0.03).all() and (got < 3).all())
    drawn = fixed_streams(0, 1, first=1).within("depth_variance")
    latents = backbone.prepare(backbone.draw(1, drawn), cameras[1:2].label(), truncation=0.7)
    expected = depth_variance_of_field(backbone.field(latents), cameras[1:2], SMALL)
    assert got[1].item() == pytest.approx(expected.item() * SCALE, rel=1e-9)


def test_the_published_protocol_and_what_differs_from_it():
    assert (PUBLISHED.images, PUBLISHED.resolution, PUBLISHED.samples, PUBLISHED.truncation) == (1000, 128, 36, 0.7)
    assert PUBLISHED.differences() == {}
    assert SMALL.differences() == {"images": 3, "resolution": 8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"samples": 1}, "samples must be at least 2, got 1"),
        ({"near": 1.2}, "0 < near < far is needed, got near 1.2 and far 1.12"),
        ({"least_opacity": 1.0}, r"least_opacity lies in \[0, 1\), got 1"),
        ({"cut": -1.0}, "cut must be at least 0, got -1"),
        ({"rays": "corner"}, "did you mean 'corners'"),
    ],
)
def test_bad_protocols_are_refused(options, message):
    with pytest.raises(PriorzooError, match=message):
        DepthVarianceProtocol(**options)


def test_one_sample_along_a_ray_has_no_variance():
    with pytest.raises(PriorzooError, match="at least two samples along a ray are needed, got 1"):
        ray_variances(torch.ones(1, 1, 1), torch.ones(1, 1, 1))
