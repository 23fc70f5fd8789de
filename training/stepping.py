"""One phase of a step: forward and backward over all micro-batches, one reduction over the processes, one optimiser step.

Gradients are not averaged by hooks: a step leaves parts out, calls the generator several times and differentiates twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..backbones.base import Backbone
from ..core.errors import NonFiniteError
from ..core.recipe.schema import Training
from .averaging import RunningMeans
from .journal import Journal
from .objective import EG3DObjective, Phase
from .optimiser import first_nonfinite, gradients_finite, lazy_adam, replace_nonfinite
from .precision import LossScale, Precision
from .priors import PriorSet
from .processes import anywhere, sum_tensors
from .terms import MicroBatch, Term


class PhaseRunner:
    """Runs phases: holds the parameters of both parts by name and their optimisers.

    Gradients are summed once per optimiser step over micro-batches and processes; a parameter that some samples did not reach counts as
    zero there.
    """

    def __init__(
        self,
        fabric: Any,
        plan: Training,
        precision: Precision,
        backbone: Backbone,
        priors: PriorSet,
        objective: EG3DObjective,
        journal: Journal,
    ) -> None:
        self.fabric, self.plan, self.precision, self.backbone, self.priors = fabric, plan, precision, backbone, priors
        self.objective, self.journal = objective, journal
        self.phases = objective.phases()
        assert backbone.discriminator is not None
        prior_parameters = list(priors.modules.parameters())
        generator = list(backbone.generator.parameters())
        discriminator = list(backbone.discriminator.parameters())
        self.parameters = {"generator": generator + prior_parameters, "discriminator": discriminator}
        # A part's first phase is its main one; every other is a further step of the same optimiser.
        extra = {p: [f.interval for f in self.phases if f.part == p][1:] for p in self.parameters}
        self.optimisers = {
            "generator": lazy_adam([generator, prior_parameters], plan.learning_rate.generator, plan.betas, extra["generator"]),
            "discriminator": lazy_adam([discriminator], plan.learning_rate.discriminator, plan.betas, extra["discriminator"]),
        }  # fmt: skip
        self.means = RunningMeans([b for b in backbone.generator.buffers() if b.is_floating_point()])
        self.scales = {phase.name: LossScale() for phase in self.phases if precision.scales and not phase.twice}
        self._around: list[Callable[[Phase], AbstractContextManager[object]]] = []

    def named(self, part: str) -> list[tuple[str, nn.Parameter]]:
        """Return a part's parameters under the names that checkpoints give them."""
        if part == "discriminator":
            assert self.backbone.discriminator is not None
            return [(f"discriminator.{n}", p) for n, p in self.backbone.discriminator.named_parameters()]
        named = [(f"generator.{n}", p) for n, p in self.backbone.generator.named_parameters()]
        return named + [(f"priors.{n}", p) for n, p in self.priors.modules.named_parameters()]

    @contextmanager
    def around(self, each: Callable[[Phase], AbstractContextManager[object]]) -> Iterator[None]:
        """Inside, every phase is run within the context that ``each`` gives for it: to time it, to count, to tell."""
        self._around.append(each)
        try:
            yield
        finally:
            self._around.remove(each)

    def run(self, phase: Phase, micros: Sequence[MicroBatch]) -> None:
        """Run one phase on this process's micro-batches; raises NonFiniteError."""
        with ExitStack() as contexts:
            for each in self._around:
                contexts.enter_context(each(phase))
            self._run(phase, micros)

    def _run(self, phase: Phase, micros: Sequence[MicroBatch]) -> None:
        assert self.backbone.discriminator is not None
        trains_generator = phase.part == "generator"
        self.backbone.generator.requires_grad_(trains_generator)
        self.priors.modules.requires_grad_(trains_generator)
        self.backbone.discriminator.requires_grad_(not trains_generator)
        parameters = self.parameters[phase.part]
        self.optimisers[phase.part].zero_grad(set_to_none=True)
        scale = self.scales.get(phase.name)
        totals: dict[str, float] | None = None
        finite = True
        for micro in micros:
            with self.precision.autocast(twice=phase.twice), self.means.moved(len(micro) / self.plan.batch):
                terms = phase.terms(micro)
            if totals is None:
                totals = self.totals(phase, micros, terms)
            shares = [t.share(totals[t.name]) for t in terms if t.weight != 0.0]
            if shares:
                loss = torch.stack(shares).sum()
                finite = finite and bool(torch.isfinite(loss))
                (loss if scale is None else loss * scale.factor).backward()  # type: ignore[no-untyped-call]
            for term in terms:
                self.journal.add(term, totals[term.name])
        if not totals:
            return
        if scale is not None and self._overflowed(scale, finite, parameters):
            return
        if self.plan.nonfinite_gradients == "stop":
            self._stop_if_nonfinite(finite and gradients_finite(parameters), phase, micros, totals)
        self._sum_gradients(parameters, 1.0 if scale is None else scale.factor)
        if self.plan.nonfinite_gradients == "replace":
            replace_nonfinite(parameters)
        self.optimisers[phase.part].step()
        if scale is not None:
            scale.passed()

    def end_step(self) -> None:
        """Move the generator's running means, once every phase of the step has run."""
        self.means.settle(self.fabric)

    def _overflowed(self, scale: LossScale, finite: bool, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether some process's gradients overflow for the factor's sake; the factor is then halved, and the optimiser stands still."""
        bad_loss, bad_gradients = anywhere(self.fabric, not finite, not gradients_finite(parameters))
        if bad_loss or not bad_gradients or scale.factor <= 1.0:
            return False
        scale.overflowed()
        return True

    def totals(self, phase: Phase, micros: Sequence[MicroBatch], first: list[Term]) -> dict[str, float]:
        """Return what each term is divided by: its count over the global batch.

        ``first`` are the terms of the first of ``micros``. Where a term counts its elements, the others are computed for that alone.
        """
        if all(t.count is None for t in first):
            return {t.name: float(self.plan.batch) for t in first}
        sums = {t.name: t.total_count() for t in first}
        with torch.no_grad(), self.objective.without_effects(), self.precision.autocast(twice=phase.twice):
            for micro in micros[1:]:
                for t in phase.terms(micro):
                    sums[t.name] = sums[t.name] + t.total_count()
        if self.fabric.world_size > 1:
            sums = {k: self.fabric.all_reduce(v, reduce_op="sum") for k, v in sums.items()}
        return {k: float(v) for k, v in sums.items()}

    def _sum_gradients(self, parameters: Sequence[nn.Parameter], scale: float) -> None:
        """Sum over the processes and take the loss's ``scale`` back. What no sample of any process reached keeps no gradient at all, as
        in one process: for Adam that is not the same as a gradient of zero.
        """
        if self.fabric.world_size > 1:
            reached = anywhere(self.fabric, *(p.grad is not None for p in parameters))
            for p, found in zip(parameters, reached, strict=True):
                if found and p.grad is None:
                    p.grad = torch.zeros_like(p)
            sum_tensors(self.fabric, [p.grad for p in parameters if p.grad is not None])
        gradients = [p.grad for p in parameters if p.grad is not None]
        if scale != 1.0 and gradients:
            torch._foreach_mul_(gradients, 1.0 / scale)

    def _stop_if_nonfinite(self, finite: bool, phase: Phase, micros: Sequence[MicroBatch], totals: Mapping[str, float]) -> None:
        """Stop every process together when any of them met a loss or gradient that is not finite; the culprit explains."""
        (bad,) = anywhere(self.fabric, not finite)
        if not finite:
            with self.objective.without_effects():
                self._explain_nonfinite(phase, micros, totals)
        if bad:
            raise NonFiniteError(f"step {micros[0].step}, phase {phase.name}: another process met a loss or gradient that is not finite")

    def _explain_nonfinite(self, phase: Phase, micros: Sequence[MicroBatch], totals: Mapping[str, float]) -> None:
        """Replay the phase term by term (streams are derived, weights unchanged) and name the first culprit."""
        named = self.named(phase.part)
        for micro in micros:
            with self.precision.autocast(twice=phase.twice):
                terms = phase.terms(micro)
            for term in terms:
                if not bool(torch.isfinite(term.value).all()):
                    raise _nonfinite(phase, micro, term, "its value is not finite")
                if term.weight == 0.0 or not term.value.requires_grad:
                    continue
                gradients = torch.autograd.grad(term.share(totals[term.name]), [p for _, p in named], retain_graph=True, allow_unused=True)
                culprit = first_nonfinite(zip((n for n, _ in named), gradients, strict=True))
                if culprit:
                    raise _nonfinite(phase, micro, term, f"its gradient of {culprit} is not finite")
        raise NonFiniteError(
            f"step {micros[0].step}, phase {phase.name}: the sum of all terms' gradients is not finite though each term's is"
        )


def _nonfinite(phase: Phase, micro: MicroBatch, term: Term, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"step {micro.step} ({micro.images_seen} images), phase {phase.name}, term {term.name!r}: {what}. The weights are those before "
        "this phase; `training.nonfinite_gradients: replace` would go on as EG3D does"
    )
