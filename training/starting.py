"""Starting from other weights (a recipe's ``init``): a run, a safetensors file or an official checkpoint; not the same as resuming."""

from __future__ import annotations

from ..backbones.base import Backbone
from ..core.errors import CheckpointError
from ..core.recipe import Recipe
from ..core.recipe.schema import Part
from .run import Run, load_backbone

MEANING = ("plane_axes", "box_warp", "decoder_lr_multiplier", "conditioning_scale")
"""Options that change no tensor's shape but what the tensors mean: weights trained under one are noise under another."""

BACKGROUND = "generator.background."


def start_from(source: Run, recipe: Recipe, backbone: Backbone, average: Backbone) -> list[str]:
    """Load ``source`` into the trained model and its moving average; a background that the source lacks keeps its initial weights.

    Returns what there is to say of it: a conversion, a new background. Raises CheckpointError when sizes or meanings contradict the recipe,
    with the file's and the recipe's values.
    """
    given, wanted = source.recipe.backbone, recipe.backbone
    tensors, said = source.tensors(), list[str]()
    if given.name != wanted.name:
        converted = backbone.from_other(given.name, tensors)
        if converted is None:
            raise CheckpointError(f"init {source.weights}: holds a backbone {given.name!r}, the recipe has {wanted.name!r}")
        tensors = converted
        said.append(f"init {source.weights}: {given.name} converted to {wanted.name}; the foreground stays the same")
    shown = _differences("", given, wanted)
    behind_shown = _differences("background.", source.recipe.background, recipe.background)
    for name in MEANING:
        if name in shown:
            raise CheckpointError(f"init {source.weights}: {shown[name]}; weights trained under one mean nothing under the other")
    if not any(name.startswith("discriminator.") for name in tensors):
        raise CheckpointError(f"init {source.weights}: holds no discriminator; a finetune would begin against a random one")
    if source.recipe.background.name == "none":
        own = backbone.generator.state_dict(prefix="generator.")
        behind = {name: t for name, t in own.items() if name.startswith(BACKGROUND)}
        if behind:
            said.append(f"init {source.weights}: has no background; {recipe.background.name} begins from initial weights")
        tensors = {**tensors, **behind, **{f"average.{name.removeprefix('generator.')}": t for name, t in behind.items()}}
    try:
        load_backbone(backbone, tensors, str(source.weights))
        load_backbone(average, tensors, str(source.weights), average=True)
    except CheckpointError as error:
        raise CheckpointError(
            f"init contradicts the recipe: {error}\n  options that differ: {'; '.join([*shown.values(), *behind_shown.values()]) or 'none'}"
        ) from error
    return said + [f"init {source.weights}: {line}" for line in behind_shown.values()]


def _differences(prefix: str, given: Part, wanted: Part) -> dict[str, str]:
    """Options of both that differ, with both values."""
    differ = [k for k in wanted.options if k in given.options and given.options[k] != wanted.options[k]]
    return {k: f"{prefix}{k}: file {given.options[k]}, recipe {wanted.options[k]}" for k in differ}
