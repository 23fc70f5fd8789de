"""The layers of EG3D's networks: resampling, modulated convolution, activation, mapping: fast forms against readable ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from priorzoo.backbones.eg3d.discriminator import minibatch_deviation
from priorzoo.backbones.stylegan2 import filtering, layers
from priorzoo.backbones.stylegan2.activation import activate_, activate_reference
from priorzoo.backbones.stylegan2.filtering import laid_out
from priorzoo.backbones.stylegan2.layers import SynthesisLayer
from priorzoo.backbones.stylegan2.mapping import MappingNetwork
from priorzoo.backbones.stylegan2.strips import convolve_in_strips
from priorzoo.core.errors import PriorzooError
from torch import Tensor


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    torch.manual_seed(0)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (filtering.upsample2, filtering.upsample2_reference),
        (filtering.downsample2, filtering.downsample2_reference),
        (filtering.upsampling_convolution, filtering.upsampling_convolution_reference),
        (filtering.downsampling_convolution, filtering.downsampling_convolution_reference),
    ],
)
def test_fast_resampling_equals_the_literal_form(fast: Any, slow: Any) -> None:
    kernel = filtering.fir_kernel()
    extra = (numbers(5, 3, 3, 3, seed=1).requires_grad_(),) if "convolution" in fast.__name__ else ()
    x = filtering.laid_out(numbers(2, 3, 8, 8)).requires_grad_()
    got, wanted = fast(x, *extra, kernel), slow(x, *extra, kernel)
    assert got.shape[-1] in (4, 16) and torch.allclose(got, wanted)
    weight = numbers(*got.shape, seed=2)
    for a, b in zip(torch.autograd.grad(got, [x, *extra], weight), torch.autograd.grad(wanted, [x, *extra], weight), strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("clamp", [None, 1.0])
def test_activation_in_place_equals_the_two_operations(clamp: float | None) -> None:
    x, weight = numbers(2, 3, 4, 4).requires_grad_(), numbers(2, 3, 4, 4, seed=1)
    results = []
    for function in (activate_, activate_reference):
        y = function(x * 1.5, clamp)
        (first,) = torch.autograd.grad((y.square() * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((y, first, second))
    for got, wanted in zip(*results, strict=True):
        assert torch.allclose(got, wanted)
    assert torch.autograd.gradgradcheck(lambda t: activate_(t * 1.5, clamp), x)
    product = x * 1.5
    assert activate_(product, clamp).data_ptr() == product.data_ptr()


def test_activation_keeps_one_map_for_the_backward() -> None:
    kept: list[int] = []
    x = numbers(1, 2, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        activate_(torch.nn.functional.conv2d(x, numbers(2, 2, 3, 3)), 1.0)
    assert len(set(kept)) == 3  # the convolution's input and weight, and the result


@pytest.mark.parametrize("up", [False, True])
def test_styles_in_the_weights_equal_styles_on_the_map(up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = SynthesisLayer(3, 5, w_dim=4, resolution=16 if up else 8, up=up, clamp=1.5).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    x, w = laid_out(numbers(2, 3, 8, 8)).requires_grad_(), numbers(2, 4, seed=1).requires_grad_()
    results = []
    for rows in (8, 1):  # one strip holds the map, or not
        monkeypatch.setattr(layers, "rows_of_a_strip", lambda *_, rows=rows: rows)
        y = layer(x, w, "const")
        results.append([y, *torch.autograd.grad((y * numbers(*y.shape, seed=2)).sum(), [x, w, *layer.parameters()])])
    for on_map, in_weights in zip(*results, strict=True):
        assert torch.allclose(on_map, in_weights)


def test_a_single_map_keeps_its_memory_order_and_every_part_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "rows_of_a_strip", lambda *_: 1)
    layer = SynthesisLayer(3, 5, w_dim=4, resolution=8)
    y = layer(laid_out(torch.randn(1, 3, 8, 8)), torch.randn(1, 4), "const")
    assert y.requires_grad and y.is_contiguous(memory_format=torch.channels_last)
    layer.requires_grad_(False).noise_strength.requires_grad_()
    assert layer(torch.randn(1, 3, 8, 8), torch.randn(1, 4), "const").requires_grad
    assert not layer(torch.randn(1, 3, 8, 8), torch.randn(1, 4)).requires_grad


@pytest.mark.parametrize("up", [False, True])
def test_modulation_equals_a_convolution_with_per_sample_weights(up: bool) -> None:
    layer = SynthesisLayer(3, 5, w_dim=4, resolution=8, up=up, clamp=1.5).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    x, w = numbers(2, 3, 4 if up else 8, 4 if up else 8), numbers(2, 4, seed=1)
    rows = []
    for sample, style in zip(x, layer.affine(w), strict=True):
        weight = layer.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = filtering.upsampling_convolution_reference(sample[None], weight, layer.resample_filter)
        else:
            y = torch.nn.functional.conv2d(sample[None], weight, padding=1)
        y = y + layer.noise_const * layer.noise_strength + layer.bias[:, None, None]
        rows.append((torch.nn.functional.leaky_relu(y, 0.2) * 2**0.5).clamp(-1.5, 1.5))
    assert torch.allclose(layer(x, w, "const"), torch.cat(rows))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("up", "clamp", "noise"), [(False, 1.5, "each"), (True, None, "one"), (True, 1.5, None)])
def test_strips_equal_the_layer_with_gradient(up: bool, clamp: float | None, noise: str | None, rows: int, monkeypatch: Any) -> None:
    layer = SynthesisLayer(3, 5, w_dim=4, resolution=16 if up else 8, up=up, clamp=clamp).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    x, w = laid_out(numbers(2, 3, 8, 8)), numbers(2, 4, seed=1)
    given = {"each": lambda size: numbers(2, 1, size, size, seed=3), "one": "const", None: None}[noise]
    wanted = layer(x, w, given)
    assert wanted.requires_grad
    calls: list[int] = []

    def strips(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return convolve_in_strips(*args, **kwargs)

    monkeypatch.setattr(layers, "rows_of_a_strip", lambda *_: rows)
    monkeypatch.setattr(layers, "convolve_in_strips", strips)
    with torch.no_grad():
        got = layer(x, w, given)
    assert len(calls) == (rows < 8) and got.is_contiguous(memory_format=torch.channels_last)
    assert got.shape == wanted.shape and torch.allclose(got, wanted)


def test_minibatch_deviation_groups_samples_equal_modulo_the_number_of_groups() -> None:
    x = numbers(6, 2, 4, 4)
    out = minibatch_deviation(x, 3)
    assert out.shape == (6, 3, 4, 4)
    group = x[[1, 3, 5]]
    expected = (group.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    assert torch.allclose(out[[1, 3, 5], 2], expected.expand(3, 4, 4))
    with pytest.raises(PriorzooError, match="batch of 6"):
        minibatch_deviation(x, 4)


def test_running_average_and_layer_gains_of_the_mapping() -> None:
    mapping = MappingNetwork(4, 0, 5).double()
    w = mapping(numbers(3, 4), None, update_average=True)
    assert torch.allclose(mapping.w_avg, 0.002 * w.mean(0))
