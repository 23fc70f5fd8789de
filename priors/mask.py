"""Mask: the rendered silhouette should be the segmenter's foreground (IDR, SoftRas)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import PriorzooError
from ..core.options import check_choice
from ..core.registry import register_prior
from ..core.scene import Scene
from ..core.streams import Stream
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult

FORMS = ("bce", "l1", "iou")
SURE = 1e-3


def mask_loss(opacity: Tensor, foreground: Tensor, *, form: str = "bce") -> Tensor:
    """Distance of opacity a from a mask M.

    ``bce``: mean { -M ln a - (1 - M) ln(1 - a) }, the logarithms' arguments at least 0.001 and 0 where a is the mask (IDR, Yariv et al.
    2020, eq. 7). ``l1``: mean |a - M|. ``iou``: 1 - sum a M / sum(a + M - a M) (SoftRas, Liu et al. 2019, eq. 7).

    Args: opacity [B,1,h,w] in [0,1]; foreground M [B,1,h,w] in [0,1], constant to the gradient. Returns [B].

    >>> a, m = torch.tensor([1.0, 0.5]).view(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    >>> [round(mask_loss(a, m, form=form).item(), 4) for form in ("bce", "l1", "iou")]
    [0.3466, 0.25, 0.3333]
    """
    check_choice("mask", "form", form, FORMS)
    if foreground.shape != opacity.shape:
        raise PriorzooError(f"mask: the foreground has shape {list(foreground.shape)}, opacity {list(opacity.shape)}; they must be equal")
    a = as_real(opacity).flatten(1)
    m = foreground.detach().to(a).flatten(1)
    if form == "l1":
        return (a - m).abs().mean(dim=1)
    if form == "iou":
        both = (a * m).sum(dim=1)
        either = (a + m - a * m).sum(dim=1)
        return torch.where(either > 0, 1.0 - both / torch.where(either > 0, either, 1.0), 0.0)
    return -(m * a.clamp_min(SURE).log() + (1.0 - m) * (1.0 - a).clamp_min(SURE).log()).mean(dim=1)


@register_prior("mask")
class Mask(FixedPrior):
    """Mask: opacity should be the foreground that a segmenter sees in the image.

    L_b = mean { -M ln a - (1 - M) ln(1 - a) } (``bce``), mean |a - M| (``l1``) or 1 - sum a M / sum(a + M - a M) (``iou``), a = opacity
    [B,1,h,w], M = 1 where the most probable class is none of ``background``. M is constant to the gradient.

    Options:
        form: ``bce``, ``l1`` or ``iou``.
        background: class name, or list of names, that are not foreground.

    >>> from priorzoo.core.scene import Segmentation
    >>> from priorzoo.core.streams import fixed_streams
    >>> skin = Segmentation(torch.tensor([0.1, 0.9]).view(1, 2, 1, 1).expand(1, 2, 2, 2), ("background", "skin"))
    >>> scene = Scene(None, opacity=torch.full((1, 1, 2, 2), 0.75), segmentation=skin)
    >>> Mask(form="l1")(scene, fixed_streams(0, 1)("mask")).value.tolist()
    [0.25]
    """

    def __init__(self, *, form: str = "bce", background: str | Sequence[str] = "background") -> None:
        super().__init__()
        check_choice(self.registry_name, "form", form, FORMS)
        self.form, self.background = form, self.region_names(background=background)

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Opacity and the segmentation."""
        return frozenset({"opacity", "segmentation"})

    @classmethod
    def region_names(cls, **options: Any) -> tuple[str, ...]:
        """Return the class names of the option ``background``; raises PriorzooError where they are not names."""
        given = options.get("background", "background")
        names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple)) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            raise PriorzooError(f"{cls.registry_name}: background must be a class name or a list of class names, got {given!r}")
        return names

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; draws nothing from ``stream``."""
        opacity: Tensor = scene.opacity
        foreground = ~scene.segmentation.mask(list(self.background), tuple(opacity.shape[2:]))
        with torch.autocast(opacity.device.type, enabled=False):
            value = mask_loss(opacity, foreground, form=self.form)
        wrong = (opacity.detach() - foreground.to(opacity)).abs()
        return PriorResult(value, pixels=torch.full_like(value, opacity[0].numel()).detach(), heatmap=wrong)
