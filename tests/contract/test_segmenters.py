"""The contract of every shipped segmenter and shape estimator."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import sphere_scene
from priorzoo.core.errors import PriorzooError
from priorzoo.core.registry import ESTIMATORS, SEGMENTERS, Registry
from priorzoo.core.scene import Segmentation
from priorzoo.data.heads import write_heads
from priorzoo.segmenters.base import Estimator, Segmenter
from torch import Tensor
from torch.testing import assert_close

# Options of each; what stands for a file is filled in.
TRUTH_FILE, BISENET_FILE = "<truth file>", "<bisenet file>"
SEGMENTER_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "analytic_colours": [{}],
    "bisenet": [{"weights": BISENET_FILE, "size": 32}, {"weights": BISENET_FILE, "size": None, "reads": "image_raw"}],
    "truth": [{"data": TRUTH_FILE}],
    "unet": [{}, {"reads": "image_raw"}],
}
ESTIMATOR_OPTIONS: dict[str, list[dict[str, Any]]] = {"heads": [{}]}


def cases(table: dict[str, list[dict[str, Any]]]) -> list[Any]:
    return [pytest.param(n, o, id=f"{n}-{i}") for n, choices in table.items() for i, o in enumerate(choices)]


every_segmenter = pytest.mark.parametrize(("name", "options"), cases(SEGMENTER_OPTIONS))
every_estimator = pytest.mark.parametrize(("name", "options"), cases(ESTIMATOR_OPTIONS))


@pytest.fixture(scope="module")
def truth_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("heads") / "few.zip", images=2, resolution=16, seed=0, held_out=1).truth


@pytest.fixture
def segmenter(name: str, options: dict[str, Any], request: pytest.FixtureRequest) -> Segmenter:
    files = {TRUTH_FILE: "truth_file", BISENET_FILE: "bisenet_file"}
    filled = {key: request.getfixturevalue(files[value]) if value in files else value for key, value in options.items()}
    SEGMENTERS.get(name).check_options(**filled)
    built: Segmenter = SEGMENTERS.create(name, **filled).eval()
    return built


def images(size: int = 32) -> Tensor:
    """A ball, and noise that goes a little beyond the nominal range."""
    with torch.no_grad():
        ball = sphere_scene({"image"}, size=size)[0].image
    return torch.cat([ball, torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1])


def shipped(registry: Registry) -> set[str]:
    return {name for name in registry.names() if registry.get(name).__module__.startswith("priorzoo.")}


def test_every_shipped_one_is_declared() -> None:
    assert shipped(SEGMENTERS) | {"analytic_colours"} == set(SEGMENTER_OPTIONS)
    assert shipped(ESTIMATORS) == set(ESTIMATOR_OPTIONS)


@every_segmenter
def test_answers_without_building(name: str, options: dict[str, Any]) -> None:
    cls = SEGMENTERS.get(name)
    needs, names = cls.needs(**options), cls.class_names(**options)
    assert isinstance(needs, frozenset) and len(needs) == 1 and needs <= {"image", "image_raw"}
    assert needs == {options.get("reads", "image")}
    assert isinstance(names, tuple) and len(set(names)) == len(names) and {"skin", "left_eye", "right_eye"} <= set(names)
    assert cls.reads_generated_images() in (True, False)


@every_segmenter
def test_segments_or_refuses(name: str, options: dict[str, Any], segmenter: Segmenter) -> None:
    assert segmenter.names == type(segmenter).class_names(**options)
    picture = images().requires_grad_(True)
    if not type(segmenter).reads_generated_images():
        with pytest.raises(PriorzooError, match=name):
            segmenter.segment(picture)
        return
    result = segmenter.segment(picture)
    assert isinstance(result, Segmentation) and result.names == segmenter.names
    p = result.probabilities
    assert p.shape == (4, len(segmenter.names), 32, 32) and p.dtype == torch.float32
    assert not p.requires_grad
    assert float(p.min()) >= 0
    assert_close(p.sum(dim=1), torch.ones(4, 32, 32))
    assert result.labels((20, 20)).shape == (4, 20, 20)


@every_segmenter
def test_a_segmented_image_does_not_depend_on_the_others(name: str, options: dict[str, Any], segmenter: Segmenter) -> None:
    if type(segmenter).reads_generated_images():
        together = segmenter.segment(images()).probabilities
        alone = torch.cat([segmenter.segment(image[None]).probabilities for image in images()])
        assert_close(alone, together, atol=1e-4, rtol=1e-4)
    else:
        names = segmenter.truth.names()[:2]  # type: ignore[operator]
        together = segmenter.segment_named(names).probabilities  # type: ignore[operator]
        alone = torch.cat([segmenter.segment_named([n]).probabilities for n in names])  # type: ignore[operator]
        assert torch.equal(alone, together)


@every_segmenter
def test_copies_are_equal_and_nothing_is_random(name: str, options: dict[str, Any], segmenter: Segmenter) -> None:
    if not type(segmenter).reads_generated_images():
        names = segmenter.truth.names()[:1]  # type: ignore[operator]
        expected = segmenter.segment_named(names).probabilities  # type: ignore[operator]
        assert torch.equal(copy.deepcopy(segmenter).segment_named(names).probabilities, expected)  # type: ignore[operator]
        return
    before = torch.get_rng_state()
    expected = segmenter.segment(images()).probabilities
    for other in (segmenter, copy.deepcopy(segmenter), pickle.loads(pickle.dumps(segmenter))):
        assert torch.equal(other.segment(images()).probabilities, expected)
    assert torch.equal(before, torch.get_rng_state())


@every_estimator
def test_estimates_are_standardised_depth_and_unit_normals(name: str, options: dict[str, Any]) -> None:
    estimator: Estimator = ESTIMATORS.create(name, **options).eval()
    before = torch.get_rng_state()
    depth, normals = estimator.estimate(images(64).requires_grad_(True))
    assert torch.equal(before, torch.get_rng_state())
    assert depth.shape == (4, 1, 64, 64) and normals.shape == (4, 3, 64, 64)
    assert depth.dtype == normals.dtype == torch.float32
    assert not depth.requires_grad and not normals.requires_grad
    assert bool(depth.isfinite().all()) and bool(normals.isfinite().all())
    assert_close(normals.norm(dim=1), torch.ones(4, 64, 64), atol=1e-3, rtol=0)
    for one in depth:
        inside = one[one != 0]
        if len(inside) > 10:
            assert abs(float(inside.mean())) < 1e-3 and abs(float(inside.std(correction=0)) - 1) < 1e-3
    again = pickle.loads(pickle.dumps(estimator)).estimate(images(64))
    assert torch.equal(again[0], depth) and torch.equal(again[1], normals)


@pytest.mark.parametrize(
    ("registry", "name"),
    [(r, n) for r, table in ((SEGMENTERS, SEGMENTER_OPTIONS), (ESTIMATORS, ESTIMATOR_OPTIONS)) for n in table],
    ids=lambda value: value.kind if isinstance(value, Registry) else value,
)
def test_documented(registry: Registry, name: str) -> None:
    cls = registry.get(name)
    assert inspect.getdoc(cls) not in (None, inspect.getdoc(Segmenter), inspect.getdoc(Estimator))
