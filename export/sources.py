"""What samples, clips and meshes are made from: one generator, opened from wherever it lies, and its latents by number."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..backbones.base import Backbone, Latents
from ..core.camera import EG3D_FOCAL, EG3D_RADIUS, Camera
from ..core.errors import PriorzooError
from ..core.streams import CPU, Streams

if TYPE_CHECKING:
    from ..training.run import Run


@dataclass
class Source:
    """A generator in eval mode on its device, with the cameras that it is looked at with.

    ``radius`` is the distance of cameras from the origin in world units, ``focal`` their focal length in image widths.
    """

    backbone: Backbone
    radius: float = EG3D_RADIUS
    focal: float = EG3D_FOCAL
    device: torch.device = CPU

    @classmethod
    def open(cls, place: str | os.PathLike[str], *, radius: float | None = None, focal: float | None = None, device: str = "cpu") -> Source:
        """Open a run, a checkpoint, a ``.safetensors`` with its card, shipped weights by name, or an official ``.pkl``.

        The radius is EG3D's 2.7 unless the checkpoint's origin or ``radius`` says otherwise. Raises RunError or
        CheckpointError for the place, PriorzooError for a device that is not there and a camera whose rays end before
        the origin or start behind it.
        """
        from ..training.run import load_run

        on = checked_device(device)
        run = load_run(place)
        backbone = run.backbone(average=True).to(on)
        source = cls(backbone, published_radius(run) if radius is None else radius, EG3D_FOCAL if focal is None else focal, on)
        source._check_camera(str(place))
        return source

    def _check_camera(self, place: str) -> None:
        options = getattr(self.backbone, "options", None)
        near, far = getattr(options, "near", None), getattr(options, "far", None)
        if self.radius <= 0.0 or self.focal <= 0.0:
            raise PriorzooError(f"--radius and --focal are above 0, got {self.radius:g} and {self.focal:g}")
        if isinstance(near, (int, float)) and isinstance(far, (int, float)) and not near < self.radius < far:
            raise PriorzooError(
                f"{place}: rays run from {near:g} to {far:g}: a camera at {self.radius:g} from the origin would not see what lies there; "
                "give the distance that it was trained with by --radius"
            )

    def camera(self, yaw: Sequence[float], pitch: Sequence[float]) -> Camera:
        """Cameras at ``yaw`` and ``pitch`` in radians, looking at the origin."""
        angles = torch.tensor([list(yaw), list(pitch)], dtype=torch.float32)
        return Camera.looking_at_origin(angles[0], angles[1], radius=self.radius, focal=self.focal).to(self.device)

    def streams(self, seeds: Sequence[int]) -> Streams:
        """The random numbers of these samples, on the device."""
        return Streams(0, 0, tuple(seeds), device=self.device)

    @torch.no_grad()
    def latents(self, seeds: Sequence[int], *, truncation: float = 1.0, official: bool = False) -> Latents:
        """Prepare the latents of these numbers, conditioned on the frontal camera; nothing is rendered yet.

        Number n is sample n of seed 0: the same head as in a run's sample sheets and in reports, on every device.
        ``official`` draws z as the published scripts do instead, from numpy's RandomState(n).
        """
        if not seeds:
            raise PriorzooError("name at least one seed")
        drawn = self._official(seeds) if official else self.backbone.draw(len(seeds), Streams(0, 0, tuple(seeds)))
        front = self.camera([0.0] * len(seeds), [0.0] * len(seeds))
        return self.backbone.prepare(drawn.to(self.device), front.label(), truncation=truncation)

    def _official(self, seeds: Sequence[int]) -> Latents:
        # The law is the backbone's, the numbers are numpy's; it has to be a law of one normal vector z.
        like = self.backbone.draw(1, Streams(0, 0, (0,)))
        if set(like.tensors) != {"z"} or like["z"].ndim != 2:
            raise PriorzooError(f"--official-latents draws a vector z; this backbone draws {', '.join(like.tensors)}")
        if max(seeds) >= 2**32:
            raise PriorzooError(f"--official-latents: numpy's seeds are below 2^32, got {max(seeds)}")
        rows = [np.random.RandomState(seed).randn(1, like["z"].shape[1]) for seed in seeds]
        return Latents({"z": torch.from_numpy(np.concatenate(rows)).float()})


def checked_device(device: str) -> torch.device:
    """Return the device of that name; raises PriorzooError for another than cpu and cuda, and where there is no CUDA."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise PriorzooError(f"--device must be cpu or cuda, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise PriorzooError(f"--device {device}: this machine, or this build of torch, has no CUDA device")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise PriorzooError(f"--device must be cpu, cuda or cuda:N, got {device!r}") from error


def published_radius(run: Run) -> float:
    """The distance of cameras that an official checkpoint, imported or not, names; EG3D's for faces where none does."""
    from ..training.foreign import is_foreign, read_foreign
    from ..training.run import CARD

    origin: Any
    if is_foreign(run.weights):
        origin = read_foreign(run.weights).checkpoint.origin
    else:
        card = run.weights.parent / CARD
        origin = json.loads(card.read_text(encoding="utf-8")).get("origin") if card.is_file() else None
    rendering = origin.get("rendering_kwargs") if isinstance(origin, dict) else None
    radius = rendering.get("avg_camera_radius") if isinstance(rendering, dict) else None
    return float(radius) if isinstance(radius, (int, float)) and radius > 0 else EG3D_RADIUS


def parse_seeds(text: str) -> list[int]:
    """Read numbers and ranges.

    Raises PriorzooError for anything else, and for more than ten thousand.

    >>> parse_seeds("0-3,7")
    [0, 1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise PriorzooError(f"--seeds {text!r}: expected numbers and ranges such as 0-3,7; {part.strip()!r} is neither")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise PriorzooError(f"--seeds {text!r}: the range {part.strip()} runs backwards")
        if len(seeds) + high - low >= 10_000 or high >= 2**62:
            raise PriorzooError(f"--seeds {text!r}: at most 10000 seeds below 2^62")
        seeds += range(low, high + 1)
    return seeds


def parse_numbers(text: str, option: str) -> list[float]:
    """Read numbers with commas between them; raises PriorzooError that names the option.

    >>> parse_numbers("-0.3,0,0.3", "--yaw")
    [-0.3, 0.0, 0.3]
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise PriorzooError(f"{option} {text!r}: expected numbers with commas between them, such as -0.3,0,0.3") from error
    if not all(np.isfinite(numbers)):
        raise PriorzooError(f"{option} {text!r}: the numbers must be finite")
    return numbers
