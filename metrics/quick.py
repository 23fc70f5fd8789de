"""A glance at a model while it trains: cheap numbers that show a hollow face within minutes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..backbones.base import Backbone, Sampling
from ..core.camera import Camera
from ..core.streams import fixed_streams
from ..segmenters.base import Estimator, Segmenter
from .reference import frontal_labels
from .shapes import SURFACE, against_estimate, distribution


@torch.no_grad()
def quick_metrics(
    backbone: Backbone,
    labels: Tensor,
    *,
    segmenter: Segmenter,
    estimator: Estimator,
    samples: int = 16,
    seed: int = 0,
    coarse: int = 24,
    fine: int = 24,
    conditioned: bool = False,
) -> dict[str, float]:
    """A few numbers for the training log, from a few fixed latents seen from near-frontal cameras among ``labels``
    [N,25].

    ``estimated_normal_skin`` (degrees; a hollow face is far above a convex one), ``opacity`` (mean over the image),
    ``sr_skin`` and ``sr_skin_top`` (px^2). Numbers that found no pixel are left out. About a second on a laptop at 64
    pixels.
    """
    device, training = next(backbone.parameters()).device, backbone.training
    label = frontal_labels(labels, samples).to(device)
    camera = Camera.from_label(label)
    backbone.eval()
    try:
        drawn = backbone.draw(samples, fixed_streams(seed, samples).within("evaluation")).to(device)
        latents = backbone.prepare(drawn, label if conditioned else None)
        streams = fixed_streams(seed, samples, device=device).within("shapes")
        scene = backbone.render(latents, camera, SURFACE | {"image"}, streams=streams, sampling=Sampling("deterministic", coarse, fine))
    finally:
        backbone.train(training)
    scene.set_maker("segmentation", lambda s: segmenter.segment(s.image))
    measured = {**against_estimate(scene, estimator), **distribution(scene)}
    out = {key: float(measured[key].nanmean()) for key in ("estimated_normal_skin", "sr_skin", "sr_skin_top")}
    out["opacity"] = float(scene.opacity.mean())
    return {key: value for key, value in out.items() if math.isfinite(value)}
