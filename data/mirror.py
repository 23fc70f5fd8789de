"""Every image's mirror image beside it, with the mirrored camera: what EG3D's format keeps as *_mirror files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..core.camera import Camera
from ..core.errors import DataError
from .archive import Archive
from .camera_files.eg3d_labels import label_numbers, parse_labels
from .dataset import Dataset
from .eg3d_format import LABELS_FILE, add_entry, check_out, encode_png, mirror_name, mirrored_from, new_zip

TRUTH_FILE = "truth.json"


def mirrored_labels(labels: np.ndarray) -> np.ndarray:
    """The labels [n, 25] of mirrored images: M E M with M = diag(-1, 1, 1, 1), skew negated, principal point 1 - cx.

    >>> frontal = Camera.looking_at_origin(torch.tensor([0.3]), torch.tensor([0.1])).label()
    >>> turned = Camera.looking_at_origin(torch.tensor([-0.3]), torch.tensor([0.1])).label()
    >>> bool(np.allclose(mirrored_labels(frontal.numpy()), turned.numpy(), atol=1e-6))
    True
    """
    mirrored: np.ndarray = Camera.from_label(torch.from_numpy(labels)).mirrored().label().numpy()
    return mirrored + 0.0  # no negative zeros


def mirror_problem(names: list[str], labels: torch.Tensor) -> str | None:
    """What is wrong with the *_mirror images of a set, or None: each must have the mirrored label of its original."""
    place = {name.rpartition(".")[0]: index for index, name in enumerate(names)}
    pairs = [(place[original], index) for index, name in enumerate(names) if (original := mirrored_from(name)) in place]
    if not pairs:
        return None
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    wanted = Camera.from_label(labels[first]).mirrored().label()
    off = (wanted - labels[second]).abs().amax(1)
    if float(off.max()) <= 1e-3:
        return None
    bad = int(off.argmax())
    return (
        f"{names[int(second[bad])]}: a mirror image whose label is not the mirrored one of {names[int(first[bad])]}"
        f" (off by {float(off[bad]):.3g}; {int((off > 1e-3).sum())} of {len(pairs)} are)"
    )


def mirror(source: str | Path, out: str | Path, *, force: bool = False, progress: Callable[[int, int], None] | None = None) -> int:
    """Write a data set with every image of `source` and its mirror image, whole or not at all; returns the number of images.

    Original images keep their names and bytes; NAME_mirror.png stands behind each, flipped left to right.

    Args:
        source: a data set in EG3D's format, zip or folder.
        out: OUT.zip.
        force: replace `out`.
        progress: called with (images done, images in all).

    Raises:
        DataError: a set that holds mirror images already, a truth file, a damaged set, an `out` that is `source`.
        OutputError: an `out` that exists or cannot be written.
    """
    source, out = Path(source), Path(out)
    check_out(out, force, ".zip", source)
    archive = Archive(source)
    if TRUTH_FILE in archive.names():
        raise DataError(f"{source}: is a file of truth, not of images; truth is known of the images as rendered only, mirror those")
    data = Dataset(source)
    present = next((name for name in data.names if mirrored_from(name)), None)
    if present is not None or data.about.get("mirrored"):
        raise DataError(f"{source}: holds mirror images already{f', e.g. {present!r}' if present else ''}")
    twice = [stem for stem, count in Counter(name.rpartition(".")[0] for name in data.names).items() if count > 1]
    if twice:
        raise DataError(f"{source}: {twice[0]!r} is the name of two images that differ in the suffix alone")
    raw = archive.read(LABELS_FILE)
    by_name = dict(parse_labels(str(source), raw)[0])
    labels = np.stack([label_numbers(str(source), name, by_name[name]) for name in data.names])
    names, both = [], []
    with new_zip(out) as written:
        for index, (name, label, flipped) in enumerate(zip(data.names, labels, mirrored_labels(labels), strict=True)):
            picture = data.image(index)
            add_entry(written, name, data.file_bytes(name))
            other = mirror_name(name)
            add_entry(written, other, encode_png(picture.flip(-1).permute(1, 2, 0).contiguous().numpy()))
            names += [name, other]
            both += [label.tolist(), flipped.tolist()]
            if progress is not None:
                progress(index + 1, len(data))
        # Whatever else the file says of the set stays.
        content = {**json.loads(raw), "labels": [list(pair) for pair in zip(names, both, strict=True)]}
        content["priorzoo"] = {**data.about, "mirrored": True}
        add_entry(written, LABELS_FILE, json.dumps(content).encode())
    return len(names)
