"""What a recipe costs, from short measured runs: memory by micro-batch, time, arithmetic; and what follows for a given memory.

Weights, averages, gradients and optimisers take what their sizes say. What a step holds beside them grows with the micro-batch: it is
measured at 1 and 2 samples, each in a process of its own, and taken to grow in a straight line.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import PriorzooError
from ..core.files import write_text_atomically
from ..core.recipe import Recipe
from ..core.recipe.loading import load_changed
from .phase_clock import PhaseClock
from .run import read_json
from .stand_ins import with_stand_ins

MEASURED = (1, 2)
UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


@dataclass(frozen=True)
class Probe:
    """Some steps measured in a process of their own at one micro-batch.

    ``peak``: bytes while they ran; ``seconds`` of each phase with its ``intervals``; ``flops`` of each phase (a multiply-add counts two;
    products and convolutions alone), empty where they were not counted.
    """

    micro_batch: int
    peak: int
    parameters: dict[str, int]
    seconds: dict[str, float]
    intervals: dict[str, int]
    flops: dict[str, float]
    device: str

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Probe:
        """Return what `probe.py` wrote."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__})

    def clock(self) -> PhaseClock:
        """Return its times as a clock that knows those of any number of images."""
        return PhaseClock(self.micro_batch, self.intervals, self.seconds)

    def flops_for(self, images: int) -> float:
        """Return the operations of so many images."""
        return PhaseClock(self.micro_batch, self.intervals, self.flops).seconds_for(images)


@dataclass(frozen=True)
class Plan:
    """What the probes say about a recipe on ``devices`` devices.

    >>> one = Probe(1, 5 * 2**30, {"generator": 10}, {"Gmain": 1.0}, {"Gmain": 1}, {}, "cpu")
    >>> two = Probe(2, 7 * 2**30, {"generator": 10}, {"Gmain": 2.0}, {"Gmain": 1}, {}, "cpu")
    >>> plan = Plan([one, two], batch=32, images=16_000, devices=8, group=4)
    >>> plan.peak(4) // 2**30, plan.largest(12 * 2**30), plan.micro_batch(12 * 2**30), plan.accumulated(4)
    (11, 4, 4, 1)
    >>> plan.micro_batch(10 * 2**30), plan.accumulated(2), plan.warnings(10 * 2**30)[0][:44]
    (2, 2, 'a micro-batch of 2 is smaller than the group')
    """

    probes: list[Probe]
    batch: int
    images: int
    devices: int = 1
    group: int | None = None

    @property
    def share(self) -> int:
        """Images of a step that one device computes."""
        return self.batch // self.devices

    @property
    def each(self) -> int:
        """Bytes that one more sample of the micro-batch takes."""
        first, last = self.probes[0], self.probes[-1]
        return max(0, (last.peak - first.peak) // (last.micro_batch - first.micro_batch)) if last is not first else 0

    def peak(self, micro_batch: int) -> int:
        """Return the expected peak in bytes at a micro-batch, in a straight line through the measured ones."""
        first = self.probes[0]
        return first.peak + self.each * (micro_batch - first.micro_batch)

    def largest(self, memory: int) -> int:
        """Return how many samples at once fit in so many bytes; 0: not one."""
        if self.peak(1) > memory:
            return 0
        return 1 + (memory - self.peak(1)) // self.each if self.each else self.share

    def micro_batch(self, memory: int) -> int:
        """Return the largest micro-batch that fits and divides a device's share of the batch; 0: none does."""
        return max((n for n in range(1, self.share + 1) if self.share % n == 0 and n <= self.largest(memory)), default=0)

    def accumulated(self, micro_batch: int) -> int:
        """Return how many micro-batches one after the other make a device's share."""
        return -(-self.share // micro_batch)

    def warnings(self, memory: int) -> list[str]:
        """Return what somebody with so much memory should know."""
        fits = self.micro_batch(memory)
        if not fits:
            return [f"not even one sample fits: {shown_bytes(self.peak(1))} are needed; {_SAVING}"]
        if self.group is not None and fits < min(self.group, self.share):
            return [
                f"a micro-batch of {fits} is smaller than the group of {self.group} over which the discriminator compares images "
                f"(backbone.discriminator_group): its minibatch deviation then sees {fits}; {_SAVING}"
            ]
        return []


_SAVING = "training.checkpoint_rendering=true and training.precision=bf16-mixed need less memory"


def shown_bytes(number: float) -> str:
    """Return bytes in words, in the unit of their size.

    >>> shown_bytes(3 * 2**29), shown_bytes(5.5 * 2**20), shown_bytes(100)
    ('1.50 GiB', '5.50 MiB', '0.10 KiB')
    """
    unit, size = next(((u, s) for u, s in (("GiB", 2**30), ("MiB", 2**20)) if number >= s), ("KiB", 2**10))
    return f"{number / size:.2f} {unit}"


def shown_operations(number: float) -> str:
    """Return floating-point operations in words, in the unit of their number.

    >>> shown_operations(1.26e15), shown_operations(4.2e10), shown_operations(2e5)
    ('1,260.0 TFLOP', '42.0 GFLOP', '0.2 MFLOP')
    """
    unit, size = next(((u, s) for u, s in (("TFLOP", 1e12), ("GFLOP", 1e9)) if number >= s), ("MFLOP", 1e6))
    return f"{number / size:,.1f} {unit}"


def read_memory(text: str) -> int:
    """Return the bytes that a text such as ``24GB`` or ``24 GiB`` says; raises PriorzooError with the allowed forms.

    >>> read_memory("24GB"), read_memory("0.5 GiB")
    (24000000000, 536870912)
    """
    found = _MEMORY.fullmatch(text)
    unit = next((u for u in UNITS if found is not None and u.lower() == found.group(2).lower()), None)
    if found is None or unit is None or float(found.group(1)) == 0:
        raise PriorzooError(
            f"--memory: {text!r} is no amount of memory; allowed: a number above 0 and one of {', '.join(UNITS)}, such as 24GB"
        )
    return int(float(found.group(1)) * UNITS[unit])


def held_bytes(parameters: Mapping[str, int], element: int = 4) -> int:
    """Return the bytes that do not depend on the micro-batch: weights, their averages, gradients and Adam's two moments.

    A trained parameter takes 4 elements (itself, gradient, two moments), the generator's one more (its average), and a frozen one (in
    brackets) itself alone.

    >>> held_bytes({"generator: planes": 10, "discriminator": 5, "(segmenter)": 2})
    288
    """
    trained = sum(n for name, n in parameters.items() if not name.startswith("("))
    generator = sum(n for name, n in parameters.items() if name.startswith("generator"))
    return element * (sum(parameters.values()) + 3 * trained + generator)


def plan(recipe: Recipe, *, say: Callable[[str], None] = lambda _: None) -> Plan:
    """Measure the recipe at micro-batches of 1 and 2, each in a process of its own; files that are missing get stand-ins.

    Raises PriorzooError when not even one sample can be computed here, with what the process said.
    """
    with tempfile.TemporaryDirectory(prefix="priorzoo-plan-") as folder:
        place = Path(folder)
        ready = with_stand_ins(recipe, place / "stand_ins", say)
        probes: list[Probe] = []
        for size in MEASURED:
            say(f"measuring steps of {size} image{'s' * (size > 1)}")
            try:
                probes.append(_probe(ready, size, place))
            except PriorzooError as error:
                if not probes:
                    raise
                say(f"{error}; what follows rests on one sample alone")
    training = recipe.training
    group = recipe.backbone.options.get("discriminator_group")
    return Plan(probes, training.batch, training.images, training.devices * training.nodes, group if isinstance(group, int) else None)


def _probe(recipe: Recipe, size: int, folder: Path) -> Probe:
    changed = load_changed(recipe, [f"training.batch={size}", "training.micro_batch=null", "training.devices=1", "training.nodes=1"])
    given, result = folder / f"recipe-{size}.yaml", folder / f"probe-{size}.json"
    write_text_atomically(given, changed.to_yaml())
    command = [sys.executable, "-m", "priorzoo.training.probe", str(given), str(folder / "data"), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Probe.from_plain(read_json(result))
    lines = done.stderr.strip().splitlines() or ["nothing was said"]
    killed = done.returncode == -signal.SIGKILL
    reason = "the system ended it: out of memory" if killed else lines[-1].removeprefix("error: ")
    raise PriorzooError(f"a step of {size} image{'s' * (size > 1)} cannot be measured here: {reason}")
