"""Checkpoints: a folder of safetensors and JSON, written beside and renamed, so that it is whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.errors import CheckpointError, did_you_mean

MODEL, OPTIMISERS, STATE = "model.safetensors", "optimisers.safetensors", "state.json"
_PARTIAL = ".partial-"


@dataclass
class Checkpoint:
    """What a checkpoint folder holds: ``model``, ``optimisers`` and ``state``.

    ``model`` names its tensors ``generator.*``, ``average.*``, ``discriminator.*`` and ``priors.<entry>.*``.
    """

    model: dict[str, Tensor]
    optimisers: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_folders(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    return sorted(p for p in folder.glob("[0-9]*") if (p / STATE).is_file()) if folder.is_dir() else []


def write_checkpoint(run: Path, name: str, checkpoint: Checkpoint, keep: int) -> Path:
    """Write ``run/checkpoints/name`` whole or not at all, then remove all but the newest ``keep``.

    Raises CheckpointError when the disk does not take it; earlier checkpoints then survive, one of the same name included.
    """
    parent = run / "checkpoints"
    target, beside, former = parent / name, parent / f"{_PARTIAL}{name}", parent / f"{_PARTIAL}former-{name}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_partial(run)
        beside.mkdir()
        save_file(_contiguous(checkpoint.model), beside / MODEL)
        save_file(_contiguous(checkpoint.optimisers), beside / OPTIMISERS)
        write_state(beside / STATE, checkpoint.state)
        for file in beside.iterdir():
            _to_disk(file)
        if target.exists():
            os.replace(target, former)
        os.replace(beside, target)
        _to_disk(parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if former.exists() and not target.exists():
            os.replace(former, target)
        raise CheckpointError(_not_written(run, target, error)) from error
    shutil.rmtree(former, ignore_errors=True)
    for old in checkpoint_folders(run)[:-keep]:
        shutil.rmtree(old)
    return target


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the part of a checkpoint that is no tensor."""
    path.write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")


def _not_written(run: Path, target: Path, error: Exception) -> str:
    left = [folder.name for folder in checkpoint_folders(run)]
    remain = (
        f"{' and '.join(left)} remain, untouched" if len(left) > 1 else f"{left[0]} remains, untouched" if left else "no checkpoint remains"
    )
    free = shutil.disk_usage(target.parent if target.parent.exists() else run).free / 1e6
    return f"{target}: the checkpoint could not be written: {error}; {free:,.0f} MB are free there now; {remain}; --resume continues"


def remove_partial(run: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in (run / "checkpoints").glob(f"{_PARTIAL}*"):
        shutil.rmtree(path)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; raises CheckpointError naming the file that is broken."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE}: cannot be read: {error}") from error
    return Checkpoint(read_tensors(folder / MODEL), read_tensors(folder / OPTIMISERS), state)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file on the CPU; raises CheckpointError naming it."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from error


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``name.``, without it."""
    return {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors by name and shape; raises CheckpointError that lists what is missing, unexpected or of another shape."""
    own = module.state_dict()
    missing = [k for k in own if k not in tensors]
    unexpected = [k for k in tensors if k not in own]
    shapes = [
        f"{k}: file {list(tensors[k].shape)}, model {list(own[k].shape)}" for k in own if k in tensors and tensors[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        lines = [f"{where}: the weights do not fit the model"]
        lines += [f"  missing: {_few(missing)}"] if missing else []
        lines += [f"  unexpected: {_few(unexpected)}{did_you_mean(unexpected[0], own)}"] if unexpected else []
        lines += [f"  shape: {_few(shapes)}"] if shapes else []
        raise CheckpointError("\n".join(lines))
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})


def _few(names: list[str], most: int = 5) -> str:
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """Return the optimiser's state as named tensors: ``<parameter>|<state>``."""
    out: dict[str, Tensor] = {}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            out[f"{names[parameter]}|{key}"] = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return out


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Put ``optimiser_tensors`` back, each beside its parameter; raises CheckpointError for a name that no parameter has."""
    named = list(named)
    unknown = {k.split("|", 1)[0] for k in tensors} - {name for name, _ in named}
    if unknown:
        raise CheckpointError(f"optimiser state of unknown parameters: {_few(sorted(unknown))}")
    for name, parameter in named:
        state = {k.split("|", 1)[1]: v for k, v in tensors.items() if k.startswith(name + "|")}
        if state:
            # Adam keeps ``step`` on the CPU; the moments live beside the parameter.
            optimiser.state[parameter] = {k: v.clone() if k == "step" else v.to(parameter, copy=True) for k, v in state.items()}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
