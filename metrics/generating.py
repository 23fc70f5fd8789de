"""Generated images and their features: the same for every number of processes, and resumable.

Image i has its own latent, camera and jitter, functions of (seed, i) alone. What is generated is cut into shards of
whole batches, which do not depend on the processes either, so that one process and eight compute the same batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..backbones.base import Backbone, Sampling
from ..core.camera import Camera
from ..core.errors import PriorzooError
from ..core.precision import AUTOCAST, tf32
from ..core.streams import fixed_streams
from .feature_files import kept_features, write_features
from .images import Extractor, module_hash, to_bytes
from .sharing import ALONE, Processes, shared_out

if TYPE_CHECKING:
    from ..core.recipe.schema import Evaluation

SHARDS, SHARD_MOST = 64, 1000  # so many shards, which eight processes share evenly, and at most so many images in each


@contextmanager
def at_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Run networks at a precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; products of float32 are never rounded to TF32.

    Backbones render in float32 whatever it is. Raises PriorzooError for float16 on a CPU.
    """
    if precision == "16-mixed" and device.type == "cpu":
        raise PriorzooError("evaluation.precision: 16-mixed needs a CUDA device; on a CPU there are bf16-mixed and 32-true")
    dtype = AUTOCAST.get(precision)
    mixed: AbstractContextManager[Any] = nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
    # A training may have allowed TF32, and cuDNN allows it by default: a table has one precision for all its rows.
    with tf32(False), mixed:
        yield


def generated_images(
    backbone: Backbone,
    labels: Tensor,
    *,
    images: int,
    batch: int,
    seed: int,
    first: int = 0,
    conditioned: bool = False,
    precision: str = "32-true",
    progress: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """Yield batches of generated images, uint8 [B,3,H,W]: ``images`` in all, beginning with number ``first``.

    EG3D's protocol for FID: cameras drawn from ``labels`` [N,25] of the data set, truncation 1, random jitter and
    noise, the average generator's ``image``. Image i's draws are functions of (seed, i) alone: the same for every model
    and every batch size. ``conditioned``: whether latents are mapped under the camera they are seen from.
    """
    device = next(backbone.parameters()).device
    for start in range(first, first + images, batch):
        count = min(batch, first + images - start)
        drawn = fixed_streams(seed, count, first=start).within("evaluation")
        label = labels[drawn("cameras").integers(len(labels))].to(device)
        with torch.no_grad(), at_precision(precision, device):
            latents = backbone.prepare(backbone.draw(count, drawn).to(device), label if conditioned else None)
            streams = fixed_streams(seed, count, first=start, device=device).within("evaluation")
            scene = backbone.render(latents, Camera.from_label(label), frozenset({"image"}), streams=streams, sampling=Sampling("random"))
        yield to_bytes(scene.image).cpu()
        if progress is not None:
            progress(start + count - first)


@dataclass(frozen=True)
class Shard:
    """Images ``first`` to ``first + count`` - 1."""

    first: int
    count: int


def shards_of(images: int, batch: int) -> list[Shard]:
    """Cut so many images into at most ``SHARDS`` shards of whole batches, or more of at most ``SHARD_MOST`` images.

    >>> [(shard.first, shard.count) for shard in shards_of(10, 4)]
    [(0, 4), (4, 4), (8, 2)]
    >>> len(shards_of(50_000, 16)), shards_of(50_000, 16)[0].count
    (64, 784)
    """
    batches = -(-images // batch)
    size = max(1, min(-(-batches // SHARDS), SHARD_MOST // batch)) * batch
    return [Shard(first, min(size, images - first)) for first in range(0, images, size)]


def generated_features(
    backbone: Backbone,
    labels: Tensor,
    extractor: Extractor,
    plan: Evaluation,
    *,
    conditioned: bool = False,
    processes: Processes = ALONE,
    kept_in: Path | None = None,
    belongs_to: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor | None:
    """What the extractor reads of ``plan.images`` generated images [n,d], in their order, on the first process; None on others.

    Shards are shared out to the processes. In the folder ``kept_in`` each is written as soon as it is made, and one that
    is there is not made again if it is of this model and of ``belongs_to`` (the protocol); the caller removes the folder.
    ``progress`` is told how many images are done.
    """
    key = {} if kept_in is None else {"model": _model_hash(backbone, {"batch": plan.batch, **(belongs_to or {})})}
    done = 0

    def step(images: int) -> None:
        nonlocal done
        done += images
        progress(min(plan.images, done * processes.count))

    def make(shard: Shard) -> Tensor:
        path = None if kept_in is None else kept_in / f"{shard.first:06d}.safetensors"
        found = None if path is None else kept_features(path, key, say)
        if found is not None and len(found[0]) == shard.count:
            step(shard.count)
            return found[0]
        parts = []
        for image in generated_images(
            backbone, labels, images=shard.count, batch=plan.batch, seed=plan.seed, first=shard.first,
            conditioned=conditioned, precision=plan.precision,
        ):  # fmt: skip
            parts.append(extractor.generated(image).cpu())
            step(len(image))
        features = torch.cat(parts)
        if path is not None:
            write_features(path, features, key)
        return features

    made = shared_out(processes, shards_of(plan.images, plan.batch), make)
    return None if made is None else torch.cat(made)


@torch.no_grad()
def samples_per_ray(backbone: Backbone, labels: Tensor, *, seed: int = 0, conditioned: bool = False) -> int | None:
    """How many samples a ray has under the backbone's own sampling; None for a backbone that does not say."""
    device = next(backbone.parameters()).device
    label = labels[:1].to(device)
    drawn = backbone.draw(1, fixed_streams(seed, 1).within("evaluation")).to(device)
    try:
        scene = backbone.render(
            backbone.prepare(drawn, label if conditioned else None),
            Camera.from_label(label),
            frozenset({"weights"}),
            resolution=4,
            streams=fixed_streams(seed, 1, device=device),
            sampling=Sampling("random"),
        )
        return int(scene.weights.shape[-1])
    except PriorzooError:
        return None


def _model_hash(backbone: Backbone, protocol: dict[str, Any]) -> str:
    text = module_hash(backbone.generator) + json.dumps(protocol, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
