"""Inversion: the latent whose image looks like a given one, found by a seeded optimisation on the image alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..backbones.base import Backbone, Latents, Sampling
from ..core.camera import Camera
from ..core.streams import Streams, fixed_streams

SCALES = (1, 2, 4)  # the image is compared at its own size and at these reductions
DRAWS = 512  # latents that tell how the mapped latents spread
PENALTY = 1e-3  # of the squared coordinates of a latent, against the colour difference
BETAS = (0.9, 0.99)  # of Adam
LAST_RATE = 0.05  # share of the learning rate that is left at the end
JITTER = "random"  # how rays are sampled while a latent is sought


def inversion_rules() -> dict[str, object]:
    """Return what decides an inversion beside the recipe's section; it stands in the protocol of every result.

    >>> inversion_rules()["scales"]
    [1, 2, 4]
    """
    return {
        "optimiser": "Adam", "betas": list(BETAS), "last_rate": LAST_RATE, "penalty": PENALTY, "scales": list(SCALES), "draws": DRAWS,
        "sampling": JITTER,
    }  # fmt: skip


@dataclass
class LatentLaw:
    """How one tensor of a backbone's prepared latents spreads: ``start`` [D], principal directions scaled to
    deviation 1 [K,D].

    ``shape`` is that of one sample; ``shared`` says that all its rows (StyleGAN's w per layer) are one and the same.
    """

    start: Tensor
    directions: Tensor
    shape: tuple[int, ...]
    shared: bool

    def latent(self, coordinates: Tensor) -> Tensor:
        """Latents [B,*shape] at coordinates [B,K]; 0 is the start, drawn latents have coordinates of deviation 1."""
        flat = self.start + coordinates @ self.directions
        if self.shared:
            return flat[:, None].expand(len(flat), *self.shape)
        return flat.reshape(len(flat), *self.shape)


def latent_laws(backbone: Backbone, seed: int) -> dict[str, LatentLaw]:
    """Measure how prepared latents spread about their average (truncation 0), from ``DRAWS`` seeded draws."""
    device = next(backbone.parameters()).device
    with torch.no_grad():
        drawn = backbone.draw(DRAWS, fixed_streams(seed, DRAWS).within("inversion")).to(device)
        mapped = backbone.prepare(drawn, None)
        average = backbone.prepare(drawn[:1], None, truncation=0.0)
    laws = {}
    for name, values in mapped.tensors.items():
        shared = values.ndim == 3 and bool((values == values[:, :1]).all())
        rows = (values[:, 0] if shared else values.flatten(1)).float()
        start = (average[name][0, 0] if shared else average[name][0].flatten()).float()
        # Drawn latents are whitened about their own mean; the average may have been tracked long ago.
        _, deviations, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        scaled = directions * (deviations / (len(rows) - 1) ** 0.5)[:, None]
        laws[name] = LatentLaw(start, scaled, tuple(values.shape[1:]), shared)
    return laws


def pyramid_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean over ``SCALES`` of the mean squared colour difference of images [B,3,h,w], [B]."""
    total = torch.zeros(len(image), dtype=image.dtype, device=image.device)
    difference = image - target
    for scale in SCALES:
        total = total + functional.avg_pool2d(difference, scale).square().flatten(1).mean(1)
    return total / len(SCALES)


def invert(
    backbone: Backbone,
    image: Tensor,
    camera: Camera,
    *,
    steps: int = 100,
    learning_rate: float = 0.3,
    resolution: int = 32,
    seed: int = 0,
    penalty: float | None = None,
    first: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Latents:
    """Find prepared latents whose image from ``camera`` is ``image``; reads images only, never shapes.

    Minimises pyramid_loss(render(w), image) + penalty * mean(x^2) by Adam from the average latent, x being w in
    principal directions of deviation 1 (so the penalty is that of the latents' own Gaussian); the learning rate falls
    along half a cosine. All images are one batch; each has its own loss, so none influences another. Jitter is drawn
    from the seed: same seed, same result.

    Args:
        image: [B,3,H,W] in [-1,1].
        camera: B cameras.
        steps: optimiser steps, at least 1. ``learning_rate`` in deviations.
        resolution: side in pixels at which images are compared; ``image`` is reduced to it by area.
        penalty: None takes ``PENALTY``.
        first: number of the first image among all that are inverted; image i has its own jitter, in whatever batch.

    Returns: prepared latents of the B images, detached.
    """
    laws = latent_laws(backbone, seed)
    coordinates = {
        name: torch.zeros(len(image), len(law.directions), device=image.device, requires_grad=True) for name, law in laws.items()
    }
    target = functional.interpolate(image, size=(resolution, resolution), mode="area")
    optimiser = torch.optim.Adam(list(coordinates.values()), lr=learning_rate, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=LAST_RATE * learning_rate)
    frozen = [p for p in backbone.parameters() if p.requires_grad]
    for parameter in frozen:  # gradients of the weights would cost time and be thrown away
        parameter.requires_grad_(False)
    try:
        for step in range(steps):
            latents = Latents({name: law.latent(coordinates[name]) for name, law in laws.items()})
            streams = Streams(seed, step, tuple(range(first, first + len(image))), "inversion/", image.device)
            scene = backbone.render(
                latents,
                camera,
                frozenset({"image_raw"}),
                streams=streams,
                resolution=resolution,
                sampling=Sampling(JITTER),
            )
            size = sum(x.square().mean(1) for x in coordinates.values())
            loss = pyramid_loss(scene.image_raw, target) + (PENALTY if penalty is None else penalty) * size
            optimiser.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if progress is not None:
                progress(step + 1)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return Latents({name: law.latent(coordinates[name].detach()) for name, law in laws.items()})
