"""The smallest useful options of every shipped backbone, and of the analytic ball.

A new backbone is added to SMALL; the suite refuses one that is not there.
"""

from __future__ import annotations

from typing import Any

import analytic  # noqa: F401  registers analytic_sphere
from priorzoo.backbones.base import Backbone
from priorzoo.core.registry import BACKBONES

EG3D: dict[str, Any] = {
    "z_dim": 4, "w_dim": 8, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 8,
    "decoder_hidden": 4, "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 6, "samples_fine": 6,
    "discriminator_channel_base": 64, "discriminator_channel_max": 8,
}  # fmt: skip
PIGAN: dict[str, Any] = {
    "z_dim": 4, "hidden": 8, "layers": 2, "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 6, "samples_fine": 6,
    "near": 0.8, "far": 1.2, "discriminator_channel_max": 4, "discriminator_latent": 4,
}  # fmt: skip
GOF: dict[str, Any] = {
    **PIGAN, "samples_coarse": 9, "samples_surface": 6, "interval_max": 0.15, "interval_min": 0.1, "discriminator": "progressive_encoder",
}  # fmt: skip
SPHERE = {"name": "sphere", "z_dim": 4, "w_dim": 4, "mapping_layers": 2, "hidden": 8}
SMALL: dict[str, list[dict[str, Any]]] = {
    "analytic_sphere": [{}],
    "ballgan": [{**EG3D, "superresolution": "none", "feature_channels": 3, "background": SPHERE}],
    "eg3d": [
        {**EG3D, "superresolution": "none", "feature_channels": 3, "conditioning": "none", "noise": "none"},
        {**EG3D, "superresolution": "2x", "superresolution_input": 8, "superresolution_channels": (8, 4)},
        {**EG3D, "superresolution": "none", "feature_channels": 3, "background": {"name": "colour", "rgb": [0.2, 0.5, 0.9]}},
    ],
    "gof": [
        GOF,
        {**GOF, "root_finding": "bisection", "box_warp": False, "last_back": True, "rays": "corners"},
        {**GOF, "background": SPHERE},
    ],
    "pigan": [
        PIGAN,
        {**PIGAN, "density": "softplus", "box_warp": False, "rays": "corners", "discriminator": "strided", "last_back": True},
        {**PIGAN, "density": "softplus", "last_interval": "far", "discriminator": "progressive_encoder", "background": SPHERE},
    ],
}


def shipped() -> list[str]:
    """Names of the registered backbones that come with the package, and the analytic ball."""
    return [n for n in BACKBONES.names() if BACKBONES.get(n).__module__.startswith("priorzoo.") or n == "analytic_sphere"]


def build(name: str, options: dict[str, Any]) -> Backbone:
    """Build it in evaluation mode, with parameters that do not depend on what was built before."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone: Backbone = BACKBONES.create(name, **options)
        if name == "ballgan":  # its density starts from zero weights: as if it had learnt something
            torch.nn.init.normal_(backbone.generator.decoder.sigma_out.weight)
        if name in ("pigan", "gof"):  # their geometry starts almost flat
            torch.nn.init.normal_(backbone.generator.siren.final_layer.weight)
        return backbone.eval()
