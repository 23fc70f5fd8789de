"""SSR: semantic-aware smoothness of the depth map; and SR, the same without semantics.

Source: the SSR report, eqs. 1 to 4. The total L_s = L_skin + 0.8 L_eye (eq. 4) is two entries of a recipe: skin with
weight w, eyes with weight 0.8 w. What the report leaves open is an option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.camera import Camera
from ..core.errors import MissingBufferError, PriorzooError
from ..core.options import check_choice, check_flag, check_number, check_odd
from ..core.registry import register_prior
from ..core.scene import Scene
from ..core.streams import Stream
from ..rendering.selection import SCOPES, as_real, erode, hardest_mean
from ..rendering.smoothness import REDUCTIONS, smoothness_map
from .base import FixedPrior, PriorResult

__all__ = ["SR", "SSR", "ssr", "view_gate"]

NORMALISATIONS = ("none", "pixel")
EMPTY = ("zero", "skip")


def ssr(
    depth: Tensor,
    mask: Tensor,
    *,
    window: int = 3,
    erosion: int = 3,
    hardest: float = 1.0,
    reduction: str = "sum",
    second_order: bool = False,
    scope: str = "sample",
    empty: str = "zero",
    gate: Tensor | None = None,
    pitch: Tensor | None = None,
) -> PriorResult:
    """Smoothness of depth inside an eroded mask, averaged over its hardest pixels.

    L_b = g_b mean { SR(D_b / pitch_b)(x) : x in the ``hardest`` share of e(S_b) with the largest SR }: SSR report, eqs.
    1-3 with SR of `smoothness_map`, e of `erode`, the share of `hardest_mean`.

    Args: depth [B,1,h,w], world units; mask [B,1,h,w] boolean, before erosion, constant to the gradient; window and
    erosion odd sides in pixels (erosion 1: none); gate g [B] in [0,1], a gate of 0 takes the sample's pixels out; pitch
    [B], the pixel's width in world units, by which depth is divided (None: not divided). A sample without pixels has
    value 0 and counts in the batch mean, or has count 0 with ``empty="skip"``. With ``scope="batch"`` the hardest
    pixels are those of the whole batch, and each sample's count is the number of its own among them.

    Returns value [B], count [B] (None: one each), pixels [B] (of the eroded, gated mask), heatmap [B,1,h,w] (SR of the chosen pixels,
    detached).
    Raises PriorzooError for options or shapes that are not as above.

    >>> plane = torch.arange(8.0).expand(1, 1, 8, 8)
    >>> ssr(plane, torch.ones(1, 1, 8, 8, dtype=torch.bool)).value.item()      # slope 1: 6 for a window of 3
    6.0
    """
    check_choice("ssr", "empty", empty, EMPTY)
    if mask.shape != depth.shape:
        raise PriorzooError(f"ssr: mask has shape {list(mask.shape)}, depth {list(depth.shape)}; they must be equal")
    depth = as_real(depth)
    if pitch is not None:
        depth = depth / pitch.to(depth)[:, None, None, None]
    chosen = erode(mask, erosion).bool()
    if gate is not None:
        chosen = chosen & (gate > 0)[:, None, None, None]
    roughness = smoothness_map(depth, window, reduction, second_order)
    mean = hardest_mean(roughness, chosen, hardest, scope)
    value = mean.value if gate is None else mean.value * gate.to(mean.value)
    count: Tensor | None = mean.count
    if scope == "sample":
        # No count where every sample counts one: the trainer then need not count the other micro-batches first.
        count = None if empty == "zero" else (mean.pixels > 0).to(value)
    heatmap = torch.where(mean.selected, roughness.detach(), 0.0)
    return PriorResult(value, count, mean.pixels, heatmap)


def view_gate(angle: Tensor, limit: float, ramp: float = 0.0) -> Tensor:
    """Weight [B] in [0,1] of views at ``angle`` [B] radians from the front: 1 up to ``limit`` degrees, else 0.

    With a ``ramp`` of so many degrees it falls along half a cosine from limit - ramp/2 to limit + ramp/2 instead.

    >>> degrees = torch.tensor([0.0, 14.0, 16.0, 30.0])
    >>> view_gate(degrees.deg2rad(), 15.0).tolist()
    [1.0, 1.0, 0.0, 0.0]
    >>> [round(v, 2) for v in view_gate(degrees.deg2rad(), 15.0, ramp=10.0).tolist()]
    [1.0, 0.65, 0.35, 0.0]
    """
    degrees = torch.rad2deg(angle)
    if ramp == 0:
        return (degrees <= limit).to(angle)
    share = ((degrees - limit) / ramp + 0.5).clamp(0.0, 1.0)
    return 0.5 + 0.5 * torch.cos(math.pi * share)


@register_prior("sr")
class SR(FixedPrior):
    """Smoothness of the whole depth map: SSR report, eq. 1, averaged over the opaque pixels.

    L_b = mean of sum_{k x k} (D(x + o) - D(x))^2 over x; reads depth [B,1,h,w] and, unless ``min_opacity`` is 0,
    opacity [B,1,h,w].

    Options:
        window: side of the window k, odd, at least 3. erosion: side of the square by which the mask is eroded, odd, 1
        for none.
        hardest: share in (0, 1] of the mask's pixels, those of largest loss, that are averaged; 1 is the plain mean.
        max_view_angle: samples seen from more than so many degrees off the front are left out; None takes all.
        view_angle_ramp: degrees over which that limit is soft; 0 is a hard limit.
        min_opacity: pixels must be more opaque than this, in [0, 1); 0 takes all.
        normalise: ``pixel`` divides depth by the pixel's width at the camera's distance from the origin: no dependence
        on resolution.
        reduction: ``sum`` (paper) or ``mean`` over the k^2 - 1 neighbours. second_order: squared Laplacian: slopes cost
        nothing.
        scope: the hardest share of each ``sample`` or of the whole ``batch`` (micro-batch). empty: a sample without
        pixels counts as ``zero`` in the batch mean, or is ``skip``ped.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, depth=torch.arange(8.0).expand(1, 1, 8, 8), opacity=torch.ones(1, 1, 8, 8))
    >>> SR(erosion=3)(scene, fixed_streams(0, 1)("sr")).value.item()
    6.0
    """

    def __init__(
        self,
        *,
        window: int = 3,
        erosion: int = 3,
        hardest: float = 1.0,
        max_view_angle: float | None = None,
        view_angle_ramp: float = 0.0,
        min_opacity: float = 0.8,
        normalise: str = "none",
        reduction: str = "sum",
        second_order: bool = False,
        scope: str = "sample",
        empty: str = "zero",
    ) -> None:
        super().__init__()
        self.window, self.erosion, self.hardest = window, erosion, hardest
        self.max_view_angle, self.view_angle_ramp, self.min_opacity = max_view_angle, view_angle_ramp, min_opacity
        self.normalise, self.reduction, self.second_order = normalise, reduction, second_order
        self.scope, self.empty = scope, empty
        self._check()

    def _check(self) -> None:
        name = self.registry_name
        check_odd(name, "window", self.window, least=3)
        check_odd(name, "erosion", self.erosion, least=1)
        check_number(name, "hardest", self.hardest, above=0.0, most=1.0)
        if self.max_view_angle is not None:
            check_number(name, "max_view_angle", self.max_view_angle, above=0.0, most=180.0)
        check_number(name, "view_angle_ramp", self.view_angle_ramp, least=0.0, most=180.0)
        if self.view_angle_ramp and self.max_view_angle is None:
            raise PriorzooError(f"{name}: view_angle_ramp {self.view_angle_ramp} softens max_view_angle, which is not given")
        check_number(name, "min_opacity", self.min_opacity, least=0.0, below=1.0)
        check_choice(name, "normalise", self.normalise, NORMALISATIONS)
        check_choice(name, "reduction", self.reduction, REDUCTIONS)
        check_choice(name, "scope", self.scope, SCOPES)
        check_choice(name, "empty", self.empty, EMPTY)
        check_flag(name, "second_order", self.second_order)

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Depth, and opacity unless ``min_opacity`` is 0."""
        return frozenset({"depth"} if options.get("min_opacity", 0.8) == 0 else {"depth", "opacity"})

    def region_mask(self, scene: Scene) -> Tensor:
        """Boolean [B,1,h,w]: the pixels that the loss may look at, before opacity and erosion."""
        return torch.ones_like(scene.depth, dtype=torch.bool)

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; draws nothing from ``stream``."""
        mask = self.region_mask(scene)
        if self.min_opacity > 0:
            mask = mask & (scene.opacity.detach() > self.min_opacity)
        gate = pitch = None
        if self.max_view_angle is not None:
            gate = view_gate(self._camera(scene, "max_view_angle").view_angle.detach(), self.max_view_angle, self.view_angle_ramp)
        if self.normalise == "pixel":
            camera = self._camera(scene, "normalise: pixel")
            pitch = camera.pixel_pitch(scene.depth.shape[-1], 1.0) * camera.position.norm(dim=-1)
        with torch.autocast(scene.depth.device.type, enabled=False):
            return ssr(
                scene.depth,
                mask,
                window=int(self.window),
                erosion=int(self.erosion),
                hardest=self.hardest,
                reduction=self.reduction,
                second_order=self.second_order,
                scope=self.scope,
                empty=self.empty,
                gate=gate,
                pitch=pitch,
            )

    def _camera(self, scene: Scene, option: str) -> Camera:
        if scene.camera is None:
            raise MissingBufferError(f"{self.registry_name}: {option} reads the scene's camera, and this scene has none")
        return scene.camera


@register_prior("ssr")
class SSR(SR):
    """Semantic-aware smoothness: smoothness of the depth map on a region of the image. SSR report, eqs. 1 to 3.

    L_b = mean of the hardest share of { sum_{k x k} (D(x + o) - D(x))^2 : x in e(S) }, S = region and opacity >
    ``min_opacity``; reads depth and opacity [B,1,h,w] and the segmentation, which is constant to the gradient. The
    paper's terms: skin ``region="skin", erosion=7, hardest=0.7``; eyes ``region=["left_eye", "right_eye"], erosion=3,
    max_view_angle=15``. Its erosions are meant for depth maps of 128 x 128: on smaller ones erode less, or nothing is
    left.

    Options: those of `SR`, and
        region: class name, or list of names, of the segmenter.
        soft_mask: a pixel belongs to the region where its classes together are more probable than 0.5, instead of where
        one of them is the most probable.

    >>> from priorzoo.core.scene import Segmentation
    >>> from priorzoo.core.streams import fixed_streams
    >>> skin = Segmentation(torch.tensor([0.1, 0.9]).view(1, 2, 1, 1).expand(1, 2, 8, 8), ("background", "skin"))
    >>> plane, ones = torch.arange(8.0).expand(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    >>> scene = Scene(None, depth=plane, opacity=ones, segmentation=skin)
    >>> result = SSR(region="skin", erosion=3)(scene, fixed_streams(0, 1)("skin"))
    >>> result.value.item(), result.pixels.item()
    (6.0, 36)
    """

    def __init__(
        self,
        *,
        region: str | Sequence[str],
        window: int = 3,
        erosion: int = 3,
        hardest: float = 1.0,
        max_view_angle: float | None = None,
        view_angle_ramp: float = 0.0,
        min_opacity: float = 0.8,
        soft_mask: bool = False,
        normalise: str = "none",
        reduction: str = "sum",
        second_order: bool = False,
        scope: str = "sample",
        empty: str = "zero",
    ) -> None:
        super().__init__(
            window=window,
            erosion=erosion,
            hardest=hardest,
            max_view_angle=max_view_angle,
            view_angle_ramp=view_angle_ramp,
            min_opacity=min_opacity,
            normalise=normalise,
            reduction=reduction,
            second_order=second_order,
            scope=scope,
            empty=empty,
        )
        self.region, self.soft_mask = self.region_names(region=region), soft_mask
        check_flag(self.registry_name, "soft_mask", soft_mask)

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Depth, segmentation, and opacity unless ``min_opacity`` is 0."""
        return super().needs(**options) | {"segmentation"}

    @classmethod
    def region_names(cls, **options: Any) -> tuple[str, ...]:
        """Return the class names of the option ``region``; raises PriorzooError where they are not names."""
        region = options.get("region")
        names = (region,) if isinstance(region, str) else tuple(region) if isinstance(region, (list, tuple)) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            raise PriorzooError(f"{cls.registry_name}: region must be a class name or a list of class names, got {region!r}")
        return names

    def region_mask(self, scene: Scene) -> Tensor:
        """Boolean [B,1,h,w]: the pixels of the region, at the depth map's resolution."""
        height, width = scene.depth.shape[2:]
        segmentation = scene.segmentation
        if not self.soft_mask:
            mask: Tensor = segmentation.mask(list(self.region), (height, width))
            return mask
        probability = segmentation.probabilities[:, segmentation.class_ids(list(self.region))].sum(dim=1, keepdim=True)
        return functional.interpolate((probability > 0.5).float(), size=(height, width), mode="nearest-exact") > 0.5
