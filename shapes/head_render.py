"""Sphere tracing and shading of procedural heads: images and their exact depth, normals and labels.

One flat list of rays carries any mixture of heads: parameters are gathered per ray and finished rays are dropped, so a
batch costs what its live rays cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.camera import Camera
from .head_coordinates import MODEL_SCALE
from .head_model import BOUNDING_RADIUS, head_distance, head_labels
from .head_parameters import COLOURS, SCALARS, HeadParameters
from .head_shading import backdrop, shade

# Raised whenever the same options give other images or another truth, so that heads kept on disk are made anew.
RENDERER_VERSION = 1
BACKGROUNDS = ("plain", "gradient", "textured")
STEPS = 96
STEP_FACTOR = 0.85
TOLERANCE = 5e-4  # world units; landing on the root follows
NORMAL_STEP = 1.1e-3


@dataclass(frozen=True)
class HeadImages:
    """Images of heads with their truth.

    rgb [B, 3, H, W] in [0, 1]; depth [B, 1, H, W], world units along the unit ray, inf where nothing is hit;
    normals [B, 3, H, W], world frame, unit length, 0 where nothing is hit; labels [B, H, W] uint8 (core.classes);
    foreground [B, H, W] bool.
    """

    rgb: Tensor
    depth: Tensor
    normals: Tensor
    labels: Tensor

    @property
    def foreground(self) -> Tensor:
        """Pixels whose ray meets the head."""
        return torch.isfinite(self.depth[:, 0])


def pixel_rays(camera: Camera, resolution: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions [B, resolution^2, 3] of the rays through pixel centres, row by row."""
    at = (torch.arange(resolution, device=camera.cam2world.device, dtype=camera.cam2world.dtype) + 0.5) / resolution
    v, u = torch.meshgrid(at, at, indexing="ij")
    k = camera.intrinsics
    y = (v.flatten() - k[:, 1, 2, None]) / k[:, 1, 1, None]
    x = (u.flatten() - k[:, 0, 2, None] - k[:, 0, 1, None] * y) / k[:, 0, 0, None]
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = normalize(local @ camera.cam2world[:, :3, :3].transpose(1, 2), dim=-1)
    return camera.position[:, None].expand_as(directions), directions


def _gather(table: Tensor, names: tuple[str, ...], head: Tensor) -> dict[str, Tensor]:
    rows = table[head]
    return {name: rows[:, column].contiguous() for column, name in enumerate(names)}


def trace(origins: Tensor, directions: Tensor, head: Tensor, table: Tensor) -> Tensor:
    """Distance along each ray to the first surface, inf where there is none, by sphere tracing.

    Args:
        origins, directions: [M, 3], world units, unit directions.
        head: [M] index of the head that each ray sees.
        table: [B, len(SCALARS)] parameters.
    """
    middle = (origins * directions).sum(-1)
    discriminant = middle.square() - (origins.square().sum(-1) - (BOUNDING_RADIUS * MODEL_SCALE) ** 2)
    reach = discriminant.clamp_min(0).sqrt()
    result = torch.full_like(middle, float("inf"))
    ray = torch.nonzero(discriminant > 0).squeeze(1)
    o, d, t, stop = origins[ray], directions[ray], (-middle - reach)[ray].clamp_min(0), (-middle + reach)[ray]
    p = _gather(table, SCALARS, head[ray])
    for step in range(STEPS):
        distance = head_distance(o + d * t[:, None], p)
        # Rays that graze the surface converge slowly; near the end a looser tolerance lets them land.
        hit = distance < TOLERANCE * (1 if step < STEPS - 8 else 4)
        t = torch.where(hit, t, t + distance * STEP_FACTOR)
        live = ~hit & (t < stop)
        if step % 3 == 2 or step == STEPS - 1:
            result[ray[hit]] = t[hit]
            keep = torch.nonzero(live).squeeze(1)
            if len(keep) == 0:
                break
            ray, o, d, t, stop = ray[keep], o[keep], d[keep], t[keep], stop[keep]
            p = {name: value[keep] for name, value in p.items()}
    return result


def _land(origins: Tensor, directions: Tensor, t: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    """From within TOLERANCE of the surface to the root itself: secant steps along the ray, the best point is kept."""
    value = head_distance(origins + directions * t[:, None], p)
    best, best_value = t, value.abs()
    step = value
    for _ in range(4):
        t_next = t + step
        value_next = head_distance(origins + directions * t_next[:, None], p)
        better = value_next.abs() < best_value
        best, best_value = torch.where(better, t_next, best), torch.where(better, value_next.abs(), best_value)
        # The distance falls along the ray where it meets the surface; a flatter slope is a grazing ray.
        slope = ((value_next - value) / torch.where(step.abs() < 1e-9, 1e-9, step)).clamp(-2.5, -0.1)
        t, value = t_next, value_next
        step = (-value / slope).clamp(-2e-3, 2e-3)
    return best


def surface_normals(points: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Unit normals [M, 3] of the distance field by four tetrahedral differences."""
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], device=points.device, dtype=points.dtype)
    total = torch.zeros_like(points)
    for corner in corners:
        total = total + corner * head_distance(points + NORMAL_STEP * corner, parameters)[..., None]
    return normalize(total, dim=-1)


def _render_rays(
    parameters: HeadParameters, origins: Tensor, directions: Tensor, head: Tensor, background: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [M, 3], depth [M], normal [M, 3], label [M] of a flat list of rays."""
    table = torch.cat([parameters.values[name] for name in SCALARS], dim=1)
    depth = trace(origins, directions, head, table)
    hit = torch.nonzero(torch.isfinite(depth)).squeeze(1)
    p = _gather(table, SCALARS, head[hit])
    d, t = directions[hit], depth[hit]
    t = _land(origins[hit], d, t, p)
    depth[hit] = t
    points = origins[hit] + d * t[:, None]
    normal, label = surface_normals(points, p), head_labels(points, p)
    colours = {name: parameters.values[name][head[hit]] for name in COLOURS}
    rgb = background.clone()
    rgb[hit] = shade(points, normal, label, -d, p, colours)
    normals = torch.zeros_like(directions).index_copy(0, hit, normal)
    labels = torch.zeros_like(head, dtype=torch.uint8).index_copy(0, hit, label)
    return rgb, depth, normals, labels


@torch.no_grad()
def render_heads(
    parameters: HeadParameters, camera: Camera, resolution: int, background: str = "plain", supersample: int = 1
) -> HeadImages:
    """Render each head from its camera.

    Depth, normals and labels are those of the ray through the pixel's centre. With supersample > 1 the colours of
    pixels at edges (of labels or of depth) are the mean over supersample^2 rays; elsewhere one ray is enough.

    Args:
        parameters: B heads.
        camera: B cameras.
        resolution: pixels along one side, at least 1.
        background: 'plain' (white), 'gradient' or 'textured' (colours of the head's own parameters).
        supersample: rays along one side of an edge pixel, at least 1.

    Raises:
        ValueError: an unknown background, or as many heads as cameras are not given.

    >>> from .head_parameters import sample_heads
    >>> images = render_heads(sample_heads(1, 0), Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)), 16)
    >>> images.rgb.shape, bool(images.foreground[0, 8, 8])
    (torch.Size([1, 3, 16, 16]), True)
    """
    if background not in BACKGROUNDS:
        raise ValueError(f"background is one of {', '.join(BACKGROUNDS)}; got {background!r}")
    if len(parameters) != len(camera):
        raise ValueError(f"{len(parameters)} heads need as many cameras, got {len(camera)}")
    batch, n = len(parameters), resolution
    origins, directions = (v.reshape(-1, 3) for v in pixel_rays(camera, n))
    head = torch.arange(batch, device=origins.device).repeat_interleave(n * n)
    behind = backdrop(parameters, n, background).reshape(-1, 3)
    rgb, depth, normals, labels = _render_rays(parameters, origins, directions, head, behind)
    if supersample > 1:
        edge = torch.nonzero(_edges(depth.view(batch, n, n), labels.view(batch, n, n)).flatten()).squeeze(1)
        rgb[edge] = _smoothed(parameters, camera, n, supersample, edge, head[edge], behind[edge])
    rgb, depth, normals = (v.view(batch, n, n, -1).permute(0, 3, 1, 2).contiguous() for v in (rgb, depth, normals))
    return HeadImages(rgb.clamp(0, 1), depth, normals, labels.view(batch, n, n))


def _edges(depth: Tensor, labels: Tensor) -> Tensor:
    """Pixels [B, H, W] with a neighbour of another label or beyond a jump of depth."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    filled = torch.where(torch.isfinite(depth), depth, torch.full_like(depth, 9.0))
    for axis in (1, 2):
        n = depth.shape[axis] - 1
        a, b = (labels.narrow(axis, i, n) for i in (0, 1))
        jump = (filled.narrow(axis, 0, n) - filled.narrow(axis, 1, n)).abs() > 0.05
        differs = (a != b) | jump
        edge.narrow(axis, 0, n).logical_or_(differs)
        edge.narrow(axis, 1, n).logical_or_(differs)
    return edge


def _smoothed(
    parameters: HeadParameters,
    camera: Camera,
    resolution: int,
    supersample: int,
    pixel: Tensor,
    head: Tensor,
    behind: Tensor,
) -> Tensor:
    """Mean colour [E, 3] of supersample^2 rays in each of the given pixels."""
    fine = resolution * supersample
    within = pixel - head * resolution * resolution
    row, column = within // resolution, within % resolution
    offset = torch.arange(supersample, device=pixel.device)
    rows = (row[:, None, None] * supersample + offset[:, None]).expand(-1, supersample, supersample)
    columns = (column[:, None, None] * supersample + offset).expand(-1, supersample, supersample)
    v, u = (rows.flatten() + 0.5) / fine, (columns.flatten() + 0.5) / fine
    owner = head.repeat_interleave(supersample * supersample)
    k, pose = camera.intrinsics[owner], camera.cam2world[owner]
    y = (v - k[:, 1, 2]) / k[:, 1, 1]
    x = (u - k[:, 0, 2] - k[:, 0, 1] * y) / k[:, 0, 0]
    directions = normalize((pose[:, :3, :3] @ torch.stack([x, y, torch.ones_like(x)], -1)[..., None]).squeeze(-1), dim=-1)
    colours = behind.repeat_interleave(supersample * supersample, dim=0)
    rgb = _render_rays(parameters, pose[:, :3, 3], directions, owner, colours)[0]
    return rgb.view(len(pixel), supersample * supersample, 3).mean(1)
