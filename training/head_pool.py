"""Pools of rendered heads with their truth, on which segmenters and estimators are trained and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.classes import CLASS_NAMES, MIRROR_PAIRS
from ..core.errors import DataError
from ..data.dataset import Dataset
from ..data.heads import CHUNK, HeadsFiles, HeadsPlan, plan_camera, plan_heads
from ..data.truth import ImageTruth
from ..rendering.standardising import standardised
from ..shapes.head_render import render_heads

# What the chunks of a training pool look like in turn: mostly what the recipes train on, the rest everything else.
LOOKS = (("plain", False), ("plain", False), ("gradient", True), ("plain", False), ("textured", True))
MOVED_SHARE = 0.4  # share of training images with another zoom and another middle
ZOOM, SHIFT = (0.85, 1.6), 0.06  # range of the zoom; the largest shift of the middle in image widths
_VIEW = 2  # second word of the zooms' seeds, apart from the heads' and the cameras'


@dataclass(frozen=True)
class HeadPool:
    """N images with truth.

    ``rgb`` [N,3,R,R] uint8; ``labels`` [N,R,R] uint8 (core.classes); ``depth`` [N,1,R,R] float16, standardised over the
    foreground (0 elsewhere); ``normals`` [N,3,R,R] float16 in the camera's frame (0 elsewhere).
    """

    rgb: Tensor
    labels: Tensor
    depth: Tensor
    normals: Tensor

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, index: Tensor | slice) -> HeadPool:
        return HeadPool(self.rgb[index], self.labels[index], self.depth[index], self.normals[index])

    def image(self) -> Tensor:
        """The images in [-1,1], float32."""
        return self.rgb.float() / 127.5 - 1.0


def _pool(rgb: Tensor, labels: Tensor, depth: Tensor, normals: Tensor, camera: Camera) -> HeadPool:
    foreground = torch.isfinite(depth)
    local = torch.einsum("bij,bihw->bjhw", camera.cam2world[:, :3, :3], normals)
    return HeadPool(rgb, labels.to(torch.uint8), standardised(depth, foreground).half(), torch.where(foreground, local, 0.0).half())


def _joined(parts: list[HeadPool]) -> HeadPool:
    return HeadPool(*(torch.cat([getattr(part, key) for part in parts]) for key in ("rgb", "labels", "depth", "normals")))


def moved(camera: Camera, plan: HeadsPlan, images: range) -> Camera:
    """Cameras of which a share has another focal length and middle, each a function of the seed and its number."""
    intrinsics = camera.intrinsics.clone()
    for row, image in enumerate(images):
        rng = np.random.default_rng([plan.seed, image, _VIEW])
        draw, zoom, shift = rng.random(), rng.uniform(*ZOOM), rng.uniform(-SHIFT, SHIFT, 2)
        if draw < MOVED_SHARE:
            intrinsics[row, :2, :2] *= zoom
            intrinsics[row, :2, 2] += torch.from_numpy(shift).float()
    return Camera(camera.cam2world, intrinsics)


def render_pool(images: int, resolution: int, seed: int, *, progress: Callable[[int, int], None] | None = None) -> HeadPool:
    """Render a training pool: ``images`` images, two per head, in the looks and views that a segmenter should know."""
    parts = []
    for start in range(0, images, CHUNK):
        span = range(start, min(start + CHUNK, images))
        background, accessories = LOOKS[start // CHUNK % len(LOOKS)]
        plan = HeadsPlan(images, resolution, seed, background, accessories, held_out=0)
        parts.append(_rendered(plan, span, moved(plan_camera(plan, span), plan, span)))
        if progress is not None:
            progress(span.stop, images)
    return _joined(parts)


def render_held_out(heads: int, resolution: int, seed: int, *, background: str = "plain", accessories: bool = False) -> HeadPool:
    """Render held-out heads, two images each, as a data set of this seed holds them; no training pool shows them."""
    plan = HeadsPlan(1, resolution, seed, background, accessories, held_out=heads)
    starts = range(1, plan.total, CHUNK)
    spans = [range(start, min(start + CHUNK, plan.total)) for start in starts]
    return _joined([_rendered(plan, span, plan_camera(plan, span)) for span in spans])


def read_pool(path: str, split: str) -> HeadPool:
    """Read one split, ``train`` or ``held_out``, of a heads data set ``OUT.zip`` with its truth beside it."""
    files = HeadsFiles.of(path)
    images, truth = Dataset(files.images if split == "train" else files.held_out), ImageTruth(files.truth)
    unknown = [name for name in images.names if name not in truth.records]
    if unknown:
        raise DataError(f"{files.truth}: knows nothing of {unknown[0]!r} of {images.path}")
    parts = []
    for start in range(0, len(images), CHUNK):
        names = images.names[start : start + CHUNK]
        rgb = torch.stack([images.image(start + i) for i in range(len(names))])
        true = truth[names]
        parts.append(_pool(rgb, true.labels, true.depth, true.normals, true.camera))
    return _joined(parts)


def _rendered(plan: HeadsPlan, span: range, camera: Camera) -> HeadPool:
    made = render_heads(plan_heads(plan, span), camera, plan.resolution, plan.background, plan.supersample)
    rgb = (made.rgb * 255 + 0.5).to(torch.uint8)
    return _pool(rgb, made.labels, made.depth, made.normals, camera)


def mirrored(pool: HeadPool) -> HeadPool:
    """Mirror images and truth: left and right classes swap, the normals' x changes sign.

    >>> rgb, depth = torch.zeros(1, 3, 1, 2), torch.zeros(1, 1, 1, 2)
    >>> pool = HeadPool(rgb, torch.tensor([[[4, 0]]]), depth, torch.ones(1, 3, 1, 2))
    >>> mirrored(pool).labels.tolist(), mirrored(pool).normals[0, :, 0, 0].tolist()
    ([[[0, 5]]], [-1.0, 1.0, 1.0])
    """
    swap = torch.arange(len(CLASS_NAMES), device=pool.labels.device)
    for left, right in MIRROR_PAIRS:
        swap[left], swap[right] = right, left
    sign = torch.tensor([-1.0, 1.0, 1.0]).to(pool.normals).view(1, 3, 1, 1)
    return HeadPool(
        pool.rgb.flip(-1),
        swap.to(pool.labels.dtype)[pool.labels.long()].flip(-1),
        pool.depth.flip(-1),
        pool.normals.flip(-1) * sign,
    )
