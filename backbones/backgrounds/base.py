"""Background: what stands behind a backbone's foreground and shows where light passes through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from ...core.streams import Streams


class Background(nn.Module):
    """Base of every background: features of rays, for any backbone's number of channels.

    A subclass takes ``channels``, the backbone's feature count, and annotated keyword options. Its latents live among the backbone's,
    under names that end in ``_background``.
    """

    registry_name: ClassVar[str] = ""

    def draw(self, n: int, streams: Streams) -> dict[str, Tensor]:
        """Draw ``n`` latents of its own; none by default."""
        return {}

    def prepare(self, latents: Mapping[str, Tensor], *, truncation: float = 1.0, update_averages: bool = False) -> dict[str, Tensor]:
        """Map its latents, once per step; ``truncation`` psi in [0,1]."""
        return {}

    def forward(self, latents: Mapping[str, Tensor], origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features [B,C,R], the first three of them colours in [0,1], and distances [B,R] along the rays, or None without any.

        Args: prepared latents; origins and unit directions [B,R,3], world units.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")
