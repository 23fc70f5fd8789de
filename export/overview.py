"""One picture of an ablation: a row a model, the same latents in columns, each as image and shaded surface.

``python -m priorzoo.export.overview FOLDER OUT.png`` makes the picture that the README shows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ..core.files import write_atomically
from ..training.ablation import BASE, load_ablation
from ..training.run import Run, load_run
from .portraits import portraits
from .sheets import Picture, contact_sheet, enlarged, png_bytes

HEADS = 4
RESOLUTION = 96
SAMPLES = 48


def overview(folder: Path) -> Picture:
    """Return the sheet of an ablation's variants (without its start), control first."""
    ablation = load_ablation(folder)
    rows = []
    for row in ablation.rows:
        if row.name == BASE:
            continue
        run: Run = replace(load_run(folder / row.folder), recipe=ablation.recipe)
        heads = portraits(run.backbone(), HEADS, seed=ablation.recipe.seed, resolution=RESOLUTION, samples=SAMPLES)
        rows.append([enlarged(p, RESOLUTION) for head in heads for p in (head.image, head.surfaces[1])])
    side = max(max(p.shape[:2]) for row in rows for p in row)
    return contact_sheet([[_fitted(p, side) for p in row] for row in rows])


def _fitted(picture: Picture, side: int) -> Picture:
    """Enlarge a picture to exactly ``side`` where whole pixels reach it; images and surfaces may have been drawn at two sizes."""
    import numpy as np
    from PIL import Image

    if picture.shape[0] == side:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def main(arguments: list[str]) -> int:
    """Draw ``FOLDER`` into ``OUT.png``."""
    if len(arguments) != 2:
        print("usage: python -m priorzoo.export.overview FOLDER OUT.png", file=sys.stderr)
        return 2
    with write_atomically(arguments[1]) as beside:
        beside.write_bytes(png_bytes(overview(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
