"""The priors of a run: built from the recipe's entries, asked when they are due, fed with the buffers that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import PriorzooError
from ..core.registry import ESTIMATORS, PRIORS, SEGMENTERS
from ..core.scene import Scene, Segmentation
from ..core.schedule import Schedule, value_at
from ..priors.base import Prior, PriorResult
from .terms import MicroBatch, Term

if TYPE_CHECKING:
    from ..core.recipe import Recipe
    from ..core.recipe.schema import PriorEntry


class ActivePrior:
    """One entry of the recipe's ``priors``: the prior with its weight, interval and phase."""

    def __init__(self, name: str, entry: PriorEntry, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.entry, self.interval, self.phase = name, entry, entry.interval, entry.phase
        cls = PRIORS.get(entry.name)
        # Options that follow a schedule start at its first value and are set anew at every step.
        self.scheduled = {k: v for k, v in entry.options.items() if isinstance(v, Schedule)}
        start = {k: value_at(v, images=0, steps=0) for k, v in self.scheduled.items()}
        options: dict[str, Any] = {**entry.options, **start}
        self.prior: Prior = cls(**options).to(device, dtype)
        for option in self.scheduled:
            if not hasattr(self.prior, option):
                raise PriorzooError(f"priors.{name}.{option}: follows a schedule, but {cls.__name__} keeps no attribute of that name")
        self.needs = cls.needs(**options)

    def weight(self, micro: MicroBatch) -> float:
        """Return the entry's weight at this step, without the lazy gain."""
        return value_at(self.entry.weight, images=micro.images_seen, steps=micro.step)

    @property
    def switched_off(self) -> bool:
        """Whether the weight is the constant 0: the entry is then as if absent."""
        return not isinstance(self.entry.weight, Schedule) and float(self.entry.weight) == 0.0

    def term(self, scene: Scene, micro: MicroBatch) -> Term:
        """Return the entry's loss term on a scene; its weight carries schedule and lazy gain."""
        for option, schedule in self.scheduled.items():
            setattr(self.prior, option, value_at(schedule, images=micro.images_seen, steps=micro.step))
        with torch.autocast(device_type=micro.real.device.type, enabled=False):
            result: PriorResult = self.prior(scene, micro.streams.within("priors")(self.name))
        return Term(f"prior/{self.name}", result.value, self.weight(micro) * self.interval, result.count, result.pixels)


class PriorSet:
    """All priors of a run with the segmenter and estimator that feed them."""

    def __init__(self, recipe: Recipe, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        entries = [ActivePrior(name, entry, device, dtype) for name, entry in recipe.priors.items()]
        self.all = [entry for entry in entries if not entry.switched_off]
        self.main = [entry for entry in self.all if entry.phase == "main"]
        self.own = [entry for entry in self.all if entry.phase == "own"]
        self.modules = nn.ModuleDict({entry.name: entry.prior for entry in self.all})
        needed = {n.removeprefix("other_view.") for entry in self.all for n in entry.needs}
        self.segmenter = _build(SEGMENTERS, recipe.segmenter, device, dtype) if "segmentation" in needed else None
        self.segmenter_reads: frozenset[str] = frozenset()
        if self.segmenter is not None and recipe.segmenter is not None:
            self.segmenter_reads = type(self.segmenter).needs(**recipe.segmenter.options)
        wants_shape = bool(needed & {"estimated_depth", "estimated_normals"})
        self.estimator = _build(ESTIMATORS, recipe.estimator, device, dtype) if wants_shape else None

    def active(self, micro: MicroBatch) -> list[ActivePrior]:
        """Return the main-phase entries that act at this step: due by interval and of a weight that is not 0."""
        return [e for e in self.main if micro.step % e.interval == 0 and e.weight(micro) != 0.0]

    def made_from(self) -> dict[str, frozenset[str]]:
        """Return what derived buffers are made from here (a segmenter may read ``image_raw``)."""
        return {"segmentation": self.segmenter_reads} if self.segmenter is not None else {}

    def attach(self, scene: Scene) -> None:
        """Let the scene make segmentation and estimates when they are first asked for."""
        if self.segmenter is not None:
            scene.set_maker("segmentation", self._segment)
        if self.estimator is not None:
            scene.set_maker("estimated_depth", lambda s: self._estimate(s)[0])
            scene.set_maker("estimated_normals", lambda s: self._estimate(s)[1])

    @torch.no_grad()
    def _segment(self, scene: Scene) -> Segmentation:
        assert self.segmenter is not None
        (source,) = self.segmenter_reads
        return self.segmenter.segment(scene[source].detach().to(self.dtype))

    @torch.no_grad()
    def _estimate(self, scene: Scene) -> tuple[Tensor, Tensor]:
        assert self.estimator is not None and scene.camera is not None
        depth, normals = self.estimator.estimate(scene.image.detach().to(self.dtype))
        world = torch.einsum("bij,bjhw->bihw", scene.camera.cam2world[:, :3, :3], normals)
        # One forward pass serves both buffers.
        scene["estimated_depth"], scene["estimated_normals"] = depth, world
        return depth, world


def _build(registry: Any, spec: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Build a frozen segmenter or estimator from the recipe's part."""
    return registry.create(spec.name, **spec.options).to(device, dtype).eval().requires_grad_(False)
