"""A run: a folder with everything about one training, which every other verb takes, and which can be moved."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..core.errors import CheckpointError, OutputError, RunError, did_you_mean
from ..core.files import write_text_atomically
from ..core.output_paths import require_writable
from ..core.recipe import Recipe, load_recipe
from ..core.recipe.shipped import shipped_generators
from ..core.registry import BACKBONES
from ..core.streams import derived_seed
from .checkpoints import MODEL, STATE, checkpoint_folders, load_module, part, read_tensors
from .foreign import is_foreign, read_foreign

CARD = "card.json"
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass
class Run:
    """Trained weights with the recipe they came from: a run folder, one checkpoint of it, or shipped weights.

    ``weights`` is the safetensors file; ``recipe`` the resolved recipe; ``images`` the real images seen.
    """

    folder: Path
    weights: Path
    recipe: Recipe
    images: int

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored tensors: ``generator.*``, ``average.*``, ``discriminator.*``."""
        return read_foreign(self.weights).tensors() if is_foreign(self.weights) else read_tensors(self.weights)

    def backbone(self, average: bool = True) -> Backbone:
        """Build the backbone with these weights, in eval mode, without gradients; ``average`` takes the moving average's."""
        backbone = build_backbone(self.recipe)
        load_backbone(backbone, self.tensors(), str(self.weights), average=average)
        return backbone.eval().requires_grad_(False)


def build_backbone(recipe: Recipe) -> Backbone:
    """Build the recipe's backbone with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(recipe.seed, "initial weights"))
        backbone: Backbone = BACKBONES.create(recipe.backbone.name, **recipe.backbone_options())
    return backbone


def load_backbone(backbone: Backbone, tensors: dict[str, Tensor], where: str, *, average: bool = False) -> None:
    """Load generator (or its average) and discriminator by name and shape; raises CheckpointError."""
    source = "average" if average and part(tensors, "average") else "generator"
    load_module(backbone.generator, part(tensors, source), f"{where} ({source})")
    stored = part(tensors, "discriminator")
    if backbone.discriminator is not None and stored:
        load_module(backbone.discriminator, stored, f"{where} (discriminator)")


def load_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder, a checkpoint folder, a ``.safetensors`` file with ``card.json`` beside it, shipped weights by name, or an
    official ``.pkl``.

    Raises RunError when there is nothing of the kind, with the nearest shipped name.
    """
    place = Path(path)
    if not place.exists():
        shipped = _PACKAGE / "weights" / str(path)
        names = shipped_generators()
        if str(path) in names:
            return _from_card(shipped / MODEL)
        raise RunError(
            f"{path}: no such run, checkpoint or shipped weights{did_you_mean(str(path), names)}; shipped: {', '.join(names) or 'none'}"
        )
    if place.is_file():
        return Run(place.parent, place, read_foreign(place).recipe, 0) if is_foreign(place) else _from_card(place)
    if (place / CARD).is_file():
        return _from_card(place / MODEL)
    if (place / STATE).is_file():
        return _from_checkpoint(place.parent.parent, place)
    if (place / "recipe.yaml").is_file():
        found = checkpoint_folders(place)
        if not found:
            raise RunError(f"{path}: this run has no checkpoint yet")
        return _from_checkpoint(place, found[-1])
    raise RunError(f"{path}: neither a run (recipe.yaml), a checkpoint ({STATE}) nor weights with a {CARD}")


def _from_checkpoint(folder: Path, checkpoint: Path) -> Run:
    state = read_json(checkpoint / STATE)
    return Run(folder, checkpoint / MODEL, load_recipe((folder / "recipe.yaml").resolve(), check_files=False), int(state["images"]))


def _from_card(weights: Path) -> Run:
    card_path = weights.parent / CARD
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        recipe = Recipe.from_plain(card["recipe"], where=str(card_path))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{card_path}: not a readable card of {weights.name}: {error!r}") from error
    return Run(weights.parent, weights, recipe, int(card.get("images", 0)))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's lock; a second process is refused with a RunError, a folder that
    cannot be written with an OutputError. The lock goes with the process, however it ends."""
    lock = folder / ".lock"
    require_writable(lock)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115  closed below, on every way out
    except OSError as error:
        raise OutputError(f"{folder}: the run cannot be written: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise RunError(f"{folder}: another process is using this run (process {file.read().strip() or 'unknown'})") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def circumstances() -> dict[str, Any]:
    """Return what a result must state about where it was made: versions, commit, hardware, command."""
    from .. import __version__

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "priorzoo": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "devices": devices,
        },
        "command": shlex.join(["priorzoo", *sys.argv[1:]]),
    }


def commit() -> str | None:
    """Return the commit of the source tree that runs, with ``+`` when it has changes; None outside a git checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write ``run.json``."""
    write_text_atomically(folder / "run.json", json.dumps(record, indent=1))


def read_record(folder: Path) -> dict[str, Any]:
    """Read ``run.json``; empty when there is none."""
    path = folder / "run.json"
    return read_json(path) if path.exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a run's JSON files; raises RunError naming it when it is damaged."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise RunError(f"{path}: does not hold a mapping")
    return plain
