"""EG3D's own camera labels: dataset.json with 25 numbers for every image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError
from .frame import CameraFrame

LABEL_LENGTH = 25
HOW_TO_LABEL = "`priorzoo data pack IMAGES CAMERAS OUT.zip` makes a labelled set from images and cameras"


def parse_labels(where: str, data: bytes) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """Read dataset.json: pairs of name and label, unchecked, and what stands under "priorzoo".

    Raises:
        DataError: not JSON, no labels, labels of another form.
    """
    try:
        content: Any = json.loads(data)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error})") from error
    pairs = content.get("labels") if isinstance(content, dict) else None
    if pairs is None:
        raise DataError(f"{where} has no labels; a camera (25 numbers) is needed for every image: {HOW_TO_LABEL}")
    try:
        labels = [(str(name), label) for name, label in pairs]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: labels must be a list of [name, 25 numbers] ({error})") from error
    about = content.get("priorzoo")
    return labels, about if isinstance(about, dict) else {}


def label_numbers(where: str, name: str, label: Any) -> np.ndarray:
    """The 25 numbers of one label, float64 [25].

    Raises:
        DataError: not 25 finite numbers.
    """
    numbers = isinstance(label, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in label)
    if not numbers or len(label) != LABEL_LENGTH:
        got = f"{len(label)} values" if isinstance(label, list) else f"{type(label).__name__}, as of a class,"
        raise DataError(
            f"{where}: the label of {name!r} must be {LABEL_LENGTH} numbers, got {got}; a camera label is cam2world (16) and then"
            f" intrinsics divided by the image size (9), both row by row: {HOW_TO_LABEL}"
        )
    if not all(math.isfinite(v) for v in label):
        raise DataError(f"{where}: the label of {name!r} holds a number that is not finite")
    return np.array(label, dtype=np.float64)


def read_eg3d_labels(path: Path, data: bytes) -> list[CameraFrame]:
    """The frames of a dataset.json, every number as it stands there.

    Args:
        path: the file, for messages.
        data: its bytes.

    Raises:
        DataError: naming the file and the image.
    """
    pairs, _ = parse_labels(str(path), data)
    frames = []
    for index, (name, label) in enumerate(pairs):
        numbers = label_numbers(str(path), name, label)
        where = f"{path}, label {index + 1}"
        frames.append(CameraFrame(name, where, numbers[:16].reshape(4, 4), numbers[16:].reshape(3, 3)))
    return frames
