"""pi-GAN's field: reference tensors, the formula written out, block by block against plain, initial weights, derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from pigan_golden import SIZES, io, weights
from priorzoo.backbones.pigan import blockwise
from priorzoo.backbones.pigan.blockwise import evaluate_rays
from priorzoo.backbones.pigan.field import WORLD_UNITS, SirenField
from priorzoo.backbones.pigan.siren import Folded, SirenNetwork, evaluate_plainly
from torch import Tensor
from torch.testing import assert_close

PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-3)], ids=["f64", "f32"])


def network(dtype: torch.dtype = torch.float64, **options: bool) -> SirenNetwork:
    made = SirenNetwork(**SIZES, **options)
    made.load_state_dict({k.removeprefix("siren."): v for k, v in weights(torch.float32).items()})
    return made.to(dtype)


def small(seed: int = 0, batch: int = 2) -> tuple[SirenNetwork, Folded]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = SirenNetwork(z_dim=4, hidden=8, layers=3).double()
        torch.nn.init.normal_(made.final_layer.weight)
        return made, made.folded(*made.mapping_network(torch.randn(batch, 4).double()))


def written_out(net: SirenNetwork, z: Tensor, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The formula as the paper has it, one layer after the other."""
    frequencies, phases = net.mapping_network(z)
    width = net.hidden
    h = points * net.stretch
    for i, layer in enumerate([*net.network, net.color_layer_sine]):
        f, p = frequencies[:, None, i * width :][..., :width] * 15 + 30, phases[:, None, i * width :][..., :width]
        if i == len(net.network):
            raw = net.final_layer(h)
            h = torch.cat([directions, h], dim=-1)
        h = torch.sin(f * layer.layer(h) + p)
    return raw[..., 0], torch.sigmoid(net.color_layer_linear(h))


@PRECISIONS
def test_mapping_reproduces_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    stored = io(dtype)
    frequencies, phases = network(dtype).mapping_network(stored["z"])
    assert_close(frequencies, stored["map_frequencies"], atol=tolerance, rtol=0)
    assert_close(phases, stored["map_phase_shifts"], atol=tolerance, rtol=0)


@PRECISIONS
def test_field_reproduces_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    stored, net = io(dtype), network(dtype)
    folded = net.folded(*net.mapping_network(stored["z"]))
    raw, rgb = evaluate_plainly(folded, stored["siren_points"], stored["siren_dirs"])
    assert rgb is not None
    assert_close(torch.cat([rgb, raw[..., None]], dim=-1), stored["siren_rgb_sigma"], atol=tolerance, rtol=tolerance)
    field = SirenField(folded, "density", torch.relu, 0.4)
    with torch.no_grad():
        sample = field(stored["siren_points"] * WORLD_UNITS, stored["siren_dirs"])
    assert_close(sample.raw, stored["siren_rgb_sigma"][..., 3], atol=tolerance * 3, rtol=tolerance)
    assert sample.colour is not None
    assert_close(sample.colour, stored["siren_rgb_sigma"][..., :3] * 2 - 1, atol=tolerance, rtol=tolerance)


def test_folded_weights_are_the_formula_with_and_without_warp() -> None:
    stored = io(torch.float64)
    for warp in (True, False):
        net = network(warp=warp)
        expected = written_out(net, stored["z"], stored["siren_points"], stored["siren_dirs"])
        found = evaluate_plainly(net.folded(*net.mapping_network(stored["z"])), stored["siren_points"], stored["siren_dirs"])
        for one, two in zip(found, expected, strict=True):
            assert one is not None
            assert_close(one, two, atol=1e-10, rtol=1e-10)
    assert network(warp=True).stretch == pytest.approx(8.33333333)


@pytest.mark.parametrize("block", [6, 2048])
@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_block_by_block_is_the_plain_evaluation_in_value_and_gradient(
    block: int, colours: bool, checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK", block)
    net, _ = small()
    draw = torch.Generator().manual_seed(1)
    origins, directions, views = (torch.randn(2, 7, 3, generator=draw, dtype=torch.float64) * 0.1 for _ in range(3))
    distances = torch.rand(2, 7, 5, generator=draw, dtype=torch.float64)
    of_raw, of_rgb = torch.randn(2, 7, 5, generator=draw).double(), torch.randn(2, 7, 5, 3, generator=draw).double()
    points = (origins[:, :, None] + directions[:, :, None] * distances[..., None]).flatten(1, 2)
    results = []
    for fast in (True, False):
        folded = net.folded(*net.mapping_network(torch.randn(2, 4, generator=torch.Generator().manual_seed(2)).double()))
        if fast:
            raw, rgb = evaluate_rays(
                folded, origins, directions, distances, seen_along=views if colours else None, checkpoint=checkpoint
            )  # fmt: skip
        else:
            along = views[:, :, None].expand(-1, -1, 5, -1).reshape(2, -1, 3) if colours else None
            raw, rgb = evaluate_plainly(folded, points, along)
            raw, rgb = raw.view(2, 7, 5), None if rgb is None else rgb.view(2, 7, 5, 3)
        loss = (raw * of_raw).sum() + (0.0 if rgb is None else (rgb * of_rgb).sum())
        gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        results.append([raw, *([] if rgb is None else [rgb]), *[g for g in gradients if g is not None and bool((g != 0).any())]])
    assert len(results[0]) == len(results[1]) > 10
    for one, two in zip(*results, strict=True):
        assert_close(one, two, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("onednn", [True, False])
def test_float32_products_of_either_library_have_the_float64_gradient(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "ONEDNN", onednn and blockwise.ONEDNN)
    draw = torch.Generator().manual_seed(3)
    z, origins, directions = torch.randn(1, 16, generator=draw), torch.zeros(1, 9, 3), torch.randn(1, 9, 3, generator=draw) * 0.05
    distances, found = torch.rand(1, 9, 4, generator=draw), []
    for dtype in (torch.float32, torch.float64):
        net = network(dtype)
        folded = net.folded(*net.mapping_network(z.to(dtype)))
        raw, rgb = evaluate_rays(folded, *(t.to(dtype) for t in (origins, directions, distances)), seen_along=directions.to(dtype))
        assert rgb is not None and rgb.dtype == dtype
        found.append(torch.autograd.grad(raw.sum() / 400 + rgb.sum(), list(net.parameters())))
    for one, two in zip(*found, strict=True):
        assert_close(one.double(), two, atol=2e-3 * float(two.abs().max()), rtol=0)


def test_products_of_matrices_in_any_order_of_memory() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 6)
    for left in (a, a.T.contiguous().T, torch.randn(5, 9)[:, 2:].copy_(a)):
        for right in (b, b.T.contiguous().T, torch.randn(7, 8)[:, 1:7].copy_(b)):
            assert_close(blockwise.product(left, right), a @ b)
            assert_close(blockwise.affine(left, right.T, torch.arange(6.0)), a @ b + torch.arange(6.0))


def test_gradient_of_one_output_alone() -> None:
    net, folded = small()
    origins = torch.full((2, 3, 3), 0.05, dtype=torch.float64)
    distances = torch.zeros(2, 3, 1, dtype=torch.float64)
    for fast in (0, 1):
        outputs = evaluate_rays(folded, origins, origins, distances, seen_along=origins)
        plain = evaluate_plainly(folded, origins, origins)
        one, two = outputs[fast], plain[fast]
        assert one is not None and two is not None
        found, expected = (torch.autograd.grad(o.sum(), net.network[0].layer.weight, retain_graph=True)[0] for o in (one, two))
        assert_close(found, expected)


def test_field_is_twice_differentiable() -> None:
    _, folded = small(batch=1)
    field = SirenField(folded.detached(), "density", torch.nn.functional.softplus, 0.4)
    points = torch.tensor([[[0.1, -0.2, 0.3], [0.0, 0.05, 0.1]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: field(p).raw, points)
    assert torch.autograd.gradgradcheck(lambda p: field(p).raw, points)


def test_queries_without_gradient_equal_those_with() -> None:
    _, folded = small()
    field = SirenField(folded, "density", torch.relu, 0.4)
    points = torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(0)).double() - 0.5
    plain = field(points.clone().requires_grad_(True))
    fast = field(points)
    assert plain.colour is not None and fast.colour is not None
    assert_close(fast.raw, plain.raw)
    assert_close(fast.colour, plain.colour)
    assert_close(fast.value, fast.raw.relu())


def test_autocast_leaves_the_field_alone() -> None:
    net = network(torch.float32)
    folded = net.folded(*net.mapping_network(io(torch.float32)["z"]))
    field, points = SirenField(folded, "density", torch.relu, 0.4), io(torch.float32)["siren_points"]
    expected = field(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (points, points.clone().requires_grad_(True)):
            found = field(given)
            assert found.raw.dtype == torch.float32
            assert_close(found.raw, expected.raw, atol=1e-3, rtol=1e-3)


def test_initial_weights_have_the_published_spread() -> None:
    torch.manual_seed(0)
    net = SirenNetwork().requires_grad_(False)
    first, later = net.network[0].layer, net.network[3].layer
    assert 0.32 < float(first.weight.abs().max()) <= 1 / 3
    assert 0.0060 < float(later.weight.abs().max()) <= 0.006124
    assert 0.0060 < float(net.color_layer_sine.layer.weight.abs().max()) <= 0.006088 + 1e-6
    assert float(net.final_layer.weight.abs().max()) <= 0.006124
    assert 0.9 * 0.0625 < float(later.bias.abs().max()) <= 0.0625  # torch's own, 1 / sqrt(256)
    spreads = [float(net.mapping_network.network[i].weight.std()) for i in (0, 2, 4, 6)]
    assert spreads[:3] == pytest.approx([math.sqrt(2 / 1.04 / 256)] * 3, rel=0.02)
    assert spreads[3] == pytest.approx(0.0217, rel=0.02)
    assert 0.9 * 0.0625 < float(net.mapping_network.network[6].bias.abs().max()) <= 0.0625
    assert sum(p.numel() for p in net.parameters()) == 1_910_788
