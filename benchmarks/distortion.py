"""Time and memory of the distortion of rays, value and gradient: the linear form against the double sum, and against its floor.

    python benchmarks/distortion.py [--samples 4] [--rays 4096] [--intervals 96] [--threads 1] [--json docs/results/bench_distortion.json]

The floor reads weights and edges once and writes one number a weight: an addition into a buffer that is there. The double sum runs
sample by sample: all samples at once would take `samples` times its memory. ``warm``: what fits in the caches is there from the call
before. ``cold``: they were filled with something else in between, as a training step does.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from floors import peak_of_temporaries
from priorzoo.core.files import write_text_atomically
from priorzoo.rendering.distortion import distortion, distortion_reference
from priorzoo.training.run import circumstances
from torch import Tensor

CACHES = 128 << 20
"""Bytes that are read and written to empty the caches."""

Form = Callable[[], object]


def rays(samples: int, count: int, intervals: int) -> tuple[Tensor, Tensor]:
    """Weights [B,R,S] of no more than one in all, and sorted edges [B,R,S+1] between 2.25 and 3.3."""
    made = torch.Generator().manual_seed(0)
    weights = torch.rand(samples, count, intervals, generator=made) * (2.0 / intervals)
    edges = 2.25 + 1.05 * torch.rand(samples, count, intervals + 1, generator=made).sort(dim=-1).values
    return (weights / weights.sum(dim=-1, keepdim=True).clamp_min(1.0)).requires_grad_(), edges


def value_and_gradient(form: Callable[[Tensor, Tensor], Tensor], weights: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The value of each ray, and the derivative of their mean by the weights."""
    value = form(weights, edges)
    (gradient,) = torch.autograd.grad(value.mean(), weights)
    return value.detach(), gradient


def sample_by_sample(weights: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """`value_and_gradient` of the double sum, one sample after the other."""
    ones = [(w[None].requires_grad_(), e[None]) for w, e in zip(weights.detach(), edges, strict=True)]
    parts = [value_and_gradient(distortion_reference, w, e) for w, e in ones]
    return torch.cat([value for value, _ in parts]), torch.cat([gradient for _, gradient in parts]) / len(weights)


def milliseconds(work: Form, *, cold: bool, repeats: int) -> float:
    """Smallest time of a call; the first does not count. With one thread its processor time, which other work disturbs less."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    other = torch.ones(CACHES // 4)
    work()
    best = float("inf")
    for _ in range(repeats):
        if cold:
            other.mul_(1.0)
        start = clock()
        work()
        best = min(best, clock() - start)
    return 1e3 * best


def measure(samples: int, count: int, intervals: int, *, repeats: int = 30) -> dict[str, Any]:
    """Times in ms, peaks of temporaries in bytes, differences and ratios."""
    weights, edges = rays(samples, count, intervals)
    plain, out = weights.detach(), torch.empty_like(weights)

    def sums() -> None:
        torch.cumsum(plain, dim=-1, out=out)
        torch.cumsum(plain, dim=-1, out=out)

    forms: dict[str, Form] = {
        "floor": lambda: torch.add(plain, edges[..., 1:], out=out),
        "two running sums": sums,
        "linear": lambda: value_and_gradient(distortion, weights, edges),
    }
    times = {
        name: {kind: milliseconds(form, cold=kind == "cold", repeats=repeats) for kind in ("warm", "cold")} for name, form in forms.items()
    }
    double_sum = milliseconds(lambda: sample_by_sample(weights, edges), cold=False, repeats=2)
    with tempfile.TemporaryDirectory() as folder:
        linear_peak = peak_of_temporaries(forms["linear"], folder)
        one = weights.detach()[:1].clone().requires_grad_()
        double_peak = peak_of_temporaries(lambda: value_and_gradient(distortion_reference, one, edges[:1]), folder)
    (value, gradient), (true_value, true_gradient) = value_and_gradient(distortion, weights, edges), sample_by_sample(weights, edges)
    return {
        "samples": samples, "rays": count, "intervals": intervals,
        "milliseconds": {**times, "double sum": {"warm": double_sum}},
        "peak_bytes": {"linear, all samples": linear_peak, "double sum, one sample": double_peak},
        "largest_difference": {
            "value, relative": float(((value - true_value) / true_value).abs().max()),
            "gradient, of its largest": float((gradient - true_gradient).abs().max() / true_gradient.abs().max()),
        },
        "ratios": {
            "double sum to linear, time": double_sum / times["linear"]["warm"],
            "double sum to linear, memory": double_peak / linear_peak,
            "linear to floor, warm": times["linear"]["warm"] / times["floor"]["warm"],
            "linear to floor, cold": times["linear"]["cold"] / times["floor"]["cold"],
            "two running sums to floor, cold": times["two running sums"]["cold"] / times["floor"]["cold"],
        },
    }  # fmt: skip


def main() -> None:
    """Read the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rays", type=int, default=4096)
    parser.add_argument("--intervals", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures, with command, commit and hardware")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    figures = measure(given.samples, given.rays, given.intervals)
    for name, times in figures["milliseconds"].items():
        print(f"{name:18s}" + "".join(f"{kind:>8s} {ms:9.2f} ms" for kind, ms in times.items()))
    for name, size in figures["peak_bytes"].items():
        print(f"{name:28s} {size / 2**20:9.1f} MiB at once")
    for name, number in {**figures["largest_difference"], **figures["ratios"]}.items():
        print(f"{name:36s} {number:10.3g}")
    if given.json is not None:
        command = shlex.join(["python", "benchmarks/distortion.py", *sys.argv[1:]])
        plain = {**figures, "circumstances": {**circumstances(), "command": command}}
        write_text_atomically(given.json, json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
