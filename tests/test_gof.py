"""GOF as a backbone: the shrinking region, the theorem that rendering becomes surface rendering, options, critic, surfaces."""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from contract.small_backbones import GOF as SMALL
from contract.small_backbones import build
from pigan_golden import GOLDEN, stored
from priorzoo.backbones.base import Progress, Sampling
from priorzoo.backbones.pigan import GOF
from priorzoo.backbones.pigan.discriminators import ProgressiveDiscriminator
from priorzoo.backbones.pigan.field import WORLD_UNITS
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import Scene
from priorzoo.core.streams import fixed_streams
from torch.testing import assert_close

STILL = Sampling("deterministic")
STREAMS = fixed_streams(0, 2)
FRONT = Camera.looking_at_origin(torch.tensor([0.2, -0.1]), torch.tensor([0.1, 0.0]))


def gof(**options: Any) -> GOF:
    made = build("gof", {**SMALL, **options})
    assert isinstance(made, GOF)
    return made


def rendered(backbone: GOF, *needs: str, sampling: Sampling = STILL) -> Scene:
    latents = backbone.prepare(backbone.draw(2, STREAMS), None)
    return backbone.render(latents, FRONT, frozenset(needs), streams=STREAMS, sampling=sampling)


def test_volume_rendering_becomes_surface_rendering_at_least_linearly() -> None:
    """The supplementary's theorem: with all light spent within the region, the difference is O(Delta)."""
    backbone = gof(last_back=True, samples_fine=0, root_steps=30, samples_coarse=24).double()
    backbone.set_options(compositing="surface_only")
    surface = rendered(backbone, "image_raw", "opacity")
    found = (surface.opacity > 0.5).expand_as(surface.image_raw)
    assert int(found.sum()) > 60
    backbone.set_options(compositing="volume")
    widths = [0.1 * 0.5**i for i in range(16)]
    mean, largest = [], []
    for width in widths:
        backbone.half_width = width
        difference = (rendered(backbone, "image_raw").image_raw - surface.image_raw)[found].abs().detach()
        mean.append(float(difference.mean()))
        largest.append(float(difference.max()))
    assert mean[0] > 1e-2
    # where the region is shorter than the field's waves, which are about 0.005 long; before that it is less than linear, below the bound
    exponent = np.polyfit(np.log(widths[7:]), np.log(mean[7:]), 1)[0]
    assert exponent >= 0.9, (exponent, mean)
    slopes = [d / w for d, w in zip(largest, widths, strict=True)]
    assert max(slopes) <= 1.05 * slopes[-1], slopes


def test_the_surface_is_where_occupancy_crosses_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.8):
        scene = rendered(gof(threshold=threshold, root_steps=20, samples_coarse=20).double(), "surface_depth", "field")
        depth = scene.surface_depth.flatten(1)
        found = depth < 1.2 * WORLD_UNITS - 1e-9
        assert 10 < int(found.sum()) < found.numel() and not depth.requires_grad
        points = scene.rays.origins + scene.rays.directions * depth[..., None]
        assert_close(scene.field(points).value[found], torch.full_like(depth[found], threshold), atol=1e-4, rtol=0)


def test_samples_lie_about_the_surface_and_only_they_are_rendered() -> None:
    backbone = gof(samples_fine=0)
    backbone.half_width = 0.02
    scene = rendered(backbone, "surface_depth", "weights", "samples")
    assert scene.distances.shape[-1] == 6
    depth = scene.surface_depth.flatten(1)[..., None]
    found = depth[..., 0] < 1.2 * WORLD_UNITS - 1e-4
    inside = (depth - scene.distances).abs() <= 2 * 0.02 * WORLD_UNITS + 1e-5  # twice where it was moved inside the bounds
    assert bool(inside[found].all())
    width = scene.distances[..., -1] - scene.distances[..., 0]
    assert_close(width[found], torch.full_like(width[found], 2 * 0.02 * WORLD_UNITS), atol=1e-5, rtol=0)
    assert_close(width[~found], torch.full_like(width[~found], 0.4 * WORLD_UNITS), atol=1e-5, rtol=0)
    assert_close(scene.alpha, scene.samples.raw.sigmoid())
    assert rendered(gof(), "weights", sampling=Sampling("deterministic", fine=3)).weights.shape[-1] == 9


def test_the_region_shrinks_with_the_steps_of_a_training() -> None:
    backbone = gof(interval_max=0.12, interval_min=0.03, interval_decay=1e-2)
    assert backbone.half_width == 0.03
    for steps, expected in ((0, 0.12), (50, 0.12 * math.exp(-0.5)), (138, 0.12 * math.exp(-1.38)), (139, 0.03), (10**6, 0.03)):
        backbone.set_progress(Progress(steps=steps))
        assert backbone.half_width == pytest.approx(expected)
    assert backbone.noise_deviation == 0.0  # an occupancy gets no noise


def test_surface_only_shows_the_colour_of_the_surface() -> None:
    backbone = gof(compositing="surface_only")
    scene = rendered(backbone, "image_raw", "surface_depth", "field", "opacity", "depth")
    found = scene.opacity.flatten(1) > 0.5
    points = scene.rays.origins + scene.rays.directions * scene.surface_depth.flatten(1)[..., None]
    colours = scene.field(points, scene.rays.directions).colour
    assert_close(scene.image_raw.flatten(2).transpose(1, 2)[found], colours[found], atol=1e-4, rtol=1e-4)
    assert bool((scene.image_raw.flatten(2).transpose(1, 2)[~found] == -1).all())
    assert_close(scene.depth[scene.opacity > 0.5], scene.surface_depth[scene.opacity > 0.5])
    slopes = torch.autograd.grad(scene.image_raw.sum(), list(backbone.generator.siren.parameters()), allow_unused=True)
    named = dict(zip(dict(backbone.generator.siren.named_parameters()), slopes, strict=True))
    assert named["final_layer.weight"] is None or float(named["final_layer.weight"].abs().max()) == 0
    assert float(named["color_layer_linear.0.weight"].abs().max()) > 0


def test_a_colour_stands_behind() -> None:
    white = rendered(gof(white_back=True), "image_raw").image_raw
    behind = rendered(gof(background={"name": "colour", "rgb": [1.0, 1.0, 1.0]}), "image_raw").image_raw
    assert_close(behind, white, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"density": "relu"}, "backbone gof: unknown option 'density'"),
        ({"density_noise": 1.0}, "backbone gof: unknown option 'density_noise'"),
        ({"root_finding": "newton"}, "backbone gof: root_finding must be one of secant, bisection; got 'newton'"),
        ({"compositing": "surface"}, "compositing must be one of volume, surface_only; got 'surface', did you mean 'surface_only'?"),
        ({"threshold": 1.0}, "backbone gof: threshold must be a number > 0 and < 1, got 1.0"),
        ({"interval_min": 0.2, "interval_max": 0.1}, "backbone gof: interval_min must be a number > 0 and <= 0.1, got 0.2"),
        ({"interval_decay": -1.0}, "backbone gof: interval_decay must be a number >= 0, got -1.0"),
        ({"samples_surface": 1}, "backbone gof: samples_surface must be a whole number >= 2, got 1"),
        ({"root_steps": -1}, "backbone gof: root_steps must be a whole number >= 0, got -1"),
        ({"last_back": True, "background": {"name": "sphere"}}, "backbone gof: last_back leaves nothing to see of background sphere"),
    ],
)
def test_bad_options_are_refused_before_anything_is_built(options: dict[str, Any], text: str) -> None:
    for build_it in (GOF, GOF.provides):
        with pytest.raises(PriorzooError, match=re.escape(text)):
            build_it(**options)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(PriorzooError, match=r"sampling: mode 'x' is not one of random, deterministic"):
        rendered(gof(), "depth", sampling=Sampling("x"))
    with pytest.raises(PriorzooError, match="backbone gof does not render foreground_raw; it renders alpha"):
        rendered(gof(), "foreground_raw")


def test_defaults_are_the_published_celeba_model() -> None:
    with torch.device("meta"):
        backbone = GOF()
    assert sum(p.numel() for p in backbone.generator.parameters()) == 1_910_788
    unused = 400 * 2 * 2 * 4608 + 4608  # a last layer of the published discriminator that nothing reads
    assert sum(p.numel() for p in backbone.discriminator.parameters()) == 20_202_931 - unused
    own = backbone.options
    assert (own.samples_coarse, own.samples_surface, own.samples_fine, own.root_steps) == (9, 9, 6, 4)
    assert own.interval(138_700) == 0.03 and own.interval(138_600) > 0.03


@torch.no_grad()
def test_the_critic_reproduces_the_reference() -> None:
    seed, io = json.loads((GOLDEN / "gof_disc_config.json").read_text())["recipe_seed"], stored("gof_disc_io")
    made = ProgressiveDiscriminator("progressive_encoder")
    for key, tensor in made.state_dict().items():
        scale = 1.6 / math.sqrt(math.prod(tensor.shape[1:])) if tensor.ndim > 1 else 0.1
        drawn = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(tuple(tensor.shape))
        tensor.copy_(torch.from_numpy((drawn * scale).astype(np.float32)))
    features: list[Any] = []
    made.final_layer.register_forward_hook(lambda _module, given, _out: features.append(given[0]))
    unused: dict[str, Any] = {"weight": (4608, 400, 2, 2), "bias": (4608,)}  # the layer that ours lacks, on our features
    for name, shape in unused.items():
        scale = 1.6 / math.sqrt(1600) if name == "weight" else 0.1
        drawn = np.random.RandomState((zlib.crc32(f"freq_phase_layer.{name}".encode()) + seed) % 2**32).standard_normal(shape)
        unused[name] = torch.from_numpy((drawn * scale).astype(np.float32))
    sizes = sorted({int(key.split("/")[0]) for key in io})
    assert sizes
    for size in sizes:
        for alpha in sorted({key.split("/")[1] for key in io if key.startswith(f"{size}/alpha")}):
            verdict = made(io[f"{size}/input"], float(alpha.removeprefix("alpha")))
            assert_close(verdict.logits, io[f"{size}/{alpha}/logit"][:, 0], atol=1e-4, rtol=1e-4)
            assert_close(verdict.latent, io[f"{size}/{alpha}/latent"], atol=1e-4, rtol=1e-4)
            assert_close(verdict.pose, io[f"{size}/{alpha}/pose"], atol=1e-4, rtol=1e-4)
            told = torch.nn.functional.conv2d(features[-1], unused["weight"], unused["bias"]).flatten(1)
            assert_close(told, torch.cat([io[f"{size}/{alpha}/{k}"] for k in ("freq", "phase")], dim=1), atol=1e-4, rtol=1e-4)
