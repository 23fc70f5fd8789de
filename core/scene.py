"""Scene: one rendered batch, the buffers that priors, segmenters, metrics and pictures read.

A buffer is there, or can be derived from those that are, or asking for it raises MissingBufferError. Derived buffers
are made once and kept. Every buffer is float32 whatever the precision of the networks (float64 in, float64 out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .camera import Camera
from .errors import MissingBufferError, PriorzooError, did_you_mean

# name: what it is; the vocabulary of ``needs`` and ``provides``. Shapes are in docs/explanation/architecture.md.
BUFFERS = {
    "image": "[B,3,H,W] after super-resolution, nominal [-1,1]",
    "image_raw": "[B,3,h,w] before super-resolution, nominal [-1,1]",
    "depth": "[B,1,h,w] expected foreground distance along the unit ray, world units",
    "surface_depth": "[B,1,h,w] distance of the first surface along the unit ray, far where there is none, world units, no gradient",
    "surface_mask": "[B,1,h,w] 1 where the ray has such a surface, else 0; no gradient",
    "opacity": "[B,1,h,w] sum of weights, in [0,1]",
    "background_transmittance": "[B,1,h,w] 1 - opacity",
    "composite_depth": "[B,1,h,w] expected distance along the unit ray of foreground and background together, world units",
    "foreground_raw": "[B,3,h,w] the rendering without its background (black), nominal [-1,1]",
    "background_raw": "[B,3,h,w] the background alone, nominal [-1,1]",
    "weights": "[B,R,S] compositing weights of the final march's intervals",
    "alpha": "[B,R,S] opacities of the intervals",
    "distances": "[B,R,S] distances that carry the weights, sorted",
    "edges": "[B,R,S+1] finite interval edges",
    "samples": "Samples: distances and raw field values as drawn",
    "rays": "Rays: origins and unit directions, [B,R,3]",
    "field": "Field: point queries",
}

# Derived buffers and what must have been rendered for them.
DERIVED = {
    "points": frozenset({"depth", "rays"}),
    "normals": frozenset({"depth", "rays", "opacity"}),
    "depth_normals": frozenset({"depth", "rays", "opacity"}),
    "sample_normals": frozenset({"field", "rays", "distances"}),
    "segmentation": frozenset({"image"}),
    "estimated_depth": frozenset({"image"}),
    "estimated_normals": frozenset({"image"}),
}
OTHER_VIEW = "other_view."


@dataclass
class Rays:
    """``origins`` and unit ``directions`` in the world, [B,R,3], row-major over an image of ``height`` x ``width``."""

    origins: Tensor
    directions: Tensor
    height: int
    width: int


@dataclass
class Samples:
    """``distances`` [B,R,S] and ``raw`` [B,R,S] field values before activation, as drawn: unsorted, the ``coarse`` ones first."""

    distances: Tensor
    raw: Tensor
    coarse: int = 0


@dataclass
class FieldSample:
    """The field at points: ``raw`` network output [B,N], its activation ``value`` [B,N] (density, occupancy or sdf),
    ``colour`` [B,N,C].
    """

    raw: Tensor
    value: Tensor
    colour: Tensor | None = None


class Field(Protocol):
    """Point queries of a shape: world points [B,N,3] to FieldSample; twice differentiable in the points."""

    kind: str  # "density", "occupancy" or "sdf"
    extent: float  # half the side, in world units, of the cube about the origin in which the field is modelled

    def __call__(self, points: Tensor) -> FieldSample: ...


@dataclass
class Segmentation:
    """Class probabilities [B,K,H,W] at the image's own resolution, detached, with the class names.

    >>> s = Segmentation(torch.tensor([[[[0.9]], [[0.1]]]]), ("background", "skin"))
    >>> s.mask("skin", (2, 2)).sum().item()
    0
    """

    probabilities: Tensor
    names: tuple[str, ...]

    def class_ids(self, names: str | Sequence[str]) -> list[int]:
        """Return the indices of the named classes; an unknown name is a PriorzooError with the nearest one."""
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self.names:
                raise PriorzooError(
                    f"class {name!r} is unknown to the segmenter{did_you_mean(name, self.names)}; it knows: " + ", ".join(self.names)
                )
        return [self.names.index(name) for name in wanted]

    def labels(self, size: tuple[int, int] | None = None) -> Tensor:
        """Arg-max class ids [B,h,w], int64: arg-max at the image's resolution, then nearest-exact to ``size``."""
        ids = self.probabilities.max(dim=1).indices  # the first of equals, as argmax, and several times faster on a processor
        if size is None or tuple(size) == tuple(ids.shape[1:]):
            return ids
        # Class ids are small integers: float32 holds them exactly.
        return functional.interpolate(ids[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()

    def mask(self, names: str | Sequence[str], size: tuple[int, int] | None = None) -> Tensor:
        """Boolean [B,1,h,w]: pixels whose label is one of the named classes."""
        labels = self.labels(size)
        wanted = torch.zeros(len(self.names), dtype=torch.bool, device=labels.device)
        wanted[self.class_ids(names)] = True
        return wanted[labels][:, None]


class Scene:
    """The buffers of one rendered batch, by name: ``scene.depth``, ``scene["depth"]``, ``scene.other_view.depth``.

    ``makers`` are functions of the scene for buffers that are made when first asked for (a segmenter's, the second
    view).

    >>> scene = Scene(None, depth=torch.ones(1, 1, 2, 2))
    >>> scene.depth.sum().item()
    4.0
    """

    def __init__(
        self,
        camera: Camera | None,
        *,
        images_seen: int = 0,
        makers: dict[str, Callable[[Scene], Any]] | None = None,
        **buffers: Any,
    ) -> None:
        self.camera = camera
        self.images_seen = images_seen
        self._buffers: dict[str, Any] = {k: v for k, v in buffers.items() if v is not None}
        self._makers: dict[str, Callable[[Scene], Any]] = dict(makers or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        if name.startswith(OTHER_VIEW):
            return self["other_view"][name.removeprefix(OTHER_VIEW)]
        if name not in self._buffers:
            maker = self._makers.get(name) or _GEOMETRY.get(name)
            if maker is None:
                raise MissingBufferError(
                    f"this scene was rendered without {name!r}; it has: {', '.join(sorted(self._buffers)) or 'nothing'}. "
                    f"Add {name!r} to the needs of whoever reads it."
                )
            self._buffers[name] = maker(self)
        return self._buffers[name]

    def __contains__(self, name: str) -> bool:
        return name in self._buffers or name in self._makers

    def __setitem__(self, name: str, value: Any) -> None:
        self._buffers[name] = value

    def set_maker(self, name: str, maker: Callable[[Scene], Any]) -> None:
        """Let ``maker`` produce the buffer ``name`` when it is first asked for."""
        self._makers[name] = maker

    @property
    def buffers(self) -> dict[str, Any]:
        """The buffers that exist now."""
        return self._buffers


def rendered_needs(needs: Iterable[str], *, made: Mapping[str, Iterable[str]] | None = None) -> frozenset[str]:
    """Return the rendered buffers behind ``needs``: derived ones are replaced by what they are made from.

    ``made`` overrides what a derived buffer is made from (a segmenter may read ``image_raw``). Second-view needs are
    left out: see ``second_view_needs``.

    >>> sorted(rendered_needs({"points", "opacity", "other_view.depth"}))
    ['depth', 'opacity', 'rays']
    """
    sources: dict[str, Iterable[str]] = {**DERIVED, **(made or {})}
    out: set[str] = set()
    for need in needs:
        if need.startswith(OTHER_VIEW):
            continue
        out.update(rendered_needs(sources[need], made=made) if need in sources else {need})
    return frozenset(out)


def second_view_needs(needs: Iterable[str]) -> frozenset[str]:
    """Return what is asked of the second view, without the prefix.

    >>> sorted(second_view_needs({"depth", "other_view.depth"}))
    ['depth']
    """
    return frozenset(n.removeprefix(OTHER_VIEW) for n in needs if n.startswith(OTHER_VIEW))


def _points(scene: Scene) -> Tensor:
    from ..rendering.normals import points_from_depth

    return points_from_depth(scene.depth, scene.rays.origins, scene.rays.directions)


def _depth_normals(scene: Scene) -> Tensor:
    from ..rendering.normals import normals_from_depth

    return normals_from_depth(scene.depth, scene.rays.origins, scene.rays.directions)


def _sample_normals(scene: Scene) -> Tensor:
    from ..rendering.normals import normals_from_field

    rays, distances = scene.rays, scene.distances
    points = rays.origins[:, :, None] + rays.directions[:, :, None] * distances[..., None]
    return normals_from_field(scene.field, points.flatten(1, 2)).reshape(*distances.shape, 3)


_GEOMETRY: dict[str, Callable[[Scene], Any]] = {
    "points": _points,
    "normals": _depth_normals,
    "depth_normals": _depth_normals,
    "sample_normals": _sample_normals,
    "background_transmittance": lambda scene: 1.0 - scene.opacity,
}
