"""Supervised training of the `unet` segmenter and the `heads` estimator, and what they reach on held-out heads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.classes import CLASS_IDS, CLASS_NAMES
from ..core.errors import PriorzooError
from ..core.streams import derived_seed
from ..rendering.standardising import standardised
from ..segmenters.heads_shape import OUTPUTS
from ..segmenters.network import SmallUNet, channels_last, folded
from .augmentation import augmented, degraded
from .head_pool import HeadPool, mirrored

TARGETS = {"classes": CLASS_NAMES, "shape": OUTPUTS}
REGIONS = {"skin": ("skin",), "eyes": ("left_eye", "right_eye"), "nose": ("nose",), "hair": ("hair",)}


@dataclass(frozen=True)
class SupervisedPlan:
    """How a network is trained: ``steps`` of ``batch`` images by AdamW.

    The learning rate rises for a twentieth of the steps and falls as a cosine to 0; ``seed`` decides initial weights,
    order and augmentation.
    """

    target: str
    steps: int = 1200
    batch: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise PriorzooError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise PriorzooError(f"{name} must be at least 1, got {getattr(self, name)}")


def class_weights(labels: Tensor, least: float = 0.5, most: float = 6.0) -> Tensor:
    """Weights [19] of the classes: the root of (share of a class were all alike / its share), clamped.

    Without them a few eye or brow pixels an image are never worth a mistake at the skin's edge.

    >>> class_weights(torch.zeros(1, 4, 4, dtype=torch.uint8))[0].item()
    0.5
    """
    share = torch.bincount(labels.flatten().long(), minlength=len(CLASS_NAMES)).float() / labels.numel()
    return (1.0 / (len(CLASS_NAMES) * share.clamp_min(1e-6))).sqrt().clamp(least, most)


def classes_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus the soft Dice loss over the classes that occur in the batch.

    Dice (Milletari, Navab, Ahmadi 2016, V-Net, section 3): 1 - 2 sum(p t) / (sum(p) + sum(t)) per class, which looks at
    overlap, as IoU does, whatever a class' size. ``logits`` [B,19,H,W]; ``labels`` [B,H,W] int64; ``weights`` [19].
    """
    entropy = functional.cross_entropy(logits, labels, weight=weights)
    probability = logits.softmax(dim=1)
    true = functional.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    overlap, total = (probability * true).sum((0, 2, 3)), (probability + true).sum((0, 2, 3))
    occurs = true.sum((0, 2, 3)) > 0
    return entropy + (1.0 - 2.0 * overlap / total.clamp_min(1.0))[occurs].mean()


def shape_loss(maps: Tensor, depth: Tensor, normals: Tensor) -> Tensor:
    """Cross-entropy of the foreground; on the true foreground smooth L1 of the standardised depth and 1 - cos of the
    normals.

    ``maps`` [B,5,H,W] in the order of OUTPUTS; ``depth`` [B,1,H,W] standardised; ``normals`` [B,3,H,W], 0 in the
    background.
    """
    foreground = normals.square().sum(1, keepdim=True) > 0.25
    inside = foreground.sum().clamp_min(1)
    entropy = functional.binary_cross_entropy_with_logits(maps[:, :1], foreground.to(maps.dtype))
    error = functional.smooth_l1_loss(maps[:, 1:2], depth, reduction="none", beta=0.2)
    cosine = functional.cosine_similarity(maps[:, 2:5], normals, dim=1, eps=1e-6)[:, None]
    return entropy + ((error + 1.0 - cosine) * foreground).sum() / inside


def _learning_rate(plan: SupervisedPlan, step: int) -> float:
    warm = max(1, plan.steps // 20)
    if step < warm:
        return plan.learning_rate * (step + 1) / warm
    done = torch.tensor((step - warm) / max(1, plan.steps - warm))
    return plan.learning_rate * float(0.5 * (1.0 + torch.cos(torch.pi * done)))


def _batch_loss(network: SmallUNet, pool: HeadPool, plan: SupervisedPlan, weights: Tensor, generator: torch.Generator) -> Tensor:
    index = torch.randint(len(pool), (plan.batch,), generator=generator)
    half = plan.batch // 2
    parts = [pool[index[:half]], mirrored(pool[index[half:]])]
    image = augmented(torch.cat([part.image() for part in parts]), generator)
    maps = network(image.contiguous(memory_format=torch.channels_last))
    if plan.target == "classes":
        return classes_loss(maps, torch.cat([part.labels for part in parts]).long(), weights)
    depth, normals = (torch.cat([getattr(part, key) for part in parts]).float() for key in ("depth", "normals"))
    return shape_loss(maps, depth, normals)


def train_network(pool: HeadPool, plan: SupervisedPlan, *, progress: Callable[[int, int, float], None] | None = None) -> SmallUNet:
    """Train on a pool and return the folded network; the same pool, plan and number of threads give the same weights.

    ``progress(steps done, steps, mean loss of late)`` is called after every step. Raises PriorzooError when the loss is
    not finite.
    """
    generator = torch.Generator().manual_seed(derived_seed(plan.seed, "supervised", plan.target))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(plan.seed, "initial weights", plan.target))
        network = SmallUNet(len(TARGETS[plan.target]), normalise=True)
    network = channels_last(network.train())
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    weights = class_weights(pool.labels)
    late = 0.0
    for step in range(plan.steps):
        optimiser.param_groups[0]["lr"] = _learning_rate(plan, step)
        loss = _batch_loss(network, pool, plan, weights, generator)
        value = float(loss.detach())
        if value != value or value == float("inf"):
            raise PriorzooError(f"the loss is {value} at step {step}; a smaller learning rate may help")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        late = value if step == 0 else 0.98 * late + 0.02 * value
        if progress is not None:
            progress(step + 1, plan.steps, late)
    return folded(network.eval())


@torch.no_grad()
def _maps(network: SmallUNet, image: Tensor, chunk: int = 32) -> Tensor:
    return torch.cat([network(part) for part in torch.split(image, chunk)])


def confusion_matrix(network: SmallUNet, pool: HeadPool, image: Tensor | None = None) -> Tensor:
    """Counts [19,19] of pixels by true (rows) and found class (columns); ``image`` replaces the pool's own images."""
    found = _maps(network, pool.image() if image is None else image).argmax(dim=1)
    count = len(CLASS_NAMES)
    return torch.bincount((pool.labels.long() * count + found).flatten(), minlength=count * count).view(count, count)


def iou_per_class(confusion: Tensor) -> dict[str, float]:
    """Intersection over union of the classes that occur in the truth.

    >>> iou_per_class(torch.tensor([[3, 1], [0, 4]]))
    {'background': 0.75, 'skin': 0.8}
    """
    hit, true, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    iou = hit / (true + found - hit).clamp_min(1)
    return {CLASS_NAMES[i]: round(float(iou[i]), 4) for i in range(len(confusion)) if true[i] > 0}


def shape_errors(network: SmallUNet, pool: HeadPool, image: Tensor | None = None) -> dict[str, Any]:
    """Errors on held-out heads: IoU of the foreground and errors per region.

    Of each region that occurs, over its true pixels that the network takes for foreground: the normals' mean angle in
    degrees and the mean absolute error of depth in standardised units.
    """
    maps = _maps(network, pool.image() if image is None else image)
    true = pool.labels[:, None] != CLASS_IDS["background"]
    found = maps[:, :1] > 0
    both = true & found
    cosine = functional.cosine_similarity(maps[:, 2:5], pool.normals.float(), dim=1)[:, None]
    angle = cosine.clamp(-1.0, 1.0).acos().rad2deg()
    error = (standardised(maps[:, 1:2], found) - pool.depth.float()).abs()
    out: dict[str, Any] = {"foreground_iou": round(float(both.sum() / (true | found).sum()), 4)}
    for region, names in (("foreground", CLASS_NAMES[1:]), *REGIONS.items()):
        ids = torch.tensor([CLASS_IDS[name] for name in names], dtype=torch.uint8)
        where = both & torch.isin(pool.labels[:, None], ids)
        if not where.any():
            continue
        out[region] = {
            "normal_degrees": round(float(angle[where].mean()), 2),
            "depth": round(float(error[where].mean()), 4),
        }
    return out


def held_out_results(network: SmallUNet, target: str, pools: dict[str, HeadPool]) -> dict[str, Any]:
    """What the network reaches on each named held-out pool, and on its images degraded (see ``degraded``)."""

    def measure(pool: HeadPool, image: Tensor | None) -> dict[str, Any]:
        if target == "classes":
            return {"iou": iou_per_class(confusion_matrix(network, pool, image))}
        return shape_errors(network, pool, image)

    out = {}
    for name, pool in pools.items():
        out[name] = measure(pool, None)
        out[f"{name}, degraded"] = measure(pool, degraded(pool.image()))
    return out


def seconds_per_image(network: SmallUNet, resolution: int, batch: int = 8, repeats: int = 5) -> float:
    """Fastest CPU seconds of a forward pass per image, of this process with its present number of threads."""
    image = torch.zeros(batch, 3, resolution, resolution).contiguous(memory_format=torch.channels_last)
    network = channels_last(network)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        _maps(network, image)
        best = min(best, (time.perf_counter() - start) / batch)
    return best
