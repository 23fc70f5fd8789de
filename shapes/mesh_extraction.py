"""A field's surface as a mesh: values on a grid over its cube, marching cubes, colours at the vertices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import NonFiniteError, PriorzooError
from ..core.scene import Field
from .mesh_levels import Level
from .meshes import Mesh

PUBLISHED_CUT = 30 / 256
"""The share of the cube's side that EG3D's script empties at every face before it extracts."""
CHUNK = 1 << 17
LEAST, MOST = 4, 1024

Report = Callable[[int, int], None]
"""Called with the number of points that are done and how many there are."""


@dataclass
class Volume:
    """A field on a grid: ``values`` [N,N,N] float32, indexed (x, y, z), corners of the cube included; larger is inside.

    ``extent`` is half the side of the cube about the origin, in world units; the surface is where values cross
    ``threshold``; ``emptiness`` is the value of nothing. ``level`` says what the values are.
    """

    values: NDArray[np.float32]
    extent: float
    threshold: float
    emptiness: float
    level: Level

    @property
    def spacing(self) -> float:
        """Distance between neighbouring points of the grid in world units."""
        return 2.0 * self.extent / (len(self.values) - 1)


@torch.no_grad()
def sample_volume(
    field: Field,
    *,
    resolution: int = 256,
    level: Level | None = None,
    chunk: int = CHUNK,
    device: torch.device | str = "cpu",
    progress: Report | None = None,
) -> Volume:
    """Query a field of one sample on ``resolution``^3 points over its cube, ``chunk`` points at a time.

    Memory is 4 bytes a point of the grid and the field's own for one chunk. Raises PriorzooError for a level that does
    not suit the field, NonFiniteError for values that are not finite.

    >>> from types import SimpleNamespace
    >>> from priorzoo.core.scene import FieldSample
    >>> ball = lambda points: FieldSample(0.5 - points.norm(dim=-1), points.norm(dim=-1) - 0.5)
    >>> field = type("Ball", (), {"kind": "sdf", "extent": 1.0, "__call__": staticmethod(ball)})()
    >>> sample_volume(field, resolution=9).values[4, 4, ::2].tolist()
    [-0.5, -0.0, 0.5, -0.0, -0.5]
    """
    if not LEAST <= resolution <= MOST:
        raise PriorzooError(f"mesh: resolution must be from {LEAST} to {MOST} points a side, got {resolution}")
    if chunk < 1:
        raise PriorzooError(f"mesh: a chunk is at least one point, got {chunk}")
    level = level or Level.default(field.kind)
    threshold = level.threshold(field.kind, field.extent)
    axis = torch.linspace(-field.extent, field.extent, resolution, dtype=torch.float64).float().to(device)
    values = np.empty(resolution**3, np.float32)
    for first in range(0, len(values), chunk):
        flat = torch.arange(first, min(first + chunk, len(values)), device=device)
        places = (flat // resolution**2, flat // resolution % resolution, flat % resolution)
        points = torch.stack([axis[place] for place in places], dim=-1)[None]
        inner = level.inner(field(points), field.kind)
        if inner.shape != points.shape[:2]:
            raise PriorzooError(f"mesh: a field of one sample is extracted, this one holds {len(inner)}")
        values[first : first + inner.shape[1]] = inner[0].float().cpu().numpy()
        if progress is not None:
            progress(first + inner.shape[1], len(values))
    if not np.isfinite(values).all():
        raise NonFiniteError(f"mesh: {np.count_nonzero(~np.isfinite(values))} of {len(values)} values of the field are not finite")
    return Volume(values.reshape((resolution,) * 3), float(field.extent), threshold, level.emptiness(field.extent), level)


def surface_of(volume: Volume, *, closed: bool = True, cut: float = 0.0) -> Mesh:
    """Return the surface at the volume's threshold by marching cubes (Lewiner et al. 2003), normals outwards, no colours.

    ``closed`` takes everything outside of the cube as empty, so that what reaches the border is capped there; without it
    the mesh is open at the border. ``cut`` in [0, 0.5) empties that share of the side at every face first, as EG3D's
    script does with 30/256. Raises PriorzooError, with the range of the values, when nothing crosses the threshold.
    """
    from skimage.measure import marching_cubes

    if not 0.0 <= cut < 0.5:
        raise PriorzooError(f"mesh: the share that is cut away at every face is from 0 to 0.5, got {cut}")
    values, shift = volume.values, 0
    if border := int(cut * len(values)):
        kept = (slice(border, -border),) * 3
        values = np.full_like(values, volume.emptiness)
        values[kept] = volume.values[kept]
    low, high = float(values.min()), float(values.max())
    if closed:
        values, shift = np.pad(values, 1, constant_values=volume.emptiness), 1
    if high <= volume.threshold or (low >= volume.threshold and not closed):
        at = "" if volume.threshold == volume.level.number else f", which is {volume.threshold:.4g}"
        raise PriorzooError(f"mesh: nothing crosses the level {volume.level}{at}: the field's values are between {low:.4g} and {high:.4g}")
    # scikit-image winds "descent" clockwise seen from outside.
    vertices, faces, _, _ = marching_cubes(values, volume.threshold, gradient_direction="ascent")  # type: ignore[no-untyped-call]
    # The cap lies between the border and the emptiness beyond it: it is put on the border.
    places = np.clip((vertices.astype(np.float64) - shift) * volume.spacing - volume.extent, -volume.extent, volume.extent)
    return Mesh(torch.from_numpy(places.astype(np.float32)), torch.from_numpy(faces.astype(np.int64)))


@torch.no_grad()
def colour_mesh(mesh: Mesh, field: Field, *, chunk: int = CHUNK, device: torch.device | str = "cpu") -> Mesh:
    """Return the mesh with the field's colour at its vertices, from nominal [-1,1] to [0,1] and clamped there.

    These are the colours of points: what a ray gathers around a surface, and what super-resolution adds, is not in them.
    A field without colours gives a mesh without.
    """
    pieces = []
    for points in torch.split(mesh.vertices, chunk):
        colour = field(points[None].to(device)).colour
        if colour is None:
            return Mesh(mesh.vertices, mesh.faces)
        pieces.append(((colour[0, :, :3].float().cpu() + 1.0) / 2.0).clamp(0.0, 1.0))
    return Mesh(mesh.vertices, mesh.faces, torch.cat(pieces) if pieces else None)


def extract_mesh(
    field: Field,
    *,
    resolution: int = 256,
    level: Level | None = None,
    closed: bool = True,
    cut: float = 0.0,
    chunk: int = CHUNK,
    device: torch.device | str = "cpu",
    progress: Report | None = None,
) -> Mesh:
    """Return the surface of a field of one sample as a coloured mesh: see `sample_volume`, `surface_of`, `colour_mesh`.

    >>> from priorzoo.core.scene import FieldSample
    >>> ball = lambda points: FieldSample(0.5 - points.norm(dim=-1), points.norm(dim=-1) - 0.5, points)
    >>> field = type("Ball", (), {"kind": "sdf", "extent": 1.0, "__call__": staticmethod(ball)})()
    >>> mesh = extract_mesh(field, resolution=20)
    >>> round(float(mesh.vertices.norm(dim=-1).mean()), 3), bool((mesh.face_normals() * mesh.corners()[:, 0]).sum(-1).min() > 0)
    (0.499, True)
    """
    volume = sample_volume(field, resolution=resolution, level=level, chunk=chunk, device=device, progress=progress)
    return colour_mesh(surface_of(volume, closed=closed, cut=cut), field, chunk=chunk, device=device)
