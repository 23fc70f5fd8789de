"""A checkpoint as the published code writes it, and one at full size."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from official_pickles import official
from pickle_writer import Writer
from priorzoo.backbones.eg3d import EG3D
from priorzoo.training.foreign import read_foreign

GOLDEN = Path(__file__).parent / "golden" / "official_pickle" / "official.pkl.xz"


def test_a_published_file_is_read_name_by_name(tmp_path: Path):
    path = tmp_path / "official.pkl"
    path.write_bytes(lzma.decompress(GOLDEN.read_bytes()))
    foreign = read_foreign(path)
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
