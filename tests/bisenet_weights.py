"""A weight file for BiSeNet at full size: right names and shapes, values drawn from each tensor's name."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SHAPES = Path(__file__).parent / "golden" / "bisenet" / "shapes.json"


def drawn(name: str, shape: list[int]) -> Tensor:
    """The tensor of that name, as golden/bisenet/README.md says."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    random = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
    if name.endswith("running_var"):
        values = 0.5 + random.random_sample(shape)
    elif name.endswith((".running_mean", ".bias")):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:
        values = 0.75 + 0.5 * random.random_sample(shape)
    else:
        values = random.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def shapes() -> dict[str, list[int]]:
    """Names and shapes of the public file's 191 tensors."""
    return dict(json.loads(SHAPES.read_text(encoding="utf-8")))


def bisenet_state() -> dict[str, Tensor]:
    """All tensors of a weight file."""
    return {name: drawn(name, shape) for name, shape in shapes().items()}


def favoured(last: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """The weight of ``conv_out.conv_out`` with which these outputs (1 skin, 4 and 5 eyes, ...) win everywhere over all others.

    The last convolution has no bias; but what it reads is never negative, so that a lower weight lowers an output.
    """
    lower = torch.ones(len(last), 1, 1, 1)
    lower[list(outputs)] = 0.0
    return last - lower


def write_bisenet(path: Path, outputs: tuple[int, ...] = ()) -> Path:
    """Write a weight file (53 MB), in which only ``outputs`` occur where they are given."""
    state = bisenet_state()
    if outputs:
        state["conv_out.conv_out.weight"] = favoured(state["conv_out.conv_out.weight"], outputs)
    torch.save(state, path)
    return path
