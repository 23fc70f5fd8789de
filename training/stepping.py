"""One phase of a step: forward and backward over all micro-batches, one reduction over the processes, one optimiser step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..backbones.base import Backbone
from ..core.errors import NonFiniteError
from ..core.recipe.schema import Training
from .journal import Journal
from .objective import EG3DObjective, Phase
from .optimiser import first_nonfinite, gradients_finite, lazy_adam, replace_nonfinite
from .priors import PriorSet
from .terms import MicroBatch, Term


class PhaseRunner:
    """Runs phases: holds the parameters of both parts by name and their optimisers.

    Gradients are summed once per optimiser step over micro-batches and processes; a parameter that some samples did not reach counts as
    zero there.
    """

    def __init__(
        self, fabric: Any, plan: Training, backbone: Backbone, priors: PriorSet, objective: EG3DObjective, journal: Journal
    ) -> None:
        self.fabric, self.plan, self.backbone, self.priors = fabric, plan, backbone, priors
        self.objective, self.journal = objective, journal
        self.phases = objective.phases()
        assert backbone.discriminator is not None
        prior_parameters = list(priors.modules.parameters())
        generator = list(backbone.generator.parameters())
        discriminator = list(backbone.discriminator.parameters())
        self.parameters = {"generator": generator + prior_parameters, "discriminator": discriminator}
        extra = {p: [f.interval for f in self.phases if f.part == p and f.interval > 1] for p in self.parameters}
        self.optimisers = {
            "generator": lazy_adam([generator, prior_parameters], plan.learning_rate.generator, plan.betas, extra["generator"]),
            "discriminator": lazy_adam([discriminator], plan.learning_rate.discriminator, plan.betas, extra["discriminator"]),
        }  # fmt: skip

    def named(self, part: str) -> list[tuple[str, nn.Parameter]]:
        """Return a part's parameters under the names that checkpoints give them."""
        if part == "discriminator":
            assert self.backbone.discriminator is not None
            return [(f"discriminator.{n}", p) for n, p in self.backbone.discriminator.named_parameters()]
        named = [(f"generator.{n}", p) for n, p in self.backbone.generator.named_parameters()]
        return named + [(f"priors.{n}", p) for n, p in self.priors.modules.named_parameters()]

    def run(self, phase: Phase, micros: Sequence[MicroBatch]) -> None:
        """Run one phase on this process's micro-batches; raises NonFiniteError."""
        assert self.backbone.discriminator is not None
        trains_generator = phase.part == "generator"
        self.backbone.generator.requires_grad_(trains_generator)
        self.priors.modules.requires_grad_(trains_generator)
        self.backbone.discriminator.requires_grad_(not trains_generator)
        optimiser = self.optimisers[phase.part]
        optimiser.zero_grad(set_to_none=True)
        totals: dict[str, float] | None = None
        finite = True
        for micro in micros:
            with self.fabric.autocast():
                terms = phase.terms(micro)
            if totals is None:
                totals = self._totals(phase, micros, terms)
            shares = [t.share(totals[t.name]) for t in terms if t.weight != 0.0]
            if shares:
                loss = torch.stack(shares).sum()
                finite = finite and bool(torch.isfinite(loss))
                loss.backward()  # type: ignore[no-untyped-call]
            for term in terms:
                self.journal.add(term, totals[term.name])
        if not totals:
            return
        parameters = self.parameters[phase.part]
        if self.plan.nonfinite_gradients == "stop":
            self._stop_if_nonfinite(finite and gradients_finite(parameters), phase, micros, totals)
        self._sum_over_processes(parameters)
        if self.plan.nonfinite_gradients == "replace":
            replace_nonfinite(parameters)
        optimiser.step()

    def agree_on_buffers(self) -> None:
        """Average the generator's running means over the processes: each has moved them by its own samples."""
        if self.fabric.world_size == 1:
            return
        for buffer in self.backbone.generator.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))

    def _totals(self, phase: Phase, micros: Sequence[MicroBatch], first: list[Term]) -> dict[str, float]:
        """Counts over the global batch. Where a term counts its elements and there are several slices, the others are counted first."""
        if all(t.count is None for t in first):
            return {t.name: float(self.plan.batch) for t in first}
        sums = {t.name: t.total_count() for t in first}
        with torch.no_grad(), self.objective.without_effects(), self.fabric.autocast():
            for micro in micros[1:]:
                for t in phase.terms(micro):
                    sums[t.name] = sums[t.name] + t.total_count()
        if self.fabric.world_size > 1:
            sums = {k: self.fabric.all_reduce(v, reduce_op="sum") for k, v in sums.items()}
        return {k: float(v) for k, v in sums.items()}

    def _sum_over_processes(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.fabric.world_size == 1:
            return
        for p in parameters:
            p.grad = self.fabric.all_reduce(torch.zeros_like(p) if p.grad is None else p.grad, reduce_op="sum")

    def _stop_if_nonfinite(self, finite: bool, phase: Phase, micros: Sequence[MicroBatch], totals: Mapping[str, float]) -> None:
        """Stop every process together when any of them met a loss or gradient that is not finite; the culprit explains."""
        everywhere = finite
        if self.fabric.world_size > 1:
            bad = self.fabric.all_reduce(torch.tensor(0.0 if finite else 1.0, device=self.fabric.device), reduce_op="sum")
            everywhere = float(bad) == 0.0
        if not finite:
            with self.objective.without_effects():
                self._explain_nonfinite(phase, micros, totals)
        if not everywhere:
            raise NonFiniteError(f"step {micros[0].step}, phase {phase.name}: another process met a loss or gradient that is not finite")

    def _explain_nonfinite(self, phase: Phase, micros: Sequence[MicroBatch], totals: Mapping[str, float]) -> None:
        """Replay the phase term by term (streams are derived, weights unchanged) and name the first culprit."""
        named = self.named(phase.part)
        for micro in micros:
            for term in phase.terms(micro):
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
