"""Weights to ship: one safetensors file and a card that says how they were made.

``python -m priorzoo.training.shipping RUN OUT`` writes ``OUT/model.safetensors`` (generator, its average, discriminator) and
``OUT/card.json``; the card holds the resolved recipe, command, seed, commit, hardware, time and the run's measures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..core.errors import PriorzooError, RunError
from ..core.files import file_digest, write_atomically, write_text_atomically
from ..core.registry import SEGMENTERS
from ..metrics.frontal_parts import frontal_parts
from ..metrics.protocol import Result
from .checkpoints import MODEL, STATE, checkpoint_folders
from .journal import read_metrics
from .run import CARD, Run, load_run, read_record

PARTS = ("generator.", "average.", "discriminator.")


def ship(run: Run, out: Path) -> Path:
    """Write the weights of a run's newest checkpoint and their card into ``out``; the card is written last.

    Raises RunError when the run has no measures of these weights: `priorzoo evaluate` makes them.
    """
    measured = measures_of(run)
    tensors = {k: v.contiguous() for k, v in run.tensors().items() if k.startswith(PARTS)}
    with write_atomically(out / MODEL) as beside:
        save_file(tensors, beside)
    write_text_atomically(out / CARD, json.dumps(card(run, measured, out.name, file_digest(out / MODEL)), indent=1) + "\n")
    return out


def measures_of(run: Run) -> Result:
    """Return what `priorzoo evaluate RUN` measured; raises RunError when it did not, or before the newest checkpoint was written."""
    newest = checkpoint_folders(run.folder)[-1:]
    if [run.weights.parent] != newest:
        raise RunError(f"{run.weights}: what is shipped is a run folder's newest checkpoint, and this is none")
    during = run.folder / "results" / f"evaluation-{newest[0].name}.json"
    if during.exists():  # measured while it trained, or as this checkpoint
        return Result.load(during)
    path, how = run.folder / "results" / "evaluation.json", f"run `priorzoo evaluate {run.folder}` first"
    if not path.exists():
        raise RunError(f"{path}: the weights are not measured; {how}")
    if path.stat().st_mtime < (newest[0] / STATE).stat().st_mtime:
        raise RunError(f"{path}: older than the newest checkpoint, {newest[0].name}; {how}")
    return Result.load(path)


def card(run: Run, measured: Result, name: str, digest: str) -> dict[str, Any]:
    """Return what a card says."""
    record = read_record(run.folder)
    state = json.loads((run.weights.parent / STATE).read_text(encoding="utf-8"))
    recipe = run.recipe.to_plain()
    # Where the run found its start and its data is a matter of that machine.
    recipe["init"] = Path(recipe["init"]).name if recipe.get("init") else None
    for key in ("path", "held_out", "truth"):
        if isinstance(recipe["data"].get(key), (str, Path)):
            recipe["data"][key] = Path(recipe["data"][key]).name
    return {
        "name": name,
        "backbone": recipe["backbone"],
        "recipe": recipe,
        "seed": run.recipe.seed,
        "images": run.images,
        "command": record.get("command"),
        "commit": record.get("commit"),
        "hardware": record.get("hardware"),
        "seconds": round(float(state["seconds"]), 1),
        "versions": {k: record.get(k) for k in ("priorzoo", "torch", "python")},
        "log_end": [line for line in read_metrics(run.folder) if line["images"] <= run.images][-2:],
        "protocol": measured.protocol,
        "measures": _measures(measured),
        "frontal_parts": _frontal_parts(run),
        "sha256": {MODEL: digest},
        "licence": "MIT, as priorzoo",
    }


def _measures(measured: Result) -> dict[str, Any]:
    """Every column's value and interval, and the true heads' value, without the single terms."""
    columns = measured.to_json()["columns"]
    kept = ("label", "unit", "goal", "value", "low", "high", "count")
    out = {}
    for key, entry in columns.items():
        out[key] = {k: entry[k] for k in kept}
        if "true" in entry:
            out[key]["true"] = entry["true"]["value"]
    return out


def _frontal_parts(run: Run) -> dict[str, Any] | None:
    """How often the shipped segmenter finds a whole face in frontal samples of the average; None for what are no heads."""
    if run.recipe.data is None or run.recipe.data.name != "heads":
        return None
    samples = 64
    segmenter = SEGMENTERS.create("unet").eval()
    shares = frontal_parts(run.backbone(), segmenter, samples=samples, conditioned=run.recipe.objective.pose_swap is not None)
    return {"segmenter": "unet", "samples": samples, **shares}


def main(arguments: list[str]) -> int:
    """Ship ``RUN`` to ``OUT``."""
    if len(arguments) != 2:
        print("usage: python -m priorzoo.training.shipping RUN OUT", file=sys.stderr)
        return 2
    try:
        print(ship(load_run(arguments[0]), Path(arguments[1])))
    except PriorzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
