"""Whether samples are faces at all: how often a segmenter finds every part of a face in frontal images of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backbones.base import Backbone, Sampling
from ..core.camera import Camera
from ..core.scene import Segmentation
from ..core.streams import fixed_streams
from ..segmenters.base import Segmenter

PARTS = ("skin", "left_eye", "right_eye", "nose", "hair")
MIN_SHARE = 0.002  # of the image; 9 pixels at 64 x 64, where an eye of a true head has some 50


def parts_found(segmentation: Segmentation) -> Tensor:
    """Which of PARTS cover at least MIN_SHARE of an image: bool [B,5].

    >>> names = ("skin", "left_eye", "right_eye", "nose", "hair")
    >>> everything = torch.eye(5)[:, :, None, None].expand(5, 5, 4, 4)  # image i is class i all over
    >>> parts_found(Segmentation(everything, names)).float().sum(1).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    shares = [segmentation.mask(name).float().flatten(1).mean(1) for name in PARTS]
    return torch.stack(shares, 1) >= MIN_SHARE


@torch.no_grad()
def frontal_parts(
    backbone: Backbone, segmenter: Segmenter, *, samples: int = 64, batch: int = 16, seed: int = 0, conditioned: bool = False
) -> dict[str, float]:
    """Share of frontal samples, in [0,1], in which the segmenter finds each part, and ``all``: every part at once.

    ``samples`` fixed latents, rendered from straight ahead by deterministic sampling; ``conditioned``: whether the model maps latents
    under their camera.
    """
    device, training = next(backbone.parameters()).device, backbone.training
    backbone.eval()
    found = []
    try:
        for first in range(0, samples, batch):
            count = min(batch, samples - first)
            camera = Camera.looking_at_origin(torch.zeros(count), torch.zeros(count)).to(device)
            streams = fixed_streams(seed, count, first=first, device=device)
            latents = backbone.draw(count, streams.within("frontal parts"))
            prepared = backbone.prepare(latents, camera.label() if conditioned else None)
            scene = backbone.render(prepared, camera, frozenset({"image"}), streams=streams, sampling=Sampling("deterministic"))
            found.append(parts_found(segmenter.segment(scene.image.float())))
    finally:
        backbone.train(training)
    seen = torch.cat(found).float()
    shares = {name: float(seen[:, index].mean()) for index, name in enumerate(PARTS)}
    return {**shares, "all": float(seen.min(1).values.mean())}
