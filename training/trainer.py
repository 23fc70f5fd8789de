"""The trainer: one loop for every recipe, on Lightning Fabric.

A seed gives the same run on the same machine, and a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.base import Execution
from ..core.errors import RunError, StoppedError
from ..core.recipe import Recipe
from ..core.streams import Streams
from .averaging import average_decay, update_average
from .checkpoints import (
    Checkpoint,
    checkpoint_folders,
    load_module,
    load_optimiser,
    optimiser_tensors,
    part,
    read_checkpoint,
    write_checkpoint,
)  # fmt: skip
from .journal import Journal
from .memory import keep_freed_memory
from .objective import EG3DObjective
from .order import image_at
from .precision import Precision
from .priors import PriorSet
from .processes import first_process_says, launch, sum_numbers, together
from .progress import Progress
from .resuming import begin_run, check_run
from .run import Run, build_backbone, load_backbone, load_run, locked, read_record, write_record
from .sources import Sources, open_sources
from .starting import start_from
from .stepping import PhaseRunner
from .stopping import StopRequest
from .terms import MicroBatch

Monitor = Callable[["Trainer"], Mapping[str, float]]


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    data_folder: Path | None = None,
    allow_changes: bool = False,
    progress: bool = True,
    monitors: Sequence[Monitor] = (),
    fabric: Any = None,
) -> Run:
    """Train a recipe into a run folder and return the run.

    ``resume`` continues from the newest checkpoint (or starts over where there is none); ``data_folder`` is where generated heads are
    kept (default: the run); ``allow_changes`` resumes although the recipe changed. ``monitors`` are called when samples are
    written and may return numbers for the log. ``fabric`` are processes that somebody started before and will part: an ablation
    trains several recipes with them. Raises RunError, DataError, CheckpointError or NonFiniteError.
    """
    folder = Path(folder)
    # Other processes begin here, as copies of this command: nothing may be locked or written before.
    parted = together if fabric is None else nullcontext
    fabric = fabric or launch(recipe.training)
    with parted(fabric), locked(folder) if fabric.is_global_zero else nullcontext():
        state = first_process_says(fabric, lambda: check_run(recipe, folder, resume, allow_changes))
        if state == "finished":
            _say(fabric, f"{folder}: this run is finished; nothing to do")
            return load_run(folder)
        place = data_folder or folder / "data"
        # The first process generates what is missing; the data are checked before the folder becomes a run.
        first_process_says(fabric, lambda: str(len(open_sources(recipe, place, progress=progress).train)))
        sources = open_sources(recipe, place)
        otherwise = first_process_says(fabric, lambda: begin_run(recipe, folder))
        if otherwise is not None:
            _say(fabric, otherwise)
        trainer = Trainer(recipe, folder, sources, monitors=monitors, fabric=fabric)
        trainer.start()
        if resume and trainer.step == 0:
            _say(fabric, f"{folder}: no checkpoint yet; the run starts over")
        elif trainer.step:
            _say(fabric, f"{folder}: continues after {trainer.images} of {recipe.training.images} images")
        trainer.run(progress)
    return load_run(folder)


def _say(fabric: Any, message: str) -> None:
    if fabric.is_global_zero:
        print(message, file=sys.stderr, flush=True)


class Trainer:
    """The state of a training: parts, averages, optimisers, position."""

    def __init__(self, recipe: Recipe, folder: Path, sources: Sources, monitors: Sequence[Monitor] = (), fabric: Any = None) -> None:
        self.recipe, self.folder, self.sources, self.monitors = recipe, folder, sources, monitors
        keep_freed_memory()
        plan = recipe.training
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        self.fabric = fabric if fabric is not None else launch(plan)
        device = self.fabric.device
        self.batch, self.seed, self.step = plan.batch, recipe.seed, 0
        self.images = 0  # real images seen; not step * batch: the batch may change when a run is resumed
        self.seconds = 0.0
        self.precision = Precision(plan.precision, device, tf32=plan.tf32)
        self.backbone = self.precision.place(build_backbone(recipe))
        self.average = self.precision.place(build_backbone(recipe)).eval().requires_grad_(False)
        self.average.discriminator = None
        self.backbone.set_execution(Execution(plan.memory_format, plan.checkpoint_rendering, plan.compile))
        self.average.set_execution(Execution(plan.memory_format))
        self.priors = PriorSet(recipe, device, self.precision.dtype)
        labels = sources.train.labels
        if labels is None:
            raise RunError(f"objective {recipe.objective.name}: needs camera labels, and the data set has none")
        self.objective = EG3DObjective(recipe, self.backbone, labels.to(device, self.precision.dtype), self.priors)
        self.journal = Journal(folder, self.batch, enabled=self.fabric.is_global_zero)
        self.runner = PhaseRunner(self.fabric, plan, self.precision, self.backbone, self.priors, self.objective, self.journal)
        self.phases, self.optimisers = self.runner.phases, self.runner.optimisers

    # ------------------------------------------------------------------------------------------------ start and position

    def start(self) -> None:
        """Continue from the newest checkpoint, or begin: from the recipe's ``init``, or from initial weights."""
        found = checkpoint_folders(self.folder)
        if found:
            self._restore(found[-1])
        elif self.recipe.init is not None:
            for line in start_from(load_run(self.recipe.init), self.recipe, self.backbone, self.average):
                _say(self.fabric, line)
        else:
            self.average.generator.load_state_dict(self.backbone.generator.state_dict())
        self.journal.rewind(self.images if found else -1)

    def _restore(self, folder: Path) -> None:
        saved = read_checkpoint(folder)
        where = str(folder)
        load_backbone(self.backbone, saved.model, where)
        load_backbone(self.average, saved.model, where, average=True)
        load_module(self.priors.modules, part(saved.model, "priors"), f"{where} (priors)")
        for name, optimiser in self.optimisers.items():
            named = self.runner.named(name)
            own = tuple(f"{n}|" for n, _ in named)
            load_optimiser(optimiser, {k: v for k, v in saved.optimisers.items() if k.startswith(own)}, named)
        # Streams are derived: their whole state is the seed and the step.
        self.seed, self.step = int(saved.state["streams"]["seed"]), int(saved.state["streams"]["step"])
        self.images = int(saved.state["images"])
        self.seconds = float(saved.state["seconds"])
        self.objective.restore(saved.state.get("objective", {}))
        for name, scale in self.runner.scales.items():
            if name in saved.state.get("scales", {}):
                scale.restore(saved.state["scales"][name])
        # The sums are those of all processes together: one goes on with them.
        self.journal.sums = {k: float(v) for k, v in saved.state["journal"].items()} if self.fabric.is_global_zero else {}

    def save(self) -> Path:
        """Write a checkpoint of this moment, whole or not at all."""
        model = {f"generator.{k}": v for k, v in self.backbone.generator.state_dict().items()}
        model |= {f"average.{k}": v for k, v in self.average.generator.state_dict().items()}
        assert self.backbone.discriminator is not None
        model |= {f"discriminator.{k}": v for k, v in self.backbone.discriminator.state_dict().items()}
        model |= {f"priors.{k}": v for k, v in self.priors.modules.state_dict().items()}
        optimisers: dict[str, Tensor] = {}
        for name, optimiser in self.optimisers.items():
            optimisers |= optimiser_tensors(optimiser, {p: n for n, p in self.runner.named(name)})
        keep = self.recipe.training.checkpoint.keep
        return write_checkpoint(self.folder, f"{self.images:09d}", Checkpoint(model, optimisers, self.state()), keep)

    def state(self) -> dict[str, Any]:
        """Return, as plain JSON, what a checkpoint holds beside tensors."""
        return {
            "images": self.images,
            "streams": {"seed": self.seed, "step": self.step},
            "seconds": self.seconds,
            "journal": dict(self.journal.sums),
            "objective": self.objective.state(),
            "scales": {name: scale.state() for name, scale in self.runner.scales.items()},
        }

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self, progress: bool = True) -> None:
        """Train from the present position to the end.

        Raises StoppedError, after a checkpoint, when a process is asked to stop (SIGTERM), and RunError when the folder takes no more.
        """
        plan = self.recipe.training
        shown = progress and self.fabric.is_global_zero
        with Progress(self.folder.name, plan.images, self.images, shown=shown) as bar, StopRequest(self.fabric) as stop:
            clock = time.monotonic()
            if self.step == 0:
                self._monitor()
            while self.images < plan.images:
                self.train_step()
                self.seconds += time.monotonic() - clock
                clock = time.monotonic()
                last = self.images >= plan.images
                if last or self._passed(plan.log_every):
                    self._log()
                if last or self._passed(plan.samples.every if plan.samples is not None else plan.checkpoint.every):
                    self._monitor()
                due = last or self._passed(plan.checkpoint.every)
                if due:
                    self._checkpoint()
                if not last and stop.asked():
                    self._stop(written=due)
                clock = time.monotonic()
                bar.update(self.images)
        self._end("finished")

    def _passed(self, every: int) -> bool:
        return self.images // every > (self.images - self.batch) // every

    def _end(self, status: str) -> None:
        self.journal.close()
        if self.fabric.is_global_zero:
            write_record(self.folder, {**read_record(self.folder), "seconds": round(self.seconds, 1), "status": status})

    def _stop(self, written: bool) -> None:
        if not written:
            self._checkpoint()
        self._end("stopped")
        raise StoppedError(
            f"{self.folder}: asked to stop (SIGTERM) after {self.images} of {self.recipe.training.images} images; a checkpoint of this "
            "moment is written, --resume continues from it"
        )

    def _checkpoint(self) -> None:
        self._gather_journal()
        first_process_says(self.fabric, lambda: str(self.save()))

    def _log(self) -> None:
        self._gather_journal()
        if not self.fabric.is_global_zero:
            return
        extra = {
            "seconds": round(self.seconds, 2),
            "images_per_second": round(self.images / max(self.seconds, 1e-9), 2),
            **{f"scale/{name}": scale.factor for name, scale in self.runner.scales.items()},
        }
        with self._writing():
            self.journal.write(self.journal.line(self.images, self.step, extra))

    def _gather_journal(self) -> None:
        """Bring what the processes have noted together in the first."""
        sums = sum_numbers(self.fabric, self.journal.sums)
        self.journal.sums = sums if self.fabric.is_global_zero else {}

    def _monitor(self) -> None:
        first_process_says(self.fabric, self._ask_monitors)

    def _ask_monitors(self) -> None:
        record: dict[str, float] = {}
        # What is shown is float32's: float64 is there to compare steps.
        kept = self.average
        if self.precision.dtype == torch.float64:
            self.average = copy.deepcopy(kept).float()
        try:
            with self._writing():
                for monitor in self.monitors:
                    record |= monitor(self)
                if record:
                    self.journal.write({"images": self.images, "step": self.step, **record})
        finally:
            self.average = kept

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Inside, a disk that takes no more is the run's error: it says where the run can go on."""
        try:
            yield
        except OSError as error:
            found = checkpoint_folders(self.folder)
            rest = f"the newest checkpoint is {found[-1].name}; --resume continues from it" if found else "there is no checkpoint yet"
            raise RunError(f"{self.folder}: cannot be written to: {error}; {rest}") from error

    def micro_batches(self) -> list[MicroBatch]:
        """Return this process's slices of the step's global batch."""
        world, rank = self.fabric.world_size, self.fabric.global_rank
        mine = list(range(rank * self.batch // world, (rank + 1) * self.batch // world))
        size = self.recipe.training.micro_batch or len(mine)
        device = self.fabric.device
        out = []
        for number, begin in enumerate(range(0, len(mine), size)):
            indices = tuple(mine[begin : begin + size])
            chosen = [image_at(self.seed, self.images + i, len(self.sources.train)) for i in indices]
            images, labels = self.sources.train.batch(chosen)
            dtype = self.precision.dtype
            real = images.to(device).to(dtype) / 127.5 - 1
            streams = Streams(self.seed, self.step, indices, device=device)
            out.append(MicroBatch(number, streams, real, labels.to(device, dtype), self.images, self.step))
        return out

    def train_step(self) -> None:
        """Run every phase that is due, then move the averages."""
        micros = self.micro_batches()
        self.backbone.train()
        with self.precision.products():
            for phase in self.phases:
                if self.step % phase.interval == 0:
                    self.runner.run(phase, micros)
        self.runner.end_step()
        plan = self.recipe.training.average
        decay = average_decay(self.batch, self.images, plan.half_life, plan.ramp_up)
        update_average(self.average.generator, self.backbone.generator, decay)
        self.step += 1
        self.images += self.batch
        self.objective.after_step(self.images, self.step, self.fabric)
