"""Pictures of a rendered scene: image, normals, shaded surface and heatmap as 8-bit arrays, and sheets of them.

A picture is a numpy array [H,W,3], uint8. Every function here is deterministic and reads tensors only, so that truth,
samples and reconstructions are drawn by the same code.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.camera import Camera

Picture: TypeAlias = NDArray[np.uint8]

BACKDROP = (38, 42, 51)
"""Colour behind normals, surfaces and heatmaps: neither white skin nor a dark depression is lost on it."""
LIGHT = (-0.6, -0.6, -0.65)
"""Direction towards the light in the camera's OpenCV axes: from above, the left, and behind the camera."""
AMBIENT = 0.12


def image_pictures(image: Tensor) -> list[Picture]:
    """Return images [B,3,H,W], nominal [-1,1], as pictures; what lies outside is clamped.

    >>> image_pictures(torch.full((1, 3, 1, 1), 3.0))[0].tolist()
    [[[255, 255, 255]]]
    """
    return _to_pictures((image.detach().float() + 1.0) / 2.0)


def normal_pictures(
    normals: Tensor,
    opacity: Tensor,
    camera: Camera,
    *,
    frame: str = "camera",
    backdrop: tuple[int, int, int] = BACKDROP,
) -> list[Picture]:
    """Colour unit world normals [B,3,h,w] as a normal map: red is right, green is up, blue is towards the viewer.

    ``frame`` 'camera' takes these directions from each view (a surface that faces the camera is light blue in every
    view); 'world' takes them from the head (x, y, z), so that a point of the surface keeps its colour when the camera
    moves. ``opacity`` [B,1,h,w] in [0,1] fades the surface into the backdrop.

    >>> front = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    >>> towards = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    >>> normal_pictures(towards, torch.ones(1, 1, 1, 1), front)[0].tolist()
    [[[128, 128, 255]]]
    """
    if frame not in ("camera", "world"):
        raise ValueError(f"frame of a normal picture is 'camera' or 'world', got {frame!r}")
    directions = normals.detach().float()
    if frame == "camera":
        directions = _in_camera(directions, camera) * torch.tensor([1.0, -1.0, -1.0]).to(directions).view(1, 3, 1, 1)
    return _over_backdrop((directions + 1.0) / 2.0, opacity, backdrop)


def shaded_pictures(normals: Tensor, opacity: Tensor, camera: Camera) -> list[Picture]:
    """Shade a white surface of unit world normals [B,3,h,w] by Lambert's law: ambient + (1 - ambient) max(0, n.l).

    The light goes with the camera, so each view is lit alike and only the shape makes a difference.
    ``opacity`` [B,1,h,w] in [0,1] fades the surface into the backdrop.
    """
    towards = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0).to(normals.device).view(1, 3, 1, 1)
    cosine = (_in_camera(normals.detach().float(), camera) * towards).sum(1, keepdim=True)
    # The power stands between light and what a display makes of the number: without it the shaded side drowns in black.
    grey = (AMBIENT + (1.0 - AMBIENT) * cosine.clamp(min=0.0)) ** 0.8
    return _over_backdrop(grey.expand(-1, 3, -1, -1), opacity, BACKDROP)


def heat_pictures(heat: Tensor, ceiling: float, under: Sequence[Picture] | None = None, *, colours: str = "inferno") -> list[Picture]:
    """Colour non-negative maps [B,1,h,w] by a matplotlib colour map from 0 to ``ceiling``; above it the last colour.

    The square root of the value is coloured: small values stay visible. Pixels where the map is exactly 0 were not
    looked at: they show ``under`` (pictures of the same size) dimmed, or the backdrop.
    """
    import matplotlib

    if not ceiling > 0:
        raise ValueError(f"the ceiling of a heatmap is above 0, got {ceiling}")
    values = heat.detach().float().cpu().numpy()[:, 0]
    coloured = matplotlib.colormaps[colours](np.sqrt(np.clip(values / ceiling, 0.0, 1.0)))[..., :3] * 255.0
    pictures = []
    for index, picture in enumerate(coloured):
        rest = np.empty_like(picture)
        rest[:] = BACKDROP
        if under is not None:
            rest = 0.45 * under[index] + 0.55 * rest
        pictures.append(np.where(values[index][..., None] > 0, picture, rest).round().astype(np.uint8))
    return pictures


def heat_ceiling(maps: Sequence[Tensor], share: float = 0.98) -> float:
    """Return one ceiling for several heatmaps: the value below which ``share`` of their non-zero pixels lie.

    A few pixels at an edge would otherwise turn everything else black. 1.0 where no pixel is above zero.

    >>> heat_ceiling([torch.zeros(1, 1, 2, 2)])
    1.0
    """
    values = torch.cat([m.detach().float().flatten() for m in maps])
    values = values[values > 0]
    return float(values.quantile(share)) if len(values) else 1.0


def enlarged(picture: Picture, side: int) -> Picture:
    """Return the picture enlarged by whole pixels to at least ``side`` (or as it is): nothing is interpolated.

    >>> enlarged(np.zeros((64, 64, 3), np.uint8), 100).shape
    (128, 128, 3)
    """
    factor = max(1, -(-side // max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def contact_sheet(rows: Sequence[Sequence[Picture]], *, gap: int = 2) -> Picture:
    """Put pictures of one size into a grid, row by row, with ``gap`` pixels of backdrop between them.

    >>> tile = np.zeros((4, 4, 3), np.uint8)
    >>> contact_sheet([[tile, tile], [tile]]).shape
    (10, 10, 3)
    """
    tiles = [tile for row in rows for tile in row]
    if not tiles:
        raise ValueError("a contact sheet needs at least one picture")
    height, width = tiles[0].shape[:2]
    for tile in tiles:
        if tile.shape[:2] != (height, width):
            raise ValueError(f"a contact sheet takes pictures of one size: {height}x{width} and {tile.shape[0]}x{tile.shape[1]}")
    columns = max(len(row) for row in rows)
    sheet = np.empty((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    sheet[:] = BACKDROP
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def png_bytes(picture: Picture) -> bytes:
    """Return the picture as a PNG file: the same bytes for the same picture.

    >>> png_bytes(np.zeros((1, 1, 3), np.uint8))[:4]
    b'\\x89PNG'
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _in_camera(world: Tensor, camera: Camera) -> Tensor:
    rotation = camera.cam2world[:, :3, :3].to(world)
    return torch.einsum("bij,bihw->bjhw", rotation, world)


def _over_backdrop(colour: Tensor, opacity: Tensor, backdrop: tuple[int, int, int]) -> list[Picture]:
    # Expected depth, hence the normal, means little where most of the ray is background: fade there.
    cover = ((opacity.detach().float() - 0.4) / 0.4).clamp(0.0, 1.0)
    behind = torch.tensor(backdrop).to(colour).view(1, 3, 1, 1) / 255.0
    return _to_pictures(colour.nan_to_num() * cover + behind * (1.0 - cover))


def _to_pictures(colour: Tensor) -> list[Picture]:
    numbers = (colour.clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8).cpu()
    return list(numbers.permute(0, 2, 3, 1).contiguous().numpy())
