"""Adaptive augmentation of what the discriminator sees (ADA: Karras et al. 2020, Training GANs with Limited Data)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.streams import Stream
from .augment_colours import draw_colours, recoloured
from .augment_geometry import draw_geometry
from .augment_resampling import blit, resampled

if TYPE_CHECKING:
    from ..core.recipe.schema import Augmentation


def augmented_images(images: Tensor, probability: float, stream: Stream) -> Tensor:
    """Augment square images [B,3n,S,S], nominal [-1,1]; every transform acts on a sample with ``probability``.

    All channels of a sample take the same geometric transform and each triple the same colour transform. Samples on which nothing
    acts stay as they are, bit for bit; those that are only flipped, turned by quarters or moved by whole pixels are moved exactly.
    Twice differentiable with respect to the images. ``stream`` draws per sample, always the same number.

    >>> from priorzoo.core.streams import fixed_streams
    >>> images = torch.rand(2, 3, 8, 8)
    >>> torch.equal(augmented_images(images, 0.0, fixed_streams(0, 2)("augmentation")), images)
    True
    """
    geometry = draw_geometry(stream, probability, images.shape[-1], images.dtype)
    colours = draw_colours(stream, probability, images.dtype)

    def blitted(part: Tensor, chosen: Tensor) -> Tensor:
        drawn = zip(geometry.flip[chosen].tolist(), geometry.turns[chosen].tolist(), geometry.shift[chosen].tolist(), strict=True)
        return torch.stack([blit(image, f, t, (s[0], s[1])) for image, (f, t, s) in zip(part, drawn, strict=True)])

    images = _where(geometry.blitted & ~geometry.moved, images, blitted)
    images = _where(geometry.moved, images, lambda part, chosen: resampled(part, geometry.inverse()[chosen]))
    return _where(colours.moved, images, lambda part, chosen: recoloured(part, colours.matrix[chosen]))


def _where(mask: Tensor, images: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Change the images where ``mask`` [B] holds; the others are handed through."""
    chosen = mask.nonzero()[:, 0]
    if len(chosen) == 0:
        return images
    return images.index_copy(0, chosen, change(images.index_select(0, chosen), chosen))


def augmented_views(seen: Mapping[str, Tensor], probability: float, stream: Stream) -> dict[str, Tensor]:
    """Augment all that the discriminator sees of a sample as one: ``image`` [B,3,S,S] and others, such as ``image_raw`` [B,3,s,s].

    As EG3D does: the others are brought to the image's size, stacked with it as further channels, and brought back afterwards (bilinear,
    antialiased), also where nothing acts. Computed in float32, or float64 where the images are.
    """
    size = seen["image"].shape[-1]
    names = ["image", *(name for name in seen if name != "image")]
    with torch.autocast(seen["image"].device.type, enabled=False):
        parts = [_resized(seen[name] if seen[name].element_size() >= 4 else seen[name].float(), size) for name in names]
        stacked = augmented_images(torch.cat(parts, dim=1), probability, stream)
        back = zip(names, torch.split(stacked, [p.shape[1] for p in parts], dim=1), strict=True)
        return {name: _resized(image, seen[name].shape[-1]) for name, image in back}


def _resized(image: Tensor, size: int) -> Tensor:
    if image.shape[-1] == size:
        return image
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)


class AdaptiveAugmentation:
    """Augmentation whose probability follows how sure the discriminator is of real images (ADA, section 3, and EG3D's training).

    Every ``interval`` steps p <- max(0, p + sign(mean sign D(real) - target) batch interval / images), the mean over all real images
    since the last change. Without ``adaptive`` p stays what the recipe says. p has no upper bound; beyond 1 it acts as 1.
    """

    def __init__(self, spec: Augmentation, batch: int) -> None:
        self.spec, self.batch = spec, batch
        self.probability = spec.probability
        self._sum, self._count = 0.0, 0.0
        self._pending: list[Tensor] = []

    def __call__(self, seen: Mapping[str, Tensor], stream: Stream) -> dict[str, Tensor]:
        """Augment what the discriminator sees with the present probability."""
        return augmented_views(seen, self.probability, stream)

    def observe(self, signs: Tensor) -> None:
        """Take note of sign D(real) [b] of a micro-batch."""
        if self.spec.adaptive:
            self._pending.append(signs.detach())

    def after_step(self, step: int, fabric: Any) -> None:
        """Sum what was observed over all processes; change the probability where ``step``, the steps done, is due."""
        if not self.spec.adaptive:
            return
        signs = torch.cat(self._pending) if self._pending else torch.zeros(0)
        seen = torch.stack([signs.sum(), signs.new_tensor(float(len(signs)))]).to(fabric.device)
        self._pending = []
        if fabric.world_size > 1:
            seen = fabric.all_reduce(seen, reduce_op="sum")
        self._sum, self._count = self._sum + float(seen[0]), self._count + float(seen[1])
        if step % self.spec.interval == 0 and self._count:
            self._adjust(self._sum / self._count)
            self._sum, self._count = 0.0, 0.0

    def _adjust(self, mean: float) -> None:
        sign = (mean > self.spec.target) - (mean < self.spec.target)
        self.probability = max(0.0, self.probability + sign * self.batch * self.spec.interval / self.spec.images)

    def state(self) -> dict[str, float]:
        """Return the probability and the sums since its last change."""
        return {"probability": self.probability, "signs": self._sum, "count": self._count}

    def restore(self, state: Mapping[str, float]) -> None:
        """Put ``state`` back; where the probability is not adaptive, the recipe's stays."""
        if self.spec.adaptive:
            self.probability, self._sum, self._count = (float(state[k]) for k in ("probability", "signs", "count"))
