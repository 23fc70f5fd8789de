"""Time of pi-GAN's field and of a generator's step on a processor, against the floor of their matrix products and sines.

    python benchmarks/pigan.py [--threads 1 2] [--rounds 5] [--clock processor] [--json docs/results/bench_pigan.json]

Field: forward and backward into every parameter at 64 x 64 rays of 12 samples (49,152 points), width 256. Step: rendering 64 x 64 pixels
with 12 + 12 samples (98,304 points) and the backward of the image; the discriminator is left out. The floor of N points is, bare and in the
best form of each: per layer the product of the forward and the two of the backward, a sine and its derivative, a cosine. Floor and work are
timed in turns, round after round, and the smallest time of each counts; both take their best number of threads.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from floors import LEAST_SHARE, Clock, Form, Operation, best_rate, filled, matrix_product, rate, thread_counts
from priorzoo.backbones.pigan import PiGAN, blockwise
from priorzoo.backbones.pigan.siren import evaluate_plainly
from priorzoo.core.camera import Camera
from priorzoo.core.files import write_text_atomically
from priorzoo.core.streams import fixed_streams
from priorzoo.training.run import circumstances

BLOCKS = (512, 2048, 8192)
IMAGE = frozenset({"image", "depth"})


def product(name: str, rows: int, inner: int, columns: int, count: int) -> Operation:
    """[rows, inner] @ [inner, columns], in whole or in blocks of rows."""

    def forms() -> dict[str, Form]:
        a, b = filled(rows, inner), filled(inner, columns)
        made: dict[str, Form] = {"whole": lambda: a @ b}
        for block in BLOCKS:
            out = filled(block, columns)
            parts = [part for part in a.split(block) if len(part) == block]
            made[f"blocks of {block}"] = lambda parts=parts, out=out: [torch.mm(part, b, out=out) for part in parts]
            made[f"oneDNN, blocks of {block}"] = lambda parts=parts: [blockwise.product(part, b) for part in parts]
        return made

    return Operation("products", name, 2.0 * rows * inner * columns, 4.0 * (rows * (inner + columns) + inner * columns), forms, count)


def outer_product(name: str, rows: int, left: int, right: int, count: int) -> Operation:
    """[rows, left]^T @ [rows, right]: the gradient of a weight, in whole or summed over blocks of rows."""

    def forms() -> dict[str, Form]:
        a, b, out = filled(rows, left), filled(rows, right), filled(left, right)
        made: dict[str, Form] = {"whole": lambda: a.T @ b}
        for block in BLOCKS:
            pairs = list(zip(a.split(block), b.split(block), strict=True))
            made[f"blocks of {block}"] = lambda pairs=pairs: [out.addmm_(x.T, y) for x, y in pairs]
            made[f"oneDNN, blocks of {block}"] = lambda pairs=pairs: [blockwise.product(x.T, y) for x, y in pairs]
        return made

    return Operation("products", name, 2.0 * rows * left * right, 4.0 * (rows * (left + right) + left * right), forms, count)


def wave(name: str, function: Callable[..., Any], rows: int, width: int, count: int) -> Operation:
    """A sine or cosine of [rows, width], in whole or block by block in the cache."""

    def forms() -> dict[str, Form]:
        x, out = filled(rows, width), filled(rows, width)
        made: dict[str, Form] = {"whole": lambda: function(x, out=out)}
        for block in BLOCKS:
            piece = filled(block, width)
            made[f"blocks of {block}"] = lambda piece=piece, n=rows // block: [function(piece, out=piece) for _ in range(n)]
        return made

    return Operation("waves", name, 0.0, 8.0 * rows * width, forms, count)


def floor_of(points: int, width: int, layers: int) -> list[Operation]:
    """The arithmetic of forward and backward at ``points``: ``layers`` sines of the point and one more for the colour."""
    square, sines = layers, layers + 1  # the first layer has three inputs; the colour's has the features
    return [
        product(f"{width} -> {width}", points, width, width, 2 * square),  # forward, and back to the inputs
        outer_product(f"weights {width} x {width}", points, width, width, square),
        product(f"3 -> {width}", points, 3, width, 1),
        outer_product(f"weights {width} x 3", points, width, 3, 1),
        product(f"{width} -> 4", points, width, 4, 1),
        product(f"4 -> {width}", points, 4, width, 1),
        outer_product(f"weights 4 x {width}", points, 4, width, 1),
        wave("sine", torch.sin, points, width, sines),
        wave("cosine", torch.cos, points, width, sines),
    ]


class Work:
    """One sample of a pi-GAN with random weights."""

    def __init__(self, side: int, samples: int, width: int) -> None:
        torch.manual_seed(0)
        self.backbone = PiGAN(hidden=width, samples_coarse=samples, samples_fine=samples, neural_resolution=side, image_resolution=side)
        torch.nn.init.normal_(self.backbone.generator.siren.final_layer.weight)  # as if it had learnt something
        self.parameters = list(self.backbone.generator.parameters())
        self.streams = fixed_streams(0, 1)
        self.drawn = self.backbone.draw(1, self.streams)
        self.camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
        scene = self.backbone.render(
            self.backbone.prepare(self.drawn, None), self.camera, frozenset({"samples", "rays"}), streams=self.streams
        )  # fmt: skip
        self.origins, self.directions = scene.rays.origins / 2.7, scene.rays.directions
        self.distances = scene.samples.distances[..., :samples].contiguous() / 2.7
        self.to_raw, self.to_rgb = torch.randn(1, side**2, samples), torch.randn(1, side**2, samples, 3)

    def _folded(self) -> Any:
        latents = self.backbone.prepare(self.drawn, None)
        return self.backbone.generator.folded(latents["frequencies"], latents["phases"])

    def _back(self, *pairs: Any) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs])

    def field(self) -> None:
        """Mapping, folding, field and their backward."""
        raw, rgb = blockwise.evaluate_rays(self._folded(), self.origins, self.directions, self.distances, seen_along=self.directions)
        self._back((raw, self.to_raw), (rgb, self.to_rgb))

    def plain_field(self) -> None:
        """The same as plain operations."""
        points = self.origins[:, :, None] + self.directions[:, :, None] * self.distances[..., None]
        seen = self.directions[:, :, None].expand_as(points).flatten(1, 2)
        raw, rgb = evaluate_plainly(self._folded(), points.flatten(1, 2), seen)
        assert rgb is not None
        self._back((raw.view_as(self.to_raw), self.to_raw), (rgb.view_as(self.to_rgb), self.to_rgb))

    def step(self) -> None:
        """Rendering of one image and its backward."""
        latents = self.backbone.prepare(self.drawn, None)
        scene = self.backbone.render(latents, self.camera, IMAGE, streams=self.streams)
        loss = scene.image.square().mean() + scene.depth.mean()
        self._back((loss, torch.ones_like(loss)))


def measure(side: int, samples: int, width: int, *, threads: list[int], rounds: int, clock: Clock) -> dict[str, Any]:
    """Figures of floor, field and step; times in seconds."""
    work, products = Work(side, samples, width), matrix_product()
    floor = floor_of(side**2 * samples, width, work.backbone.options.layers)
    tasks = {"field": work.field, "plain_field": work.plain_field, "step": work.step}
    seconds = {name: {count: float("inf") for count in threads} for name in tasks}
    for number in range(rounds):
        for count in threads:
            torch.set_num_threads(count)
            for one in [*floor, *products]:
                one.time(clock, count)
            for name, task in tasks.items():
                seconds[name][count] = min(seconds[name][count], clock.seconds(task))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    bare = {count: sum(one.best(count) for one in floor) for count in threads}
    at = min(threads, key=bare.__getitem__)
    figures: dict[str, Any] = {
        "points": side**2 * samples,
        "width": width,
        "clock": clock.kind,
        "rounds": rounds,
        "floor_threads": at,
        "floor_seconds": bare[at],
        "floor_flops_per_second": rate(floor, at),
        "matrix_product_flops_per_second": max(best_rate(products, count) for count in threads),
        "operations": {one.name: {"count": one.count, "seconds": one.best(at), "form": one.best_form(at)} for one in floor},
    }
    for name in tasks:
        own = min(seconds[name].values())
        bound = bare[at] * (2 if name == "step" else 1)
        figures[name] = {
            "seconds": own,
            "threads": min(threads, key=seconds[name].__getitem__),
            "floor_seconds": bound,
            "share_of_floor": bound / own,
            "times_floor": own / bound,
        }
    figures["floor_of_matrix_product"] = figures["floor_flops_per_second"] / figures["matrix_product_flops_per_second"]
    return figures


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    for name, one in figures["operations"].items():
        print(f"  {one['count']:3d} x {name:20s} {1e3 * one['seconds']:8.1f} ms  ({one['form']})")
    print(f"{'':14s} {'floor ms':>9s} {'ms':>9s} {'of floor':>9s} {'times':>6s}")
    for name in ("field", "plain_field", "step"):
        one = figures[name]
        print(f"{name:14s} {1e3 * one['floor_seconds']:9.1f} {1e3 * one['seconds']:9.1f} {100 * one['share_of_floor']:7.0f} % "
              f"{one['times_floor']:6.2f}")  # fmt: skip
    print(f"matrix product {figures['matrix_product_flops_per_second'] / 1e9:.1f} GFLOP/s; the floor's products reach "
          f"{100 * figures['floor_of_matrix_product']:.0f} % of it")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Read the options, measure, print; 1 where the floor is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", help="numbers of threads to try; one and all cores if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="processor time needs --threads 1")
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the program out")
    parser.add_argument("--json", type=Path, help="also write the figures, with command, commit and hardware")
    given = parser.parse_args(arguments)
    threads = thread_counts(given.threads)
    if given.clock == "processor" and threads != [1]:
        parser.error(f"--clock processor counts the time of all threads together: it needs --threads 1, not {threads}")
    sizes = (32, 8, 32) if given.small else (64, 12, 256)
    figures = measure(*sizes, threads=threads, rounds=given.rounds, clock=Clock(given.clock))
    if not given.small and figures["floor_of_matrix_product"] < LEAST_SHARE:
        print("error: the floor's products ran at less than half of a matrix product's rate in the same run: no floor, no ratio; "
              "run it again on a quieter machine, or with more --rounds", file=sys.stderr)  # fmt: skip
        return 1
    show(figures)
    if given.json is not None:
        command = shlex.join(["python", "benchmarks/pigan.py", *(sys.argv[1:] if arguments is None else arguments)])
        text = json.dumps({**figures, "circumstances": {**circumstances(), "command": command}}, indent=1)
        write_text_atomically(given.json, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
