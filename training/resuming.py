"""Whether a folder may become a run, or go on as one: what of the recipe may differ, and what is written down about it."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import RunError
from ..core.files import write_text_atomically
from ..core.recipe import Recipe, load_recipe
from .checkpoints import checkpoint_folders, remove_partial
from .run import circumstances, read_record, write_record

MANNER = frozenset(
    f"training.{key}"
    for key in ("devices", "nodes", "micro_batch", "accelerator", "threads", "checkpoint_rendering", "compile", "memory_format")
)
"""How a step is computed and not what: a run goes on with others of these, and differs by rounding alone. (What acts within a
micro-batch, such as the minibatch deviation, sees other groups when the micro-batch changes.)"""


def check_run(recipe: Recipe, folder: Path, resume: bool, allow_changes: bool) -> str:
    """Return ``new``, ``running`` or ``finished``; writes nothing.

    Raises RunError for an existing run without ``resume``, for a changed recipe without ``allow_changes``, and for a changed seed.
    """
    path = folder / "recipe.yaml"
    if not path.exists():
        return "new"
    if not resume:
        raise RunError(f"{folder}: holds a run already; continue it with --resume, or choose another folder")
    changes, _ = changes_since(recipe, folder)
    lines = "\n".join(f"  {line}" for line in changes)
    if any(line.split(":")[0] == "seed" for line in changes) and checkpoint_folders(folder):
        raise RunError(f"{folder}: a run keeps the seed it began with:\n{lines}")
    if changes and not allow_changes:
        raise RunError(f"{folder}: the recipe is not the one this run began with:\n{lines}\n--allow-changes continues with the new one")
    return "finished" if not changes and read_record(folder).get("status") == "finished" else "running"


def changes_since(recipe: Recipe, folder: Path) -> tuple[list[str], list[str]]:
    """Return in which lines the recipe differs from the run's: in what is computed, and in the manner alone."""
    lines = load_recipe((folder / "recipe.yaml").resolve(), check_files=False).difference(recipe)
    manner = [line for line in lines if line.split(":")[0] in MANNER]
    return [line for line in lines if line not in manner], manner


def begin_run(recipe: Recipe, folder: Path) -> str | None:
    """Make the folder a run, or note in its record that it goes on; returns what to tell about a changed manner of computing."""
    manner = changes_since(recipe, folder)[1] if (folder / "recipe.yaml").exists() else []
    write_text_atomically(folder / "recipe.yaml", recipe.to_yaml())
    remove_partial(folder)
    record = read_record(folder)
    if record:
        record["resumed"] = [*record.get("resumed", []), circumstances()]
    write_record(folder, {**(record or circumstances()), "status": "running"})
    if not manner:
        return None
    return f"{folder}: computed otherwise from here on, results stay the same up to rounding: {'; '.join(manner)}"
