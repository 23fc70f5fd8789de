"""Time and memory of EG3D's synthesis on a processor, against its floor: the same convolutions, linear layers and grid samples, bare.

    python benchmarks/synthesis.py [--threads 1 2] [--rounds 5] [--clock processor] [--json docs/results/bench_synthesis.json]

The generator is the FFHQ-512 one with random weights, one image, mapping to super-resolution, without gradients. Floor and network are
timed in turns, round after round, and the smallest time of each counts; both take their best number of threads. A floor whose arithmetic
is slower than half a matrix product of the same run is refused: then the machine was too busy to say anything.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from floors import (
    LEAST_SHARE,
    Clock,
    LayerShapes,
    Operation,
    best_rate,
    convolution,
    grid_sample,
    linear,
    matrix_product,
    peak_of_temporaries,
    rate,
    thread_counts,
)  # fmt: skip
from priorzoo.backbones.eg3d import EG3D
from priorzoo.backbones.eg3d.planes import plane_axes, plane_grid
from priorzoo.backbones.stylegan2.layers import FullyConnected, SynthesisLayer, ToRGB
from priorzoo.core.camera import Camera
from priorzoo.core.files import write_text_atomically
from priorzoo.core.streams import fixed_streams
from priorzoo.training.run import circumstances

PARTS = ("mapping", "planes", "rendering", "super-resolution")
NEEDS = frozenset({"image"})
SMALL = {
    "z_dim": 16, "w_dim": 16, "plane_resolution": 32, "channel_base": 512, "channel_max": 32, "neural_resolution": 16,
    "superresolution_input": 16, "superresolution_channels": (16, 8), "image_resolution": 64, "samples_coarse": 8, "samples_fine": 8,
}  # fmt: skip
"""A network for trying the program itself out."""


class Synthesis:
    """One image of a generator with random weights, part by part."""

    def __init__(self, options: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.backbone = EG3D(**options).eval().requires_grad_(False)
        self.streams = fixed_streams(0, 1)
        self.camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))

    def image(self) -> torch.Tensor:
        """The whole synthesis."""
        return self.render(self.planes(self.mapping())).image

    def mapping(self) -> Any:
        """Draw and map a latent."""
        return self.backbone.prepare(self.backbone.draw(1, self.streams), self.camera.label())

    def planes(self, latents: Any) -> Any:
        """Draw the planes."""
        return self.backbone.with_planes(latents, self.streams)

    def render(self, latents: Any) -> Any:
        """Render and enlarge."""
        return self.backbone.render(latents, self.camera, NEEDS, streams=self.streams)

    def seconds(self, clock: Clock) -> dict[str, float]:
        """Seconds of each part, of one synthesis."""
        times: dict[str, float] = {}

        def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                start = clock.now()
                out = work(*args)
                times[part] = clock.now() - start
                return out

            return run

        module = self.backbone.generator.superresolution
        forward, module.forward = module.forward, timed("super-resolution", module.forward)  # type: ignore[method-assign]
        try:
            planes = timed("planes", self.planes)(timed("mapping", self.mapping)())
            timed("rendering", self.render)(planes)
        finally:
            module.forward = forward  # type: ignore[method-assign]
        times["rendering"] -= times["super-resolution"]
        return times

    def floor(self) -> list[Operation]:
        """The arithmetic of one synthesis, from the layers that it runs through."""
        made: list[Operation] = []
        with LayerShapes(self.backbone.generator, (SynthesisLayer, ToRGB, FullyConnected)) as layers:
            scene = self.render(self.planes(self.mapping()))
        for name, layer, shape in layers.seen:
            part = "super-resolution" if name.startswith("superresolution") else "mapping" if ".mapping." in name else "planes"
            outputs, inputs = layer.weight.shape[:2]
            if isinstance(layer, SynthesisLayer):
                made.append(convolution(part, inputs, outputs, shape[-1], up=layer.up))
            elif isinstance(layer, ToRGB):
                made.append(linear(part, shape[-1] * shape[-2], inputs, outputs))
            elif not name.startswith("decoder"):
                made.append(linear(part, 1, inputs, outputs))
        return _merged(made + self._rendering(scene))

    def _rendering(self, scene: Any) -> list[Operation]:
        options, rays = self.backbone.options, scene["rays"]
        planes = self.planes(self.mapping())["planes"][0]
        made = []
        first, last = self.backbone.generator.decoder.net[0], self.backbone.generator.decoder.net[2]
        for distances in scene["samples"].distances.split([options.samples_coarse, options.samples_fine], dim=-1):
            points = rays.origins[:, :, None] + rays.directions[:, :, None] * distances[..., None]
            grid = plane_grid(points.flatten(1, 2), options.box_warp, plane_axes(options.plane_axes))[0]
            count = grid.shape[1]
            made.append(grid_sample("rendering", planes, grid))
            made += [linear("rendering", count, *layer.weight.shape[::-1]) for layer in (first, last)]
        return made


def _merged(operations: list[Operation]) -> list[Operation]:
    """Equal operations once, with their number (grid samples differ in their coordinates)."""
    found: dict[tuple[str, str], Operation] = {}
    for one in operations:
        key = (one.part, one.name if one.flops else f"{one.name} {len(found)}")
        if key in found:
            found[key].count += 1
        else:
            found[key] = one
    return list(found.values())


def measure(options: dict[str, Any], *, threads: list[int], rounds: int, clock: Clock) -> dict[str, Any]:
    """Figures of floor and synthesis; times in seconds."""
    synthesis, products = Synthesis(options), matrix_product()
    floor = synthesis.floor()
    ours: dict[int, dict[str, float]] = {count: {} for count in threads}
    for number in range(rounds):
        for count in threads:
            torch.set_num_threads(count)
            for _ in range(2):
                for part, seconds in synthesis.seconds(clock).items():
                    ours[count][part] = min(ours[count].get(part, float("inf")), seconds)
            for one in [*products, *floor]:
                one.time(clock, count)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    best = min(threads, key=lambda count: sum(one.best(count) for one in floor))
    used = min(threads, key=lambda count: sum(ours[count].values()))
    product, arithmetic = best_rate(products, best), rate(floor, best)
    with tempfile.TemporaryDirectory() as folder:
        peak = peak_of_temporaries(synthesis.image, folder)
    floor_seconds, seconds = sum(one.best(best) for one in floor), sum(ours[used].values())
    return {
        "floor_seconds": floor_seconds, "seconds": seconds, "share_of_floor": floor_seconds / seconds,
        "floor_flops_per_second": arithmetic, "matrix_product_flops_per_second": product, "floor_of_matrix_product": arithmetic / product,
        "floor_threads": best, "threads": used, "clock": clock.kind, "rounds": rounds,
        "parts": {part: _part(part, floor, best, ours[used][part]) for part in PARTS},
        "operations": [_operation(one, best) for one in floor],
        "peak_temporary_bytes": peak, "largest_layer_bytes": _largest_layer(synthesis),
    }  # fmt: skip


def _part(part: str, floor: list[Operation], threads: int, seconds: float) -> dict[str, float]:
    inside = [one for one in floor if one.part == part]
    least = sum(one.best(threads) for one in inside)
    return {"floor_seconds": least, "seconds": seconds, "share_of_floor": least / seconds, "flops_per_second": rate(inside, threads)}


def _operation(one: Operation, threads: int) -> dict[str, Any]:
    seconds = one.best(threads)
    return {
        "part": one.part, "name": one.name, "count": one.count, "form": one.best_form(threads), "seconds": seconds,
        "flops_per_second": one.flops * one.count / seconds, "bytes_per_second": one.bytes * one.count / seconds,
    }  # fmt: skip


def _largest_layer(synthesis: Synthesis) -> int:
    """Bytes of input and output of the largest synthesis layer: what must be held at once while it runs."""
    with LayerShapes(synthesis.backbone.generator, (SynthesisLayer,)) as layers:
        synthesis.image()
    sizes = [
        4 * (shape[1] * shape[2] * shape[3] + layer.weight.shape[0] * layer.resolution**2) for _, layer, shape in layers.seen
    ]  # fmt: skip
    return max(sizes)


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    print(f"{'floor, operation by operation':58s} {'times':>5s} {'ms':>8s} {'GFLOP/s':>8s} {'GB/s':>6s}  form")
    for one in figures["operations"]:
        flops, name = one["flops_per_second"] / 1e9, f"{one['part']}: {one['name']}"
        speed = f"{flops:8.1f}" if flops else f"{'-':>8s}"
        print(f"  {name:56s} {one['count']:5d} {1e3 * one['seconds']:8.2f} {speed} {one['bytes_per_second'] / 1e9:6.1f}  {one['form']}")
    print(f"\n{'part':18s} {'floor ms':>9s} {'ms':>9s} {'floor/time':>10s} {'floor GFLOP/s':>14s}")
    for part, one in [*figures["parts"].items(), ("synthesis", figures)]:
        speed = one.get("flops_per_second", figures["floor_flops_per_second"]) / 1e9
        times = f"{1e3 * one['floor_seconds']:9.1f} {1e3 * one['seconds']:9.1f}"
        print(f"{part:18s} {times} {100 * one['share_of_floor']:8.0f} % {speed:14.1f}")
    print(f"threads: floor {figures['floor_threads']}, synthesis {figures['threads']}")
    print(f"matrix product {figures['matrix_product_flops_per_second'] / 1e9:.1f} GFLOP/s; the floor's arithmetic reaches "
          f"{100 * figures['floor_of_matrix_product']:.0f} % of it")  # fmt: skip
    print(f"peak of temporaries {figures['peak_temporary_bytes'] / 2**20:.0f} MiB; input and output of the largest layer "
          f"{figures['largest_layer_bytes'] / 2**20:.0f} MiB")  # fmt: skip


def refusal(figures: dict[str, Any], least_share: float = LEAST_SHARE) -> str | None:
    """Why the floor is none, or None."""
    if figures["floor_of_matrix_product"] >= least_share:
        return None
    ours, product = figures["floor_flops_per_second"] / 1e9, figures["matrix_product_flops_per_second"] / 1e9
    return (
        f"the floor's arithmetic ran at {ours:.1f} GFLOP/s, under {100 * least_share:.0f} % of a matrix product's {product:.1f} in the "
        "same run: it is no floor, and no ratio is given; run it again on a quieter machine, or with more --rounds"
    )


def main(arguments: list[str] | None = None) -> int:
    """Read the options, measure, print; 1 where the floor is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", help="numbers of threads to try; one and all cores if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="processor time needs --threads 1")
    parser.add_argument("--neural-resolution", type=int, default=64)
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the program out; no floor is refused")
    parser.add_argument("--json", type=Path, help="also write the figures, with command, commit and hardware")
    given = parser.parse_args(arguments)
    threads = thread_counts(given.threads)
    if given.clock == "processor" and threads != [1]:
        parser.error(f"--clock processor counts the time of all threads together: it needs --threads 1, not {threads}")
    options = SMALL if given.small else {"neural_resolution": given.neural_resolution}
    with torch.no_grad():
        figures = measure(options, threads=threads, rounds=given.rounds, clock=Clock(given.clock))
    reason = None if given.small else refusal(figures)
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    show(figures)
    if given.json is not None:
        command = shlex.join(["python", "benchmarks/synthesis.py", *(sys.argv[1:] if arguments is None else arguments)])
        write_text_atomically(
            given.json, json.dumps({**figures, "circumstances": {**circumstances(), "command": command}}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
