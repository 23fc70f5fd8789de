"""Features of all real images: shared out to processes, and kept in a folder so that the next evaluation reads no image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .feature_files import kept_features, write_features
from .images import Extractor
from .reference import RealImages
from .sharing import ALONE, Processes, shared_out

BATCH = 64


@dataclass
class RealFeatures:
    """``features`` [N,d] of all real images in their order, and the hash of their pixels and labels.

    Known on the first process only; the others have neither.
    """

    features: Tensor | None = None
    data: str = ""


def real_features(
    real: RealImages,
    extractor: Extractor,
    *,
    processes: Processes = ALONE,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> RealFeatures:
    """Features of all real images, from ``cache`` (a folder) where it has them, else computed and put there.

    The file is named by what decides its content: the data set's files (no image is decoded for it), the extractor's
    hash and the resolution. A damaged one is said and made anew. ``progress`` is told how many images are done.

    Raises DataError when an image cannot be read.
    """
    path = None if cache is None else cache / f"real-{real.fingerprint()}-{extractor.hash}-{real.resolution}.safetensors"
    belongs_to = {"count": str(len(real))}
    kept = kept_features(path, belongs_to, say) if path is not None and processes.rank == 0 else None
    if processes.broadcast(kept is not None):
        return RealFeatures() if kept is None else RealFeatures(kept[0], kept[1]["data"])
    done = 0

    def read(first: int) -> tuple[Tensor, bytes]:
        nonlocal done
        images, labels = real.batch(list(range(first, min(len(real), first + BATCH))))
        done += len(images)
        progress(min(len(real), done * processes.count))
        return extractor(images).cpu(), hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).digest()

    parts = shared_out(processes, range(0, len(real), BATCH), read)
    if parts is None:
        return RealFeatures()
    made = RealFeatures(torch.cat([part for part, _ in parts]), hashlib.sha256(b"".join(own for _, own in parts)).hexdigest()[:16])
    if path is not None and made.features is not None:
        write_features(path, made.features, {**belongs_to, "data": made.data})
    return made
