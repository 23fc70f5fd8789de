"""pi-GAN's discriminators reproduce the published ones: logits, latents, poses, gradient penalties, blocks; fade-in and initial weights."""

from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
import torch
from pigan_golden import GOLDEN, stored
from priorzoo.backbones.pigan.discriminators import DESIGNS, CoordConv, ProgressiveDiscriminator, ResidualBlock, coordinate_maps
from priorzoo.core.errors import PriorzooError
from torch import Tensor
from torch.testing import assert_close

NAMES = {
    "ccs_encoder": "CCSEncoderDiscriminator",
    "strided": "StridedDiscriminator",
    "progressive_encoder": "ProgressiveEncoderDiscriminator",
}
SEED = json.loads((GOLDEN / "pigan_disc_config.json").read_text())["recipe_seed"]
IO = stored("pigan_disc_io")
PARAMETERS = {"ccs_encoder": 13_291_075, "progressive_encoder": 12_825_523, "progressive": 12_412_465,
              "ccs": 12_879_217 - 1200, "strided": 12_805_489 - 1200}  # fmt: skip  # ours lack an unused layer of 2 -> 400
BLOCKS = {"ResidualCCBlock": "ccs", "StridedResidualConvBlock": "strided", "ResidualCoordConvBlock": "progressive",
          "ResidualCoordConvBlock_same": "progressive"}  # fmt: skip


@torch.no_grad()
def by_recipe(name: str) -> ProgressiveDiscriminator:
    """The weights of the references: normal numbers seeded by the tensor's name."""
    made = ProgressiveDiscriminator(name)
    for key, tensor in made.state_dict().items():
        scale = 1.6 / math.sqrt(math.prod(tensor.shape[1:])) if tensor.ndim > 1 else 0.1
        drawn = np.random.RandomState((zlib.crc32(key.encode()) + SEED) % 2**32).standard_normal(tuple(tensor.shape))
        tensor.copy_(torch.from_numpy((drawn * scale).astype(np.float32)))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_reference_outputs_and_penalties(name: str) -> None:
    discriminator = by_recipe(name)
    prefix = NAMES[name]
    sizes = sorted({int(key.split("/")[1]) for key in IO if key.startswith(prefix)})
    assert sizes
    for size in sizes:
        image = IO[f"{prefix}/{size}/input"].clone().requires_grad_(True)
        for alpha in (1.0, 0.3):
            verdict, at = discriminator(image, alpha), f"{prefix}/{size}/alpha{alpha}"
            assert_close(verdict.logits, IO[f"{at}/logit"][:, 0], atol=1e-4, rtol=1e-4)
            (slope,) = torch.autograd.grad(verdict.logits.sum(), image, retain_graph=True)
            penalty = slope.square().flatten(1).sum(dim=1).mean()
            assert_close(penalty, IO[f"{at}/gradpen_mean_sqnorm"], atol=0, rtol=1e-3)
            if discriminator.design.encodes:
                assert_close(verdict.latent, IO[f"{at}/latent"], atol=1e-4, rtol=1e-4)
                assert_close(verdict.pose, IO[f"{at}/pose"], atol=1e-4, rtol=1e-4)
            else:
                assert verdict.latent is None and verdict.pose is None


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_the_reference_on_images_that_are_not_square(name: str) -> None:
    prefix = f"block/{name}/"
    image, expected = IO[f"{prefix}input"], IO[f"{prefix}output"]
    block = ResidualBlock(image.shape[1], expected.shape[1], DESIGNS[BLOCKS[name]])
    block.load_state_dict({k.removeprefix(f"{prefix}w/"): v for k, v in IO.items() if k.startswith(f"{prefix}w/")})
    assert_close(block(image), expected, atol=1e-5, rtol=1e-5)
    assert (block.proj is None) == name.endswith("_same")


def test_coordinates_are_rows_then_columns() -> None:
    image, expected = IO["block/AddCoords/input"], IO["block/AddCoords/output"]
    maps = coordinate_maps(4, 6, image)
    assert_close(torch.cat([image, maps], dim=1), expected)
    assert maps[0, 0, :, 0].tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1]) and float(maps[0, 1, 0, -1]) == 1.0


@pytest.mark.parametrize("stride", [1, 2])
def test_coordinates_apart_are_coordinates_appended_in_value_and_both_derivatives(stride: int) -> None:
    torch.manual_seed(0)
    layer = CoordConv(3, 4, stride).double()
    image = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)

    def appended() -> Tensor:
        return layer.conv(torch.cat([image, coordinate_maps(6, 8, image).expand(2, -1, -1, -1)], dim=1))

    assert_close(layer(image), appended())
    results = []
    for out in (layer(image), appended()):
        (slope,) = torch.autograd.grad(out.square().sum(), image, create_graph=True)
        results.append([slope, *torch.autograd.grad(slope.square().sum(), list(layer.parameters()))])
    for one, two in zip(*results, strict=True):
        assert_close(one, two)


@pytest.mark.parametrize("name", DESIGNS)
def test_number_of_parameters_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ProgressiveDiscriminator(name).parameters()) == PARAMETERS[name]


def test_fade_in_goes_from_the_smaller_image_to_the_larger() -> None:
    torch.manual_seed(0)
    discriminator = ProgressiveDiscriminator("ccs_encoder", channel_max=4, latent=3)
    image = torch.randn(2, 3, 32, 32)
    # at 0 the first block has no say: the verdict is that of the image at half its size, which enters one block later
    assert_close(discriminator(image, 0.0).logits, discriminator(image[:, :, ::2, ::2], 1.0).logits)
    assert not torch.allclose(discriminator(image, 0.5).logits, discriminator(image, 1.0).logits)
    for size in (2, 4):
        assert discriminator(image[:, :, :size, :size], 0.5).logits.shape == (2,)
    assert torch.equal(discriminator(image[:, :, :4, :4], 0.5).logits, discriminator(image[:, :, :4, :4], 1.0).logits)


def test_initial_weights_of_both_families() -> None:
    torch.manual_seed(0)
    for name, spread in (("ccs", math.sqrt(2 / 1.04 / (402 * 9))), ("progressive", 1 / math.sqrt(3 * 402 * 9))):
        block = ResidualBlock(400, 400, DESIGNS[name])
        first, _, last, _ = block.network
        for layer in (first, last):
            assert isinstance(layer, CoordConv)
            assert float(layer.conv.weight.detach().std()) == pytest.approx(spread, rel=0.01)


@pytest.mark.parametrize(("shape", "got"), [((12, 12), "12 x 12"), ((16, 8), "16 x 8"), ((512, 512), "512 x 512"), ((1, 1), "1 x 1")])
def test_sizes_that_it_cannot_take_are_refused(shape: tuple[int, int], got: str) -> None:
    discriminator = ProgressiveDiscriminator("strided", channel_max=2)
    with pytest.raises(PriorzooError, match=f"a power of two from 2 to 256 pixels a side; got {got}"):
        discriminator(torch.zeros(1, 3, *shape))
