"""Official files that are not what they say, or another network's, are refused by name: names, sizes, rules, classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_pickles import Change, small_pair, state_of, stored
from pickle_writer import Call, Made, Persistent, Stored
from priorzoo.backbones.eg3d import EG3D
from priorzoo.backbones.eg3d.importing import read_official
from priorzoo.core.errors import CheckpointError, PriorzooError
from priorzoo.training.foreign import read_foreign


@pytest.fixture(scope="module")
def pair() -> tuple[EG3D, EG3D]:
    return small_pair()


# ------------------------------------------------------------------------------------------------ names and sizes


def test_missing_and_unexpected_names_are_all_told(pair, tmp_path):
    def rename(checkpoint: dict[str, Any]) -> None:
        parameters = state_of(checkpoint, "G_ema", "backbone", "mapping", "fc1")["_parameters"]
        parameters["biass"] = parameters.pop("bias")

    with pytest.raises(CheckpointError) as refused:
        read_foreign(stored(tmp_path, pair, rename))
    assert "missing: backbone.mapping.fc1.bias, did you mean 'backbone.mapping.fc1.biass'?" in str(refused.value)
    assert "unexpected: backbone.mapping.fc1.biass" in str(refused.value)


def test_a_shape_against_the_attributes_shows_both(pair, tmp_path):
    def widen(checkpoint: dict[str, Any]) -> None:
        state_of(checkpoint, "D", "b4", "fc")["_parameters"]["bias"] = Stored(torch.zeros(9), True)

    with pytest.raises(CheckpointError, match=r"discriminator: the tensors .*\n  shape: b4.fc.bias: file \[9\], model \[8\]"):
        read_foreign(stored(tmp_path, pair, widen))


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("G_ema", {"mapping_kwargs": {"num_layers": 5}}, "the mapping's number of layers is 5 by its attributes and 2 by its tensors"),
        ("G_ema", {"w_dim": 7}, "w_dim is 7 by its attributes and 8 by its tensors"),
        ("G_ema", {"c_dim": 0}, "labels of 0 numbers and 3 colours; 25 and 3 are read"),
        ("G_ema", {"z_dim": 10**9}, "z_dim is 1000000000, an integer from 1 to 1048576 is expected"),
        ("G_ema", {"z_dim": "many"}, "z_dim is 'many', an integer is expected"),
        ("D", {"mapping_kwargs": []}, "D: mapping_kwargs is list, a dict is expected"),
    ],
)
def test_attributes_that_contradict_are_shown(part: str, change: dict[str, Any], reason: str, pair, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        read_foreign(stored(tmp_path, pair, lambda c: state_of(c, part)["_init_kwargs"].update(change)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clamp_mode": "relu"}, "clamp_mode is 'relu', 'softplus' is expected"),
        ({"box_warp": float("nan")}, "box_warp is nan, a finite number is expected"),
        ({"white_back": 1}, "white_back is 1, true or false is expected"),
        ({"superresolution_noise_mode": "loud"}, "superresolution_noise_mode is 'loud'"),
        ({"superresolution_module": "training.superresolution.SuperresolutionHybrid4X"}, "name SuperresolutionHybrid4X, the network is a"),
        ({"ray_start": 4.0}, "0 <= near < far; got 4.0 and 3.3"),
    ],
)
def test_rules_that_this_backbone_has_not_are_refused(change: dict[str, Any], reason: str, pair, tmp_path):
    with pytest.raises(PriorzooError, match=reason):
        read_foreign(stored(tmp_path, pair, lambda c: state_of(c, "G_ema")["rendering_kwargs"].update(change)))


# ------------------------------------------------------------------------------------------------ other networks


def rename_class(part: str, name: str, *path: str) -> Change:
    """Return a change that gives a persistent object another class name."""

    def change(checkpoint: dict[str, Any]) -> None:
        found = checkpoint[part]
        for step in path:
            found = found.arguments[0]["state"]["_modules"][step]
        found.arguments[0]["class_name"] = name

    return change


def deep_fp32(checkpoint: dict[str, Any]) -> None:
    rename_class("G_ema", "SuperresolutionHybridDeepfp32", "superresolution")(checkpoint)
    module = "training.superresolution.SuperresolutionHybridDeepfp32"
    state_of(checkpoint, "G_ema")["rendering_kwargs"]["superresolution_module"] = module


def tri_grids(checkpoint: dict[str, Any]) -> None:
    torgb = state_of(checkpoint, "G_ema", "backbone", "synthesis", "b16", "torgb")["_parameters"]
    torgb["weight"] = Stored(torch.zeros(36, 8, 1, 1), True)


def stylegan2(checkpoint: dict[str, Any]) -> None:
    for part in ("G", "G_ema"):
        checkpoint[part] = state_of(checkpoint, part)["_modules"]["backbone"]


def stylegan3(checkpoint: dict[str, Any]) -> None:
    stylegan2(checkpoint)
    empty = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    state_of(checkpoint, "G_ema", "synthesis")["_modules"]["input"] = Persistent("SynthesisInput", empty)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (deep_fp32, "legacy module DeepFp32 cannot be built"),
        (lambda c: state_of(c, "G_ema")["_init_kwargs"].update(triplane_depth=3), "this is a PanoHead checkpoint"),
        (tri_grids, "36 channels, the decoder reads 3 x 4; 3 planes along each axis are PanoHead's"),
        (rename_class("D", "MaskDualDiscriminatorV2"), "this is a PanoHead checkpoint"),
        (stylegan2, "this is a StyleGAN2 checkpoint"),
        (stylegan3, "this is a StyleGAN3 checkpoint"),
        (lambda c: c.update(G=Made("dnnlib.tflib.network", "Network", {})), "this is a TensorFlow StyleGAN checkpoint"),
        (rename_class("G_ema", "ConeGenerator"), "this is a checkpoint of a ConeGenerator, not an EG3D checkpoint"),
        (rename_class("D", "DummyDualDiscriminator"), "D is a DummyDualDiscriminator; DualDiscriminator and SingleDiscriminator are read"),
        (lambda c: c.update(augment_pipe=Call("os", "getcwd")), "names os.getcwd, which an EG3D checkpoint may not name"),
    ],
)
def test_other_networks_are_refused_by_name(change: Change, reason: str, pair, tmp_path):
    with pytest.raises(PriorzooError, match=reason):
        read_official(stored(tmp_path, pair, change))
