"""Levels: where in a field the surface lies, said in words that do not depend on a grid's resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..core.errors import PriorzooError, did_you_mean
from ..core.scene import FieldSample

QUANTITIES = {"density": ("opacity", "density", "raw"), "occupancy": ("opacity", "raw"), "sdf": ("distance",)}
"""What a level may be given in, by the field's kind; the first is what the default is given in."""
OPACITY_LENGTH = 1 / 20
"""The length, in sides of the field's cube, over which ``opacity`` is meant where the field is a density."""
EMPTY_RAW = -1000.0


@dataclass(frozen=True)
class Level:
    """The surface is where ``quantity`` equals ``number``.

    - ``opacity`` o in (0,1): of an occupancy field its value. Of a density field the share of light that is lost over a
      twentieth of the side l of its cube: 1 - exp(-density l / 20) = o. The default, 0.5, is where half of it is lost:
      density 13.9 in a cube of side 1. The length is a choice: unlike a voxel it stays the same when the grid is refined,
      and unlike a bare number it keeps its meaning in a cube of another size.
    - ``density`` above 0, per world unit.
    - ``raw``: the network's number before its activation; EG3D's published meshes are cut at raw 10.
    - ``distance``: a signed distance, in world units; the default is 0.

    >>> round(Level("opacity", 0.5).threshold("density", extent=0.5), 2), Level.parse("raw:10").threshold("density", 0.5)
    (13.86, 10.0)
    """

    quantity: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Level:
        """Read ``quantity:number``, such as ``density:20``; raises PriorzooError."""
        quantity, colon, number = text.partition(":")
        known = sorted({name for names in QUANTITIES.values() for name in names})
        if not colon or quantity not in known:
            near = did_you_mean(quantity, known)
            raise PriorzooError(f"level {text!r}: expected quantity:number, such as opacity:0.5, with one of {', '.join(known)}{near}")
        try:
            value = float(number)
        except ValueError as error:
            raise PriorzooError(f"level {text!r}: {number!r} is not a number") from error
        return cls(quantity, value)

    @classmethod
    def default(cls, kind: str) -> Level:
        """The level for fields of a kind: opacity 0.5, or distance 0."""
        return cls("distance", 0.0) if kind == "sdf" else cls("opacity", 0.5)

    def __str__(self) -> str:
        return f"{self.quantity}:{self.number:g}"

    def threshold(self, kind: str, extent: float) -> float:
        """The number that `inner` crosses at the surface; ``extent`` is half the side of the field's cube.

        Raises PriorzooError for a quantity that the kind of field has not, or a number out of its range.
        """
        if kind not in QUANTITIES:
            raise PriorzooError(f"a field's kind is one of {', '.join(QUANTITIES)}, got {kind!r}")
        if self.quantity not in QUANTITIES[kind]:
            raise PriorzooError(f"level {self}: a field of kind {kind} is cut at a level of {' or '.join(QUANTITIES[kind])}")
        if not math.isfinite(self.number):
            raise PriorzooError(f"level {self}: the number must be finite")
        if self.quantity == "opacity" and not 0.0 < self.number < 1.0:
            raise PriorzooError(f"level {self}: an opacity lies between 0 and 1")
        if self.quantity == "density" and self.number <= 0.0:
            raise PriorzooError(f"level {self}: a density level is above 0")
        if self.quantity == "raw" and self.number <= EMPTY_RAW:
            raise PriorzooError(f"level {self}: a raw level is above {EMPTY_RAW:g}, which stands for emptiness")
        if self.quantity == "opacity" and kind == "density":
            return -math.log1p(-self.number) / (2.0 * extent * OPACITY_LENGTH)
        return -self.number if kind == "sdf" else self.number

    def inner(self, sample: FieldSample, kind: str) -> Tensor:
        """What is compared with the threshold, [B,N]: larger is further inside, so a signed distance is negated."""
        if self.quantity == "raw":
            return sample.raw
        return -sample.value if kind == "sdf" else sample.value

    def emptiness(self, extent: float) -> float:
        """What `inner` is where there is nothing."""
        return {"raw": EMPTY_RAW, "distance": -2.0 * extent}.get(self.quantity, 0.0)
