"""Parts of a face in frontal samples: counted by pencil, on true heads, and for the shipped base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from analytic import AnalyticSphere
from priorzoo.core.camera import Camera
from priorzoo.core.classes import CLASS_NAMES
from priorzoo.core.registry import SEGMENTERS
from priorzoo.core.scene import Segmentation
from priorzoo.metrics.frontal_parts import PARTS, frontal_parts, parts_found
from priorzoo.segmenters.base import Segmenter
from priorzoo.shapes.head_parameters import sample_heads
from priorzoo.shapes.head_render import render_heads
from priorzoo.training.run import load_run


def test_a_part_counts_from_its_smallest_size_on() -> None:
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    for row, part in enumerate(PARTS):
        labels[0, row, :9] = CLASS_NAMES.index(part)
        labels[1, row, : 8 + (part != "nose")] = CLASS_NAMES.index(part)
    one_hot = torch.nn.functional.one_hot(labels, len(CLASS_NAMES)).permute(0, 3, 1, 2).float()
    assert parts_found(Segmentation(one_hot, CLASS_NAMES)).tolist() == [[True] * 5, [True, True, True, False, True]]


class EverySecond(Segmenter):
    """Finds every part in every second image of all it has seen, and skin alone in the others."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def segment(self, image: torch.Tensor) -> Segmentation:
        probabilities = torch.zeros(len(image), len(PARTS), *image.shape[2:])
        probabilities[:, 0] = 0.1
        for one in probabilities:
            if self.seen % 2 == 0:
                for index in range(len(PARTS)):
                    one[index, index] = 1.0
            self.seen += 1
        return Segmentation(probabilities, PARTS)


def test_the_share_counts_samples_that_have_every_part() -> None:
    backbone = AnalyticSphere(neural_resolution=16, image_resolution=16)
    shares = frontal_parts(backbone, EverySecond(), samples=10, batch=4)
    assert shares == {"skin": 1.0, "left_eye": 0.5, "right_eye": 0.5, "nose": 0.5, "hair": 0.5, "all": 0.5}


def test_unet_finds_every_part_of_true_heads() -> None:
    heads = sample_heads(8, 5, False, first=0)
    made = render_heads(heads, Camera.looking_at_origin(torch.zeros(8), torch.zeros(8)), 64, "plain", 2)
    found = parts_found(SEGMENTERS.create("unet").eval().segment(made.rgb * 2 - 1))
    assert found.all(1).float().mean() >= 0.8


@pytest.mark.slow
def test_the_shipped_base_makes_faces(root: Path) -> None:
    """Skin, both eyes, nose and hair in at least 80 % of 64 frontal samples, and the card says so."""
    run = load_run("heads_eg3d_base")
    shares = frontal_parts(run.backbone(), SEGMENTERS.create("unet").eval(), samples=64)
    assert shares["all"] >= 0.8
    card = json.loads((root / "weights" / "heads_eg3d_base" / "card.json").read_text(encoding="utf-8"))
    assert card["frontal_parts"]["all"] == pytest.approx(shares["all"], abs=0.05)
