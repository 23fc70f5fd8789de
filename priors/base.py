"""Prior: a named loss on a Scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.scene import Scene
from ..core.streams import Stream


@dataclass
class PriorResult:
    """What a prior returns for a batch of B samples.

    ``value`` [B]: the loss of each sample. ``count`` [B]: how many elements stand behind each value (default 1); the trainer reduces
    sum(count * value) / sum(count) over the global batch, so pooled means come out right. ``pixels`` [B]: how many pixels or points
    the value looked at, logged, and 0 where it looked at nothing. ``heatmap`` [B,1,h,w]: where the loss is, for pictures.
    """

    value: Tensor
    count: Tensor | None = None
    pixels: Tensor | None = None
    heatmap: Tensor | None = None

    def counts(self) -> Tensor:
        """``count``, or ones."""
        return torch.ones_like(self.value) if self.count is None else self.count.to(self.value)


class Prior(nn.Module):
    """Base of every prior: options are annotated keyword arguments of ``__init__``; weight, interval and phase are the recipe entry's.

    A subclass declares what it reads by ``needs`` (callable without building anything) and computes by ``forward``.
    """

    registry_name: ClassVar[str] = ""

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Return the Scene buffers that the prior reads with these options."""
        raise NotImplementedError(f"{cls.__name__} must say what it needs")

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise PriorzooError, naming the option, for values that cannot work; recipes ask before anything is built."""

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample of the scene; ``stream`` is this entry's own randomness."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")


class FixedPrior(Prior):
    """A prior without parameters or buffers: building one is how its options are checked."""

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise PriorzooError, naming the option, for values that cannot work."""
        cls(**options)
