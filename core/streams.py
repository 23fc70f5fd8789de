"""Random streams: every consumer of random numbers has its own, derived and never stored.

A stream is a function of (seed, step, sample's index in the global batch, consumer's name). Hence adding a prior
changes no other draw, a control is paired with its variant, the split over micro-batches and processes does not matter,
and resuming needs only the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

CPU = torch.device("cpu")


def derived_seed(*parts: object) -> int:
    """Return a 63-bit seed that is a hash of the parts.

    >>> derived_seed(0, 1, "jitter") == derived_seed(0, 1, "jitter")
    True
    >>> derived_seed(0, 1, "jitter") == derived_seed(0, 2, "jitter")
    False
    """
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


@dataclass
class Stream:
    """The random numbers of one consumer in one step, for some samples of the global batch.

    ``indices`` are the samples' places in the global batch, one per sample held here. Successive calls continue each
    sample's own sequence.

    >>> a = Stream(0, 0, "z", (0, 1, 2)).normal(4)
    >>> b = Stream(0, 0, "z", (2,)).normal(4)
    >>> bool((a[2] == b[0]).all())
    True
    """

    seed: int
    step: int
    consumer: str
    indices: tuple[int, ...]
    device: torch.device = CPU
    _generators: list[torch.Generator] | None = field(default=None, repr=False)
    _shared: torch.Generator | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def _generator(self, *key: object) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(derived_seed(self.seed, self.step, self.consumer, *key))

    def _per_sample(self) -> list[torch.Generator]:
        if self._generators is None:
            self._generators = [self._generator("sample", index) for index in self.indices]
        return self._generators

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 [len(self), *shape]."""
        out = torch.empty(len(self.indices), *shape, device=self.device)
        for row, generator in zip(out, self._per_sample(), strict=True):
            row.normal_(generator=generator)
        return out

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32 [len(self), *shape]."""
        out = torch.empty(len(self.indices), *shape, device=self.device)
        for row, generator in zip(out, self._per_sample(), strict=True):
            row.uniform_(generator=generator)
        return out

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high), int64 [len(self), *shape]."""
        out = torch.empty(len(self.indices), *shape, dtype=torch.int64, device=self.device)
        for row, generator in zip(out, self._per_sample(), strict=True):
            row.random_(0, high, generator=generator)
        return out

    def shared_uniform(self) -> float:
        """One uniform number in [0, 1) for the whole global batch (a coin that all samples share)."""
        if self._shared is None:
            self._shared = self._generator("shared")
        return float(torch.rand((), generator=self._shared, device=self.device))


@dataclass(frozen=True)
class Streams:
    """All streams of one step: ``streams("jitter")`` is the stream of the consumer of that name.

    >>> streams = Streams(seed=0, step=3, indices=(0, 1))
    >>> streams("latents").normal(2).shape
    torch.Size([2, 2])
    >>> bool((streams("latents").normal(2) == streams("jitter").normal(2)).any())
    False
    """

    seed: int
    step: int
    indices: tuple[int, ...]
    prefix: str = ""
    device: torch.device = CPU

    def __call__(self, consumer: str) -> Stream:
        return Stream(self.seed, self.step, self.prefix + consumer, self.indices, self.device)

    def within(self, name: str) -> Streams:
        """The streams of a part: every consumer's name is prefixed by ``name/``."""
        return Streams(self.seed, self.step, self.indices, f"{self.prefix}{name}/", self.device)

    def take(self, positions: Sequence[int]) -> Streams:
        """The same streams for some of the samples (a micro-batch)."""
        return Streams(self.seed, self.step, tuple(self.indices[i] for i in positions), self.prefix, self.device)


def fixed_streams(seed: int, count: int, *, first: int = 0, device: torch.device | str = "cpu") -> Streams:
    """Streams outside training (samples, evaluation): step 0, samples ``first .. first + count - 1``."""
    return Streams(seed, 0, tuple(range(first, first + count)), device=torch.device(device))
