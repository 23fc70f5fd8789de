"""Super-resolution 4x and 8x: names, shapes, values and gradients against a literal form; when each resizes and what it writes into.

The two modules have no stored outputs of the published code, so the reference is the description, step by step: zeros between pixels,
one kernel per sample, noise, bias, leaky ReLU, gain, clamp. 2x and 8xdc pass through the same reference, and those have stored outputs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from official_pickles import SMALL, official
from pickle_writer import dumps
from priorzoo.backbones.base import Sampling
from priorzoo.backbones.eg3d import EG3D
from priorzoo.backbones.eg3d.superresolution import SuperResolution
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.streams import fixed_streams
from priorzoo.training.foreign import read_foreign
from torch import Tensor

MODULES = ("2x", "4x", "8x", "8xdc")
FULL = {"2x": (64, 128, (128, 64)), "4x": (128, 256, (128, 64)), "8x": (128, 512, (128, 64)), "8xdc": (128, 512, (256, 128))}
"""Input side, output side and channels of the two blocks at full size."""
FIRST_UP = {"2x": False, "4x": False, "8x": True, "8xdc": True}
INPUT, FEATURES, WIDTH = 8, 5, 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(name: str, **options: Any) -> SuperResolution:
    """A module of a few channels in float64, every parameter and noise map of which matters."""
    module = SuperResolution(name, feature_channels=FEATURES, w_dim=WIDTH, channels=(4, 3), input_size=INPUT, **options).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if not key.endswith("resample_filter"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return module


# The literal form


def filtered(x: Tensor, before: int, after: int, gain: float) -> Tensor:
    """Taps 1 3 3 1 along both axes, over zeros."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = torch.outer(taps, taps) / 64 * gain
    padded = F.pad(x, (before, after, before, after))
    return torch.stack([F.conv2d(padded[:, c : c + 1], kernel[None, None])[:, 0] for c in range(x.shape[1])], dim=1)


def stuffed(x: Tensor, length: int) -> Tensor:
    out = x.new_zeros(*x.shape[:2], length, length)
    out[:, :, ::2, ::2] = x
    return out


def literal_upsample(image: Tensor) -> Tensor:
    return filtered(stuffed(image, 2 * image.shape[-1]), 2, 1, 4.0)


def literal_convolution(x: Tensor, weight: Tensor, up: bool) -> Tensor:
    """Of one sample. Up: a true convolution (mirrored kernel) of the stuffed input, 2H+1 wide, then the filter with gain 4."""
    if not up:
        return F.conv2d(x, weight, padding=1)
    wide = F.conv2d(F.pad(stuffed(x, 2 * x.shape[-1] - 1), (2, 2, 2, 2)), weight.flip(2, 3))
    return filtered(wide, 1, 1, 4.0)


def style_of(layer: Any, w: Tensor) -> Tensor:
    return w @ (layer.affine.weight / math.sqrt(w.shape[1])).T + layer.affine.bias


def literal_layer(layer: Any, x: Tensor, w: Tensor, up: bool, noise: bool, clamp: float | None) -> Tensor:
    rows = []
    for sample, style in zip(x, style_of(layer, w), strict=True):
        kernel = layer.weight * style[None, :, None, None]
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(literal_convolution(sample[None], kernel, up))
    y = torch.cat(rows)
    if noise:
        y = y + layer.noise_const * layer.noise_strength
    y = y + layer.bias[:, None, None]
    y = torch.where(y >= 0, y, 0.2 * y) * math.sqrt(2)
    return y if clamp is None else y.clamp(-clamp, clamp)


def literal_torgb(layer: Any, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    style = style_of(layer, w) / math.sqrt(x.shape[1])
    y = torch.einsum("oc,nc,nchw->nohw", layer.weight[:, :, 0, 0], style, x) + layer.bias[:, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def triangle(source: int, target: int, antialias: bool) -> Tensor:
    """Bilinear resampling of a line as a matrix [target,source]; antialiased, the triangle is as wide as the step."""
    step = source / target
    width = max(step, 1.0) if antialias else 1.0
    centres = (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) * step
    if not antialias:
        centres = centres.clamp(0.5, source - 0.5)  # beyond the outermost pixel centres the border pixel is repeated
    weights = (1 - (torch.arange(source, dtype=torch.float64)[None] + 0.5 - centres).abs() / width).clamp_min(0)
    return weights / weights.sum(dim=1, keepdim=True)


def literal(
    module: SuperResolution, name: str, features: Tensor, ws: Tensor, *, noise: bool, clamp: float | None = 256.0, antialias: bool = True
) -> tuple[Tensor, Tensor]:
    """Image, and the raw image as the published code leaves it behind."""
    x, rgb, size = features, features[:, :3], features.shape[-1]
    resizes = size < INPUT if name == "4x" else size != INPUT
    if resizes:
        matrix = triangle(size, INPUT, antialias)
        x = torch.einsum("ij,nchj,kh->ncki", matrix, x, matrix)
        rgb = x[:, :3]
    w = ws[:, -1]
    for block, up in ((module.block0, FIRST_UP[name]), (module.block1, True)):
        x = literal_layer(block.conv0, x, w, up, noise, clamp)
        x = literal_layer(block.conv1, x, w, False, noise, clamp)
        rgb = (literal_upsample(rgb) if up else rgb) + literal_torgb(block.torgb, x, w, clamp)
        if block is module.block0:
            first = rgb
    return rgb, features[:, :3] if resizes or FIRST_UP[name] else first


CASES = [(name, size) for name in MODULES for size in ((6, 8) if name == "4x" else (6, 8, 11))]


@pytest.mark.parametrize("noise", [False, True], ids=["silent", "noise"])
@pytest.mark.parametrize(("name", "size"), CASES)
def test_values_and_gradients_equal_the_literal_form(name: str, size: int, noise: bool) -> None:
    module = small(name)
    features, ws = drawn(2, FEATURES, size, size).requires_grad_(), drawn(2, 4, WIDTH, seed=2).requires_grad_()
    got = module(features, ws, "const" if noise else None)
    wanted = literal(module, name, features, ws, noise=noise)
    assert got[0].shape == (2, 3, module.resolution, module.resolution) and got[1].shape == (2, 3, size, size)
    into = [features, ws, *(p for k, p in module.named_parameters() if noise or "noise_strength" not in k)]
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    slopes = drawn(*got[0].shape, seed=3)
    for a, b in zip(torch.autograd.grad(got[0], into, slopes), torch.autograd.grad(wanted[0], into, slopes), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        assert b.abs().max() > 0


@pytest.mark.parametrize("clamp", [0.5, None])
@pytest.mark.parametrize("name", ["4x", "8x"])
def test_the_clamp_is_that_of_layers_and_colours(name: str, clamp: float | None) -> None:
    """At the published 256 nothing of this size is clamped; at 0.5 most is."""
    module, features, ws = small(name, clamp=clamp), drawn(2, FEATURES, 6, 6), drawn(2, 4, WIDTH, seed=2)
    image, _ = module(features, ws, "const")
    wanted = literal(module, name, features, ws, noise=True, clamp=clamp)
    torch.testing.assert_close(image, wanted[0], rtol=1e-10, atol=1e-10)
    plain = literal(module, name, features, ws, noise=True, clamp=256.0)[0]
    assert torch.equal(plain, wanted[0]) == (clamp is None)


@pytest.mark.parametrize("size", [6, 11])
def test_antialiasing_is_an_option_and_matters_where_the_input_shrinks(size: int) -> None:
    module, features, ws = small("8x", antialias=False), drawn(2, FEATURES, size, size), drawn(2, 4, WIDTH, seed=2)
    wanted, smoothed = (literal(module, "8x", features, ws, noise=False, antialias=on)[0] for on in (False, True))
    torch.testing.assert_close(module(features, ws, None)[0], wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(wanted, smoothed) == (size == 6)


def test_only_the_last_style_vector_is_read() -> None:
    module, features, ws = small("4x"), drawn(2, FEATURES, 8, 8), drawn(2, 4, WIDTH, seed=2)
    other = ws.clone()
    other[:, :-1] += 1.0
    assert torch.equal(module(features, ws)[0], module(features, other)[0])
    other[:, -1] += 1.0
    assert not torch.equal(module(features, ws)[0], module(features, other)[0])


# When each resizes, and what it writes into


def test_4x_never_shrinks_its_input() -> None:
    """The published condition is R < 128: larger renderings fail there too."""
    module = SuperResolution("4x", feature_channels=3, w_dim=2, channels=(1, 1))
    with pytest.raises(PriorzooError, match="takes at most 128 pixels a side, got 129"):
        module(torch.zeros(1, 3, 129, 129), torch.zeros(1, 1, 2))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_what_the_published_code_writes_into_the_raw_image(name: str, size: int) -> None:
    """2x and 4x at their native size add block0's colours in place; a resized copy is written into instead, 8x writes into none."""
    module, features, ws = small(name), drawn(2, FEATURES, size, size), drawn(2, 4, WIDTH, seed=2)
    before = features.clone()
    raw = module(features, ws)[1]
    written = name in ("2x", "4x") and size == INPUT
    assert torch.equal(raw, features[:, :3]) != written
    assert torch.equal(features, before), "our own input stays as it was"


@pytest.mark.parametrize("resolution", [6, 8])
def test_the_option_hands_it_out_where_there_is_something_to_hand_out(resolution: int) -> None:
    options = SMALL | {"superresolution": "4x", "superresolution_input": 8, "image_resolution": 16}
    images = []
    for raw_image in ("rendered", "as_published"):
        torch.manual_seed(0)
        backbone = EG3D(**options | {"raw_image": raw_image, "noise": "const"})
        streams, camera = fixed_streams(0, 1), Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
        latents = backbone.prepare(backbone.draw(1, streams), None)
        needs = frozenset({"image", "image_raw"})
        with torch.no_grad():
            images.append(
                backbone.render(latents, camera, needs, streams=streams, resolution=resolution, sampling=Sampling("deterministic"))
            )
    assert torch.equal(images[0].image, images[1].image)
    assert torch.equal(images[0].image_raw, images[1].image_raw) == (resolution == 6)


# Names and shapes


def described(name: str) -> dict[str, list[int]]:
    """Every tensor of a module at full size, by the published description."""
    side, out, channels = FULL[name]
    tensors: dict[str, list[int]] = {} if name == "8xdc" else {"resample_filter": [4, 4]}
    sides = (2 * side if FIRST_UP[name] else side, out)
    for index, (inputs, outputs) in enumerate(((32, channels[0]), channels)):
        tensors[f"block{index}.resample_filter"] = [4, 4]
        for layer, width in (("conv0", inputs), ("conv1", outputs)):
            place = f"block{index}.{layer}"
            tensors |= {f"{place}.weight": [outputs, width, 3, 3], f"{place}.bias": [outputs], f"{place}.noise_strength": []}
            tensors |= {f"{place}.noise_const": [sides[index]] * 2, f"{place}.resample_filter": [4, 4]}
            tensors |= {f"{place}.affine.weight": [width, 512], f"{place}.affine.bias": [width]}
        place = f"block{index}.torgb"
        tensors |= {f"{place}.weight": [3, outputs, 1, 1], f"{place}.bias": [3]}
        tensors |= {f"{place}.affine.weight": [outputs, 512], f"{place}.affine.bias": [outputs]}
    return tensors


@pytest.mark.parametrize("name", MODULES)
def test_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        module = SuperResolution(name, feature_channels=32, w_dim=512)
    assert {k: list(v.shape) for k, v in module.state_dict().items()} == described(name)


def test_the_description_is_that_of_the_stored_full_size_model() -> None:
    stored = json.loads((Path(__file__).parent / "golden/eg3d/ffhq512_shapes.json").read_text())["TriPlaneGenerator"]
    assert {k.removeprefix("superresolution."): v for k, v in stored.items() if k.startswith("superresolution.")} == described("8xdc")


# Checkpoints


@pytest.mark.parametrize("name", MODULES)
def test_a_checkpoint_with_it_is_imported(name: str, tmp_path: Path) -> None:
    factor = FULL[name][1] // FULL[name][0]
    sizes = {"superresolution": name, "superresolution_input": 8, "image_resolution": 8 * factor}
    backbone = EG3D(**SMALL | sizes)
    (tmp_path / "official.pkl").write_bytes(dumps(official(backbone)))
    foreign = read_foreign(tmp_path / "official.pkl")
    options = foreign.recipe.backbone.options
    assert {k: options[k] for k in sizes} == sizes
    assert options["raw_image"] == ("rendered" if FIRST_UP[name] else "as_published")
    assert [names.missing + names.shapes for names in foreign.names.values()] == [[], [], []]
    own = {f"generator.{k}": v for k, v in backbone.generator.state_dict().items() if k.startswith("superresolution.")}
    stored = foreign.tensors()
    assert own and all(torch.equal(stored[k], v) for k, v in own.items())
