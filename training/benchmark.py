"""Where the time of a training step goes: each part run alone on the step's own data, beside the whole step, in one process."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.recipe import Recipe
from ..core.scene import Scene, rendered_needs
from .objective import Phase
from .run import circumstances
from .sources import open_sources
from .terms import MicroBatch
from .trainer import Trainer


@dataclass
class StepCost:
    """``parts``: seconds a step by part, lazy phases divided by their interval; ``step``: seconds of the whole step, lazy phases likewise.

    ``peak_memory`` in bytes of the process (or of the device); ``batch`` images a step.
    """

    parts: dict[str, float]
    step: float
    peak_memory: int
    batch: int
    about: dict[str, Any]

    @property
    def images_per_second(self) -> float:
        """Real images a second."""
        return self.batch / self.step

    def share(self, name: str) -> float:
        """Share of the step, in [0,1], of the parts whose name begins so."""
        return sum(seconds for part, seconds in self.parts.items() if part.startswith(name)) / self.step

    def to_plain(self) -> dict[str, Any]:
        """Return everything as a mapping for JSON."""
        return {
            "seconds": self.parts, "step_seconds": self.step, "images_per_second": self.images_per_second,
            "peak_memory_bytes": self.peak_memory, "batch": self.batch, **self.about,
        }  # fmt: skip


def step_cost(recipe: Recipe, *, data_folder: Path, repeats: int = 5) -> StepCost:
    """Measure a step of the recipe: medians over ``repeats`` runs of each part, interleaved so that a busy machine disturbs all alike."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, Path(folder), open_sources(recipe, data_folder))
        trainer.start()
        for _ in range(2):  # warm caches and allocators
            trainer.train_step()
        micros = trainer.micro_batches()
        phases: dict[str, tuple[Callable[[], Any], float]] = {
            phase.name: (_phase_runner(trainer, phase, micros), 1 / phase.interval) for phase in trainer.phases
        }
        parts = _parts(trainer, micros)
        parts["data"] = (trainer.micro_batches, 1.0)
        seconds = _interleaved({**{f"phase {k}": v for k, v in phases.items()}, **parts}, repeats, trainer.fabric.device)
        average = _interleaved({"average": (lambda: _average(trainer), 1.0)}, repeats, trainer.fabric.device)["average"]
    step = sum(v for k, v in seconds.items() if k.startswith("phase ")) + seconds["data"] + average
    out = {k: v for k, v in seconds.items() if not k.startswith("phase ")}
    out["average"] = average
    out["rest"] = max(0.0, step - sum(out.values()))
    return StepCost(out, step, _peak_memory(trainer.fabric.device), recipe.training.batch, circumstances())


def _phase_runner(trainer: Trainer, phase: Phase, micros: list[MicroBatch]) -> Callable[[], None]:
    def run() -> None:
        if trainer.recipe.objective.reuse_fakes and phase.name == "Dmain":
            trainer.objective.keep_fakes(kept)
        trainer._run_phase(phase, micros)

    kept = trainer.objective.fakes_of(micros) if trainer.recipe.objective.reuse_fakes else {}
    return run


def _average(trainer: Trainer) -> None:
    from .averaging import update_average

    update_average(trainer.average.generator, trainer.backbone.generator, 0.999)


def _parts(trainer: Trainer, micros: list[MicroBatch]) -> dict[str, tuple[Callable[[], Any], float]]:
    """The parts that can be run alone, each with its share of steps."""
    backbone, objective, priors = trainer.backbone, trainer.objective, trainer.priors
    assert backbone.discriminator is not None
    micro = micros[0]
    slices = float(len(micros))
    active = priors.main
    needs = frozenset().union(*(entry.needs for entry in active)) if active else frozenset()
    backbone.requires_grad_(True)
    labels = objective.real_labels[: len(micro)]
    latents = backbone.draw(len(micro), micro.streams)
    rendered = backbone.critic_needs() | rendered_needs(needs, made=priors.made_from())

    def render(part_needs: frozenset[str]) -> Callable[[], None]:
        def run() -> None:
            scene = backbone.render(
                backbone.prepare(latents, None), Camera.from_label(labels), part_needs,
                streams=micro.streams, resolution=objective.resolution(micro),
            )  # fmt: skip
            wanted = [scene[name] for name in ("image", "image_raw", "depth", "opacity") if name in part_needs]
            _backward([torch.stack([v.sum() for v in wanted]).sum()])

        return run

    parts: dict[str, tuple[Callable[[], Any], float]] = {}
    renders = 1.0 if objective.spec.reuse_fakes else 1.4  # without reuse, D's fakes are rendered once more, without gradient
    with_planes: Any = getattr(backbone, "with_planes", None)
    if with_planes is not None:
        parts["generator: planes"] = (lambda: _backward([with_planes(backbone.prepare(latents, None))["planes"]]), slices)
    parts["generator: all"] = (render(rendered), slices * renders)
    if getattr(backbone.generator, "superresolution", None) is not None:
        parts["generator: without super-resolution"] = (render(frozenset({"image_raw"})), slices * renders)
    with torch.no_grad():
        seen = {k: v.detach() for k, v in backbone.critic_input(micro.real, objective.resolution(micro)).items()}

    def critic() -> None:
        inputs = {k: v.clone().requires_grad_() for k, v in seen.items()}
        _backward([backbone.criticise(inputs, micro.labels)])

    parts["discriminator"] = (critic, 3.0 * slices)  # fake in G's phase, fake and real in its own
    r1 = [phase for phase in trainer.phases if phase.name == "R1"]
    if r1:
        parts["discriminator: R1"] = (_phase_runner(trainer, r1[0], micros), 1 / r1[0].interval)
    return {**parts, **_prior_parts(trainer, micro, rendered, slices)}


def _prior_parts(
    trainer: Trainer, micro: MicroBatch, rendered: frozenset[str], slices: float
) -> dict[str, tuple[Callable[[], Any], float]]:
    """Segmenter, estimator and each prior: forward and backward to the buffers it reads."""
    priors, backbone = trainer.priors, trainer.backbone
    parts: dict[str, tuple[Callable[[], Any], float]] = {}
    if priors.main:
        with torch.no_grad():
            labels = trainer.objective.real_labels[: len(micro)]
            latents = backbone.prepare(backbone.draw(len(micro), micro.streams), None)
            scene = backbone.render(latents, Camera.from_label(labels), rendered, streams=micro.streams)
        priors.attach(scene)
        if priors.segmenter is not None:
            parts["segmenter"] = (lambda: priors._segment(scene), slices / min(e.interval for e in priors.main))
            scene["segmentation"] = priors._segment(scene)

        def run(entry: Any) -> Callable[[], None]:
            def prior() -> None:
                leaves: dict[str, Any] = {
                    k: v.clone().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v
                    for k, v in scene.buffers.items()
                }  # fmt: skip
                _backward([entry.term(Scene(scene.camera, **leaves), micro).value])

            return prior

        for entry in priors.main:
            parts[f"prior {entry.name}"] = (run(entry), slices / entry.interval)
    for phase in trainer.phases:
        if phase.name.startswith("prior/"):
            parts[f"prior {phase.name.removeprefix('prior/')}"] = (_phase_runner(trainer, phase, [micro]), slices / phase.interval)
    return parts


def _backward(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if tensor.requires_grad:
            tensor.sum().backward()  # type: ignore[no-untyped-call]


def _interleaved(parts: dict[str, tuple[Callable[[], Any], float]], repeats: int, device: torch.device) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, (run, factor) in parts.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            times[name].append((time.perf_counter() - start) * factor)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return _split_generator(seconds)


def _split_generator(seconds: dict[str, float]) -> dict[str, float]:
    """Rendering is what is left of a generator pass without planes and super-resolution."""
    if "generator: all" not in seconds:
        return seconds
    out = dict(seconds)
    whole = out.pop("generator: all")
    bare = out.pop("generator: without super-resolution", whole)
    planes = out.get("generator: planes", 0.0)
    out["generator: rendering"] = max(0.0, bare - planes)
    if bare != whole:
        out["generator: super-resolution"] = max(0.0, whole - bare)
    return out


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
