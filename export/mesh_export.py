"""From a generator and a seed to a mesh file, with a report beside it that says how it was made and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import PriorzooError, did_you_mean
from ..core.files import write_atomically, write_text_atomically
from ..shapes.mesh_extraction import CHUNK, PUBLISHED_CUT, Volume, colour_mesh, sample_volume, surface_of
from ..shapes.mesh_files import WRITERS, save_mesh
from ..shapes.mesh_levels import Level
from ..shapes.mesh_topology import MeshReport, largest_component, measure_mesh
from ..shapes.volume_files import save_volume
from .mesh_picture import mesh_picture
from .sheets import png_bytes
from .sources import Source

FORMATS = (*(suffix[1:] for suffix in WRITERS), "mrc")


@dataclass
class MeshExport:
    """How meshes are made: see `sample_volume` and `surface_of` for the numbers; ``largest`` keeps one component.

    ``format`` is one of FORMATS; "mrc" writes the field on its grid instead of a mesh. ``picture`` adds a .png.
    """

    format: str = "glb"
    resolution: int = 256
    level: Level | None = None
    closed: bool = True
    cut: float = 0.0
    largest: bool = False
    picture: bool = False
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise PriorzooError(f"--format {self.format!r} is not one of {', '.join(FORMATS)}{did_you_mean(self.format, FORMATS)}")
        if self.format == "mrc" and (self.picture or self.largest or self.cut or not self.closed):
            raise PriorzooError("--format mrc writes the field, not a mesh: --picture, --largest-component, --cut and --open do not apply")

    def files(self, target: Path) -> list[Path]:
        """Everything that is written for ``target``: itself, its report, and perhaps its picture.

        >>> [file.name for file in MeshExport(picture=True).files(Path("a.glb"))]
        ['a.glb', 'a.json', 'a.png']
        """
        return [target, target.with_suffix(".json"), *([target.with_suffix(".png")] if self.picture else [])]


@dataclass
class Exported:
    """What was written: ``files``, the mesh's report, and how many components there were before the largest was kept."""

    files: list[Path]
    report: MeshReport | None
    found: MeshReport | None


@torch.no_grad()
def export_mesh(
    source: Source,
    seed: int,
    target: Path,
    how: MeshExport,
    *,
    truncation: float = 1.0,
    official: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Extract the mesh of one seed and write it as ``target``, its report as .json beside it, and perhaps its picture.

    Raises PriorzooError when nothing crosses the level, with the range of the field's values.
    """
    prepared = source.latents([seed], truncation=truncation, official=official)
    field = source.backbone.field(source.backbone.materialise(prepared, source.streams([seed])))
    volume = sample_volume(
        field, resolution=how.resolution, level=how.level, chunk=how.chunk, device=source.device, progress=progress
    )  # fmt: skip
    facts = {"seed": seed, "truncation": truncation, "official_latents": official, **_facts(volume)}
    files = how.files(target)
    report_path = files[1]
    if how.format == "mrc":
        save_volume(volume, target)
        write_text_atomically(report_path, json.dumps(facts, indent=1) + "\n")
        return Exported(files, None, None)
    mesh = surface_of(volume, closed=how.closed, cut=how.cut)
    found = measure_mesh(mesh)
    mesh = colour_mesh(largest_component(mesh) if how.largest else mesh, field, chunk=how.chunk, device=source.device)
    report = measure_mesh(mesh) if how.largest else found
    facts |= {"closed": how.closed, "cut": how.cut, "components_found": found.components, "mesh": report.to_plain()}
    save_mesh(mesh, target)
    write_text_atomically(report_path, json.dumps(facts, indent=1) + "\n")
    if how.picture:
        with write_atomically(files[-1]) as beside:
            beside.write_bytes(png_bytes(mesh_picture(mesh)))
    return Exported(files, report, found)


def _facts(volume: Volume) -> dict[str, Any]:
    return {
        "resolution": len(volume.values),
        "extent": volume.extent,
        "level": str(volume.level),
        "threshold": volume.threshold,
        "values": [float(volume.values.min()), float(volume.values.max())],
    }


def parse_cut(text: str) -> float:
    """Read the share of the side that is cut away at every face: a number from 0 to 0.5, or ``published``.

    >>> parse_cut("0.1"), parse_cut("published")
    (0.1, 0.1171875)
    """
    if text == "published":
        return PUBLISHED_CUT
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 0.5:
        raise PriorzooError(f"--cut {text!r}: expected a share from 0 to below 0.5, or published{did_you_mean(text, ['published'])}")
    return share


def mesh_targets(out: Path, seeds: list[int], form: str | None) -> tuple[list[Path], str]:
    """Return the file of each seed and the format: ``out`` is one file, by its ending, or else a folder.

    Raises PriorzooError for several seeds in one file, and a format that the ending contradicts.

    >>> mesh_targets(Path("heads"), [0, 12], None)[0][1].as_posix()
    'heads/seed0012.glb'
    """
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        if suffix and not out.is_dir():
            near = did_you_mean(suffix, FORMATS)
            raise PriorzooError(
                f"--out {out}: {out.suffix} is not written{near}; endings are {', '.join(FORMATS)}, without one it is a folder"
            )
        chosen = form or "glb"
        return [out / f"seed{seed:04d}.{chosen}" for seed in seeds], chosen
    if form not in (None, suffix):
        raise PriorzooError(f"--out {out} and --format {form} contradict each other")
    if len(seeds) > 1:
        raise PriorzooError(f"--out {out} is one file for {len(seeds)} seeds: name a folder")
    return [out], suffix
