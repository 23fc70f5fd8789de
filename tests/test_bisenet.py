"""The `bisenet` segmenter: reference values of the public network, class order, sizes, weight files that are refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bisenet_weights import SHAPES, drawn, favoured, shapes
from priorzoo.core.api import load_recipe
from priorzoo.core.classes import CLASS_IDS, CLASS_NAMES
from priorzoo.core.errors import CheckpointError, PriorzooError, RecipeError
from priorzoo.core.registry import SEGMENTERS
from priorzoo.segmenters.bisenet import FILE_CLASSES, BiSeNetSegmenter, _resized, load_bisenet, normalised
from priorzoo.segmenters.bisenet_network import BiSeNet, upsampled, without_normalisation
from torch import Tensor, nn
from torch.testing import assert_close

CASES = ("a", "b", "c")
TOLERANCE = 2e-3  # of logits whose deviation is 37 to 55
# The repository's own names, in the order of the network's outputs, and what we call each.
OUTPUTS = {
    "background": "background", "skin": "skin", "l_brow": "left_brow", "r_brow": "right_brow", "l_eye": "left_eye",
    "r_eye": "right_eye", "eye_g": "eyeglasses", "l_ear": "left_ear", "r_ear": "right_ear", "ear_r": "earring", "nose": "nose",
    "mouth": "mouth", "u_lip": "upper_lip", "l_lip": "lower_lip", "neck": "neck", "neck_l": "necklace", "cloth": "cloth",
    "hair": "hair", "hat": "hat",
}  # fmt: skip

# CelebAMask-HQ's number, which is ours, of each output of the public weights: the two projects' lists compared by hand.
NUMBERS = (0, 1, 6, 7, 4, 5, 3, 8, 9, 15, 2, 10, 11, 12, 17, 16, 18, 13, 14)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(SHAPES.parent / "io.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


@pytest.fixture
def weights(bisenet_file: Path) -> Path:
    return bisenet_file


@pytest.fixture(scope="module")
def network(bisenet_file: Path) -> BiSeNet:
    return load_bisenet(bisenet_file)


@pytest.fixture
def segmenter(weights: Path) -> BiSeNetSegmenter:
    built: BiSeNetSegmenter = SEGMENTERS.create("bisenet", weights=weights, size=None)
    return built


def noise(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_names_and_shapes_are_the_public_file_s() -> None:
    with torch.device("meta"):
        own = {name: list(value.shape) for name, value in BiSeNet().state_dict().items()}
    assert own == shapes()
    assert len(own) == 191
    assert sum(p.numel() for p in BiSeNet().parameters()) == 13_300_416


def test_the_reference_s_weights_are_drawn_again(golden: dict[str, Tensor]) -> None:
    checked = [key.removeprefix("recipe.sum.") for key in golden if key.startswith("recipe.sum.")]
    assert len(checked) == 5
    for name in checked:
        tensor = drawn(name, shapes()[name])
        assert_close(tensor.flatten()[:4], golden[f"recipe.first4.{name}"].float(), rtol=1e-6, atol=0)
        assert float(tensor.double().sum()) == pytest.approx(float(golden[f"recipe.sum.{name}"]), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_logits_of_all_heads(golden: dict[str, Tensor], network: BiSeNet, case: str) -> None:
    main, aux16, aux32 = network.all_heads(normalised(golden[f"{case}.image"]))
    assert main.shape[2:] == golden[f"{case}.image"].shape[2:]
    assert_close(main[:, :, ::4, ::4], golden[f"{case}.logits"], atol=TOLERANCE, rtol=0)
    assert_close(aux16[:, :, ::14, ::14], golden[f"{case}.logits16"], atol=TOLERANCE, rtol=0)
    assert_close(aux32[:, :, ::14, ::14], golden[f"{case}.logits32"], atol=TOLERANCE, rtol=0)
    assert int((main.argmax(dim=1) != golden[f"{case}.argmax"].long()).sum()) <= 2


@pytest.mark.parametrize("case", CASES)
def test_folding_normalisation_away_changes_nothing(golden: dict[str, Tensor], network: BiSeNet, case: str) -> None:
    folded = without_normalisation(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 31
    logits = upsampled(folded(normalised(golden[f"{case}.image"])), tuple(golden[f"{case}.image"].shape[2:]))
    assert_close(logits[:, :, ::4, ::4], golden[f"{case}.logits"], atol=TOLERANCE, rtol=0)


def test_features_inside(golden: dict[str, Tensor], network: BiSeNet) -> None:
    path = network.cp
    places = {
        "res8": path.resnet.layer2, "res16": path.resnet.layer3, "res32": path.resnet.layer4, "arm16": path.arm16,
        "arm32": path.arm32, "cp16": path.conv_head32, "cp8": path.conv_head16, "ffm": network.ffm,
    }  # fmt: skip
    seen: dict[str, Tensor] = {}
    hooks = [m.register_forward_hook(lambda _m, _i, out, n=n: seen.update({n: out})) for n, m in places.items()]
    given = normalised(golden["a.image"])
    assert_close(given[:, :, ::4, ::4], golden["a.net_input"], atol=1e-6, rtol=0)
    network(given)
    for hook in hooks:
        hook.remove()
    for name in places:
        assert_close(seen[name][:, ::4], golden[f"a.feat.{name}"], atol=5e-4, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


def test_gradient_reaches_the_image(golden: dict[str, Tensor], network: BiSeNet) -> None:
    image = golden["a.image"].clone().requires_grad_(True)
    value = network.all_heads(normalised(image))[0][:, [1, 4, 5]].mean()
    (gradient,) = torch.autograd.grad(value, image)
    assert float(gradient.std()) > 0.1
    assert_close(gradient[:, :, ::2, ::2], golden["a.gradient"], atol=2e-5, rtol=1e-4)


def test_resampling_is_the_reference_s(golden: dict[str, Tensor]) -> None:
    assert_close(_resized(golden["resize.in"], (128, 128))[:, :, ::4, 1::4], golden["resize.up"], atol=1e-6, rtol=0)
    assert_close(_resized(golden["resize.in"], (16, 16)), golden["resize.down"], atol=1e-6, rtol=0)


def test_each_output_gets_our_name_by_pencil(segmenter: BiSeNetSegmenter) -> None:
    assert tuple(OUTPUTS.values()) == FILE_CLASSES and sorted(FILE_CLASSES) == sorted(CLASS_NAMES)
    last = segmenter.network.conv_out.conv_out.weight
    for index, name in enumerate(OUTPUTS.values()):
        last.copy_(torch.full_like(last, -1.0))
        last[index] = 0.0
        found = segmenter.segment(noise(64, 64))
        assert found.names == CLASS_NAMES
        assert bool((found.labels() == CLASS_IDS[name]).all()), (index, name)
        assert bool(found.mask(name).all())


@pytest.mark.parametrize("output", range(19))
def test_each_output_gets_celebamask_hq_s_number(output: int, segmenter: BiSeNetSegmenter) -> None:
    assert sorted(NUMBERS) == list(range(19))
    last = segmenter.network.conv_out.conv_out.weight
    last.copy_(favoured(last, (output,)))
    assert segmenter.segment(noise(32, 32)).labels().unique().tolist() == [NUMBERS[output]]


@pytest.mark.parametrize("case", CASES)
def test_labels_are_the_reference_s_under_our_numbers(golden: dict[str, Tensor], segmenter: BiSeNetSegmenter, case: str) -> None:
    labels = segmenter.segment(golden[f"{case}.image"]).labels()
    assert int((labels != torch.tensor(NUMBERS)[golden[f"{case}.argmax"].long()]).sum()) <= 2


def test_training_s_two_heads_are_loaded_but_not_run(weights: Path) -> None:
    segmenter = BiSeNetSegmenter(weights, size=64)

    def refuse(*_: Any) -> None:
        raise AssertionError("an auxiliary head ran")

    for head in (segmenter.network.conv_out16, segmenter.network.conv_out32):
        assert float(head.conv_out.weight.std()) > 0
        head.register_forward_hook(refuse)
    segmenter.segment(noise(64, 64))
    with pytest.raises(AssertionError, match="auxiliary"):
        segmenter.network.all_heads(noise(64, 64))


@pytest.mark.parametrize(
    ("image", "size", "seen"),
    [
        ((64, 64), 96, (96, 96)), ((128, 128), 96, (96, 96)), ((96, 96), 96, (96, 96)), ((48, 80), 96, (96, 160)),
        ((64, 48), 33, (33, 25)), ((75, 101), None, (75, 101)), ((128, 128), 512, (512, 512)),
    ],
)  # fmt: skip
def test_the_network_sees_its_size_and_the_answer_has_the_image_s(
    weights: Path, image: tuple[int, int], size: int | None, seen: tuple[int, int]
) -> None:
    segmenter = BiSeNetSegmenter(weights, size=size)
    shapes = []
    segmenter.network.register_forward_pre_hook(lambda _m, given: shapes.append(tuple(given[0].shape[2:])))
    found = segmenter.segment(noise(*image)).probabilities
    assert shapes == [seen]
    assert found.shape == (1, 19, *image) and found.dtype == torch.float32
    assert_close(found.sum(dim=1), torch.ones(1, *image), atol=1e-5, rtol=0)


def test_values_beyond_the_nominal_range_are_clamped(segmenter: BiSeNetSegmenter) -> None:
    image = 3 * noise(64, 64)
    assert torch.equal(segmenter.segment(image).probabilities, segmenter.segment(image.clamp(-1, 1)).probabilities)


def test_precision_is_float32_whatever_surrounds_it(segmenter: BiSeNetSegmenter) -> None:
    image = noise(64, 64)
    expected = segmenter.segment(image).probabilities
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(segmenter.segment(image).probabilities, expected)
    assert segmenter.segment(image.double()).probabilities.dtype == torch.float32


def test_weights_made_for_skin_and_eyes_show_them(weights: Path) -> None:
    segmenter = BiSeNetSegmenter(weights, size=128)
    last = segmenter.network.conv_out.conv_out.weight
    last.copy_(favoured(last, (1, 4, 5)))
    smooth = torch.nn.functional.interpolate(noise(4, 4), size=128, mode="bicubic")
    labels = segmenter.segment(smooth).labels()
    assert set(labels.unique().tolist()) <= {CLASS_IDS[n] for n in ("skin", "left_eye", "right_eye")}
    assert float((labels == 1).float().mean()) > 0.1 and float((labels > 1).float().mean()) > 0.1


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32)])
def test_what_is_no_image_is_refused(segmenter: BiSeNetSegmenter, shape: tuple[int, ...]) -> None:
    with pytest.raises(PriorzooError, match=r"\[B,3,H,W\]"):
        segmenter.segment(torch.zeros(shape))


State = dict[str, Any]


class Danger:
    """A pickle of it writes a file when it is executed."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def hollow() -> State:
    """The right names and shapes, zeros of one stored number: a small file."""
    return {k: torch.zeros((), dtype=drawn(k, [1]).dtype).expand(shape) for k, shape in shapes().items()}


FIRST = "cp.resnet.conv1.weight"
HEAD = "conv_out.conv_out.weight"
REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "a tensor": (lambda s: s[FIRST], "holds Tensor, expected a dict of tensors"),
    "a list": (lambda s: [1, 2], "holds list"),
    "numbers": (lambda s: {"epoch": 3}, "holds a dict of epoch"),
    "a wrapped state": (lambda s: {"state_dict": s, "epoch": 3}, "holds a dict of state_dict, epoch"),
    "nothing": (lambda s: {}, f"missing: {FIRST}"),
    "another module": (lambda s: nn.Linear(2, 2).state_dict(), f"missing: {FIRST}"),
    "a whole module": (lambda s: nn.Linear(2, 2), "cannot be read as weights of BiSeNet: UnpicklingError"),
    "a name too few": (lambda s: {k: v for k, v in s.items() if k != "ffm.conv2.weight"}, "missing: ffm.conv2.weight"),
    "a name too many": (lambda s: {**s, "fc.weight": s[HEAD]}, "unexpected: fc.weight"),
    "other classes": (lambda s: {**s, HEAD: s[HEAD][:11]}, r"conv_out.conv_out.weight: file \[11, 256, 1, 1\], network \[19, 256, 1, 1\]"),
    "whole numbers": (lambda s: {**s, HEAD: s[HEAD].long()}, f"{HEAD} is of type torch.int64, expected torch.float32"),
    "not a number": (lambda s: {**s, HEAD: s[HEAD] * torch.nan}, f"{HEAD} has values that are not finite"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, kind: str) -> None:
    change, message = REFUSED[kind]
    torch.save(change(hollow()), path := tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        BiSeNetSegmenter(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"PK\x03\x04 and no more", b"\x80\x02}q\x00."])
def test_files_that_torch_did_not_write_are_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "79999_iter.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"79999_iter\.pth: cannot be read as weights of BiSeNet.*face-parsing\.PyTorch"):
        load_bisenet(path)


def test_a_truncated_file_is_refused(tmp_path: Path, weights: Path) -> None:
    (path := tmp_path / "half.pth").write_bytes(weights.open("rb").read(1_000_000))
    with pytest.raises(CheckpointError, match=r"half\.pth: cannot be read"):
        load_bisenet(path)


@pytest.mark.parametrize(
    "write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=2))], ids=["torch", "pickle"]
)
def test_nothing_in_a_file_is_executed(tmp_path: Path, write: Callable[[Any, Path], Any]) -> None:
    write({FIRST: Danger(tmp_path / "executed")}, path := tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_bisenet(path)
    assert not (tmp_path / "executed").exists()


def test_the_format_of_older_torch_and_half_precision_are_read(tmp_path: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in hollow().items()}
    halves["ffm.conv2.weight"] = stored = drawn("ffm.conv2.weight", [256, 64, 1, 1]).half()
    torch.save(halves, path := tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_bisenet(path)
    assert {v.dtype for k, v in loaded.state_dict().items() if "batches" not in k} == {torch.float32}
    assert torch.equal(loaded.ffm.conv2.weight, stored.float())
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training


def test_without_weights_it_is_listed_and_says_what_is_missing(tmp_path: Path) -> None:
    assert "bisenet" in SEGMENTERS.names()
    assert SEGMENTERS.get("bisenet").class_names() == CLASS_NAMES
    for options, message in (
        ({}, "option weights names no file; .*79999_iter.pth.*zllrunning/face-parsing.PyTorch"),
        ({"weights": tmp_path / "absent.pth"}, r"absent\.pth is no file; .*download it once"),
        ({"weights": tmp_path}, "is a folder"),
    ):
        with pytest.raises(CheckpointError, match=message):
            BiSeNetSegmenter.check_options(**options)
        with pytest.raises(CheckpointError, match=message):
            SEGMENTERS.create("bisenet", **options)


def test_a_recipe_without_the_file_is_refused_at_its_line(tmp_path: Path, weights: Path) -> None:
    recipe = tmp_path / "parsed.yaml"
    recipe.write_text("extends: heads/eg3d_ssr\nsegmenter:\n  name: bisenet\n  weights: absent.pth\n")
    with pytest.raises(RecipeError, match=rf"(?s)parsed\.yaml:4.*weights.*{tmp_path}/absent\.pth is no file.*79999_iter"):
        load_recipe(recipe)
    with pytest.raises(RecipeError, match="option weights names no file"):
        load_recipe("heads/eg3d_ssr", ["segmenter={name: bisenet}"])
    assert load_recipe(recipe, check_files=False).segmenter is not None, "a stored recipe can be looked at without the file"
    (tmp_path / "absent.pth").write_bytes(b"read later")
    loaded = load_recipe(recipe)
    assert loaded.segmenter is not None
    assert loaded.segmenter.options == {"weights": tmp_path / "absent.pth", "reads": "image", "size": 512}
    with pytest.raises(RecipeError, match="size"):
        load_recipe(recipe, ["segmenter.size=16"])
