"""The separation priors by pencil, against BallGAN's reference values, and where rays are empty or opaque."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import Samples, Scene, Segmentation
from priorzoo.core.streams import fixed_streams
from priorzoo.priors.background_separation import background_separation
from priorzoo.priors.coverage import coverage
from priorzoo.priors.depth_variance import depth_variance
from priorzoo.priors.distortion import Distortion, distortion, published_distortion
from priorzoo.priors.entropy import RayEntropy, opacity_entropy, published_ray_entropy, ray_entropy
from priorzoo.priors.mask import Mask, mask_loss
from priorzoo.priors.sparsity import density_sparsity, opacity_sparsity
from priorzoo.rendering import distortion as rays
from torch import Tensor
from torch.testing import assert_close

GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(Path(__file__).parent / "golden" / "ballgan" / "losses.npz").items()}


def random_rays(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    weights = torch.rand(shape, generator=made, dtype=torch.float64) * 0.1
    edges = torch.rand((*shape[:-1], shape[-1] + 1), generator=made, dtype=torch.float64).sort(dim=-1).values
    return weights.requires_grad_(), edges.requires_grad_()


# ---------------------------------------------------------------------------------------------------- reference values


def test_distortion_is_mip_nerf_360s() -> None:
    weights, edges = GOLDEN["distortion360.weights"], GOLDEN["distortion360.edges"]
    assert_close(rays.distortion(weights, edges), GOLDEN["distortion360.loss_per_ray"], rtol=1e-10, atol=1e-12)
    poster = GOLDEN["distortion360.loss_per_ray_paper_eq_w_delta_not_squared"]
    assert_close(rays.distortion(weights, edges, squared=False), poster, rtol=1e-10, atol=1e-12)


def test_published_distortion_and_its_gradient() -> None:
    raw = GOLDEN["loss.fg_density_raw"].flatten(1, 2).requires_grad_()
    distances = GOLDEN["loss.fg_di"][..., 0]
    value = published_distortion(raw, distances)
    assert_close(value, GOLDEN["loss.L_fg_code"], rtol=1e-4, atol=1e-4)
    assert_close(published_distortion(raw.double(), distances.double()), GOLDEN["loss.L_fg_fp64"], rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), raw)
    assert_close(gradient.view(2, 6, 6, 12), GOLDEN["loss.grad_density_L_fg_code"], rtol=1e-3, atol=1e-5)
    of_48 = published_distortion(GOLDEN["loss48.fg_density_raw"].flatten(1, 2), GOLDEN["loss48.fg_di"][..., 0])
    assert_close(of_48, GOLDEN["loss48.L_fg_code_fp32"], rtol=1e-4, atol=1e-4)
    assert_close(of_48, GOLDEN["loss48.L_fg_code_fp16"].float(), rtol=1e-2, atol=0.0)


def test_published_entropy_and_separation_with_gradients() -> None:
    raw = GOLDEN["loss.fg_density_raw"].flatten(1, 2).requires_grad_()
    value = published_ray_entropy(raw)
    assert_close(value, GOLDEN["loss.L_spatial_code"][:, 0], rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(value.sum(), raw)
    assert_close(gradient.view(2, 6, 6, 12), GOLDEN["loss.grad_density_L_spatial"], rtol=1e-4, atol=1e-6)
    transmittance = GOLDEN["loss.T_bg"][..., 0, 0].requires_grad_()
    separated = background_separation(transmittance)
    assert_close(separated, GOLDEN["loss.L_bg_code"][:, 0], rtol=1e-4, atol=1e-6)
    (slope,) = torch.autograd.grad(separated.sum(), transmittance)
    assert_close(slope, GOLDEN["loss.grad_T_L_bg"][..., 0, 0], rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- fast and slow


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("intervals", [1, 2, 17])
def test_linear_distortion_is_the_double_sum(squared: bool, intervals: int) -> None:
    weights, edges = random_rays(3, 5, intervals)
    fast, slow = rays.distortion(weights, edges, squared=squared), rays.distortion_reference(weights, edges, squared=squared)
    assert_close(fast, slow, rtol=1e-12, atol=1e-14)
    for one, other in zip(
        torch.autograd.grad(fast.sum(), [weights, edges]), torch.autograd.grad(slow.sum(), [weights, edges]), strict=True
    ):
        assert_close(one, other, rtol=1e-11, atol=1e-13)
    assert torch.autograd.gradcheck(lambda w, e: rays.distortion(w, e, squared=squared), (weights, edges))
    with torch.no_grad():
        assert_close(rays.distortion(weights, edges, squared=squared), slow.detach(), rtol=1e-12, atol=1e-14)


def test_distortion_keeps_nothing_quadratic_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, edges = random_rays(2, 40, 9)
    whole = rays.distortion(weights, edges)
    monkeypatch.setattr(rays, "BLOCK", 20)
    assert torch.equal(rays.distortion(weights, edges), whole)


FUNCTIONS = {
    "distortion": lambda w, e: distortion(w, e),
    "poster": lambda w, e: distortion(w, e, form="poster"),
    "depth_variance": lambda w, e: depth_variance(w / w.sum(-1, keepdim=True), e[..., 1:], e, tolerance=0.0),
    "ray_entropy": lambda w, e: ray_entropy(w, torch.ones(w.shape[:2])),
    "opacity_entropy": lambda w, e: opacity_entropy(w.sum(-1)),
    "root": lambda w, e: opacity_sparsity(w.sum(-1)),
    "cauchy": lambda w, e: density_sparsity(w.flatten(1)),
    "exponential": lambda w, e: density_sparsity(w.flatten(1), form="exponential"),
    "published_distortion": lambda w, e: published_distortion(w, e[..., 1:]),
    "published_entropy": lambda w, e: published_ray_entropy(w),
    "coverage": lambda w, e: coverage(w.sum(-1), background=0.9),
    "bce": lambda w, e: mask_loss(w.sum(-1)[:, None], (w.sum(-1) > 0.3)[:, None]),
    "iou": lambda w, e: mask_loss(w.sum(-1)[:, None], (w.sum(-1) > 0.3)[:, None], form="iou"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name: str) -> None:
    weights, edges = random_rays(2, 3, 5, seed=3)
    assert torch.autograd.gradcheck(lambda w: FUNCTIONS[name](w, edges.detach()), weights)


# ---------------------------------------------------------------------------------------------------- by pencil


def test_two_surfaces_cost_twice_the_product_of_their_weights_times_their_distance() -> None:
    edges = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)[None, None]
    weights = torch.zeros(1, 1, 10, dtype=torch.float64)
    weights[..., 2], weights[..., 7] = 0.25, 0.5
    expected = 2 * 0.25 * 0.5 * 0.5 + (0.0625 + 0.25) * 0.1 / 3
    assert distortion(weights, 2.0 + 3.0 * edges).item() == pytest.approx(expected, rel=1e-12)
    assert distortion(weights, edges, form="poster").item() == pytest.approx(0.125 + 0.75 * 0.1 / 3, rel=1e-12)


def test_entropies() -> None:
    even = torch.full((1, 2, 8), 0.3)
    assert ray_entropy(even, torch.tensor([[1.0, 0.05]])).item() == pytest.approx(3.0 / 2, rel=1e-6)
    assert published_ray_entropy(torch.zeros(1, 1, 48)).item() == pytest.approx(math.log(48), rel=1e-6)
    assert opacity_entropy(torch.tensor([[0.5]])).item() == pytest.approx(math.log(2), rel=1e-6)


def test_sparsities() -> None:
    assert opacity_sparsity(torch.tensor([[1.0]])).item() == pytest.approx(math.sqrt(1.01) - 0.1, rel=1e-6)
    assert density_sparsity(torch.tensor([[200.0]])).item() == pytest.approx(math.log(9), rel=1e-6)
    assert density_sparsity(torch.tensor([[100.0]]), form="exponential").item() == pytest.approx(1 - math.exp(-1), rel=1e-6)


def test_depth_variance_starts_behind_the_tolerance() -> None:
    edges = torch.arange(9.0, dtype=torch.float64)[None, None]
    weights = torch.zeros(1, 1, 8, dtype=torch.float64)
    weights[..., 0] = weights[..., 6] = 0.25  # distances 0.5 and 6.5: variance 9, opacity one half
    assert depth_variance(weights, edges[..., 1:] - 0.5, edges, tolerance=2.0).item() == pytest.approx(0.5 * (9 - 4))
    assert depth_variance(weights, edges[..., 1:] - 0.5, edges, tolerance=3.0).item() == 0.0


def test_coverage_pulls_from_both_sides() -> None:
    opacity = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], requires_grad=True)
    value = coverage(opacity)
    assert_close(value, torch.tensor([0.4, 0.1, 0.0]))
    (gradient,) = torch.autograd.grad(value.sum(), opacity)
    assert_close(gradient, torch.tensor([[-0.5, -0.5], [0.5, 0.5], [0.0, 0.0]]))


def test_masks_of_perfect_and_inverted_silhouettes() -> None:
    mask = (torch.arange(16).view(1, 1, 4, 4) < 8).double()
    for form in ("bce", "l1", "iou"):
        assert mask_loss(mask, mask, form=form).item() == 0.0
    assert mask_loss(1 - mask, mask, form="l1").item() == 1.0
    assert mask_loss(1 - mask, mask, form="iou").item() == 1.0
    assert mask_loss(1 - mask, mask).item() == pytest.approx(-math.log(1e-3))


# ---------------------------------------------------------------------------------------------------- empty and saturated rays


@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_empty_and_saturated_rays_have_finite_gradients(filled: float) -> None:
    edges = torch.linspace(2.25, 3.3, 7).expand(1, 4, 7)
    weights = torch.zeros(1, 4, 6)
    weights[..., 3] = filled
    weights.requires_grad_()
    opacity = weights.sum(-1)
    values = [
        distortion(weights, edges), depth_variance(weights, edges[..., 1:], edges), ray_entropy(weights, opacity), opacity_entropy(opacity),
        background_separation(1 - opacity), opacity_sparsity(opacity), mask_loss(opacity[:, None], torch.ones(1, 1, 4)),
    ]  # fmt: skip
    for value in values:
        (gradient,) = torch.autograd.grad(value.sum(), weights, retain_graph=True)
        assert bool(value.isfinite().all()) and bool(gradient.isfinite().all())
    assert opacity_entropy(opacity).item() == background_separation(1 - opacity).item() == 0.0


def test_published_forms_read_the_fine_samples_alone() -> None:
    raw, distances = torch.randn(1, 3, 10), torch.rand(1, 3, 10) + 2
    scene = Scene(None, samples=Samples(distances, raw, coarse=4))
    stream = fixed_streams(0, 1)("entry")
    assert_close(Distortion(form="as_published")(scene, stream).value, published_distortion(raw[..., 4:], distances[..., 4:]))
    assert_close(RayEntropy(form="as_published")(scene, stream).value, published_ray_entropy(raw[..., 4:]))


def test_bad_options_are_named() -> None:
    with pytest.raises(PriorzooError, match="form must be one of mipnerf360, poster, as_published; got 'mipnerf'"):
        Distortion(form="mipnerf")
    with pytest.raises(PriorzooError, match="background must be a class name"):
        Mask(background=[])
    with pytest.raises(PriorzooError, match="shape"):
        mask_loss(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4))
    segmentation = Segmentation(torch.ones(1, 2, 4, 4), ("sky", "skin"))
    with pytest.raises(PriorzooError, match="'background' is unknown to the segmenter"):
        Mask()(Scene(None, opacity=torch.ones(1, 1, 4, 4), segmentation=segmentation), fixed_streams(0, 1)("mask"))
