"""What stands between images and their logits: blur, augmentation, noise on the labels, then the discriminator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones.base import Backbone
from ..core.schedule import value_at
from ..core.streams import Stream
from .augment import AdaptiveAugmentation
from .terms import MicroBatch

if TYPE_CHECKING:
    from ..core.recipe.schema import Objective


def blur_taps(sigma: float) -> list[float]:
    """Return EG3D's blur: taps 2^(-(k/sigma)^2), k = -floor(3 sigma) .. floor(3 sigma), of sum 1; at distance sigma it has fallen to half.

    >>> [round(tap, 3) for tap in blur_taps(0.5)]
    [0.056, 0.889, 0.056]
    """
    reach = math.floor(3 * sigma)
    if reach < 1:
        return [1.0]
    taps = [2.0 ** -((k / sigma) ** 2) for k in range(-reach, reach + 1)]
    return [tap / sum(taps) for tap in taps]


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur images [B,C,H,W] along both axes by ``blur_taps(sigma)``, zeros outside; below 1/3 pixel nothing happens.

    >>> blurred(torch.ones(1, 1, 3, 3), 0.5)[0, 0, 1, 1].item() == 1.0
    True
    """
    taps = blur_taps(sigma)
    if len(taps) == 1:
        return image
    with torch.autocast(image.device.type, enabled=False):
        flat = image.flatten(0, 1)[:, None]
        kernel, reach = torch.tensor(taps, dtype=image.dtype, device=image.device), len(taps) // 2
        flat = F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, reach))
        flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(reach, 0))
        return flat.reshape(image.shape)


def noisy_labels(labels: Tensor, everyone: Tensor, strength: float, stream: Stream) -> Tensor:
    """Add N(0, (strength s_j)^2) to entry j of labels [b,25], with s_j the deviation (divisor N-1) of ``everyone``'s labels [N,25].

    The published code takes the deviation over the slice that one device computes at once; here it is the global batch's, so that the
    split into slices does not matter.
    """
    spread = everyone.std(dim=0) if len(everyone) > 1 else torch.zeros_like(everyone[0])
    return labels + stream.normal(labels.shape[1]).to(labels) * spread.to(labels) * strength


class Critic:
    """The discriminator as EG3D's training calls it, for generated and real images alike.

    Blur acts on ``image`` inside (gradients with respect to the inputs pass through it), on the raw version of real images when that is
    made, and on that of generated ones not at all: so does the released code.
    """

    def __init__(self, spec: Objective, backbone: Backbone, batch: int) -> None:
        self.spec, self.backbone = spec, backbone
        self.augmentation = None if spec.augmentation is None else AdaptiveAugmentation(spec.augmentation, batch)

    def real_input(self, micro: MicroBatch, resolution: int | None) -> dict[str, Tensor]:
        """Return what the discriminator is to see of the real images."""
        seen = self.backbone.critic_input(micro.real, resolution)
        sigma = self._blur(micro)
        return {name: image if name == "image" else blurred(image, sigma) for name, image in seen.items()}

    def logits(
        self, micro: MicroBatch, call: str, seen: dict[str, Tensor], labels: Tensor | None, everyone: Callable[[], Tensor]
    ) -> Tensor:
        """Return the logits [b] of what is seen; ``call`` names the place, whose draws are its own.

        ``everyone`` gives the labels [N,25] of the global batch, when they are asked for.
        """
        streams = micro.streams.within(call)
        seen = {**seen, "image": blurred(seen["image"], self._blur(micro))}
        if self.augmentation is not None:
            seen = self.augmentation(seen, streams("augmentation"))
        noise = value_at(self.spec.label_noise, images=micro.images_seen, steps=micro.step)
        if labels is not None and noise > 0.0:
            labels = noisy_labels(labels, everyone(), noise, streams("label_noise"))
        return self.backbone.criticise(seen, labels)

    def _blur(self, micro: MicroBatch) -> float:
        return value_at(self.spec.blur, images=micro.images_seen, steps=micro.step)
