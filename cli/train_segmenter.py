"""`priorzoo train-segmenter`: train the small networks behind the `unet` segmenter and the `heads` estimator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..segmenters.network import SmallUNet
    from ..training.head_pool import HeadPool
    from ..training.supervised import SupervisedPlan

FOLDERS = {"classes": "unet_heads", "shape": "shape_heads"}


def command(
    out: Annotated[Path, typer.Option(help="Folder to write; one sub-folder per network.")] = Path("runs/segmenter"),
    target: Annotated[str, typer.Option(help="classes (segmenter), shape (depth and normals) or both.")] = "classes",
    data: Annotated[
        Path | None,
        typer.Option(help="A heads data set with its truth beside it.", show_default="heads rendered now"),
    ] = None,
    images: Annotated[int, typer.Option(help="Training images to render, two per head.")] = 2048,
    resolution: Annotated[int, typer.Option(help="Pixels a side of rendered heads, a power of two.")] = 64,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1200,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 32,
    held_out: Annotated[int, typer.Option(help="Heads, two images each, on which the result is measured.")] = 64,
    seed: Annotated[int, typer.Option(help="Same seed, options and threads: same weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace weights that exist.")] = False,
) -> None:
    """Train the segmenter `unet`, the estimator `heads`, or both, on procedural heads with their truth."""
    import torch

    from ..core.errors import PriorzooError, did_you_mean
    from ..training.supervised import TARGETS, SupervisedPlan

    known = (*TARGETS, "both")
    if target not in known:
        raise PriorzooError(f"--target: got {target!r}{did_you_mean(target, known)}; allowed: {', '.join(known)}")
    for name, value, least in (("images", images, 2), ("held-out", held_out, 1), ("threads", threads, 1)):
        if value < least:
            raise PriorzooError(f"--{name}: must be at least {least}, got {value}")
    if data is None and (resolution < 16 or resolution & (resolution - 1)):
        raise PriorzooError(f"--resolution: must be a power of two from 16, got {resolution}")
    wanted = list(TARGETS) if target == "both" else [target]
    plans = [SupervisedPlan(one, steps=steps, batch=batch, seed=seed) for one in wanted]
    for one in wanted:
        if (out / FOLDERS[one] / "model.safetensors").exists() and not force:
            raise PriorzooError(f"{out / FOLDERS[one]} holds weights already; --force replaces them")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pool, held = _pools(data, images, resolution, held_out, seed)
        recipe = {
            "data": data.name if data else "rendered",
            "images": len(pool),
            "held_out_images": len(held["plain"]),
        }
        for plan in plans:
            _train_one(plan, out / FOLDERS[plan.target], pool, held, recipe)
    finally:
        torch.set_num_threads(before)


def _pools(data: Path | None, images: int, resolution: int, held_out: int, seed: int) -> tuple[HeadPool, dict[str, HeadPool]]:
    from ..training.head_pool import read_pool, render_held_out, render_pool
    from ..training.progress import Progress

    if data is not None:
        return read_pool(str(data), "train"), {"plain": read_pool(str(data), "held_out")}
    with Progress("rendering heads", total=images) as bar:
        pool = render_pool(images, resolution, seed, progress=lambda done, _: bar.update(done))
    plain = render_held_out(held_out, resolution, seed)
    varied = render_held_out(held_out, resolution, seed, background="textured", accessories=True)
    return pool, {"plain": plain, "varied": varied}


def _train_one(plan: SupervisedPlan, folder: Path, pool: HeadPool, held: dict[str, HeadPool], recipe: dict[str, Any]) -> None:
    import json
    import time

    from ..core.files import write_text_atomically
    from ..segmenters.network import load_network, save_network
    from ..training.progress import Progress
    from ..training.run import circumstances
    from ..training.supervised import TARGETS, held_out_results, train_network

    made_by = circumstances()  # before anything is written: new weights would count as a change of the source tree
    start, cpu = time.perf_counter(), time.process_time()
    with Progress(f"training {plan.target}", total=plan.steps, unit="steps") as bar:
        network = train_network(pool, plan, progress=lambda done, _, __: bar.update(done))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    weights = folder / "model.safetensors"
    side = int(pool.rgb.shape[-1])
    save_network(weights, network, resolution=side, outputs=TARGETS[plan.target])
    # what is measured and drawn is the file: read back, with its rounding to float16
    network, _ = load_network(weights, TARGETS[plan.target])
    results = held_out_results(network, plan.target, held)
    card = _card(plan, recipe, network, weights, side, results) | made_by
    card |= {"training_seconds": round(seconds, 1), "training_cpu_seconds": round(cpu_seconds, 1)}
    write_text_atomically(folder / "card.json", json.dumps(card, indent=1) + "\n")
    _pictures(plan.target, folder, network, held, results)
    _say(plan.target, weights, card)


def _card(
    plan: SupervisedPlan, recipe: dict[str, Any], network: SmallUNet, weights: Path, side: int, results: dict[str, Any]
) -> dict[str, Any]:
    from dataclasses import asdict

    from ..core.classes import CLASS_NAMES
    from ..training.supervised import TARGETS, seconds_per_image

    return {
        "name": FOLDERS[plan.target],
        "part": {"classes": "segmenter unet", "shape": "estimator heads"}[plan.target],
        "what": {
            "classes": "image of a head to the classes of core/classes.py",
            "shape": "image of a head to foreground, standardised depth along the ray, normals in the camera's frame",
        }[plan.target],
        "outputs": list(TARGETS[plan.target]),
        "classes": list(CLASS_NAMES),
        "resolution": side,
        "widths": list(network.widths),
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": weights.stat().st_size,
        "recipe": {**recipe, **asdict(plan)},
        "seed": plan.seed,
        "held_out": results,
        "seconds_per_image": round(seconds_per_image(network, side), 5),
        "licence": "MIT, trained on procedural data alone",
    }


def _pictures(target: str, folder: Path, network: SmallUNet, held: dict[str, HeadPool], results: dict[str, Any]) -> None:
    import torch

    from ..export.confusion import (
        depth_picture,
        directions_picture,
        labels_picture,
        write_confusion,
        write_examples,
    )  # fmt: skip
    from ..rendering.standardising import standardised
    from ..training.augmentation import degraded
    from ..training.supervised import confusion_matrix

    for name, pool in held.items():
        some = pool[slice(0, 12)]
        worse = degraded(some.image())
        worse_rgb = ((worse + 1.0) * 127.5).round().to(torch.uint8)
        with torch.no_grad():
            maps, worse_maps = network(some.image()), network(worse)
        if target == "classes":
            confusion = confusion_matrix(network, pool)
            write_confusion(folder / f"confusion_{name}.png", confusion, results[name]["iou"], f"held-out heads, {name}: per cent")
            found = [labels_picture(m.argmax(1)) for m in (maps, worse_maps)]
            rows = [some.rgb, labels_picture(some.labels), found[0], worse_rgb, found[1]]
        else:
            true, inside = some.labels[:, None] != 0, maps[:, :1] > 0
            normals = torch.nn.functional.normalize(maps[:, 2:5], dim=1)
            rows = [
                some.rgb, directions_picture(some.normals, true), directions_picture(normals, inside),
                depth_picture(some.depth, true), depth_picture(standardised(maps[:, 1:2], inside), inside),
            ]  # fmt: skip
        write_examples(folder / f"examples_{name}.png", rows)


def _say(target: str, weights: Path, card: dict[str, Any]) -> None:
    typer.echo(f"{weights}  {card['bytes'] / 1e6:.2f} MB  {1e3 * card['seconds_per_image']:.1f} ms an image")
    for name, found in card["held_out"].items():
        if target == "classes":
            typer.echo(f"held-out IoU, {name}: " + "  ".join(f"{k} {v:.2f}" for k, v in found["iou"].items()))
        else:
            regions = [f"{k} {v['normal_degrees']:.1f} deg, depth {v['depth']:.3f}" for k, v in found.items() if isinstance(v, dict)]
            typer.echo(f"held-out errors, {name}: foreground IoU {found['foreground_iou']:.3f}  " + "  ".join(regions))
