"""Checkpoints in the published EG3D layout, at any size: what the importer is tested with.

Nothing of the published code is needed: the nesting of objects is written down here. Every object with source text carries a line that
raises: a reader that runs it fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pickle_writer import Call, Items, Made, Persistent, Stored, dumps
from priorzoo.backbones.eg3d import EG3D
from torch import nn

Change = Callable[[dict[str, Any]], Any]
"""What is done to the content of a file before it is written."""

SMALL: dict[str, Any] = {
    "z_dim": 4,
    "w_dim": 8,
    "plane_resolution": 16,
    "plane_channels": 4,
    "channel_base": 128,
    "channel_max": 8,
    "decoder_hidden": 8,
    "feature_channels": 8,
    "samples_coarse": 4,
    "samples_fine": 4,
    "superresolution": "2x",
    "superresolution_input": 16,
    "superresolution_channels": (8, 4),
    "image_resolution": 32,
    "neural_resolution": 8,
    "discriminator_channel_base": 128,
    "discriminator_channel_max": 8,
    "raw_image": "as_published",
}
"""A model whose checkpoint has every kind of object of a published one, in a few hundred kilobytes."""


SR_CLASSES = {"2x": "2X", "4x": "4X", "8x": "8X", "8xdc": "8XDC"}
CLASSES = (
    (r"generator", "TriPlaneGenerator"),
    (r"discriminator", "DualDiscriminator"),
    (r"generator\.backbone", "Generator"),
    (r".*\.synthesis", "SynthesisNetwork"),
    (r".*\.mapping", "MappingNetwork"),
    (r"generator.*\.(b\d+|block\d)", "SynthesisBlock"),
    (r"generator.*\.conv\d", "SynthesisLayer"),
    (r".*\.torgb", "ToRGBLayer"),
    (r"discriminator\.b4", "DiscriminatorEpilogue"),
    (r"discriminator\.b\d+", "DiscriminatorBlock"),
    (r".*\.(affine|embed|fc\d*|out|net\.\d|rgb_out|sigma_out)", "FullyConnectedLayer"),
    (r"discriminator.*\.(conv\d?|skip|fromrgb)", "Conv2dLayer"),
)
AXES = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]).float()


@dataclass
class Layout:
    """How tensors are stored: where ``plane_axes`` lay, and in which order 4-D weights are."""

    axes_location: str = "cuda:0"
    channels_last: bool = False


def module_state(module: nn.Module, children: dict[str, Any], layout: Layout, **attributes: Any) -> dict[str, Any]:
    """Return a torch module's attributes as pickles hold them."""
    stored = {k: Stored(p.data, True, channels_last=layout.channels_last) for k, p in module._parameters.items() if p is not None}
    return {
        "training": False,
        "_parameters": stored,
        "_buffers": {k: Stored(b) for k, b in module._buffers.items() if b is not None},
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": Call("collections", "OrderedDict"),
        "_is_full_backward_hook": None,
        "_modules": children,
        **attributes,
    }


def tree(module: nn.Module, path: str, layout: Layout, superresolution: str = "", **attributes: Any) -> Any:
    """Return a network as the published classes nest it."""
    inside = {k: m for k, m in module._modules.items() if m is not None and k != "background"}  # that is BallGAN's (ballgan_pickles.py)
    children = {k: tree(m, f"{path}.{k}", layout, superresolution) for k, m in inside.items()}
    if path == "generator":
        marcher = Made("training.volumetric_rendering.ray_marcher", "MipRayMarcher2", module_state(nn.Module(), {}, layout))
        state = module_state(nn.Module(), {"ray_marcher": marcher}, layout, plane_axes=Stored(AXES, location=layout.axes_location))
        children["renderer"] = Made("training.volumetric_rendering.renderer", "ImportanceRenderer", state)
        state = module_state(nn.Module(), {}, layout, ray_origins_h=None)
        children["ray_sampler"] = Made("training.volumetric_rendering.ray_sampler", "RaySampler", state)
    state = module_state(module, children, layout, **attributes)
    if path == "generator.decoder":
        return Made("training.triplane", "OSGDecoder", state)
    if path == "generator.decoder.net":
        state["_modules"]["1"] = Made("torch.nn.modules.activation", "Softplus", module_state(nn.Module(), {}, layout, beta=1))
        return Made("torch.nn.modules.container", "Sequential", state)
    if path == "generator.superresolution":
        return Persistent(f"SuperresolutionHybrid{superresolution}", state)
    name = next(name for pattern, name in CLASSES if re.fullmatch(pattern, path))
    if name == "FullyConnectedLayer":
        state["weight_gain"] = np.float64(0.25)
    return Persistent(name, state)


def rendering_kwargs(backbone: EG3D) -> dict[str, Any]:
    """Return the published rendering options of a backbone's."""
    o = backbone.options
    return {
        "image_resolution": o.image_resolution,
        "disparity_space_sampling": o.disparity,
        "clamp_mode": "softplus",
        "superresolution_module": f"training.superresolution.SuperresolutionHybrid{SR_CLASSES[o.superresolution]}",
        "c_gen_conditioning_zero": o.conditioning == "zero",
        "gpc_reg_prob": 0.5,
        "c_scale": o.conditioning_scale,
        "superresolution_noise_mode": o.superresolution_noise,
        "decoder_lr_mul": o.decoder_lr_multiplier,
        "sr_antialias": o.superresolution_antialias,
        "depth_resolution": o.samples_coarse,
        "depth_resolution_importance": o.samples_fine,
        "ray_start": o.near,
        "ray_end": o.far,
        "box_warp": o.box_warp,
        "white_back": o.white_back,
    }


def generator_tree(backbone: EG3D, layout: Layout) -> Persistent:
    """Return the generator with the attributes of a published one; its constructor's arguments are the older copy."""
    o = backbone.options
    kwargs = {
        "z_dim": o.z_dim,
        "c_dim": 25,
        "w_dim": o.w_dim,
        "img_resolution": o.image_resolution,
        "img_channels": 3,
        "mapping_kwargs": Items("dnnlib.util", "EasyDict", {"num_layers": o.mapping_layers}),
        "channel_base": o.channel_base,
        "channel_max": o.channel_max,
        "num_fp16_res": 0,
        "conv_clamp": None,
        "sr_num_fp16_res": 4 if o.superresolution_clamp else 0,
        "rendering_kwargs": {"depth_resolution": 1},
    }
    module = backbone.generator
    made = tree(
        module,
        "generator",
        layout,
        SR_CLASSES[o.superresolution],
        neural_rendering_resolution=o.neural_resolution,
        rendering_kwargs=rendering_kwargs(backbone),
        _init_args=(),
        _init_kwargs=kwargs,
    )
    made.arguments[0]["state"]["_buffers"]["dataset_label_std"] = Stored(torch.linspace(0.0, 1.0, 25))
    return made


def discriminator_tree(backbone: EG3D, layout: Layout) -> Persistent:
    """Return the discriminator with the attributes of a published one."""
    o = backbone.options
    kwargs = {
        "c_dim": 25,
        "img_resolution": o.image_resolution,
        "img_channels": 3,
        "channel_base": o.discriminator_channel_base,
        "channel_max": o.discriminator_channel_max,
        "conv_clamp": 256,
        "mapping_kwargs": {"num_layers": o.discriminator_mapping_layers},
        "epilogue_kwargs": {"mbstd_group_size": o.discriminator_group},
    }
    return tree(backbone.discriminator, "discriminator", layout, _init_args=(), _init_kwargs=kwargs)


def official(backbone: EG3D, average: EG3D | None = None, layout: Layout | None = None) -> dict[str, Any]:
    """Return what a published file holds, before it is written; tests may change it."""
    layout = layout or Layout()
    return {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "somewhere/ffhq.zip", "use_labels": True},
        "G": generator_tree(backbone, layout),
        "D": discriminator_tree(backbone, layout),
        "G_ema": generator_tree(average or backbone, layout),
        "augment_pipe": None,
    }


def state_of(checkpoint: dict[str, Any], part: str, *path: str) -> dict[str, Any]:
    """Return the attributes of a network in ``official``'s result, or of a module inside it."""
    found = checkpoint[part]
    state: dict[str, Any] = {}
    for name in ("", *path):
        found = state["_modules"][name] if name else found
        state = found.state if isinstance(found, Made) else found.arguments[0]["state"]
    return state


def small_pair(seed: int = 0, change: Callable[[dict[str, Any]], None] | None = None) -> tuple[EG3D, EG3D]:
    """Return a small model and its moving average, which differ in every tensor."""
    options = dict(SMALL)
    if change:
        change(options)
    pair = EG3D(**options), EG3D(**options)
    generator = torch.Generator().manual_seed(seed)
    for backbone in pair:
        with torch.no_grad():
            for tensor in backbone.state_dict().values():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return pair


def stored(folder: Path, pair: tuple[EG3D, EG3D], change: Change | None = None, layout: Layout | None = None, **how: Any) -> Path:
    """Write an official file of the pair, after a change."""
    checkpoint = official(*pair, layout)
    if change:
        change(checkpoint)
    path = folder / "official.pkl"
    path.write_bytes(dumps(checkpoint, **how))
    return path
