"""The numbers that a run computes in.

``32-true``: float32 throughout. ``bf16-mixed``, ``16-mixed``: the networks under autocast; volume rendering, depth and priors switch it
off for themselves. ``64-true``: float64 throughout, for comparisons. Lightning Fabric would run 16-mixed in bfloat16 on a processor and
scales gradients inside its own optimiser wrappers, which know nothing of phases or of our reduction over processes; hence this file.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ..core.errors import PriorzooError
from ..core.precision import AUTOCAST, tf32

M = TypeVar("M", bound=nn.Module)


class Precision:
    """How a run computes on one device: ``dtype`` of parameters, images and buffers, and ``autocast`` of the networks.

    ``name`` is the recipe's ``training.precision``; ``tf32`` lets CUDA round the factors of float32 products to 10 bits. Raises
    PriorzooError where this installation of torch cannot compute so on the device.

    >>> Precision("64-true", torch.device("cpu")).dtype
    torch.float64
    """

    def __init__(self, name: str, device: torch.device, *, tf32: bool = False) -> None:
        self.name, self.device, self.tf32 = name, device, tf32
        self.dtype = torch.float64 if name == "64-true" else torch.float32
        self.scales = name == "16-mixed"
        if name in AUTOCAST:
            self._check()

    def autocast(self, *, twice: bool = False) -> Any:
        """Return the context that the networks run in; where their gradients are differentiated once more (``twice``) it is float32.

        R1's inner gradients are too small for float16, and in bfloat16 the gradient of its penalty is little more than rounding.
        """
        return torch.autocast(self.device.type, AUTOCAST[self.name]) if self.name in AUTOCAST and not twice else nullcontext()

    def place(self, module: M) -> M:
        """Move a module to the device, its floating-point numbers to ``dtype``."""
        return module.to(device=self.device, dtype=self.dtype)

    def products(self) -> AbstractContextManager[None]:
        """Return the context inside of which CUDA rounds the factors of products as ``tf32`` says."""
        return tf32(self.tf32) if self.device.type == "cuda" else nullcontext()

    def _check(self) -> None:
        """Run one small convolution forward and backward; whatever torch lacks shows here and not after an hour."""
        kind = self.device.type
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # some versions warn, and compute in float32
                with self.autocast():
                    x = torch.ones(1, 1, 4, 4, device=self.device, requires_grad=True)
                    y = nn.functional.conv2d(x, torch.ones(1, 1, 3, 3, device=self.device))
                    made = y.dtype
                    y.float().sum().backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, Warning) as error:
            raise PriorzooError(
                f"training.precision: {self.name} does not work on {kind} with torch {torch.__version__}: {error}; use 32-true"
            ) from error
        if made != AUTOCAST[self.name]:
            raise PriorzooError(f"training.precision: {self.name}: torch {torch.__version__} computes in {made} on {kind}; use 32-true")


@dataclass
class LossScale:
    """The factor on a phase's loss that keeps small float16 gradients from vanishing (Micikevicius et al. 2018, section 3.2).

    After an overflow the step is left out and the factor halved; after ``patience`` steps without one it is doubled. At 1 an overflow is
    no longer the factor's doing. Each phase has one of its own: a lazy phase's loss is of another size.

    >>> scale = LossScale(factor=4.0, patience=2)
    >>> scale.overflowed(); scale.factor
    2.0
    >>> scale.passed(); scale.passed(); scale.factor
    4.0
    """

    factor: float = 2.0**16
    passes: int = 0
    patience: int = 2000
    largest: float = 2.0**24

    def overflowed(self) -> None:
        """Halve the factor, down to 1."""
        self.factor, self.passes = max(self.factor / 2, 1.0), 0

    def passed(self) -> None:
        """Count a step without overflow."""
        self.passes += 1
        if self.passes >= self.patience:
            self.factor, self.passes = min(self.factor * 2, self.largest), 0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"factor": self.factor, "passes": self.passes}

    def restore(self, state: dict[str, float]) -> None:
        """Put ``state`` back."""
        self.factor, self.passes = float(state["factor"]), int(state["passes"])
