"""EG3D's data set format as it is written: names, uncompressed PNGs in a stored zip, dataset.json. Same input, same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.errors import DataError
from ..core.files import write_atomically
from ..core.output_paths import require_free

LABELS_FILE = "dataset.json"
MIRROR_SUFFIX = "_mirror"


def image_name(index: int) -> str:
    """EG3D's name of image number `index`.

    >>> image_name(12)
    '00000/img00000012.png'
    """
    digits = f"{index:08d}"
    return f"{digits[:5]}/img{digits}.png"


def mirror_name(name: str) -> str:
    """The name of an image's mirror image, a PNG.

    >>> mirror_name("00000/img00000012.jpg")
    '00000/img00000012_mirror.png'
    """
    return f"{name.rpartition('.')[0]}{MIRROR_SUFFIX}.png"


def mirrored_from(name: str) -> str | None:
    """The name, without suffix, of the image that `name` is the mirror image of; None for an original.

    >>> mirrored_from("00000/img00000012_mirror.png"), mirrored_from("00000/img00000012.png")
    ('00000/img00000012', None)
    """
    stem = name.rpartition(".")[0]
    return stem.removesuffix(MIRROR_SUFFIX) if stem.endswith(MIRROR_SUFFIX) else None


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 [H, W, 3] as an uncompressed PNG: what trains reads it often and should not inflate it each time."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png", compress_level=0, optimize=False)
    return buffer.getvalue()


def add_entry(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Store one entry without compression and without the time of day: same content, same bytes."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def labels_json(names: Sequence[str], labels: Iterable[Sequence[float] | np.ndarray], about: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of dataset.json: a label of 25 numbers for every name, and under "priorzoo" how the set was made."""
    pairs = [[name, [float(v) for v in label]] for name, label in zip(names, labels, strict=True)]
    content: dict[str, Any] = {"labels": pairs}
    if about:
        content["priorzoo"] = dict(about)
    return json.dumps(content).encode()


def check_out(out: Path, force: bool, ending: str, *inputs: str | Path) -> None:
    """Raise DataError unless `out` has the right ending and is none of the inputs, OutputError unless it can be written and is free
    or may be replaced.
    """
    if out.suffix.lower() != ending:
        raise DataError(f"{out}: the name must end in {ending}")
    if any(Path(given).resolve() == out.resolve() for given in inputs):
        raise DataError(f"{out}: is read to make it; give another name to what is written")
    require_free([out], force)


@contextmanager
def new_zip(out: Path) -> Iterator[zipfile.ZipFile]:
    """A stored zip that takes its place only when the block succeeds."""
    with write_atomically(out) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
        yield archive
