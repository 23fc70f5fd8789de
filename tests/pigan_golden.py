"""The reference tensors of the published pi-GAN code, and the small model that they belong to."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden" / "pigan_gof"
SIZES = {"z_dim": 16, "hidden": 32}


@cache
def stored(name: str) -> dict[str, Tensor]:
    """All tensors of ``NAME.npz``."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def io(dtype: torch.dtype, of: str = "pigan") -> dict[str, Tensor]:
    """Inputs and outputs in a precision; the random draws, which only the float32 file holds, in the same. ``of``: pigan or gof."""
    if dtype == torch.float32:
        return stored(f"{of}_io")
    together = {**stored(f"{of}_io"), **stored(f"{of}_io_f64")}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in together.items()}


def weights(dtype: torch.dtype, of: str = "pigan") -> dict[str, Tensor]:
    """The generator's tensors under their published names."""
    return {k: v.to(dtype) for k, v in stored(f"{of}_weights").items()}
