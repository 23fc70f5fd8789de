"""SSR reproduces the reference values: every map, mask, loss, gate, the pooled variant and the gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.scene import Scene, Segmentation
from priorzoo.core.streams import fixed_streams
from priorzoo.priors.base import PriorResult
from priorzoo.priors.ssr import SSR, ssr
from priorzoo.rendering.selection import erode
from priorzoo.rendering.smoothness import smoothness_map
from torch import Tensor
from torch.testing import assert_close

NAMES = ("background", "skin", "nose", "eyeglasses", "left_eye", "right_eye")
REFERENCE = {name: torch.from_numpy(array) for name, array in np.load(Path(__file__).parent / "golden" / "ssr" / "io.npz").items()}
DEPTH, LABELS = REFERENCE["depth"][:, None], REFERENCE["labels"]
SKIN, EYES = (LABELS == 1)[:, None], ((LABELS == 4) | (LABELS == 5))[:, None]


def scene(depth: Tensor, angles: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Scene:
    ids = LABELS.clamp_max(len(NAMES) - 1) * (len(NAMES) > LABELS)
    segmentation = Segmentation(torch.nn.functional.one_hot(ids, len(NAMES)).movedim(-1, 1).double(), NAMES)
    yaw = torch.tensor(angles, dtype=torch.float64)
    camera = Camera.looking_at_origin(yaw, torch.zeros_like(yaw))
    return Scene(camera, depth=depth, opacity=torch.ones_like(depth), segmentation=segmentation)


def skin_and_eyes(of: Scene) -> tuple[PriorResult, PriorResult]:
    stream = fixed_streams(0, 3)("ssr")
    skin = SSR(region="skin", erosion=7, hardest=0.7)(of, stream)
    eyes = SSR(region=["left_eye", "right_eye"], erosion=3, max_view_angle=15.0)(of, stream)
    return skin, eyes


@pytest.mark.parametrize("window", [3, 5])
def test_smoothness_maps(window: int) -> None:
    expected = REFERENCE[f"sr_map_k{window}_replicate"][:, None]
    assert_close(smoothness_map(DEPTH, window), expected, rtol=1e-12, atol=1e-15)


def test_eroded_masks() -> None:
    masks = {
        "skin_k7": (SKIN, 7),
        "eyes_k3": (EYES, 3),
        "eye4_k3": ((LABELS == 4)[:, None], 3),
        "eye5_k3": ((LABELS == 5)[:, None], 3),
    }
    for name, (mask, size) in masks.items():
        assert torch.equal(erode(mask, size).double(), REFERENCE[f"eroded_{name}"][:, None].double()), name


@pytest.mark.parametrize(("suffix", "angles"), [("", (0.0, 0.0, 0.0)), ("_gate2", (0.0, 0.5, 0.0))])
def test_losses_of_skin_and_eyes(suffix: str, angles: tuple[float, float, float]) -> None:
    assert REFERENCE["gate2"].tolist() == [1.0, 0.0, 1.0]
    skin, eyes = skin_and_eyes(scene(DEPTH, angles))
    assert_close(skin.value, REFERENCE[f"L_skin_per_sample{suffix}"], rtol=1e-12, atol=0)
    assert_close(eyes.value, REFERENCE[f"L_eye_per_sample{suffix}"], rtol=1e-12, atol=0)
    assert skin.counts().tolist() == eyes.counts().tolist() == [1.0, 1.0, 1.0]
    total = skin.value.mean() + 0.8 * eyes.value.mean()
    assert_close(total, REFERENCE[f"L_s{suffix}"], rtol=1e-12, atol=0)


def test_pooled_over_the_batch() -> None:
    result = ssr(DEPTH, SKIN, erosion=7, hardest=0.7, scope="batch")
    pooled = (result.value * result.counts()).sum() / result.counts().sum()
    assert_close(pooled, REFERENCE["L_skin_batch_pooled"], rtol=1e-12, atol=0)


def test_gradient() -> None:
    depth = DEPTH.clone().requires_grad_(True)
    skin, eyes = skin_and_eyes(scene(depth))
    (gradient,) = torch.autograd.grad(skin.value.mean() + 0.8 * eyes.value.mean(), depth)
    sample, row, column = REFERENCE["grad_points"].T
    assert_close(gradient[sample, 0, row, column], REFERENCE["grad_L_s"], rtol=1e-4, atol=1e-10)


def test_float32_is_within_its_precision() -> None:
    # Differences of about 1e-2 of a depth of 2.7 carry a relative error of about 1e-5.
    skin, eyes = skin_and_eyes(scene(DEPTH.float()))
    assert skin.value.dtype == torch.float32
    assert_close(skin.value.double(), REFERENCE["L_skin_per_sample"], rtol=1e-4, atol=0)
    assert_close(eyes.value.double(), REFERENCE["L_eye_per_sample"], rtol=1e-4, atol=0)
