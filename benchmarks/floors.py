"""The floor of a measurement: the network's arithmetic alone, timed piece by piece in the same run.

A floor is a list of operations (bare convolutions, matrix products, grid samples) of the shapes that a network has. Each is offered in
several memory layouts, and its time is the smallest that any of them took in any round. What is not arithmetic (styles, noise, filters,
activations, softplus, sorting, compositing) has no place in it, so no implementation reaches 100 %, unless it finds a better form.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last
LEAST_SHARE = 0.5
"""A floor whose arithmetic is slower than this share of a matrix product is no floor: something held it up."""

Form = Callable[[], object]


@dataclass
class Operation:
    """``count`` equal operations of one part; ``forms`` makes the candidates (their tensors live only while they are timed).

    ``flops`` and ``bytes`` (read and written once) of one of them. Grid samples have next to no arithmetic: ``flops`` 0.
    """

    part: str
    name: str
    flops: float
    bytes: float
    forms: Callable[[], dict[str, Form]]
    count: int = 1
    seconds: dict[tuple[int, str], float] = field(default_factory=dict)  # by threads and form

    def time(self, clock: Clock, threads: int) -> None:
        """Time every form once more, and keep the smallest."""
        for name, form in self.forms().items():
            key = (threads, name)
            self.seconds[key] = min(self.seconds.get(key, float("inf")), clock.seconds(form))

    def best(self, threads: int) -> float:
        """Seconds of all ``count`` of them in the best form."""
        return self.count * min(seconds for (n, _), seconds in self.seconds.items() if n == threads)

    def best_form(self, threads: int) -> str:
        """Name of the best form."""
        return min((seconds, name) for (n, name), seconds in self.seconds.items() if n == threads)[1]


class Clock:
    """``wall`` time, or this process's ``processor`` time, which other work on the machine disturbs less (one thread only)."""

    def __init__(self, kind: str = "wall") -> None:
        self.kind = kind
        self.now = time.process_time if kind == "processor" else time.perf_counter

    def seconds(self, work: Form) -> float:
        """Seconds of the second of two calls: the first brings weights into order and memory into being."""
        work()
        start = self.now()
        work()
        return self.now() - start


def thread_counts(asked: Sequence[int] | None = None) -> list[int]:
    """The numbers of threads to try: those asked for, or one and all cores."""
    return list(asked) if asked else sorted({1, os.cpu_count() or 1})


def matrix_product() -> list[Operation]:
    """Matrix products in the sizes and forms in which a processor may be fastest; the best of them is the measure."""

    def square(size: int) -> dict[str, Form]:
        a, b = filled(size, size), filled(size, size)
        made: dict[str, Form] = {"a @ b": lambda: a @ b}
        if torch.backends.mkldnn.is_available():  # the library of the convolutions; on some processors faster than the one behind @
            blocked = a.to_mkldnn()
            made["oneDNN"] = lambda: F.linear(blocked, b)
        return made

    return [
        Operation("matrix product", f"{n} x {n} x {n}", 2.0 * n**3, 12.0 * n * n, lambda n=n: square(n))
        for n in (1024, 2048)
    ]  # fmt: skip


def best_rate(operations: Iterable[Operation], threads: int) -> float:
    """Largest FLOP/s of single operations."""
    return max(one.flops * one.count / one.best(threads) for one in operations)


def rate(operations: Sequence[Operation], threads: int) -> float:
    """FLOP/s of the operations that have arithmetic, one after the other."""
    busy = [one for one in operations if one.flops]
    return sum(one.flops * one.count for one in busy) / sum(one.best(threads) for one in busy)


def filled(*shape: int) -> Tensor:
    """A tensor of ordinary numbers."""
    return torch.full(shape, 0.5)


def convolution(part: str, inputs: int, outputs: int, size: int, *, up: bool = False) -> Operation:
    """A 3x3 convolution of a map ``size`` pixels a side (before up-sampling), one image."""

    def forms() -> dict[str, Form]:
        made: dict[str, Form] = {}
        for name, layout in (("contiguous", torch.contiguous_format), ("channels last", CHANNELS_LAST)):
            x = filled(1, inputs, size, size).contiguous(memory_format=layout)
            if up:
                weight = filled(inputs, outputs, 3, 3).contiguous(memory_format=layout)
                made[name] = lambda x=x, weight=weight: F.conv_transpose2d(x, weight, stride=2)
                other = filled(outputs, inputs, 3, 3).transpose(0, 1)
                made[f"{name}, weights transposed"] = lambda x=x, weight=other: F.conv_transpose2d(x, weight, stride=2)
            else:
                weight = filled(outputs, inputs, 3, 3).contiguous(memory_format=layout)
                made[name] = lambda x=x, weight=weight: F.conv2d(x, weight, padding=1)
        return made

    made = (2 * size + 1) ** 2 if up else size**2
    flops = 2.0 * 9 * inputs * outputs * size**2
    moved = 4.0 * (inputs * size**2 + outputs * made + 9 * inputs * outputs)
    return Operation(part, f"3x3{' up' if up else ''} {inputs} -> {outputs} at {size}", flops, moved, forms)


def linear(part: str, rows: int, inputs: int, outputs: int, *, block: int = 65536) -> Operation:
    """A linear layer on ``rows`` points or pixels; in whole or in blocks that fit a cache."""

    def forms() -> dict[str, Form]:
        weight, x = filled(outputs, inputs), filled(rows, inputs)
        y = filled(inputs, rows)
        made: dict[str, Form] = {"rows": lambda: x @ weight.T, "columns": lambda: weight @ y}
        if rows > block:
            made["rows, in blocks"] = lambda: [part @ weight.T for part in x.split(block)]
            made["columns, in blocks"] = lambda: [weight @ part for part in y.split(block, dim=1)]
        return made

    flops = 2.0 * rows * inputs * outputs
    return Operation(part, f"linear {inputs} -> {outputs} of {rows}", flops, 4.0 * (rows * (inputs + outputs) + inputs * outputs), forms)


def grid_sample(part: str, planes: Tensor, grid: Tensor, *, block: int = 65536) -> Operation:
    """Bilinear reading of planes [P,C,H,W] at ``grid`` [P,N,2]: the coordinates of real rays, for the cache makes the time."""
    count = grid.shape[1]

    def forms() -> dict[str, Form]:
        made: dict[str, Form] = {}
        blocks = [part.contiguous()[:, None] for part in grid.split(block, dim=1)]
        across = [part.transpose(1, 2).contiguous().transpose(1, 2)[:, None] for part in grid.split(block, dim=1)]
        whole = grid[:, None]
        for name, layout in (("contiguous", torch.contiguous_format), ("channels last", CHANNELS_LAST)):
            x = planes.contiguous(memory_format=layout)
            made[name] = lambda x=x: F.grid_sample(x, whole, align_corners=False)
            made[f"{name}, in blocks"] = lambda x=x: [F.grid_sample(x, part, align_corners=False) for part in blocks]
            made[f"{name}, coordinates apart"] = lambda x=x: [F.grid_sample(x, part, align_corners=False) for part in across]
        return made

    moved = 4.0 * (planes.numel() + grid.numel() + planes.shape[0] * planes.shape[1] * count)
    return Operation(part, f"grid sample of {planes.shape[0]} x {planes.shape[1]} channels at {count}", 0.0, moved, forms)


def peak_of_temporaries(work: Form, folder: str) -> int:
    """Most bytes that ``work`` held at once beyond what was there before, by torch's own account of its allocator."""
    import json
    from pathlib import Path

    trace = Path(folder) / "trace.json"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    profile.export_chrome_trace(str(trace))
    events = sorted(
        (event["ts"], event["args"]["Bytes"]) for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"
    )
    held = peak = 0
    for _, size in events:
        held += size
        peak = max(peak, held)
    return peak


class LayerShapes:
    """Records the input shape of every layer of some types while a network runs."""

    def __init__(self, network: nn.Module, types: tuple[type[nn.Module], ...]) -> None:
        self.seen: list[tuple[str, nn.Module, tuple[int, ...]]] = []
        self._hooks = [
            module.register_forward_pre_hook(lambda module, inputs, name=name: self.seen.append((name, module, tuple(inputs[0].shape))))
            for name, module in network.named_modules()
            if isinstance(module, types)
        ]

    def __enter__(self) -> LayerShapes:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
