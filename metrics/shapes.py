"""The three families of shape measures, each on Scenes: against true buffers, against an estimator, and as a
distribution.

A data set's truth is a Scene too (``scene_of_truth``), so true heads pass through the same functions as generated
ones. Every function returns one number per sample, NaN where a region has no pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..core.camera import Camera
from ..core.classes import CLASS_IDS, CLASS_NAMES
from ..core.scene import Rays, Scene, Segmentation
from ..rendering.rays import rays_from_camera
from ..rendering.smoothness import smoothness_map
from ..segmenters.base import Estimator
from .geometry import (
    depth_error,
    eroded,
    intersection_over_union,
    masked_mean,
    normal_error,
    ray_deviation,
    reprojection_error,
    roughness,
    top_mean,
)

REGIONS: dict[str, tuple[str, ...]] = {"skin": ("skin",), "eyes": ("left_eye", "right_eye")}
FOREGROUND_OPACITY = 0.5  # what counts as foreground against the truth
SOLID_OPACITY = 0.8  # where a depth is trusted at all: below, it is an average over air
EROSION = 3  # smoothness and normals read 3 x 3 pixels: none of them may lie outside the region
HARDEST = 0.7
NEIGHBOUR_ANGLE = 0.15  # radians of yaw between the two views of the re-projection error

SURFACE = frozenset({"depth", "opacity", "rays"})
"""What a scene must have been rendered with to be measured here."""

Measures = dict[str, Tensor]


@dataclass
class Truth:
    """Images of heads and their true buffers.

    ``image`` [B,3,H,W] in [-1,1]; ``camera``; ``depth`` [B,1,h,w] along the unit ray, inf where nothing is hit;
    ``normals`` [B,3,h,w] world, unit; ``labels`` [B,h,w] int64 class ids. ``other`` is the same heads' truth from a
    neighbouring view, where it is known.
    """

    image: Tensor
    camera: Camera
    depth: Tensor
    normals: Tensor
    labels: Tensor
    other: Truth | None = None

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: slice) -> Truth:
        other = None if self.other is None else self.other[index]
        return Truth(self.image[index], self.camera[index], self.depth[index], self.normals[index], self.labels[index], other)

    def to(self, device: torch.device) -> Truth:
        """The same truth on another device."""
        other = None if self.other is None else self.other.to(device)
        return Truth(
            self.image.to(device),
            self.camera.to(device),
            self.depth.to(device),
            self.normals.to(device),
            self.labels.to(device),
            other,
        )

    @property
    def foreground(self) -> Tensor:
        """Pixels whose ray meets the head, [B,1,h,w]."""
        return torch.isfinite(self.depth)

    def mask(self, names: tuple[str, ...]) -> Tensor:
        """Pixels of the named classes, [B,1,h,w]."""
        ids = torch.tensor([CLASS_IDS[name] for name in names], device=self.labels.device)
        return torch.isin(self.labels, ids)[:, None]


def shape_rules() -> dict[str, object]:
    """Return what decides the shape measures beside the recipe's section; it stands in the protocol of every result.

    >>> shape_rules()["erosion"]
    3
    """
    return {
        "foreground_opacity": FOREGROUND_OPACITY, "erosion": EROSION, "hardest": HARDEST, "solid_opacity": SOLID_OPACITY,
        "neighbour_angle": NEIGHBOUR_ANGLE,
    }  # fmt: skip


def scene_of_truth(truth: Truth, *, far: float = 3.3) -> Scene:
    """The truth as if it had been rendered: hard opacity, depth ``far`` on empty rays, true labels as segmentation.

    A segmenter set on this scene replaces the true labels; ``normals`` are those of the depth map, as for generated
    scenes.
    """
    height, width = truth.depth.shape[2:]
    origins, directions = rays_from_camera(truth.camera, height, width)
    scene = Scene(
        truth.camera,
        image=truth.image,
        depth=truth.depth.clamp_max(far),
        opacity=truth.foreground.to(truth.depth),
        rays=Rays(origins, directions, height, width),
    )
    one_hot = functional.one_hot(truth.labels.long(), len(CLASS_NAMES)).permute(0, 3, 1, 2).float()
    scene.set_maker("segmentation", lambda _: Segmentation(one_hot, CLASS_NAMES))
    return scene


def against_truth(scene: Scene, truth: Truth) -> Measures:
    """Errors of a scene rendered from the truth's cameras: depth, normals on skin, eyes and foreground, foreground IoU.

    ``scene`` needs depth, opacity and rays at the truth's resolution. Normals are compared where both foregrounds
    hold the whole 3 x 3 window that a depth map's normal reads.
    """
    foreground = scene.opacity > FOREGROUND_OPACITY
    both = foreground & truth.foreground
    inner = eroded(both, EROSION)
    out = {"truth_depth": depth_error(scene.depth, truth.depth, both)}
    for region, names in REGIONS.items():
        out[f"truth_normal_{region}"] = normal_error(scene.normals, truth.normals, truth.mask(names) & inner)
    out["truth_normal_foreground"] = normal_error(scene.normals, truth.normals, inner)
    out["truth_iou"] = intersection_over_union(foreground, truth.foreground)
    return out


def against_estimate(scene: Scene, estimator: Estimator) -> Measures:
    """Errors of a scene against what an estimator reads from its own image: depth, normals on skin, eyes and
    foreground.

    ``scene`` needs image, depth, opacity, rays and a segmentation. An estimator can be fooled; this is an alarm and a
    check, not truth.
    """
    size = (scene.depth.shape[2], scene.depth.shape[3])
    with torch.no_grad():
        depth, normals = estimator.estimate(scene.image.clamp(-1, 1))
    depth = _resized(depth, size)
    normals = functional.normalize(_resized(normals, size), dim=1)
    own = camera_frame(scene.normals, _camera(scene))
    inner = eroded(_solid(scene) & ~scene.segmentation.mask("background", size), EROSION)
    out = {"estimated_depth": depth_error(scene.depth, depth, inner)}
    for region, names in REGIONS.items():
        out[f"estimated_normal_{region}"] = normal_error(own, normals, scene.segmentation.mask(names, size) & inner)
    out["estimated_normal_foreground"] = normal_error(own, normals, inner)
    return out


def against_segmentation(scene: Scene) -> Measures:
    """Overlap of a scene's opaque pixels with what its segmentation calls foreground.

    ``scene`` needs opacity and a segmentation. A wall of background, or a hole in the head, that the image does not show, lowers it.
    """
    background = scene.segmentation.mask("background", (scene.opacity.shape[2], scene.opacity.shape[3]))
    return {"segmented_iou": intersection_over_union(scene.opacity > FOREGROUND_OPACITY, ~background)}


def distribution(scene: Scene, other: Scene | None = None) -> Measures:
    """Statistics of a scene's shape: SR and roughness on skin and eyes, thickness along rays, disagreement with a
    second view.

    ``scene`` needs depth, opacity, rays and a segmentation; ``weights`` and ``distances`` where it has them (without,
    it is a true surface of thickness 0); ``other`` is the same shape from a neighbouring camera. Lengths are in
    pixels at the object.
    """
    height, width = scene.depth.shape[2:]
    pitch = _camera(scene).pixel_pitch(width).view(-1, 1, 1, 1)
    solid = _solid(scene)
    residual = smoothness_map(scene.depth) / pitch.square()
    out: Measures = {}
    for region, names in REGIONS.items():
        mask = eroded(scene.segmentation.mask(names, (height, width)) & solid, EROSION)
        out[f"sr_{region}"] = masked_mean(residual, mask)
        out[f"sr_{region}_top"] = top_mean(residual, mask, HARDEST)
        out[f"roughness_{region}"] = roughness(scene.normals, mask)
    inner = eroded(solid, EROSION)
    if "weights" in scene:
        out["ray_deviation"] = masked_mean(ray_deviation(scene.weights, scene.distances, height) / pitch, inner)
    else:
        out["ray_deviation"] = torch.where(inner.flatten(1).any(1), 0.0, math.nan).to(scene.depth)
    if other is not None:
        error = reprojection_error(scene.points, inner, _camera(other), other.depth, _solid(other))
        out["reprojection"] = error / pitch.flatten()
    return out


def camera_frame(normals: Tensor, camera: Camera) -> Tensor:
    """World normals [B,3,h,w] in their camera's axes (OpenCV: x right, y down, z into the image)."""
    return torch.einsum("bji,bjhw->bihw", camera.cam2world[:, :3, :3].to(normals), normals)


def _camera(scene: Scene) -> Camera:
    assert scene.camera is not None, "a scene that is measured was rendered from a camera"
    return scene.camera


def _solid(scene: Scene) -> Tensor:
    return torch.as_tensor(scene.opacity > SOLID_OPACITY)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(values.shape[2:]) == size:
        return values
    return functional.interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=True)
