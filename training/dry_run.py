"""A dry run: everything that a recipe's training does, at full size, for two steps: is all there, does it fit, what does it cost?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError
from ..core.files import write_text_atomically
from ..core.recipe import Recipe
from .checkpoints import optimiser_tensors
from .peak_memory import forget_peak, peak_memory
from .phase_clock import PhaseClock
from .resuming import begin_run
from .run import circumstances
from .sources import open_sources
from .stand_ins import with_stand_ins
from .trainer import Trainer

if TYPE_CHECKING:
    from .objective import Phase
    from .terms import MicroBatch

SMALL_BATCH = ("training.batch=2", "training.micro_batch=1", "training.devices=1", "training.nodes=1", "training.checkpoint.keep=1")
"""What a dry run changes, before anything that its caller changes."""


@dataclass
class TermSeen:
    """A term of the generator's loss as the first step sees it.

    ``value``: its mean over the batch, before ``weight`` (with schedule and lazy gain); ``pixels``: how many it looked at, in all (None:
    it does not say); ``gradient``: the norm of the weighted term's gradient with respect to the generator's parameters.
    """

    value: float
    weight: float
    pixels: int | None
    gradient: float


@dataclass
class DryRun:
    """What a dry run found. ``seconds`` of each step; ``peak_memory`` in bytes, while the steps ran; ``checkpoint`` in bytes;
    ``stand_ins``: what was not what the recipe names.
    """

    parameters: dict[str, int]
    terms: dict[str, TermSeen]
    clock: PhaseClock
    seconds: list[float] = field(default_factory=list)
    peak_memory: int = 0
    checkpoint: int = 0
    device: str = ""
    stand_ins: list[str] = field(default_factory=list)


def dry_run(recipe: Recipe, folder: Path, *, steps: int = 2, go_on: bool = False, say: Callable[[str], None] = lambda _: None) -> DryRun:
    """Train ``steps`` steps of the recipe in ``folder``, write a checkpoint and resume it; files that are missing get stand-ins.

    ``go_on``: one more step of the training and of the resumed one, which must give the same numbers (bit for bit; a GPU need not add
    in the same order twice). ``say`` is told what is done and what stands in; ``folder`` then holds the run, what stood in, and
    ``dry_run.json``. Raises what training raises, and CheckpointError when the resumed training is not the one that was written.
    """
    told: list[str] = []
    recipe = with_stand_ins(recipe, folder / "stand_ins", told.append)
    for line in told:
        say(line)
    run = folder / "run"
    sources = open_sources(recipe, folder / "stand_ins")
    begin_run(recipe, run)
    trainer = Trainer(recipe, run, sources)
    trainer.start()
    device = trainer.fabric.device
    plan = recipe.training
    say(f"{steps} steps of {plan.batch} images by micro-batches of {plan.micro_batch or plan.batch} on {device}")
    found = DryRun(parameter_counts(trainer), {}, PhaseClock.of(trainer), device=str(device), stand_ins=told)
    say("every term of the generator's loss, and its gradient")
    found.terms = seen_terms(trainer, trainer.micro_batches())
    forget_peak(device)
    for number in range(1, steps + 1):
        with trainer.runner.around(partial(_told, say, f"step {number} of {steps}")), found.clock.timing(trainer):
            trainer.train_step()
        found.seconds.append(sum(found.clock.seconds[phase] for phase in ran(trainer, found.clock)))
    found.peak_memory = peak_memory(device)
    say("a checkpoint")
    place = trainer.save()
    found.checkpoint = sum(file.stat().st_size for file in place.iterdir())
    say("the training resumed from it")
    again = resumed(trainer)
    require_same(trainer, again, f"{place}: {{}} is not the same after resuming")
    if go_on:
        for one in (trainer, again):
            one.train_step()
        require_same(trainer, again, f"{place}: {{}} is not the same one step after resuming")
    write_text_atomically(folder / "dry_run.json", json.dumps({**asdict(found), **circumstances()}, indent=1) + "\n")
    say(f"checkpoint of {found.checkpoint / 1e6:.0f} MB written, and resumed with every number as it was")
    return found


@contextmanager
def _told(say: Callable[[str], None], step: str, phase: Phase) -> Iterator[None]:
    say(f"{step}: {phase.name}")
    yield


def ran(trainer: Trainer, clock: PhaseClock) -> list[str]:
    """Return the names under which the step that was just done was timed."""
    step = trainer.step - 1
    return [name for name, interval in clock.intervals.items() if step % interval == 0 and name in clock.seconds]


def parameter_counts(trainer: Trainer) -> dict[str, int]:
    """Return the number of parameters by part; what does not train is in brackets."""
    backbone, priors = trainer.backbone, trainer.priors
    counts = {f"generator: {name}": _count(child) for name, child in backbone.generator.named_children()}
    assert backbone.discriminator is not None
    counts["discriminator"] = _count(backbone.discriminator)
    counts |= {f"prior {name}": _count(module) for name, module in priors.modules.named_children() if _count(module)}
    frozen = {"segmenter": priors.segmenter, "estimator": priors.estimator}
    return counts | {f"({name})": _count(module) for name, module in frozen.items() if module is not None}


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def seen_terms(trainer: Trainer, micros: Sequence[MicroBatch]) -> dict[str, TermSeen]:
    """Compute every term of the generator's phases alone, without a step, and the norm of each one's gradient."""
    out: dict[str, TermSeen] = {}
    trainer.backbone.train().requires_grad_(True)
    for phase in trainer.phases:
        if phase.part == "generator":
            with trainer.objective.without_effects():
                out |= _seen_in(trainer, phase, micros)
    return out


def _seen_in(trainer: Trainer, phase: Phase, micros: Sequence[MicroBatch]) -> dict[str, TermSeen]:
    parameters = trainer.runner.parameters["generator"]
    out: dict[str, TermSeen] = {}
    gradients: dict[str, list[Tensor]] = {}
    totals: dict[str, float] = {}
    for micro in micros:
        with trainer.precision.autocast(), trainer.precision.products():
            terms = phase.terms(micro)
        totals = totals or trainer.runner.totals(phase, micros, terms)
        for term in terms:
            seen = out.setdefault(term.name, TermSeen(0.0, term.weight, None, 0.0))
            share = term.share(totals[term.name])
            seen.value += float(share.detach()) / term.weight if term.weight else 0.0
            if term.pixels is not None:
                seen.pixels = (seen.pixels or 0) + int(term.pixels.sum())
            if share.requires_grad and term.weight:
                computed = torch.autograd.grad(share, parameters, retain_graph=True, allow_unused=True)
                own = [torch.zeros_like(p) if g is None else g for g, p in zip(computed, parameters, strict=True)]
                before = gradients.get(term.name)
                gradients[term.name] = own if before is None else [a + b for a, b in zip(before, own, strict=True)]
    for name, total in gradients.items():
        out[name].gradient = math.sqrt(sum(float(g.double().square().sum()) for g in total))
    return out


def resumed(trainer: Trainer) -> Trainer:
    """Return the training that the newest checkpoint of this one's run gives."""
    again = Trainer(trainer.recipe, trainer.folder, trainer.sources, fabric=trainer.fabric)
    again.start()
    return again


def require_same(one: Trainer, other: Trainer, complaint: str) -> None:
    """Compare two trainings number by number; raises CheckpointError: ``complaint`` with the first name that differs."""
    first, second = every_number(one), every_number(other)
    for name in {**first, **second}:
        if not _equal(first.get(name), second.get(name)):
            raise CheckpointError(complaint.format(name))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return repr(one) == repr(other)  # a sum that is not a number equals itself


def every_number(trainer: Trainer) -> dict[str, Any]:
    """Return all that a training is, by name: models, averages, priors, optimisers; position, streams, sums of the losses, the
    objective's state, loss scales.
    """
    modules = {"model": trainer.backbone, "average": trainer.average, "priors": trainer.priors.modules}
    numbers = {f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}
    for part, optimiser in trainer.optimisers.items():
        numbers |= optimiser_tensors(optimiser, {p: f"optimiser of {n}" for n, p in trainer.runner.named(part)})
    return {**dict(_leaves("", trainer.state())), **numbers}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values inside of nested mappings, by dotted names."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{name}.{key}" if name else str(key), inner)
