"""The synthesis networks under ``torch.compile``.

Random numbers are drawn before: a compiled graph cannot ask a stream. Only what is differentiated once may run here, which the
generator's networks are; R1 differentiates the discriminator twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import PriorzooError
from ..stylegan2.layers import Noise, SynthesisLayer


def run_compiled(network: nn.Module, *tensors: Tensor, noise: Noise) -> Any:
    """Return ``network(*tensors, noise)`` computed by a compiled graph; noise is drawn in the order in which the layers stand."""
    maps: tuple[Tensor, ...] = ()
    if callable(noise):
        maps = tuple(noise(layer.resolution) for layer in network.modules() if isinstance(layer, SynthesisLayer))
        noise = "drawn"
    return _compiled()(network, tensors, noise, maps)


def check_compiler(device: torch.device) -> None:
    """Compile one tiny function; raises PriorzooError where this installation cannot compile for the device."""
    try:
        torch.compile(_probe)(torch.ones(4, device=device))
    except Exception as error:  # dynamo, inductor, triton and the C++ compiler each have errors of their own
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PriorzooError(
            f"training.compile: torch.compile does not work here on {device.type} (torch {torch.__version__}): {line}; set compile: false"
        ) from error


def _probe(x: Tensor) -> Tensor:
    return x.sin() * 2.0


def _call(network: nn.Module, tensors: tuple[Tensor, ...], noise: str | None, maps: tuple[Tensor, ...]) -> Any:
    if noise != "drawn":
        return network(*tensors, noise)
    waiting = iter(maps)
    return network(*tensors, lambda _: next(waiting))


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    return torch.compile(_call, dynamic=False)
