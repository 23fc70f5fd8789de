"""Stand-ins for the files that a recipe names and that are not there, made on the spot: enough to try every part at full size.

Data become procedural heads at the recipe's resolution, a start becomes random weights under which something solid is seen, and the face
parser's weights become random ones that find skin and eyes. What such a run learns means nothing; what it computes and costs does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.errors import PriorzooError
from ..core.files import write_atomically, write_text_atomically
from ..core.recipe import Recipe
from ..core.recipe.loading import load_changed
from ..core.recipe.problems import InvalidRecipe
from ..core.recipe.schema import HeadsData
from .checkpoints import MODEL
from .run import CARD, build_backbone

HEADS = 4
"""Stand-in images; more would show nothing that these do not."""
FRONTAL_SEED = 12
"""A seed of the heads data set whose first HEADS cameras all look at the face within 15 degrees, so that frontal priors act."""
SOLID = 10.0
"""Raw density added to a random start: softplus(10 - 1) over the third of a unit makes an opaque surface."""
SKIN_SHARE = 0.01
"""Added to the stand-in parser's weights of skin, so that it covers more than the eyes do."""
UNUSED = ("evaluation.inception_weights", "data.held_out", "data.truth")
"""Files that only measuring reads."""


def with_stand_ins(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> Recipe:
    """Return the recipe with every missing file replaced by one made in ``folder``; ``say`` is told of each.

    Generated heads are cut to HEADS images. Raises InvalidRecipe for files that nothing can stand in for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changes: list[str] = []
    if isinstance(recipe.data, HeadsData) and recipe.data.images > HEADS:
        say(f"data: {HEADS} heads instead of the recipe's {recipe.data.images}")
        changes += [f"data.images={HEADS}", "data.held_out=0", f"data.seed={FRONTAL_SEED}", "data.wide_yaw=0", "data.images_per_identity=1"]
    rest = []
    for missing in recipe.missing:
        if missing.key == "data.path":
            path = heads_data(recipe, folder / "heads.zip")
            say(f"data: {HEADS} generated heads stand in for {Path(getattr(recipe.data, 'path', '')).name}, which is not there")
        elif missing.key == "init":
            path = random_start(recipe, folder / "start")
            say(f"init: random weights, made solid, stand in for {Path(str(recipe.init)).name}, which is not there")
        elif missing.key.startswith("segmenter") and recipe.segmenter is not None and recipe.segmenter.name == "bisenet":
            path = face_parser(folder / "bisenet.pth")
            say("segmenter: a random parser that finds skin and eyes stands in for BiSeNet's weights, which are not there")
            changes.append(f"segmenter.weights={json.dumps(str(path))}")
            continue
        elif missing.key in UNUSED:
            changes.append(f"{missing.key}=null")
            continue
        else:
            rest.append(missing)
            continue
        changes.append(f"{missing.key}={json.dumps(str(path))}")
    if rest:
        raise InvalidRecipe(rest)
    return load_changed(recipe, changes) if changes else recipe


def heads_data(recipe: Recipe, path: Path) -> Path:
    """Write HEADS frontal heads at the backbone's image resolution as a data set and return its path."""
    from ..data.heads import write_heads

    side = recipe.backbone.options.get("image_resolution")
    if not isinstance(side, int):
        raise PriorzooError(f"stand-ins: backbone {recipe.backbone.name} has no option image_resolution to make images for")
    options = {"seed": FRONTAL_SEED, "held_out": 0, "wide_yaw": 0.0, "images_per_identity": 1, "supersample": 1}
    return write_heads(path, HEADS, side, force=True, **options).images  # type: ignore[arg-type]


def random_start(recipe: Recipe, folder: Path) -> Path:
    """Write random weights of the recipe's own backbone, as `load_run` takes them, and return the folder."""
    backbone = build_backbone(recipe)
    make_solid(backbone.generator)
    assert backbone.discriminator is not None
    tensors: dict[str, Tensor] = {}
    for part, module in (("generator", backbone.generator), ("average", backbone.generator), ("discriminator", backbone.discriminator)):
        tensors |= {f"{part}.{k}": v.contiguous().clone() for k, v in module.state_dict().items()}
    with write_atomically(folder / MODEL) as beside:
        save_file(tensors, beside)
    plain = {**recipe.to_plain(), "init": None}
    plain.pop("variants", None)
    write_text_atomically(folder / CARD, json.dumps({"name": folder.name, "recipe": plain, "backbone": plain["backbone"], "images": 0}))
    return folder


def make_solid(generator: nn.Module) -> bool:
    """Raise the raw density of a tri-plane generator everywhere, so that random weights show surfaces; whether it has such a decoder."""
    from ..backbones.eg3d.decoder import Decoder

    decoder = next((m for m in generator.modules() if isinstance(m, Decoder)), None)
    if decoder is None:
        return False
    with torch.no_grad():
        decoder.density_bias().add_(SOLID / decoder.density_gain)
    return True


def face_parser(path: Path) -> Path:
    """Write random weights of the public face parser's names and shapes, under which only skin and eyes win, and return the path."""
    from ..segmenters.bisenet import FILE_CLASSES
    from ..segmenters.bisenet_network import BiSeNet

    with torch.device("meta"):
        state = BiSeNet(len(FILE_CLASSES)).state_dict()
    random = torch.Generator().manual_seed(0)
    weights = {name: _drawn(name, value.shape, random) for name, value in state.items()}
    # The last features become differences between neighbours, positive in one half of any image: no class wins everywhere.
    weights["conv_out.conv.conv.weight"] -= weights["conv_out.conv.conv.weight"].mean((2, 3), keepdim=True)
    for name in ("bias", "running_mean"):
        weights[f"conv_out.conv.bn.{name}"].zero_()
    last = weights["conv_out.conv_out.weight"]
    skin, eye, other_eye = (FILE_CLASSES.index(name) for name in ("skin", "left_eye", "right_eye"))
    last -= last.mean(1, keepdim=True)
    last[other_eye] = last[eye]  # a tie goes to the first: one kind of eye makes larger patches than two
    last[skin] += SKIN_SHARE
    last[[i for i in range(len(FILE_CLASSES)) if i not in (skin, eye, other_eye)]] -= 1.0  # never negative, these features lower a class
    with write_atomically(path) as beside:
        torch.save(weights, beside)
    return path


def _drawn(name: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    """Random weights that keep a network's activations of one size, and so its answer different from place to place."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=random)
    if name.endswith(("running_mean", "bias")):
        return 0.1 * torch.randn(shape, generator=random)
    if len(shape) == 1:
        return 0.75 + 0.5 * torch.rand(shape, generator=random)
    return torch.randn(shape, generator=random) * (2.0 / shape[1:].numel()) ** 0.5  # He et al. 2015
