"""Published BallGAN checkpoints become backbone `ballgan` before a sphere, bit for bit; EG3D's weights start one exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from ballgan_pickles import NETWORKS, SPHERE, official_ballgan, small_ballgan
from official_pickles import SMALL, official, small_pair, state_of
from pickle_writer import Call, Made, Stored, dumps
from priorzoo import load_run
from priorzoo.backbones.base import Backbone, Sampling
from priorzoo.backbones.eg3d import BallGAN
from priorzoo.backbones.eg3d.importing import read_official
from priorzoo.backbones.eg3d.importing_ballgan import our_names
from priorzoo.cli.main import main
from priorzoo.core.camera import Camera
from priorzoo.core.errors import CheckpointError, PriorzooError
from priorzoo.core.recipe import Recipe
from priorzoo.core.scene import Scene
from priorzoo.core.streams import fixed_streams
from priorzoo.training.foreign import read_foreign
from priorzoo.training.run import build_backbone
from priorzoo.training.starting import start_from
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = json.loads((Path(__file__).parent / "golden" / "ballgan" / "ffhq512_shapes.json").read_text())
PARAMETERS = {"ver1": 32_932_416, "ver0": 30_712_088}
BUFFERS = ("resample_filter", "noise_const", "w_avg")
Change = Callable[[dict[str, Any]], Any]
Pair = tuple[BallGAN, BallGAN]


@pytest.fixture(scope="module", params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> Pair:
    return small_ballgan(NETWORKS[request.param])


@pytest.fixture(scope="module")
def modulated() -> Pair:
    return small_ballgan()


def stored(folder: Path, pair: Pair, change: Change | None = None, **how: Any) -> Path:
    """Write an official file of the pair, after a change."""
    checkpoint = official_ballgan(*pair, **how)
    if change:
        change(checkpoint)
    path = folder / "ballgan.pkl"
    path.write_bytes(dumps(checkpoint))
    return path


def wanted_tensors(pair: Pair) -> dict[str, Tensor]:
    model, average = pair
    wanted = {f"generator.{k}": v for k, v in model.generator.state_dict().items()}
    wanted |= {f"average.{k}": v for k, v in average.generator.state_dict().items()}
    wanted |= {f"discriminator.{k}": v for k, v in model.discriminator.state_dict().items()}
    extra = torch.linspace(0.0, 1.0, 25)
    return wanted | {f"unused.{part}.dataset_label_std": extra for part in ("generator", "average")}


def equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    assert [k for k in wanted if not torch.equal(found[k], wanted[k]) or found[k].dtype != wanted[k].dtype] == []


def rendered(backbone: Backbone, needs: set[str]) -> Scene:
    """Render two samples; every draw is the same for every backbone, and z_background where it has one."""
    streams, camera = fixed_streams(0, 2), Camera.looking_at_origin(torch.tensor([0.0, 0.4]), torch.tensor([0.1, 0.0]))
    with torch.no_grad():
        latents = backbone.prepare(backbone.draw(2, streams), camera.label())
        return backbone.render(latents, camera, frozenset(needs), streams=streams, sampling=Sampling("deterministic"))


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("inert", [False, True])
def test_every_tensor_and_option_is_read(inert: bool, pair: Pair, tmp_path: Path) -> None:
    path = stored(tmp_path, pair, inert=inert)
    equal(read_foreign(path).tensors(), wanted_tensors(pair))
    run = load_run(path)
    assert run.recipe.backbone.name == "ballgan"
    assert run.backbone().options == BallGAN(**SMALL, discriminator="dual").options
    modulated = pair[0].background.mapping is not None
    told = {**SPHERE, "network": "modulated" if modulated else "concatenated"}
    if not modulated:  # a network without a mapping has neither w nor layers of one: the defaults stand there
        told |= {"w_dim": 512, "mapping_layers": 8}
    assert {"name": run.recipe.background.name, **run.recipe.background.options} == told


def test_imported_weights_render_as_the_model_does(pair: Pair, tmp_path: Path) -> None:
    needs = {"image", "image_raw", "depth", "composite_depth", "background_raw", "foreground_raw", "background_transmittance"}
    scenes = []
    for backbone in (pair[1], load_run(stored(tmp_path, pair)).backbone(average=True)):
        backbone.set_options(noise="const")
        scenes.append(rendered(backbone, needs))
    assert [name for name in needs if not torch.equal(scenes[0][name], scenes[1][name])] == []


@pytest.mark.parametrize("version", list(NETWORKS))
def test_every_published_name_has_its_place_at_full_size(version: str) -> None:
    """All names and shapes of the published FFHQ-512 models; those of the sphere's filters, which do nothing, are left out."""
    published = {name: tuple(shape) for name, shape in GOLDEN[version].items()}
    assert len(published) == {"ver1": 219, "ver0": 192}[version]
    with torch.device("meta"):
        own = BallGAN(background={"name": "sphere", "network": NETWORKS[version]}).generator
    shapes, dropped = our_names(published)
    assert shapes == {name: tuple(t.shape) for name, t in own.state_dict().items()}
    assert dropped == [f"BG_Net.{layer}.resample_filter" for layer in ("fc_in", "blocks.0", "blocks.1", "blocks.2")]
    # Parameters are all but the buffers.
    assert sum(p.numel() for p in own.parameters()) == PARAMETERS[version]
    assert sum(prod(shape) for name, shape in published.items() if not name.endswith(BUFFERS)) == PARAMETERS[version]


# ------------------------------------------------------------------------------------------------ where its options lie


def told(folder: Path, pair: Pair, change: Change) -> tuple[float, str]:
    """Return radius and notes of a file after a change of its G_ema's attributes."""
    found = read_official(stored(folder, pair, lambda c: change(state_of(c, "G_ema"))))
    return found.background["radius"], "\n".join(found.notes)


def test_the_radius_is_found_wherever_it_stands(modulated: Pair, tmp_path: Path) -> None:
    def moved(state: dict[str, Any]) -> None:
        state.pop("BG_options")
        state["_init_kwargs"]["bg_kwargs"] = {"radius": 4}
        state["rendering_kwargs"]["avg_camera_radius"] = 2.7

    assert told(tmp_path, modulated, moved)[0] == 4.0
    radius, notes = told(tmp_path, modulated, lambda s: s["_init_kwargs"].update(bg_kwargs={"radius": 4}))
    assert radius == 3.5
    assert "the sphere's radius is 3.5, from G_ema.BG_options.radius; G_ema._init_kwargs.bg_kwargs.radius says 4" in notes
    radius, notes = told(tmp_path, modulated, lambda s: s.update(radius=9.0))
    assert radius == 3.5 and "G_ema.radius says 9" in notes  # not said of the background


def test_a_radius_that_is_not_said_is_the_published_one_and_noted(modulated: Pair, tmp_path: Path) -> None:
    radius, notes = told(tmp_path, modulated, lambda s: s.pop("BG_options"))
    assert radius == 3.0 and "the file does not say the sphere's radius; the published 3 is taken" in notes


def test_classes_without_source_text_are_noted(modulated: Pair, tmp_path: Path) -> None:
    notes = read_official(stored(tmp_path, modulated, inert=True)).notes
    name = "training.volumetric_rendering.background.BackgroundNetwork"
    assert f"class {name} is not known here; its tensors and numbers are read" in notes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s["rendering_kwargs"].update(sigma_act="relu"), r"rendering_kwargs\.sigma_act is 'relu', 'linear' is expected"),
        (lambda s: s["BG_options"].items.update(downscale_p_by=1.0), r"BG_options\.downscale_p_by is 1, 2 pi is expected"),
        (lambda s: s["BG_options"].items.update(radius=-1.0), "background sphere: radius must be a number > 0, got -1.0"),
    ],
)
def test_rules_that_the_sphere_has_not_are_refused(change: Change, reason: str, modulated: Pair, tmp_path: Path) -> None:
    with pytest.raises(PriorzooError, match=reason):
        read_foreign(stored(tmp_path, modulated, lambda c: change(state_of(c, "G_ema"))))


def test_sizes_that_the_sphere_has_not_are_refused(modulated: Pair, tmp_path: Path) -> None:
    def widened(*path: str, shape: tuple[int, ...]) -> Change:
        return lambda c: state_of(c, "G_ema", "BG_Net", *path)["_parameters"].update(weight=Stored(torch.zeros(shape), True))

    with pytest.raises(CheckpointError, match="BG_Net reads 42 numbers of a direction; 40 are expected"):
        read_official(stored(tmp_path, modulated, widened("fc_in", shape=(7, 42, 1, 1))))
    with pytest.raises(CheckpointError, match="the number of features is 8 by its attributes and 9 by its tensors"):
        read_official(stored(tmp_path, modulated, widened("feat_out", shape=(9, 7, 1, 1))))
    with pytest.raises(CheckpointError, match="BG_Net reads 40 numbers: a latent and 40 numbers of a direction are expected"):
        read_official(stored(tmp_path, small_ballgan("concatenated"), widened("fc_in", shape=(7, 40))))
    with pytest.raises(CheckpointError, match=r"shape: background.network.blocks.0.weight: file \[7, 6, 1, 1\], model \[7, 7, 1, 1\]"):
        read_foreign(stored(tmp_path, modulated, widened("blocks", "0", shape=(7, 6, 1, 1))))


def test_missing_and_unexpected_names_are_all_told(modulated: Pair, tmp_path: Path) -> None:
    def rename(checkpoint: dict[str, Any]) -> None:
        parameters = state_of(checkpoint, "G_ema", "BG_mapping", "fc1")["_parameters"]
        parameters["biass"] = parameters.pop("bias")

    with pytest.raises(CheckpointError) as refused:
        read_foreign(stored(tmp_path, modulated, rename))
    assert "missing: background.mapping.fc1.bias, did you mean 'background.mapping.fc1.biass'?" in str(refused.value)
    assert "unexpected: background.mapping.fc1.biass" in str(refused.value)


# ------------------------------------------------------------------------------------------------ what is not run


def activation(name: str) -> Change:
    def change(checkpoint: dict[str, Any]) -> None:
        net = state_of(checkpoint, "G_ema", "decoder", "net")["_modules"]
        net["1"] = Made("torch.nn.modules.activation", name, net["1"].state)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (activation("ReLU"), "the decoder's activation is a ReLU, a Softplus is expected"),
        (lambda c: state_of(c, "G_ema", "BG_Net").update(hook=Call("os", "getcwd")), "names os.getcwd, which an EG3D or BallGAN"),
        (lambda c: state_of(c, "G_ema").update(x=Call("training.loss", "run")), "calls the name training.loss.run, which cannot be called"),
        (lambda c: state_of(c, "G_ema").update(x=Made("trainings.loss", "L", {})), "names trainings.loss.L, which an EG3D or BallGAN"),
    ],
)
def test_what_a_ballgan_file_may_not_hold(change: Change, reason: str, modulated: Pair, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_official(stored(tmp_path, modulated, change))


def test_eg3d_files_keep_their_narrow_list(tmp_path: Path) -> None:
    """The wider list is for files with a BallGAN's background alone: an EG3D with another renderer would be read as what it is not."""
    checkpoint = official(*small_pair())
    empty = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    state_of(checkpoint, "G_ema")["_modules"]["renderer"] = Made("training.renderers", "Other", empty)
    path = tmp_path / "x.pkl"
    path.write_bytes(dumps(checkpoint))
    with pytest.raises(CheckpointError, match=r"names training\.renderers\.Other, which an EG3D checkpoint may not name"):
        read_official(path)


# ------------------------------------------------------------------------------------------------ the commands


def test_the_command_says_what_is_dropped(modulated: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = stored(tmp_path, modulated), tmp_path / "imported"
    assert main(["import", str(path), str(out)]) == 0
    printed = capsys.readouterr().out
    count = len(modulated[0].generator.state_dict())
    assert f"generator: {count} matched, 0 missing, 1 unexpected" in printed
    filters = "BG_Net.fc_in.resample_filter, BG_Net.blocks.0.resample_filter, BG_Net.blocks.1.resample_filter"
    assert printed.count(f"dropped: 3 filters of layers that resample nothing: {filters}") == 2  # of G and of its average
    assert "\nballgan: 32 pixels a side" in printed
    equal(load_file(out / "model.safetensors"), wanted_tensors(modulated))
    card = json.loads((out / "card.json").read_text())
    assert card["origin"]["format"] == "official BallGAN pickle" and len(card["tensors"]["average"]["dropped"]) == 3
    assert load_run(out).recipe == load_run(path).recipe


def test_samples_of_the_file_itself(modulated: Pair, tmp_path: Path) -> None:
    from PIL import Image

    path, out = stored(tmp_path, modulated), tmp_path / "samples.png"
    assert main(["sample", str(path), "--out", str(out), "--seeds", "0-1", "--what", "image,depth"]) == 0
    assert Image.open(out).size[0] >= 2 * 32


# ------------------------------------------------------------------------------------------------ a recipe's init


def recipe_of(backbone: str, **more: Any) -> Recipe:
    plain = {"backbone": {"name": backbone, **SMALL}, "training": {"images": 8, "batch": 4, "samples": None}, **more}
    return Recipe.from_plain(plain)


def started(recipe: Recipe, path: Path) -> tuple[Backbone, Backbone, list[str]]:
    backbone, average = build_backbone(recipe), build_backbone(recipe)
    return backbone, average, start_from(load_run(path), recipe, backbone, average)


def test_a_ballgan_recipe_starts_from_a_ballgan_file(pair: Pair, tmp_path: Path) -> None:
    path = stored(tmp_path, pair)
    recipe = recipe_of("ballgan", background=read_official(path).background)
    backbone, average, said = started(recipe, path)
    equal(backbone.generator.state_dict(), pair[0].generator.state_dict())
    equal(average.generator.state_dict(), pair[1].generator.state_dict())
    assert said == []


def test_an_eg3d_recipe_cannot(modulated: Pair, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a backbone 'ballgan', the recipe has 'eg3d'"):
        started(recipe_of("eg3d"), stored(tmp_path, modulated))
    with pytest.raises(
        CheckpointError, match=r"network\.fc_in\.weight.*[\s\S]*options that differ: .*background\.hidden: file 7, recipe 9"
    ):
        started(recipe_of("ballgan", background={**SPHERE, "hidden": 9}), stored(tmp_path, modulated))


def test_a_ballgan_recipe_starts_from_eg3d_with_the_same_foreground(tmp_path: Path) -> None:
    source = small_pair()
    path = tmp_path / "eg3d.pkl"
    path.write_bytes(dumps(official(*source)))
    backbone, average, said = started(recipe_of("ballgan", background=SPHERE), path)
    assert said == [
        f"init {path}: eg3d converted to ballgan; the foreground stays the same",
        f"init {path}: has no background; sphere begins from initial weights",
    ]
    equal(backbone.discriminator.state_dict(), source[0].discriminator.state_dict())
    for old, new in zip(source, (backbone, average), strict=True):
        for model in (old, new):
            model.set_options(noise="const")
        before, after = rendered(old, {"image_raw", "depth", "weights"}), rendered(new, {"foreground_raw", "depth", "weights"})
        assert torch.equal(after.weights, before.weights) and torch.equal(after.depth, before.depth)
        assert torch.equal(after.foreground_raw, before.image_raw)


def test_another_radius_is_told(modulated: Pair, tmp_path: Path) -> None:
    path = stored(tmp_path, modulated)
    *_, said = started(recipe_of("ballgan", background={**SPHERE, "radius": 3.0}), path)
    assert said == [f"init {path}: background.radius: file 3.5, recipe 3.0"]


def test_the_average_s_background_is_the_trained_one_s(tmp_path: Path) -> None:
    path = tmp_path / "eg3d.pkl"
    path.write_bytes(dumps(official(*small_pair())))
    backbone, average, _ = started(recipe_of("ballgan", background=SPHERE), path)
    behind = [k for k in backbone.generator.state_dict() if k.startswith("background.")]
    assert behind and all(torch.equal(backbone.generator.state_dict()[k], average.generator.state_dict()[k]) for k in behind)
