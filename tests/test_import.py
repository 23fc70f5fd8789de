"""Official checkpoints become this package's weights, bit for bit, with their own rules; nothing is dropped silently."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_pickles import AXES, SMALL, Change, Layout, small_pair, state_of, stored
from pickle_writer import Stored
from priorzoo import load_recipe, load_run
from priorzoo.backbones.eg3d import EG3D
from priorzoo.backbones.eg3d.importing import read_official
from priorzoo.cli.main import main
from priorzoo.core.errors import CheckpointError
from priorzoo.training.foreign import read_foreign
from priorzoo.training.run import build_backbone
from priorzoo.training.starting import start_from
from safetensors.torch import load_file
from torch import Tensor


@pytest.fixture(scope="module")
def pair() -> tuple[EG3D, EG3D]:
    return small_pair()


def wanted_tensors(pair: tuple[EG3D, EG3D]) -> dict[str, Tensor]:
    """Return what the importer must find: the trained generator and discriminator, the average's generator, the unread extra."""
    model, average = pair
    wanted = {f"generator.{k}": v for k, v in model.generator.state_dict().items()}
    wanted |= {f"average.{k}": v for k, v in average.generator.state_dict().items()}
    wanted |= {f"discriminator.{k}": v for k, v in model.discriminator.state_dict().items()}
    extra = torch.linspace(0.0, 1.0, 25)
    return wanted | {f"unused.{part}.dataset_label_std": extra for part in ("generator", "average")}


def equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    assert [k for k in wanted if not torch.equal(found[k], wanted[k]) or found[k].dtype != wanted[k].dtype] == []


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("numpy_module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_every_tensor_is_read_bit_for_bit(protocol: int, numpy_module: str, pair, tmp_path):
    path = stored(tmp_path, pair, protocol=protocol, numpy_module=numpy_module)
    equal(read_foreign(path).tensors(), wanted_tensors(pair))


@pytest.mark.parametrize("layout", [Layout(axes_location="cpu"), Layout(axes_location="cuda:3"), Layout(channels_last=True)])
def test_locations_and_strides_do_not_matter(layout: Layout, pair, tmp_path):
    equal(read_foreign(stored(tmp_path, pair, layout=layout)).tensors(), wanted_tensors(pair))


def test_half_precision_stays_as_it_is_stored(pair, tmp_path):
    def halve(checkpoint: dict[str, Any]) -> None:
        state_of(checkpoint, "D", "b4", "fc")["_parameters"]["weight"].tensor = half

    half = pair[0].discriminator.b4.fc.weight.detach().half()
    run = load_run(stored(tmp_path, pair, halve))
    assert run.tensors()["discriminator.b4.fc.weight"].dtype == torch.float16
    assert torch.equal(run.backbone().discriminator.b4.fc.weight, half.float())


def test_options_are_the_models(pair, tmp_path):
    found = read_official(stored(tmp_path, pair))
    own = pair[0].options
    assert EG3D(**found.options).options == EG3D(**SMALL, discriminator="dual").options
    assert found.options["neural_resolution"] == own.neural_resolution
    assert found.pose_swap == 0.5


def test_live_attributes_win_over_the_constructors(pair, tmp_path):
    def finetuned(checkpoint: dict[str, Any]) -> None:
        state = state_of(checkpoint, "G_ema")
        state["neural_rendering_resolution"] = 16
        state["rendering_kwargs"].update(
            depth_resolution=7, white_back=True, ray_start="auto", ray_end="auto", c_gen_conditioning_zero=True,
            disparity_space_sampling=True, superresolution_noise_mode="random", c_scale=0.5,
        )  # fmt: skip
        state["_init_kwargs"]["rendering_kwargs"].update(depth_resolution=9)

    found = read_official(stored(tmp_path, pair, finetuned))
    wanted = {
        "neural_resolution": 16, "samples_coarse": 7, "white_back": True, "near": "auto", "far": "auto", "conditioning": "zero",
        "disparity": True, "superresolution_noise": "random", "conditioning_scale": 0.5,
    }  # fmt: skip
    assert {k: found.options[k] for k in wanted} == wanted
    assert found.pose_swap is None


@pytest.mark.parametrize(("stored_as", "swap"), [(0.8, 0.8), (None, None), ("absent", 0.0)])
def test_the_chance_of_another_s_camera(stored_as: Any, swap: float | None, pair, tmp_path):
    """None is how the published code says that every conditioning label was zeroed."""

    def change(checkpoint: dict[str, Any]) -> None:
        rendering = state_of(checkpoint, "G_ema")["rendering_kwargs"]
        rendering.update(gpc_reg_prob=stored_as)
        if stored_as == "absent":
            del rendering["gpc_reg_prob"]

    assert read_official(stored(tmp_path, pair, change)).pose_swap == swap


def test_a_missing_scale_of_the_condition_is_the_published_default(pair, tmp_path):
    path = stored(tmp_path, pair, lambda c: state_of(c, "G_ema")["rendering_kwargs"].pop("c_scale"))
    assert read_official(path).options["conditioning_scale"] == 0.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("total-variation", "is 'total-variation', for which the published code computes nothing: this model was trained without"),
        ("l1-alt", "is 'l1-alt', for which the published code computes nothing"),
        ("l1", "'l1' is prior density_tv here; training does not take it over"),
        ("monotonic-fixed", "'monotonic-fixed' is prior density_monotonic with form: fixed here"),
        ("gone", "'gone' is not known here"),
    ],
)
def test_the_regulariser_that_a_file_names_is_noted(pair, tmp_path, capsys, name, text):
    path = stored(tmp_path, pair, lambda c: state_of(c, "G_ema")["rendering_kwargs"].update(reg_type=name))
    assert main(["import", str(path), str(tmp_path / "out")]) == 0
    assert text in capsys.readouterr().out


def test_noise_on_the_critics_labels_goes_into_the_recipe(pair, tmp_path):
    path = stored(tmp_path, pair, lambda c: state_of(c, "D")["_init_kwargs"].update(disc_c_noise=0.25))
    assert read_foreign(path).recipe.objective.label_noise == 0.25
    assert read_foreign(stored(tmp_path, pair)).recipe.objective.label_noise == 0.0


def test_plane_axes_are_named_by_their_matrices(pair, tmp_path):
    def axes(matrices: Tensor) -> Change:
        return lambda c: state_of(c, "G_ema", "renderer").update(plane_axes=Stored(matrices))

    assert read_official(stored(tmp_path, pair)).options["plane_axes"] == "official"
    corrected = AXES.clone()
    corrected[2] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])  # columns of the inverse: Z, Y, X
    assert read_official(stored(tmp_path, pair, axes(corrected))).options["plane_axes"] == "corrected"
    with pytest.raises(CheckpointError, match=r"plane_axes is none of the known ones \(official: XY XZ ZX; corrected: XY XZ ZY\)"):
        read_official(stored(tmp_path, pair, axes(AXES * 2)))


def test_imported_weights_render_as_the_model_does(pair, tmp_path):
    from priorzoo.backbones.base import Sampling
    from priorzoo.core.camera import Camera
    from priorzoo.core.streams import fixed_streams

    own = EG3D(**SMALL | {"noise": "const"})
    own.load_state_dict(pair[1].state_dict())
    imported = load_run(stored(tmp_path, pair)).backbone(average=True)
    imported.set_options(noise="const")
    images = []
    for backbone in (own, imported):
        streams, camera = fixed_streams(0, 2), Camera.looking_at_origin(torch.zeros(2), torch.zeros(2))
        with torch.no_grad():
            latents = backbone.prepare(backbone.draw(2, streams), camera.label())
            scene = backbone.render(latents, camera, frozenset({"image", "depth"}), streams=streams, sampling=Sampling("deterministic"))
        images.append((scene.image, scene.depth))
    assert torch.equal(images[0][0], images[1][0])
    assert torch.equal(images[0][1], images[1][1])


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_writes_weights_and_a_card(pair, tmp_path, capsys):
    path, out = stored(tmp_path, pair), tmp_path / "imported"
    assert main(["import", str(path), str(out)]) == 0
    printed = capsys.readouterr().out
    count = len(pair[0].generator.state_dict())
    assert f"generator: {count} matched, 0 missing, 1 unexpected" in printed
    assert "unexpected: dataset_label_std (no network reads it; kept as unused.average.dataset_label_std)" in printed
    equal(load_file(out / "model.safetensors"), wanted_tensors(pair))
    card = json.loads((out / "card.json").read_text())
    assert card["plane_axes"] == "official"
    assert card["origin"]["file"] == "official.pkl"
    assert card["origin"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["sha256"]["model.safetensors"] == hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    assert card["origin"]["training_set"]["path"] == "ffhq.zip"
    assert "non-commercial" in card["licence"]
    assert load_run(out).recipe == load_run(path).recipe
    equal(load_run(out).tensors(), wanted_tensors(pair))


def test_every_name_is_printed_on_request(pair, tmp_path, capsys):
    assert main(["import", str(stored(tmp_path, pair)), str(tmp_path / "out"), "--verbose"]) == 0
    printed = capsys.readouterr().out
    assert [k for k in pair[0].generator.state_dict() if f"  matched: {k}\n" not in printed] == []


def test_a_refused_file_leaves_nothing_behind(tmp_path, capsys):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    assert main(["import", str(path), str(tmp_path / "out")]) == 2
    assert "names os.system" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_pickle_is_told_what_is_expected(pair, tmp_path, capsys):
    whole = stored(tmp_path, pair).read_bytes()
    files = {"scene.glb": b"glTF\x02\x00\x00\x00", "card.json": b"{}", "half.pkl": whole[: len(whole) // 2], "zip.pkl": b"PK\x03\x04rest"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert main(["import", str(tmp_path / name), str(tmp_path / "out")]) == 2
        assert ("an official EG3D or BallGAN .pkl is expected" in capsys.readouterr().err) == (name != "half.pkl"), name


def test_earlier_weights_are_not_overwritten(pair, tmp_path, capsys):
    path, out = stored(tmp_path, pair), tmp_path / "out"
    assert main(["import", str(path), str(out)]) == 0
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert main(["import", str(path), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_tensors_of_every_number_type_are_written_as_the_library_reads_them(tmp_path):
    from priorzoo.core.pickles.values import Storage, StoredTensor
    from priorzoo.training.safetensors_writer import NAMES, write_safetensors

    arrays = {f"t.{code}": np.arange(6).astype(f"<{code}" if code[1:] != "1" else f"|{code}").reshape(2, 3) for code in NAMES}
    arrays["t.scalar"] = np.array(2.5, "<f4")
    held = {}
    for name, array in arrays.items():
        strides = tuple(s // array.itemsize for s in array.strides)
        held[name] = StoredTensor(Storage(array.dtype.str, array.size, memoryview(array.tobytes())), 0, array.shape, strides)
    transposed = held["t.f4"]
    held["t.transposed"] = StoredTensor(transposed.storage, 0, (3, 2), (1, 3))
    arrays["t.transposed"] = arrays["t.f4"].T
    write_safetensors(tmp_path / "x.safetensors", held)
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].numpy().dtype == array.dtype
        assert np.array_equal(found[name].numpy(), array)


# ------------------------------------------------------------------------------------------------ a recipe's init

RECIPE = """
backbone: {{name: eg3d, {options}}}
init: official.pkl
data: {{name: heads, images: 8, resolution: 32}}
training: {{images: 8, batch: 4, samples: null}}
"""


def recipe_with(folder: Path, **changes: Any) -> Any:
    """Load a recipe of the small model that starts from the official file beside it."""
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in {**SMALL, **changes}.items()}
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(options=", ".join(f"{k}: {json.dumps(v)}" for k, v in options.items())))
    return load_recipe(str(path))


def test_init_takes_an_official_file(pair, tmp_path):
    stored(tmp_path, pair)
    recipe = recipe_with(tmp_path)
    backbone, average = build_backbone(recipe), build_backbone(recipe)
    start_from(load_run(recipe.init), recipe, backbone, average)
    equal(backbone.generator.state_dict(), pair[0].generator.state_dict())
    equal(backbone.discriminator.state_dict(), pair[0].discriminator.state_dict())
    equal(average.generator.state_dict(), pair[1].generator.state_dict())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"z_dim": 5}, r"z_dim: file 4, recipe 5"),
        ({"channel_max": 16}, r"file \[8, 8, 3, 3\], model \[16, 16, 3, 3\]"),
        ({"plane_axes": "corrected"}, "plane_axes: file official, recipe corrected; weights trained under one mean nothing"),
    ],
)
def test_sizes_that_contradict_the_recipe_are_both_shown(changes: dict[str, Any], reason: str, pair, tmp_path):
    stored(tmp_path, pair)
    recipe = recipe_with(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=reason):
        start_from(load_run(recipe.init), recipe, build_backbone(recipe), build_backbone(recipe))
