"""Where the time of training steps goes, forward and backward, by part, while the trainer runs as it always does.

The parts' entrances (render, criticise, a prior's term, ...) are wrapped, so the forward is a stack of stop watches. For the backward,
every node of the graph made by a part gets a hook that hands the watch to that part before the node runs. The numbers stay the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import trainer as trainer_module
from .objective import Phase
from .phase_clock import now
from .trainer import Trainer

REST, DATA, SECOND_VIEW, R1 = "rest", "data", "second view", "discriminator: R1"


class Watch:
    """Seconds by name; always exactly one name is being timed, so that the seconds add up to the whole.

    >>> watch = Watch(clock=iter([0.0, 1.0, 3.0, 3.5]).__next__)
    >>> with watch.timing("step"):
    ...     with watch.timing("part"):
    ...         pass
    >>> watch.seconds
    {'step': 1.5, 'part': 2.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self.stack: list[str] = []
        self._clock, self._last = clock, 0.0

    def _settle(self) -> None:
        now = self._clock()
        if self.stack:
            self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self._last
        self._last = now

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Time what happens inside as ``name``."""
        self._settle()
        self.stack.append(name)
        try:
            yield
        finally:
            self._settle()
            self.stack.pop()

    def switch(self, name: str) -> None:
        """Go on timing as ``name``, until the surrounding ``timing`` ends."""
        if self.stack and self.stack[-1] != name:
            self._settle()
            self.stack[-1] = name

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time nothing inside."""
        self._settle()
        try:
            yield
        finally:
            self._last = self._clock()


class StepTimer:
    """Times the steps of a trainer by part; use it as a context, inside of which ``trainer.train_step()`` is timed.

    An own-phase prior and R1 are parts as a whole, with the rendering and the optimiser step that they alone cause. What a prior causes
    to be rendered a second time is ``second view``.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        device = trainer.fabric.device
        self.watch = Watch(partial(now, device))
        self._owner: str | None = None
        self._made_by: dict[Any, str] = {}  # the graph's nodes; kept until the backward has run, so that they stay the same objects
        self._undo = ExitStack()

    def __enter__(self) -> StepTimer:
        trainer, backbone = self.trainer, self.trainer.backbone
        self._replace(trainer, "train_step", self._step)
        self._time(trainer, "micro_batches", DATA)
        self._time(backbone, "prepare", "generator: mapping")
        self._time(backbone, "render", "generator: rendering")
        if hasattr(backbone, "with_planes"):
            self._time(backbone, "with_planes", "generator: planes")
        superresolution = getattr(backbone.generator, "superresolution", None)
        if isinstance(superresolution, nn.Module):
            self._time(superresolution, "forward", "generator: super-resolution")
        self._time(backbone, "critic_input", "discriminator")
        self._time(backbone, "criticise", "discriminator")
        if trainer.priors.segmenter is not None:
            self._time(trainer.priors.segmenter, "segment", "segmenter")
        if trainer.priors.estimator is not None:
            self._time(trainer.priors.estimator, "estimate", "estimator")
        for entry in trainer.priors.all:
            self._time(entry, "term", f"prior {entry.name}")
        for optimiser in trainer.optimisers.values():
            self._time(optimiser, "step", "optimiser")
        self._time(trainer_module, "update_average", "average")
        self._replace(torch.Tensor, "backward", self._backward)
        self._replace(torch.autograd, "grad", self._gradient)
        phases = trainer.phases
        self._undo.callback(setattr, trainer, "phases", phases)
        trainer.phases = [replace(phase, terms=self._owned(phase)) for phase in phases]
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        self._made_by.clear()

    def _replace(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        own = name in vars(owner)
        before = getattr(owner, name)
        setattr(owner, name, wrap(before))
        self._undo.callback(*((setattr, owner, name, before) if own else (delattr, owner, name)))

    def _time(self, owner: Any, name: str, part: str) -> None:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*args: Any, **kwargs: Any) -> Any:
                name = self._name(part)
                self._claim((args, kwargs), self._current())
                with self.watch.timing(name):
                    out = function(*args, **kwargs)
                self._claim(out, name)
                return out

            return timed

        self._replace(owner, name, wrap)

    def _current(self) -> str:
        return self.watch.stack[-1] if self.watch.stack else REST

    def _name(self, part: str) -> str:
        if self._owner is not None and part not in (DATA, "average"):
            return self._owner
        within_prior = any(name.startswith("prior ") for name in self.watch.stack)
        return SECOND_VIEW if within_prior and part.startswith("generator: ") else part

    def _owned(self, phase: Phase) -> Callable[..., Any]:
        owner = {"R1": R1}.get(phase.name)
        if phase.name.startswith("prior/"):
            owner = f"prior {phase.name.removeprefix('prior/')}"

        def terms(micro: Any) -> Any:
            self._owner = owner
            with self.watch.timing(owner or REST):
                out = phase.terms(micro)
            self._claim(out, owner or REST)
            return out

        return terms

    def _step(self, function: Callable[[], None]) -> Callable[[], None]:
        def step() -> None:
            self._owner = None
            with self.watch.timing(REST):
                function()

        return step

    def _backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def backward(loss: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._claim(loss, self._owner or REST)
            with self.watch.timing(self._owner or REST):
                function(loss, *args, **kwargs)
            with self.watch.paused():
                self._made_by.clear()

        return backward

    def _gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            name = self._current()
            self._claim(outputs, name)
            with self.watch.timing(name):
                out = function(outputs, *args, **kwargs)
            self._claim(out, name)
            return out

        return gradient

    def _claim(self, values: Any, name: str) -> None:
        """The graph behind ``values``, as far as nobody has claimed it yet, was made by ``name``."""
        with self.watch.paused():
            waiting = [t.grad_fn for t in _tensors(values, set()) if t.grad_fn is not None]
            while waiting:
                node = waiting.pop()
                # A leaf's accumulation runs straight after the node that feeds it, and belongs to that.
                if node in self._made_by or node.name().endswith("AccumulateGrad"):
                    continue
                self._made_by[node] = name
                node.register_prehook(partial(self._hand_over, name))
                waiting += [before for before, _ in node.next_functions if before is not None]

    def _hand_over(self, name: str, _: Any) -> None:
        self.watch.switch(name)


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor inside a value: containers, and the attributes of objects that are no modules."""
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, (nn.Module, type, str)) or (callable(value) and not hasattr(value, "extent")) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        inner: Any = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    else:
        inner = vars(value).values() if hasattr(value, "__dict__") else ()
    for one in inner:
        yield from _tensors(one, seen)
