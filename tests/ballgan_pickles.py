"""Checkpoints in the published BallGAN layout, at any size: EG3D's with a background's networks and options.

The tensors' names are the published ones. The classes' are not known, so a file can be made in two ways: with all classes carrying their
source text, and with plain modules of the published package.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from official_pickles import SMALL, Layout, module_state, official, state_of, tree
from pickle_writer import Items, Made, Persistent, Stored
from priorzoo.backbones.backgrounds.sphere import ModulatedLinear, Sphere
from priorzoo.backbones.eg3d import BallGAN
from torch import nn

NETWORKS = {"ver1": "modulated", "ver0": "concatenated"}
SPHERE = {"name": "sphere", "radius": 3.5, "z_dim": 6, "w_dim": 5, "mapping_layers": 3, "hidden": 7, "layers": 3}
"""Every size of its own, so that none can be taken for another."""

FILTER = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def object_of(name: str, state: dict[str, Any], inert: bool) -> Any:
    """Return an object with source text, or (``inert``) a plain module of the published package."""
    return Made("training.volumetric_rendering.background", name, state) if inert else Persistent(name, state)


def layer(module: nn.Module, layout: Layout, inert: bool, *, output: bool = False) -> Any:
    """Return a layer of the sphere's network; all but the output's carry a filter that they do not use."""
    children: dict[str, Any] = {}
    state = module_state(module, children, layout)
    if isinstance(module, ModulatedLinear):
        children["affine"] = tree(module.affine, "generator.affine", layout)
    if not output:
        state["_buffers"]["resample_filter"] = Stored(FILTER)
    return object_of("ToRGBLayer" if output else "SynthesisLayer", state, inert)


def sphere_trees(sphere: Sphere, layout: Layout, inert: bool) -> dict[str, Any]:
    """Return ``BG_mapping`` (version 1 alone) and ``BG_Net`` of a background."""
    network = sphere.network
    blocks = {str(i): layer(block, layout, inert) for i, block in enumerate(network.blocks)}
    children = {
        "fc_in": layer(network.fc_in, layout, inert),
        "blocks": Made("torch.nn.modules.container", "ModuleList", module_state(nn.Module(), blocks, layout)),
        "feat_out": layer(network.feat_out, layout, inert, output=True),
    }
    out = {"BG_Net": object_of("BackgroundNetwork", module_state(nn.Module(), children, layout), inert)}
    if sphere.mapping is not None:
        out["BG_mapping"] = tree(sphere.mapping, "generator.mapping", layout)
    return out


def official_ballgan(backbone: BallGAN, average: BallGAN | None = None, *, inert: bool = False) -> dict[str, Any]:
    """Return what a published file of it holds; the background's options lie among the generator's attributes."""
    layout = Layout()
    checkpoint = official(backbone, average)
    for part, model in (("G", backbone), ("G_ema", average or backbone)):
        sphere = model.background
        assert isinstance(sphere, Sphere)
        state = state_of(checkpoint, part)
        state["_modules"] = {**sphere_trees(sphere, layout, inert), **state["_modules"]}
        state["BG_options"] = Items(
            "dnnlib.util",
            "EasyDict",
            {"radius": sphere.radius, "hidden_size": SPHERE["hidden"], "downscale_p_by": 2 * math.pi, "use_style": None},
        )
    return checkpoint


def small_ballgan(network: str = "modulated", seed: int = 0) -> tuple[BallGAN, BallGAN]:
    """Return a small model and its moving average, which differ in every tensor."""
    pair = tuple(BallGAN(**SMALL, background={**SPHERE, "network": network}) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    for backbone in pair:
        with torch.no_grad():
            for tensor in backbone.state_dict().values():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return pair[0], pair[1]
