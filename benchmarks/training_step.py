"""A training step: images a second, memory, share by part and FLOP/s, with and without the SSR priors, in each precision.

    python benchmarks/training_step.py [RECIPE] [training.batch=4 ...] [--precisions fp32 tf32 bf16] [--repeats 1] [--json FILE]

RECIPE is ffhq/eg3d_ssr if not given, for a GPU; heads/eg3d_ssr suits a processor. Files that the recipe names and that are not there
(FFHQ, official weights, BiSeNet) are replaced by generated ones of the same sizes: the time of a step does not depend on what they hold.
FLOP/s are compared with a matrix product in the same precision and the same run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.core.files import write_text_atomically
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.training.benchmark import StepCost, step_cost
from priorzoo.training.run import circumstances
from priorzoo.training.stand_ins import with_stand_ins

PRECISIONS = {
    "fp32": ("training.precision=32-true", "training.tf32=false"),
    "tf32": ("training.precision=32-true", "training.tf32=true"),
    "bf16": ("training.precision=bf16-mixed", "training.tf32=true"),
}


def product_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of a large matrix product in a precision: the best of some."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    times = []
    try:
        with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
            a = a.bfloat16() if precision == "bf16" else a
            for _ in range(12):
                _wait(device)
                start = time.perf_counter()
                a @ a
                _wait(device)
                times.append(time.perf_counter() - start)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2.0 * size**3 / min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def without_ssr(recipe: Recipe) -> list[str]:
    """Changes that leave the SSR priors out, and the segmenter where nothing else reads it."""
    named = [name for name, entry in recipe.priors.items() if entry.name == "ssr"]
    if not named:
        raise PriorzooError("the recipe has no ssr prior: there is nothing to leave out")
    return [*(f"priors.{name}=null" for name in named), "segmenter=null"]


def measure(name: str, overrides: list[str], precisions: list[str], repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Figures of each precision, first without the priors (a processor's peak of memory never falls again), then with them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lean = without_ssr(load_recipe(name, tuple(overrides), check_files=False))
    rows = []
    for precision in precisions:
        costs: dict[str, StepCost] = {}
        for label, changes in (("without", lean), ("with", [])):
            asked = load_recipe(name, (*overrides, *PRECISIONS[precision], *changes), check_files=False)
            recipe = with_stand_ins(asked, folder / label, lambda line: print(line, file=sys.stderr))
            costs[label] = step_cost(recipe, data_folder=folder, repeats=repeats, count_flops=True)
        rate = product_rate(device, precision)
        rows.append({"precision": precision, "matrix_product_flops_per_second": rate} | {k: _plain(v, rate) for k, v in costs.items()})
        rows[-1]["priors_share"] = 1.0 - costs["without"].step / costs["with"].step
    return rows


def _plain(cost: StepCost, rate: float) -> dict[str, Any]:
    assert cost.flops is not None
    speed = cost.flops / cost.step
    plain = cost.to_plain()
    keys = ("images_per_second", "step_seconds", "peak_memory_bytes", "flops", "batch", "steps", "shares")
    return {**{key: plain[key] for key in keys}, "flops_per_second": speed, "share_of_matrix_product": speed / rate}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the figures."""
    for row in rows:
        product = row["matrix_product_flops_per_second"] / 1e12
        print(f"\n{row['precision']}: SSR and segmenter take {100 * row['priors_share']:.1f} % of a step; a @ b {product:.3g} TFLOP/s")
        for label in ("without", "with"):
            one = row[label]
            speed = f"{one['images_per_second']:8.2f} images/s, {1e3 * one['step_seconds']:9.1f} ms"
            work = f"{one['flops_per_second'] / 1e12:.3g} TFLOP/s ({100 * one['share_of_matrix_product']:.0f} % of the matrix product)"
            print(f"  {label + ' SSR':12s} batch {one['batch']}: {speed}, {one['peak_memory_bytes'] / 2**30:6.2f} GiB, {work}")
        for part, share in sorted(row["with"]["shares"].items(), key=lambda item: -item[1]):
            print(f"    {part:32s} {100 * share:5.1f} %")


def main(arguments: list[str] | None = None) -> int:
    """Read the options, measure, print; 2 where the recipe is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="ffhq/eg3d_ssr")
    parser.add_argument("overrides", nargs="*", default=[], help="changes to the recipe; training.batch=4 if none is given")
    parser.add_argument("--precisions", nargs="+", choices=tuple(PRECISIONS), help="all on a GPU, fp32 on a processor")
    parser.add_argument("--repeats", type=int, default=1, help="cycles of the lazy phases that are timed")
    parser.add_argument("--json", type=Path, help="also write the figures, with command, commit and hardware")
    given = parser.parse_args(arguments)
    precisions = given.precisions or (list(PRECISIONS) if torch.cuda.is_available() else ["fp32"])
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = measure(given.recipe, given.overrides or ["training.batch=4"], precisions, given.repeats, Path(folder))
        except PriorzooError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    show(rows)
    if given.json is not None:
        command = shlex.join(["python", "benchmarks/training_step.py", *(sys.argv[1:] if arguments is None else arguments)])
        figures = {"recipe": given.recipe, "steps": rows, "circumstances": {**circumstances(), "command": command}}
        write_text_atomically(given.json, json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
