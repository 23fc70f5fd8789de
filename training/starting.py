"""Starting from other weights (a recipe's ``init``): a run, a safetensors file or an official checkpoint; not the same as resuming."""

from __future__ import annotations

from ..backbones.base import Backbone
from ..core.errors import CheckpointError
from ..core.recipe import Recipe
from .run import Run, load_backbone

MEANING = ("plane_axes", "box_warp", "decoder_lr_multiplier", "conditioning_scale")
"""Options that change no tensor's shape but what the tensors mean: weights trained under one are noise under another."""

BACKGROUND = "generator.background."


def start_from(source: Run, recipe: Recipe, backbone: Backbone, average: Backbone) -> None:
    """Load ``source`` into the trained model and its moving average; a background that the source lacks keeps its initial weights.

    Raises CheckpointError when sizes or meanings contradict the recipe, with the file's and the recipe's values.
    """
    given, wanted = source.recipe.backbone, recipe.backbone
    if given.name != wanted.name:
        raise CheckpointError(f"init {source.weights}: holds a backbone {given.name!r}, the recipe has {wanted.name!r}")
    differ = [k for k in wanted.options if k in given.options and given.options[k] != wanted.options[k]]
    shown = {k: f"{k}: file {given.options[k]}, recipe {wanted.options[k]}" for k in differ}
    for name in MEANING:
        if name in shown:
            raise CheckpointError(f"init {source.weights}: {shown[name]}; weights trained under one mean nothing under the other")
    tensors = source.tensors()
    if not any(name.startswith("discriminator.") for name in tensors):
        raise CheckpointError(f"init {source.weights}: holds no discriminator; a finetune would begin against a random one")
    if source.recipe.background.name == "none":
        own = backbone.generator.state_dict(prefix="generator.")
        behind = {name: t for name, t in own.items() if name.startswith(BACKGROUND)}
        tensors = {**tensors, **behind, **{f"average.{name.removeprefix('generator.')}": t for name, t in behind.items()}}
    try:
        load_backbone(backbone, tensors, str(source.weights))
        load_backbone(average, tensors, str(source.weights), average=True)
    except CheckpointError as error:
        raise CheckpointError(
            f"init contradicts the recipe: {error}\n  options that differ: {'; '.join(shown.values()) or 'none'}"
        ) from error
