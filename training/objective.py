"""EG3D's adversarial objective: non-saturating logistic losses, lazy R1, pose conditioning, and where priors come in.

An objective is a list of phases; each names the part whose parameters it trains, its interval, and the loss terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..backbones.base import Backbone, Latents
from ..core.camera import Camera
from ..core.scene import Scene, rendered_needs, second_view_needs
from ..core.schedule import value_at
from ..core.streams import Streams
from .critic import Critic
from .order import image_at
from .priors import ActivePrior, PriorSet
from .second_view import second_camera
from .terms import MicroBatch, Term

if TYPE_CHECKING:
    from ..core.recipe import Recipe


@dataclass
class Phase:
    """One optimiser step of an iteration: ``terms`` of ``part``'s loss, run every ``interval`` steps (step 0 runs all).

    ``twice``: its terms are gradients themselves and are differentiated once more; such a phase is not computed in half precision.
    """

    name: str
    part: str
    interval: int
    terms: Callable[[MicroBatch], list[Term]]
    twice: bool = False


class EG3DObjective:
    """The phases of EG3D's training (non-saturating loss and lazy R1 of StyleGAN2; EG3D section 4.3 for pose conditioning).

    Generator: mean softplus(-D(G(z, c), c)) plus every prior of phase ``main``. Discriminator: mean softplus(D(fake)) +
    mean softplus(-D(real)). R1, every n steps with gain n: gamma / 2 * mean(|dD/dimage|^2 + |dD/dimage_raw|^2).
    Priors of phase ``own`` have latents, backward and optimiser step of their own (EG3D's density regularisation).
    ``real_labels`` [N,25] are the data set's camera labels, from which fakes draw theirs. Blur, augmentation and noise on labels are the
    critic's, in every phase that asks it.
    """

    def __init__(self, recipe: Recipe, backbone: Backbone, real_labels: Tensor, priors: PriorSet) -> None:
        self.backbone, self.real_labels, self.priors = backbone, real_labels, priors
        self.spec = recipe.objective
        self.second_view = recipe.second_view
        self.neural_resolution = recipe.training.neural_resolution
        self.batch = recipe.training.batch
        self.critic = Critic(self.spec, backbone, self.batch)
        self._effects = True
        self._fakes: dict[int, tuple[dict[str, Tensor], Tensor]] = {}

    def phases(self) -> list[Phase]:
        """Return the phases in the published order: Gmain, own-phase priors, Dmain, R1."""
        own = [Phase(f"prior/{entry.name}", "generator", entry.interval, partial(self._own_terms, entry)) for entry in self.priors.own]
        out = [Phase("Gmain", "generator", 1, self._generator_terms), *own]
        out.append(Phase("Dmain", "discriminator", 1, self._discriminator_terms))
        if self.spec.r1 is not None and self.spec.r1.gamma != 0:
            out.append(Phase("R1", "discriminator", self.spec.r1.interval, self._r1_terms, twice=True))
        return out

    def fakes_of(self, micros: Sequence[MicroBatch]) -> dict[int, tuple[dict[str, Tensor], Tensor]]:
        """Return the fakes that the generator's phase would hand to the discriminator's, without gradient."""
        with torch.no_grad():
            for micro in micros:
                self._generator_terms(micro)
        return dict(self._fakes)

    def keep_fakes(self, fakes: dict[int, tuple[dict[str, Tensor], Tensor]]) -> None:
        """Put such fakes where the discriminator's phase finds them."""
        self._fakes.update(fakes)

    def after_step(self, images: int, step: int, fabric: Any) -> None:
        """Be told once at the end of every step: ``images`` real images seen, ``step`` steps done, ``fabric`` for sums over processes."""
        if self.critic.augmentation is not None:
            self.critic.augmentation.after_step(step, fabric)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for the objective to go on, as plain JSON."""
        return {} if self.critic.augmentation is None else {"augmentation": self.critic.augmentation.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put ``state`` back; an empty one leaves the beginning's."""
        if self.critic.augmentation is not None and "augmentation" in state:
            self.critic.augmentation.restore(state["augmentation"])

    def resolution(self, micro: MicroBatch) -> int | None:
        """Return the resolution of the volume rendering at this step, None for the backbone's own."""
        if self.neural_resolution is None:
            return None
        return round(value_at(self.neural_resolution, images=micro.images_seen, steps=micro.step))

    @contextmanager
    def without_effects(self) -> Iterator[None]:
        """Phases that are run again, to count or to explain, move no average and hand on no fakes."""
        self._effects = False
        try:
            yield
        finally:
            self._effects = True

    def _draw(self, micro: MicroBatch, phase: str) -> tuple[Latents, Tensor, Tensor | None]:
        """Latents, rendering labels and conditioning labels of a phase."""
        streams = micro.streams.within(phase)
        labels = self._labels(streams)
        condition = None
        if self.spec.pose_swap is not None:
            chance = value_at(self.spec.pose_swap, images=micro.images_seen, steps=micro.step)
            swap = streams("swap").uniform(1) < chance
            # Another sample's camera is that of the one before in the global batch, whatever the split into micro-batches.
            before = tuple((index - 1) % self.batch for index in streams.indices)
            condition = torch.where(swap, self._labels(replace(streams, indices=before)), labels)
        return self.backbone.draw(len(micro), streams), labels, condition

    def _labels(self, streams: Streams) -> Tensor:
        chosen = streams("labels").integers(len(self.real_labels), 1)[:, 0]
        return self.real_labels[chosen]

    def _fake_labels_of_all(self, micro: MicroBatch, phase: str) -> Tensor:
        """The labels [N,25] that all samples of the global batch draw in a phase."""
        return self._labels(replace(micro.streams, indices=tuple(range(self.batch))).within(phase))

    def _real_labels_of_all(self, micro: MicroBatch) -> Tensor:
        """The labels [N,25] of all real images of the global batch."""
        places = [image_at(micro.streams.seed, micro.images_seen + i, len(self.real_labels)) for i in range(self.batch)]
        return self.real_labels[places]

    def _prepared(self, micro: MicroBatch, phase: str, update_averages: bool = False) -> tuple[Latents, Tensor]:
        """Mapped latents of a phase, ready for several renders and queries of one and the same shape, and their cameras' labels."""
        latents, labels, condition = self._draw(micro, phase)
        prepared = self.backbone.prepare(latents, condition, update_averages=update_averages and self._effects)
        return self.backbone.materialise(prepared, micro.streams.within(phase)), labels

    def _scene(self, micro: MicroBatch, phase: str, prepared: Latents, labels: Tensor, needs: frozenset[str]) -> Scene:
        """Render what ``needs`` names, rendered and derived, with the second view where it is among them."""
        camera = Camera.from_label(labels)
        rendered = rendered_needs(needs, made=self.priors.made_from())
        if rendered == {"field"}:
            scene = Scene(camera, field=self.backbone.field(prepared))
        else:
            streams = micro.streams.within(phase)
            scene = self.backbone.render(prepared, camera, rendered, streams=streams, resolution=self.resolution(micro))
        scene.images_seen = micro.images_seen
        self.priors.attach(scene)
        seen_again = second_view_needs(needs)
        if seen_again:
            other = second_camera(self.second_view, camera, micro.streams.within("other_view"))
            scene.set_maker("other_view", lambda _: self._scene(micro, "other_view", prepared, other.label(), seen_again))
        return scene

    def _render(self, micro: MicroBatch, phase: str, needs: frozenset[str], update_averages: bool = False) -> tuple[Scene, Tensor]:
        prepared, labels = self._prepared(micro, phase, update_averages)
        return self._scene(micro, phase, prepared, labels, self.backbone.critic_needs() | needs), labels

    def _generator_terms(self, micro: MicroBatch) -> list[Term]:
        active = self.priors.active(micro)
        needs: frozenset[str] = frozenset().union(*(entry.needs for entry in active))
        scene, labels = self._render(micro, "Gmain", needs, update_averages=self.spec.reuse_fakes)
        seen = self.backbone.critic_input(scene)
        if self.spec.reuse_fakes and self._effects:
            self._fakes[micro.number] = ({k: v.detach() for k, v in seen.items()}, labels)
        logits = self.critic.logits(micro, "Gmain", seen, labels, partial(self._fake_labels_of_all, micro, "Gmain"))
        terms = [Term("G/adversarial", functional.softplus(-logits))]
        return terms + [entry.term(scene, micro) for entry in active]

    def _own_terms(self, entry: ActivePrior, micro: MicroBatch) -> list[Term]:
        if entry.weight(micro) == 0.0:
            return []
        phase = f"prior/{entry.name}"
        prepared, labels = self._prepared(micro, phase)
        return [entry.term(self._scene(micro, phase, prepared, labels, entry.needs), micro)]

    def _discriminator_terms(self, micro: MicroBatch) -> list[Term]:
        if self.spec.reuse_fakes:
            fake, fake_labels = self._fakes[micro.number]
        else:
            with torch.no_grad():
                scene, fake_labels = self._render(micro, "Dmain", frozenset(), update_averages=True)
                fake = self.backbone.critic_input(scene)
        drawn_in = "Gmain" if self.spec.reuse_fakes else "Dmain"
        on_fake = self.critic.logits(micro, "Dmain/fake", fake, fake_labels, partial(self._fake_labels_of_all, micro, drawn_in))
        real = self.critic.real_input(micro, self.resolution(micro))
        on_real = self.critic.logits(micro, "Dmain/real", real, micro.labels, partial(self._real_labels_of_all, micro))
        terms = [
            Term("D/fake", functional.softplus(on_fake)),
            Term("D/real", functional.softplus(-on_real)),
            Term("D/sign_real", on_real.detach().sign(), weight=0.0),
            Term("D/sign_fake", on_fake.detach().sign(), weight=0.0),
        ]
        augmentation = self.critic.augmentation
        if augmentation is not None:
            if self._effects:
                augmentation.observe(terms[2].value)
            probability = torch.full((len(micro),), augmentation.probability, dtype=torch.float64)
            terms.append(Term("augmentation/p", probability, weight=0.0))
        return terms

    def _r1_terms(self, micro: MicroBatch) -> list[Term]:
        real = self.critic.real_input(micro, self.resolution(micro))
        leaves: dict[str, Any] = {k: v.detach().requires_grad_() for k, v in real.items()}
        logits = self.critic.logits(micro, "R1", leaves, micro.labels, partial(self._real_labels_of_all, micro))
        gradients = torch.autograd.grad(logits.sum(), list(leaves.values()), create_graph=True)
        penalty = torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0)
        assert self.spec.r1 is not None
        gamma = value_at(self.spec.r1.gamma, images=micro.images_seen, steps=micro.step)
        gain = gamma / 2 * self.spec.r1.interval
        return [Term("D/r1", penalty, weight=gain)]
