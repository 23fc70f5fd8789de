"""Weights to ship: one safetensors file and a card that says how they were made.

``python -m priorzoo.training.shipping RUN OUT`` writes ``OUT/model.safetensors`` (generator, its average, discriminator) and
``OUT/card.json``; the card holds the resolved recipe, command, seed, commit, hardware, time and the run's measures.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..core.files import write_atomically, write_text_atomically
from .checkpoints import MODEL
from .journal import read_metrics
from .run import CARD, Run, load_run, read_record

PARTS = ("generator.", "average.", "discriminator.")


def ship(run: Run, out: Path) -> Path:
    """Write a run's newest weights and their card into ``out``; the card is written last."""
    tensors = {k: v.contiguous() for k, v in run.tensors().items() if k.startswith(PARTS)}
    with write_atomically(out / MODEL) as beside:
        save_file(tensors, beside)
    digest = hashlib.sha256((out / MODEL).read_bytes()).hexdigest()
    write_text_atomically(out / CARD, json.dumps(card(run, digest), indent=1) + "\n")
    return out


def card(run: Run, digest: str) -> dict[str, Any]:
    """Return what a card says."""
    record = read_record(run.folder)
    results = run.folder / "results" / "evaluation.json"
    measured = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    recipe = run.recipe.to_plain()
    # Where the run found its start and its data is a matter of that machine.
    recipe["init"] = Path(recipe["init"]).name if recipe.get("init") else None
    return {
        "name": out_name(run),
        "backbone": recipe["backbone"],
        "recipe": recipe,
        "seed": run.recipe.seed,
        "images": run.images,
        "command": record.get("command"),
        "commit": record.get("commit"),
        "hardware": record.get("hardware"),
        "seconds": record.get("seconds"),
        "versions": {k: record.get(k) for k in ("priorzoo", "torch", "python")},
        "log_end": read_metrics(run.folder)[-2:],
        "protocol": measured.get("protocol"),
        "measures": measured.get("values"),
        "sha256": {MODEL: digest},
        "licence": "MIT, as priorzoo",
    }


def out_name(run: Run) -> str:
    """Return the name of the weights: the run folder's."""
    return run.folder.name


def main(arguments: list[str]) -> int:
    """Ship ``RUN`` to ``OUT``."""
    if len(arguments) != 2:
        print("usage: python -m priorzoo.training.shipping RUN OUT", file=sys.stderr)
        return 2
    print(ship(load_run(arguments[0]), Path(arguments[1])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
