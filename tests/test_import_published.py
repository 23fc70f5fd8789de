"""A checkpoint as the published code writes it, and one at full size."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from official_pickles import official
from pickle_writer import Writer
from priorzoo.backbones.eg3d import EG3D
from priorzoo.cli.main import main
from priorzoo.training.foreign import read_foreign
from priorzoo.training.run import load_run
from published_pickle import BUFFERS, PARTS, SHA256, SHRUNK, reference_weights, write_hollow_pickle


def test_the_file_is_the_published_one_byte_for_byte(published_pickle: Path):
    assert hashlib.sha256(published_pickle.read_bytes()).hexdigest() == SHA256


def test_every_tensor_comes_out_of_its_own_network(published_pickle: Path):
    """G, which is G_ema times 0.9 in this file, is not taken for it."""
    wanted, found = reference_weights(), read_foreign(published_pickle).tensors()
    compared = 0
    for part, prefix in PARTS:
        for name, values in ((k.removeprefix(f"{part}."), v) for k, v in found.items() if k.startswith(f"{part}.")):
            if prefix + name not in wanted:
                assert name.endswith("resample_filter")
                assert torch.equal(values * 64, torch.outer(line := torch.tensor([1.0, 3.0, 3.0, 1.0]), line))
                continue
            expected = torch.from_numpy(wanted[prefix + name])
            if part == "generator" and not name.endswith(BUFFERS):
                expected = (expected * SHRUNK.item()).half().float()
                assert not torch.equal(values, found[f"average.{name}"])
            assert torch.equal(values, expected), name
            compared += 1
    assert compared == len(found) - 2 - sum(name.endswith("resample_filter") for name in found) > 250


def test_the_import_verb_writes_what_the_file_renders(published_pickle: Path, tmp_path: Path):
    assert main(["import", str(published_pickle), str(tmp_path / "out")]) == 0
    direct, written = load_run(published_pickle).backbone(), load_run(tmp_path / "out").backbone()
    assert direct.options == written.options
    assert all(torch.equal(a, b) for a, b in zip(direct.state_dict().values(), written.state_dict().values(), strict=True))


def test_an_imported_model_has_the_published_rules(published_pickle: Path):
    """All but the depth of empty rays, whose published form has no gradient and depends on the batch; it is an option too."""
    options = load_run(published_pickle).backbone().options
    rules = {
        "plane_axes": "official",
        "importance": "official",
        "raw_image": "as_published",
        "noise": "random",
        "superresolution_noise": "none",
        "superresolution_clamp": 256.0,
        "superresolution_antialias": True,
        "conditioning": "camera",
        "conditioning_scale": 1.0,
        "density_gain": 1.0,
        "discriminator_group": 4,
        "discriminator_clamp": 256.0,
        "neural_resolution": 16,
        "depth": "expected",
    }
    assert {name: getattr(options, name) for name in rules} == rules


def test_a_published_file_is_read_name_by_name(tmp_path: Path):
    foreign = read_foreign(write_hollow_pickle(tmp_path / "official.pkl"))
    counts = {part: (len(n.matched), n.missing, n.unexpected) for part, n in foreign.names.items()}
    extra = ["dataset_label_std"]
    assert counts == {"generator": (177, [], extra), "average": (177, [], extra), "discriminator": (74, [], [])}
    options = foreign.recipe.backbone.options
    told = {k: options[k] for k in ("neural_resolution", "superresolution", "plane_axes", "samples_coarse", "channel_max", "z_dim")}
    assert told == {
        "neural_resolution": 16, "superresolution": "2x", "plane_axes": "official", "samples_coarse": 8, "channel_max": 16, "z_dim": 64,
    }  # fmt: skip
    # Every tensor holds its own number: none is taken for another, and they come in the file's order, G before D before G_ema.
    numbers = {}
    for name, tensor in foreign.tensors().items():
        if not name.endswith("resample_filter") and tensor.numel() != 16:
            assert bool((tensor == tensor.flatten()[0]).all())
            numbers[name] = tensor.flatten()[0].item() * 1024
    assert len(set(numbers.values())) == len(numbers) > 250
    ranges = {part: [n for k, n in numbers.items() if k.startswith(part + ".")] for part in ("generator", "discriminator", "average")}
    assert max(ranges["generator"]) < min(ranges["discriminator"])
    assert max(ranges["discriminator"]) < min(ranges["average"])


MEASURED = """
import json, resource, sys, time
from pathlib import Path
import torch
from priorzoo.training.foreign import import_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
import_checkpoint(sys.argv[1], Path(sys.argv[2]))
print(json.dumps({"seconds": time.process_time() - begin, "bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)}))
"""


@pytest.mark.slow
def test_a_full_size_file_takes_seconds_and_less_than_twice_its_size(tmp_path: Path):
    path = tmp_path / "full.pkl"
    backbone = EG3D()
    with open(path, "wb") as file:
        Writer(file).write(official(backbone))
    assert path.stat().st_size > 300e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "out")], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seconds"] < 20
    assert told["bytes"] < 2 * path.stat().st_size
    weight = "generator.superresolution.block0.conv0.weight"
    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as stored:
        assert torch.equal(stored.get_tensor(weight), backbone.state_dict()[weight])
