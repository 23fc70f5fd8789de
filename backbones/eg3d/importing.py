"""Official EG3D and BallGAN checkpoints: what a pickle of the published training code holds, as options and tensors of these backbones.

The published files are plain pickles of {G, D, G_ema, ...} whose objects carry their source text. Here they are read as inert records;
sizes come from the tensors, rules from the attributes the networks had when they were saved (constructor arguments are older).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from ...core.errors import CheckpointError
from ...core.pickles import (
    ALL_TENSORS,
    PERSISTENT_CLASSES,
    AllowList,
    PickleError,
    PickleFile,
    Record,
    StoredTensor,
    Tally,
    inert_class,
    named_tensors,
    plain,
    read_pickle,
)
from ...core.pickles.values import describe
from .given import Given, Shapes, agreed, layers_of, shape_of
from .identifying import name_of_family
from .importing_ballgan import SPHERE_RULES, classes_of, has_sphere, our_names, sphere_options
from .planes import AXES
from .superresolution import layout_of

ALLOWED = AllowList(
    "an EG3D checkpoint",
    {
        **ALL_TENSORS,
        **PERSISTENT_CLASSES,
        **inert_class("torch.nn.modules.container", "Sequential"),
        **inert_class("torch.nn.modules.activation", "Softplus"),
        **inert_class("training.triplane", "OSGDecoder"),
        **inert_class("training.volumetric_rendering.renderer", "ImportanceRenderer"),
        **inert_class("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
        **inert_class("training.volumetric_rendering.ray_sampler", "RaySampler"),
    },
)
WITH_SPHERE = AllowList("an EG3D or BallGAN checkpoint", ALLOWED.entries, packages=("training", "torch.nn.modules"))
"""For BallGAN's files, whose classes are not known by name: plain modules of its own code, and torch's, become records too."""

PARTS = {"generator": "G", "average": "G_ema", "discriminator": "D"}
EXTRA = ("dataset_label_std",)
"""Tensors of published snapshots that no network reads; they are kept apart and named."""

LABEL = 25
USED = (
    "image_resolution",
    "disparity_space_sampling",
    "clamp_mode",
    "superresolution_module",
    "c_gen_conditioning_zero",
    "gpc_reg_prob",
    "c_scale",
    "superresolution_noise_mode",
    "decoder_lr_mul",
    "sr_antialias",
    "depth_resolution",
    "depth_resolution_importance",
    "ray_start",
    "ray_end",
    "box_warp",
    "white_back",
    "density_noise",
    "reg_type",
)
# What published training regularised with, by its reg_type: the name that recipes give it here.
REGULARISERS = {
    "l1": "prior density_tv",
    "monotonic-detach": "prior density_monotonic with form: detach",
    "monotonic-fixed": "prior density_monotonic with form: fixed",
}
EMPTY_REGULARISERS = ("l1-alt", "total-variation")
LICENCE = (
    "The weights stay under the licence of those who published them; NVIDIA's EG3D checkpoints, and BallGAN's, whose code "
    "derives from theirs, are for non-commercial research only. "
    "priorzoo's own licence does not cover them."
)


@dataclass
class OfficialCheckpoint:
    """What a published file holds.

    ``options`` are those of the backbone; ``tensors`` the three parts' (generator, average, discriminator), not copied yet; ``pose_swap``
    (None: conditioning is zeroed) and ``label_noise`` the objective's; ``origin`` everything else that was said; ``notes`` what has no
    counterpart here. ``background`` is what stands behind the foreground, by name and options; ``dropped`` the published names of tensors
    that are left out, by part.
    """

    backbone: str
    options: dict[str, Any]
    background: dict[str, Any]
    tensors: dict[str, dict[str, StoredTensor]]
    pose_swap: float | None
    label_noise: float
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)


def read_official(path: str | os.PathLike[str]) -> OfficialCheckpoint:
    """Read a published EG3D or BallGAN pickle; nothing in it is imported or run.

    Raises CheckpointError: for other networks by their name, for anything off the allow-list with byte offset and name, for sizes or
    rules that these backbones have not, with both.
    """
    where = str(path)
    try:
        file = _read(path)
    except PickleError as error:
        family = name_of_family(error.classes, error.reason)
        if family:
            raise CheckpointError(f"{where}: this is {family}, not an EG3D checkpoint; it is not read ({error.reason})") from error
        raise
    records = _records(file, where)
    family = name_of_family(file.classes, None, {"generator": records["G_ema"], "discriminator": records["D"]})
    if family:
        raise CheckpointError(f"{where}: this is {family}, not an EG3D checkpoint; it is not read")
    tally = Tally(most_bytes=file.size)
    tensors = {part: named_tensors(records[key], f"{where}: {key}", tally) for part, key in PARTS.items()}
    return _translated(file, records, tensors, where)


def _read(path: str | os.PathLike[str]) -> PickleFile:
    """Read by EG3D's list, and where that refuses a name by the wider one: what it admits must then be a BallGAN."""
    try:
        return read_pickle(path, ALLOWED)
    except PickleError as refused:
        try:
            file = read_pickle(path, WITH_SPHERE)
        except PickleError as error:
            raise (error if error.offset > refused.offset else refused) from None
        generator = file.value.get("G_ema") if isinstance(file.value, dict) else None
        if not (isinstance(generator, Record) and has_sphere(generator)):
            raise refused from None
        return file


def _records(file: PickleFile, where: str) -> dict[str, Record]:
    value = file.value
    if isinstance(value, tuple) and len(value) == 3:
        raise CheckpointError(f"{where}: this is a TensorFlow StyleGAN checkpoint (G, D, Gs), not an EG3D one; it is not read")
    found: dict[str, Any] = {k: value.get(k) for k in ("G", "D", "G_ema")} if isinstance(value, dict) else {}
    if not found or not all(isinstance(r, Record) for r in found.values()):
        held = ", ".join(sorted(str(k)[:40] for k in list(value)[:12])) if isinstance(value, dict) else describe(value)
        raise CheckpointError(
            f"{where}: not an EG3D checkpoint: a dict with the networks G, D and G_ema is expected, the file holds {held}"
        )
    return found


def _translated(
    file: PickleFile, records: dict[str, Record], tensors: dict[str, dict[str, StoredTensor]], where: str
) -> OfficialCheckpoint:
    average, critic = records["G_ema"], records["D"]
    init, rendering = _kept(average, "_init_kwargs", where, "G_ema"), _kept(average, "rendering_kwargs", where, "G_ema")
    made = _kept(critic, "_init_kwargs", where, "D")
    notes: list[str] = []
    given, live, critic_given = Given(init, f"{where}: G_ema"), Given(rendering, f"{where}: rendering_kwargs"), Given(made, f"{where}: D")
    shapes = {name: t.shape for name, t in tensors["average"].items()}
    options = {
        **_sizes(given, shapes, where),
        **_rendering(live, notes),
        **_superresolution(given, live, average, shapes, where),
        **_critic(critic_given, critic, {name: t.shape for name, t in tensors["discriminator"].items()}, where),
        "plane_axes": _plane_axes(average, where, notes),
        "neural_resolution": Given(average.state or {}, f"{where}: G_ema").integer("neural_rendering_resolution", 64, least=1, most=4096),
    }
    background: dict[str, Any] = {"name": "none"}
    sphere = has_sphere(average)
    if sphere:
        background = sphere_options(average, shapes, options["feature_channels"], where, notes)
        options["torgb_init"] = "uniform"
        listed = {".".join(entry) for entry in ALLOWED.entries}
        notes += [f"class {name} is not known here; its tensors and numbers are read" for name in classes_of(average) - listed]
    if given.get("conv_clamp") is not None:
        notes.append(f"the planes' network was clamped at {given.real('conv_clamp')}; here it is not")
    notes += _regulariser(live)
    used = (*USED, *SPHERE_RULES) if sphere else USED
    notes += [f"rendering_kwargs.{key} is not used here" for key in rendering if key not in used]
    conditioned = options["conditioning"] == "camera"
    named = {part: our_names(stored) for part, stored in tensors.items()}
    return OfficialCheckpoint(
        backbone="ballgan" if sphere else "eg3d",
        options=options,
        background=background,
        tensors={part: ours for part, (ours, _) in named.items()},
        pose_swap=live.real("gpc_reg_prob", 0.0) if conditioned and rendering.get("gpc_reg_prob", 0.0) is not None else None,
        label_noise=critic_given.real("disc_c_noise", 0.0),
        origin={
            "classes": sorted(file.classes),
            "init_kwargs": init,
            "rendering_kwargs": rendering,
            "neural_rendering_resolution": options["neural_resolution"],
            "discriminator_kwargs": made,
            "training_set": _training_set(file.value.get("training_set_kwargs"), where),
            "augmented": file.value.get("augment_pipe") is not None,
        },
        notes=notes,
        dropped={part: dropped for part, (_, dropped) in named.items() if dropped},
    )


def _kept(record: Record, key: str, where: str, part: str) -> dict[str, Any]:
    value = plain(record.get(key), f"{where}: {part}.{key}")
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: {part} has no {key}: not a checkpoint of the published training code")
    return value


def _sizes(given: Given, shapes: Shapes, where: str) -> dict[str, Any]:
    blocks = [int(m[1]) for m in (re.fullmatch(r"backbone\.synthesis\.b(\d{1,5})\.torgb\.weight", name) for name in shapes) if m]
    if not blocks:
        raise CheckpointError(f"{where}: G_ema has no tensors backbone.synthesis.b*.torgb.weight: not an EG3D generator")
    drawn = shape_of(shapes, f"backbone.synthesis.b{max(blocks)}.torgb.weight", 4, where)[0]
    hidden, channels = shape_of(shapes, "decoder.net.0.weight", 2, where)
    if drawn != 3 * channels:
        depth, rest = divmod(drawn, 3 * channels)
        other = f"; {depth} planes along each axis are PanoHead's tri-grids" if rest == 0 else ""
        raise CheckpointError(
            f"{where}: the planes' network draws {drawn} channels, the decoder reads 3 x {channels}{other}; it is not read"
        )
    if given.integer("c_dim") != LABEL or given.integer("img_channels", 3) != 3:
        raise CheckpointError(
            f"{where}: labels of {given.get('c_dim')} numbers and {given.get('img_channels')} colours; {LABEL} and 3 are read"
        )
    split = "decoder.rgb_out.weight" in shapes
    last = shape_of(shapes, f"decoder.{'rgb_out' if split else 'net.2'}.weight", 2, where)[0]
    mapping = given.section("mapping_kwargs").integer("num_layers", 8, most=64)
    w_dim = given.integer("w_dim", least=1)
    return {
        "z_dim": given.integer("z_dim", least=1),
        "w_dim": agreed("w_dim", w_dim, shape_of(shapes, "backbone.mapping.w_avg", 1, where)[0], where),
        "mapping_layers": agreed("the mapping's number of layers", mapping, layers_of(shapes, "backbone.mapping."), where),
        "plane_resolution": max(blocks),
        "plane_channels": channels,
        "channel_base": given.integer("channel_base", 32768, least=1, most=1 << 24),
        "channel_max": given.integer("channel_max", 512, least=1),
        "decoder": "split" if split else "joint",
        "decoder_hidden": hidden,
        "feature_channels": last if split else last - 1,
        "image_resolution": given.integer("img_resolution", least=4, most=4096),
        "noise": "random",
    }


def _rendering(live: Given, notes: list[str]) -> dict[str, Any]:
    live.word("clamp_mode", allowed=("softplus",))
    near, far = (live.word(k) if isinstance(live.get(k), str) else live.real(k) for k in ("ray_start", "ray_end"))
    if live.get("density_noise") is not None and live.real("density_noise"):
        notes.append(f"rendering_kwargs.density_noise {live.real('density_noise')} is not applied here")
    return {
        "conditioning": "zero" if live.flag("c_gen_conditioning_zero", False) else "camera",
        "conditioning_scale": live.real("c_scale", 0.0),  # the published default of a missing key
        "decoder_lr_multiplier": live.real("decoder_lr_mul", 1.0),
        "box_warp": live.real("box_warp"),
        "near": near,
        "far": far,
        "samples_coarse": live.integer("depth_resolution", least=2, most=4096),
        "samples_fine": live.integer("depth_resolution_importance", 0, most=4096),
        "white_back": live.flag("white_back", False),
        "disparity": live.flag("disparity_space_sampling", False),
    }


def _regulariser(live: Given) -> list[str]:
    """What there is to say of the density regularisation that the file names; recipes choose their own."""
    name = live.get("reg_type")
    if name is None:
        return []
    if name in EMPTY_REGULARISERS:
        return [f"rendering_kwargs.reg_type is {name!r}, for which the published code computes nothing: this model was trained without"]
    known = REGULARISERS.get(name) if isinstance(name, str) else None
    return [f"rendering_kwargs.reg_type {name!r} is {known or 'not known'} here; training does not take it over"]


def _superresolution(given: Given, live: Given, average: Record, shapes: Shapes, where: str) -> dict[str, Any]:
    module = average.get("_modules", {}).get("superresolution")
    if not isinstance(module, Record):
        raise CheckpointError(f"{where}: G_ema has no super-resolution module; the published generator always has one")
    stated = live.word("superresolution_module", module.class_name).rpartition(".")[2]
    if stated != module.class_name:
        raise CheckpointError(f"{where}: contradicts itself: rendering_kwargs name {stated}, the network is a {module.class_name}")
    name = module.class_name.removeprefix("SuperresolutionHybrid").lower()
    layout = layout_of(name)
    first, second = (shape_of(shapes, f"superresolution.block{i}.conv1.weight", 4, where)[0] for i in (0, 1))
    side = shape_of(shapes, "superresolution.block0.conv1.noise_const", 2, where)[0] // (2 if layout.first_up else 1)
    return {
        "superresolution": name,
        "superresolution_input": None if side == layout.input_size else side,
        "superresolution_channels": None if (first, second) == layout.channels else (first, second),
        "superresolution_noise": live.word("superresolution_noise_mode", "none", allowed=("none", "random", "const")),
        "superresolution_clamp": 256.0 if given.integer("sr_num_fp16_res", 0, most=64) else None,
        "superresolution_antialias": live.flag("sr_antialias", True),
        # Where the module keeps the size it has written into the raw image, and the discriminator was trained on that.
        "raw_image": "rendered" if layout.first_up else "as_published",
    }


def _critic(given: Given, critic: Record, shapes: Shapes, where: str) -> dict[str, Any]:
    kinds = {"DualDiscriminator": "dual", "SingleDiscriminator": "single"}
    if critic.class_name not in kinds:
        raise CheckpointError(f"{where}: D is a {critic.class_name[:60]}; {' and '.join(kinds)} are read")
    mapping = given.section("mapping_kwargs").integer("num_layers", 8, most=64)
    clamp = given.get("conv_clamp")
    return {
        "discriminator": kinds[critic.class_name],
        "discriminator_channel_base": given.integer("channel_base", 32768, least=1, most=1 << 24),
        "discriminator_channel_max": given.integer("channel_max", 512, least=1),
        "discriminator_mapping_layers": agreed("the number of layers of D's mapping", mapping, layers_of(shapes, "mapping."), where),
        "discriminator_group": given.section("epilogue_kwargs").integer("mbstd_group_size", 4, least=1),
        "discriminator_clamp": None if clamp is None else given.real("conv_clamp"),
    }


def _plane_axes(average: Record, where: str, notes: list[str]) -> str:
    """Name the rule by the stored 3x3 matrices: a point times the inverse matrix, first two numbers, are columns and rows."""
    renderer = average.get("_modules", {}).get("renderer")
    stored = renderer.get("plane_axes") if isinstance(renderer, Record) else None
    if stored is None:
        notes.append("the file holds no plane_axes; the published ones are assumed")
        return "official"
    if not isinstance(stored, StoredTensor) or stored.shape != (3, 3, 3):
        raise CheckpointError(f"{where}: renderer.plane_axes is not a tensor of shape [3, 3, 3]")
    matrices = stored.array().astype(np.float64)
    for name, pairs in AXES.items():
        # The matrices are permutations: their inverse is the transpose, and its columns pick axes.
        wanted = np.stack([np.eye(3)[[*pair, 3 - sum(pair)]] for pair in pairs])
        if np.array_equal(matrices, wanted):
            return name
    known = "; ".join(f"{name}: {' '.join('XYZ'[a] + 'XYZ'[b] for a, b in pairs)}" for name, pairs in AXES.items())
    raise CheckpointError(f"{where}: renderer.plane_axes is none of the known ones ({known}); got {matrices.round(3).tolist()}")


def _training_set(value: Any, where: str) -> dict[str, Any]:
    found = plain(value, f"{where}: training_set_kwargs")
    if not isinstance(found, dict):
        return {}
    # A path says something about the machine of those who trained it; its last part is the data set's name.
    return {k: PurePath(v).name if k == "path" and isinstance(v, str) else v for k, v in found.items()}
