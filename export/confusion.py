"""Pictures of a segmenter or an estimator on held-out heads: confusion matrix, examples beside their truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.classes import CLASS_COLOURS, CLASS_NAMES
from ..core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENLARGE = 3  # examples are shown with pixels of this many pixels


def write_confusion(path: Path, confusion: Tensor, iou: dict[str, float], title: str) -> None:
    """Draw a confusion matrix [19,19] of pixel counts; true classes (rows) in per cent of their pixels."""
    from matplotlib.figure import Figure

    present = [i for i in range(len(confusion)) if confusion[i].sum() > 0]
    share = 100.0 * confusion.double() / confusion.sum(1, keepdim=True).clamp_min(1)
    shown = share[present].numpy()
    figure = Figure(figsize=(11, 1.8 + 0.36 * len(present)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, line in enumerate(shown):
        for column, value in enumerate(line):
            if value >= 0.5:
                axes.text(
                    column,
                    row,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if value > 55 else "black",
                )
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES, rotation=50, ha="right")
    axes.set_yticks(range(len(present)), [f"{CLASS_NAMES[i]}  IoU {iou[CLASS_NAMES[i]]:.2f}" for i in present])
    axes.set_xlabel("found")
    axes.set_ylabel("true")
    axes.set_title(title)
    _save(path, figure)


def _save(path: Path, figure: Figure) -> None:
    with write_atomically(path) as beside:
        # without the program's version in the file, the same figure gives the same bytes on one installation
        figure.savefig(beside, dpi=90, format="png", metadata={"Software": None})


def labels_picture(labels: Tensor) -> Tensor:
    """Colour class ids [B,H,W]: uint8 [B,3,H,W].

    >>> labels_picture(torch.zeros(1, 1, 1, dtype=torch.uint8)).flatten().tolist()
    [255, 255, 255]
    """
    return torch.tensor(CLASS_COLOURS, dtype=torch.uint8)[labels.long()].permute(0, 3, 1, 2)


def directions_picture(normals: Tensor, shown: Tensor) -> Tensor:
    """Colour normals [B,3,H,W] of the camera's frame: red right, green up, blue towards it; white if not ``shown``."""
    signs = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    colour = (normals.float() * signs + 1.0) * 127.5
    return torch.where(shown, colour, torch.full((), 255.0)).round().to(torch.uint8)


def depth_picture(depth: Tensor, shown: Tensor) -> Tensor:
    """Grey picture of standardised depth [B,1,H,W], near is light, white where not ``shown``."""
    grey = (0.5 - depth.float() / 4.0).clamp(0.0, 1.0) * 255.0
    return torch.where(shown, grey, torch.full((), 255.0)).round().to(torch.uint8).expand(-1, 3, -1, -1)


def write_examples(path: Path, rows: list[Tensor]) -> None:
    """Write pictures uint8 [B,3,H,W] as a sheet: one column per example, one row per element of ``rows``."""
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).permute(1, 2, 0).numpy()
    sheet = np.repeat(np.repeat(sheet, ENLARGE, axis=0), ENLARGE, axis=1)
    with write_atomically(path) as beside:
        Image.fromarray(sheet).save(beside)
