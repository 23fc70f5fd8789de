"""The published code's own checkpoint of the small reference model, put together from what is stored of it.

`golden/official_pickle` has every byte but most numbers, `golden/eg3d/weights.npz` the numbers.
"""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import numpy as np
from priorzoo.backbones.eg3d.importing import read_official

GOLDEN = Path(__file__).parent / "golden"
SHA256 = "43db355ff6e3195a03c4354d183b82fafe8e34435dff84fedafd0d238ebfe850"
"""Of the file as the published code wrote it."""
SHRUNK = np.float32(0.9)
"""G holds the parameters of G_ema times this, rounded to float16: who takes one for the other is found out."""
BUFFERS = ("noise_const", "w_avg", "dataset_label_std")
PARTS = (("generator", "G."), ("discriminator", "D."), ("average", "G."))  # the file's order


def write_hollow_pickle(path: Path) -> Path:
    """Write the file with nearly every tensor filled with a number of its own."""
    path.write_bytes(lzma.decompress((GOLDEN / "official_pickle" / "official.pkl.xz").read_bytes()))
    return path


def reference_weights() -> dict[str, np.ndarray]:
    """The reference model's tensors: ``G.*`` and ``D.*`` without the FIR filters."""
    with np.load(GOLDEN / "eg3d" / "weights.npz") as stored:
        return {key: stored[key].astype("<f4") for key in stored}


def write_published_pickle(path: Path) -> Path:
    """Write the file as it was, byte for byte (`SHA256`)."""
    found = read_official(write_hollow_pickle(path)).tensors
    hollow, weights, place = path.read_bytes(), reference_weights(), 0
    filled = bytearray(hollow)
    for part, prefix in PARTS:
        for name, tensor in found[part].items():
            if prefix + name not in weights:
                continue  # FIR filters are in the file as they were
            values = weights[prefix + name]
            if part == "generator" and not name.endswith(BUFFERS):
                values = (values * SHRUNK).astype(np.float16).astype("<f4")
            old = tensor.array().tobytes()
            place = hollow.index(struct.pack("<q", tensor.count) + old, place) + 8
            filled[place : place + len(old)] = values.tobytes()
    path.write_bytes(filled)
    return path
