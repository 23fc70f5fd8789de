"""Features kept in files: of real images for the next evaluation, of generated ones for an evaluation that was stopped.

A file names in its metadata what its features belong to and the hash of their bytes; neither is believed unread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import DataError
from ..core.files import write_atomically

FEATURES = "features"


def write_features(path: Path, features: Tensor, belongs_to: dict[str, str]) -> None:
    """Write features [n,d] to a safetensors file, whole or not at all; ``belongs_to`` goes into its metadata."""
    from safetensors.torch import save_file

    kept = features.contiguous().cpu()
    with write_atomically(path) as beside:
        save_file({FEATURES: kept}, beside, metadata={**belongs_to, "sha256": _digest(kept)})


def read_features(path: Path, belongs_to: dict[str, str]) -> tuple[Tensor, dict[str, str]] | None:
    """Read features and the file's whole metadata; None where there is no file, or it belongs to something else.

    Raises DataError for a damaged file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_features(path, torch.ones(2, 3), {"model": "a"})
    >>> read_features(path, {"model": "a"})[0].shape, read_features(path, {"model": "b"})
    (torch.Size([2, 3]), None)
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if any(metadata.get(name) != value for name, value in belongs_to.items()):
                return None
            features: Tensor = file.get_tensor(FEATURES)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged: not a readable file of features ({error})") from error
    if metadata.get("sha256") != _digest(features):
        raise DataError(f"{path}: damaged: the features are not those that were written")
    return features, metadata


def kept_features(path: Path, belongs_to: dict[str, str], say: Callable[[str], None]) -> tuple[Tensor, dict[str, str]] | None:
    """Read features as `read_features` does; of a damaged file ``say`` is told, and it counts as none."""
    try:
        return read_features(path, belongs_to)
    except DataError as error:
        say(f"{error}; its features are computed anew")
        return None


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
