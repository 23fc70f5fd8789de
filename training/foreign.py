"""Checkpoints of other projects: read inertly, checked name by name against our model, written as safetensors and a card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.eg3d.importing import EXTRA, LICENCE, OfficialCheckpoint, read_official
from ..core.errors import CheckpointError, did_you_mean
from ..core.files import file_digest, write_atomically, write_text_atomically
from ..core.pickles import StoredTensor
from ..core.recipe import Recipe
from ..core.registry import BACKBONES
from .checkpoints import MODEL
from .safetensors_writer import write_safetensors

UNUSED = "unused"
"""What no network reads is kept under this part: ``unused.average.dataset_label_std``."""

FORMATS = {"eg3d": "EG3D", "ballgan": "BallGAN"}

# The published length and batch; what a checkpoint was really trained with, it does not say.
TRAINING = {"images": 25_000_000, "batch": 32}


@dataclass
class Names:
    """How the names of one part of a file and of our model compare."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @classmethod
    def compare(cls, stored: Mapping[str, StoredTensor], own: Mapping[str, Tensor]) -> Names:
        """Compare by name and shape."""
        differ = [k for k in own if k in stored and tuple(own[k].shape) != stored[k].shape]
        return cls(
            matched=[k for k in own if k in stored and k not in differ],
            missing=[k for k in own if k not in stored],
            unexpected=[k for k in stored if k not in own],
            shapes=[f"{k}: file {list(stored[k].shape)}, model {list(own[k].shape)}" for k in differ],
        )

    def require_fit(self, where: str, own: Iterable[str]) -> None:
        """Raise CheckpointError when a tensor is missing, of another shape, or read by no network and not known to be so."""
        foreign = [name for name in self.unexpected if name not in EXTRA]
        if not (self.missing or self.shapes or foreign):
            return
        lines = [f"{where}: the tensors are not those of the model that its attributes describe"]
        lines += [f"  missing: {name}{did_you_mean(name, foreign)}" for name in self.missing]
        lines += [f"  unexpected: {name}{did_you_mean(name, own)}" for name in foreign]
        lines += [f"  shape: {line}" for line in self.shapes]
        raise CheckpointError("\n".join(lines))


@dataclass
class Foreign:
    """A checkpoint of another project that fits: ``recipe`` as this package says it, ``names`` and tensors by part."""

    path: Path
    recipe: Recipe
    checkpoint: OfficialCheckpoint
    names: dict[str, Names]

    def stored(self) -> dict[str, StoredTensor]:
        """Return every tensor of the file under our names, not copied yet."""
        out: dict[str, StoredTensor] = {}
        for part, tensors in self.checkpoint.tensors.items():
            unread = set(self.names[part].unexpected)
            out |= {f"{f'{UNUSED}.{part}' if k in unread else part}.{k}": t for k, t in tensors.items()}
        return out

    def tensors(self) -> dict[str, Tensor]:
        """Return the same as tensors of their own."""
        return {name: torch.from_numpy(t.array()) for name, t in self.stored().items()}


def is_foreign(path: str | os.PathLike[str]) -> bool:
    """Whether a file is another project's checkpoint, by its ending.

    >>> is_foreign("ffhq512-128.pkl"), is_foreign("model.safetensors")
    (True, False)
    """
    return Path(path).suffix.lower() in (".pkl", ".pickle", ".pth", ".pt")


def read_foreign(path: str | os.PathLike[str]) -> Foreign:
    """Read an official EG3D or BallGAN pickle and check its tensors, by name and shape, against the model that it describes.

    Raises CheckpointError.
    """
    checkpoint = read_official(path)
    plain = {
        "backbone": {"name": checkpoint.backbone, **checkpoint.options},
        "background": checkpoint.background,
        "objective": {"name": "eg3d", "pose_swap": checkpoint.pose_swap, "label_noise": checkpoint.label_noise},
        "training": TRAINING,
    }
    recipe = Recipe.from_plain(plain, where=str(path))
    with torch.device("meta"):
        backbone = BACKBONES.create(recipe.backbone.name, **recipe.backbone_options())
    names = {}
    for part, stored in checkpoint.tensors.items():
        own = (backbone.discriminator if part == "discriminator" else backbone.generator).state_dict()
        names[part] = Names.compare(stored, own)
        names[part].require_fit(f"{path}: {part}", own)
    return Foreign(Path(path), recipe, checkpoint, names)


def import_checkpoint(path: str | os.PathLike[str], out: Path) -> Foreign:
    """Write an official file as ``out/model.safetensors`` and ``out/card.json``, the card last; `load_run` takes the folder."""
    foreign = read_foreign(path)
    if (out / MODEL).exists():
        raise CheckpointError(f"{out / MODEL}: exists already; choose another folder")
    with write_atomically(out / MODEL) as beside:
        write_safetensors(beside, foreign.stored())
    card = foreign_card(foreign, out.name, file_digest(out / MODEL))
    write_text_atomically(out / "card.json", json.dumps(card, indent=1) + "\n")
    return foreign


def foreign_card(foreign: Foreign, name: str, written: str) -> dict[str, Any]:
    """Return what the card of imported weights says."""
    recipe = foreign.recipe.to_plain()
    return {
        "name": name,
        "backbone": recipe["backbone"],
        "recipe": recipe,
        "images": 0,
        "plane_axes": foreign.checkpoint.options["plane_axes"],
        "origin": {
            "format": f"official {FORMATS[recipe['backbone']['name']]} pickle",
            "file": foreign.path.name,
            "bytes": foreign.path.stat().st_size,
            "sha256": file_digest(foreign.path),
            **foreign.checkpoint.origin,
        },
        "tensors": {
            part: {
                "matched": len(n.matched),
                "missing": n.missing,
                "unexpected": n.unexpected,
                "dropped": foreign.checkpoint.dropped.get(part, []),
            }
            for part, n in foreign.names.items()
        },
        "notes": [*foreign.checkpoint.notes, "objective.r1 and training are the published defaults: the file does not hold them"],
        "sha256": {MODEL: written},
        "licence": LICENCE,
    }
