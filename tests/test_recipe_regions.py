"""The shipped recipes' erosions leave something to act on."""

from __future__ import annotations

import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.classes import CLASS_NAMES
from priorzoo.core.recipe import load_recipe
from priorzoo.core.schedule import value_at
from priorzoo.priors.ssr import SSR
from priorzoo.rendering.selection import erode
from priorzoo.shapes.head_parameters import sample_heads
from priorzoo.shapes.head_render import render_heads


@pytest.mark.parametrize("entry", ["skin", "eyes"])
def test_erosion_leaves_half_of_a_frontal_heads_region(entry: str) -> None:
    recipe = load_recipe("heads/eg3d_ssr")
    resolution = recipe.training.neural_resolution or recipe.backbone.options["neural_resolution"]
    side = int(value_at(resolution, images=0, steps=0))
    assert side >= 64
    heads = sample_heads(12, seed=77, accessories=False)
    labels = render_heads(heads, Camera.looking_at_origin(torch.zeros(12), torch.zeros(12)), side).labels
    options = recipe.priors[entry].options
    ids = torch.tensor([CLASS_NAMES.index(name) for name in SSR.region_names(region=options["region"])])
    region = torch.isin(labels.long(), ids)[:, None]
    left = erode(region, options["erosion"]).flatten(1).sum(1)
    share = left / region.flatten(1).sum(1)
    assert float(share.mean()) >= 0.5
    assert float(left.min()) > 0


def test_eyes_survive_an_erosion_of_three() -> None:
    """The data set's features are larger than life, so that priors on eyes have pixels at 64 x 64."""
    heads = sample_heads(12, seed=77, accessories=False)
    labels = render_heads(heads, Camera.looking_at_origin(torch.zeros(12), torch.zeros(12)), 64).labels
    eyes = torch.isin(labels.long(), torch.tensor([CLASS_NAMES.index("left_eye"), CLASS_NAMES.index("right_eye")]))
    assert float(erode(eyes[:, None], 3).flatten(1).sum(1).mean()) >= 40
