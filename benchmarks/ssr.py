"""Time of the SSR prior, forward and backward: plain shifted differences against the convolutions of the report's eq. 2.

    python benchmarks/ssr.py [--batch 8] [--window 3] [--sizes 64 128] [--device cpu] [--threads 1]

Prints milliseconds of the smoothness map in both forms, their ratio, and the share of each part of the whole prior.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from priorzoo.priors.ssr import ssr
from priorzoo.rendering.selection import erode, hardest_mean
from priorzoo.rendering.smoothness import smoothness_map
from torch import Tensor
from torch.nn import functional


def smoothness_by_convolution(depth: Tensor, window: int) -> Tensor:
    """The report's form: one kernel a neighbour, +1 at the centre and -1 at the neighbour, squared and summed."""
    count, centre = window**2, window**2 // 2
    kernels = -torch.eye(count, dtype=depth.dtype, device=depth.device)
    kernels[:, centre] += 1.0
    kernels = torch.cat([kernels[:centre], kernels[centre + 1 :]]).view(count - 1, 1, window, window)
    padded = functional.pad(depth, (window // 2,) * 4, mode="replicate")
    return functional.conv2d(padded, kernels).square().sum(dim=1, keepdim=True)


def smoothness_by_single_convolutions(depth: Tensor, window: int) -> Tensor:
    """The same, one convolution after the other, as eq. 2 reads."""
    total = torch.zeros_like(depth)
    padded = functional.pad(depth, (window // 2,) * 4, mode="replicate")
    for neighbour in range(window**2):
        if neighbour == window**2 // 2:
            continue
        kernel = torch.zeros(window**2, dtype=depth.dtype, device=depth.device)
        kernel[window**2 // 2], kernel[neighbour] = 1.0, -1.0
        total = total + functional.conv2d(padded, kernel.view(1, 1, window, window)).square()
    return total


def milliseconds(work: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """Smallest time of a call; three calls do not count. On a CPU its processor time, which other work disturbs less."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: list[float] = []
    for _ in range(3):
        work()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (clock() - start))
    return min(times)


def measure(size: int, batch: int, window: int, device: torch.device) -> None:
    """Print one line a form for depth maps of ``size`` x ``size``."""
    generator = torch.Generator().manual_seed(0)
    depth = (2.7 + 0.1 * torch.rand(batch, 1, size, size, generator=generator)).to(device).requires_grad_(True)
    mask = torch.zeros(batch, 1, size, size, dtype=torch.bool, device=device)
    mask[:, :, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = True

    def with_gradient(form: Callable[[Tensor, int], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(form(depth, window).mean(), depth)

    shifted = milliseconds(with_gradient(smoothness_map), device)
    forms = {"one convolution": smoothness_by_convolution, "k^2 - 1 convolutions": smoothness_by_single_convolutions}
    print(f"\n{batch} x {size}^2, window {window}: shifted differences {shifted:.2f} ms (forward and backward)")
    for name, form in forms.items():
        slow = milliseconds(with_gradient(form), device)
        print(f"  {name:24s} {slow:9.2f} ms   {slow / shifted:6.1f} times the shifted differences")
    roughness, chosen = smoothness_map(depth, window).detach(), erode(mask, 3).bool()
    whole = milliseconds(lambda: torch.autograd.grad(ssr(depth, mask, window=window, hardest=0.7).value.sum(), depth), device)
    parts = {"erode 3": lambda: erode(mask, 3), "hardest 0.7": lambda: hardest_mean(roughness, chosen, 0.7)}
    print(f"  whole prior              {whole:9.2f} ms")
    for name, part in parts.items():
        taken = milliseconds(part, device)
        print(f"    {name:22s} {taken:9.2f} ms   {100 * taken / whole:5.0f} %")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        measure(size, options.batch, options.window, torch.device(options.device))


if __name__ == "__main__":
    main()
