"""The contract of every shipped prior, on the scenes that prior_scenes.py declares for it."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from contract.prior_scenes import DECLARATIONS, Declaration, Declared, nothing_in_view
from priorzoo.core.registry import PRIORS
from priorzoo.core.scene import BUFFERS, DERIVED, OTHER_VIEW, Scene, rendered_needs
from priorzoo.core.streams import Stream
from priorzoo.priors.base import Prior, PriorResult
from torch import Tensor
from torch.testing import assert_close

INDICES = (0, 1, 2)
SHIPPED = [name for name in PRIORS.names() if PRIORS.get(name).__module__.startswith("priorzoo.")]
CASES = [
    pytest.param(name, declaration, id=f"{name}-{place}")
    for name, declarations in DECLARATIONS.items()
    for place, declaration in enumerate(declarations)
]
every_case = pytest.mark.parametrize(("name", "case"), CASES)


def stream(indices: tuple[int, ...] = INDICES) -> Stream:
    return Stream(0, 0, "entry", indices)


def build(name: str, case: Declaration) -> Prior:
    prior: Prior = PRIORS.create(name, **case.options)
    return prior


def evaluate(name: str, case: Declaration, declared: Declared, indices: tuple[int, ...] = INDICES) -> PriorResult:
    return build(name, case)(declared.scene, stream(indices))


def gradients(result: PriorResult, geometry: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(result.value.sum(), geometry, allow_unused=True) if result.value.requires_grad else []
    return [g for g in found if g is not None]


class RecordingScene(Scene):
    """A scene of some of another's buffers, which notes what is asked of it."""

    def __init__(self, source: Scene, names: frozenset[str]) -> None:
        kept = {name: source[name] for name in names if name in source}
        super().__init__(source.camera, images_seen=source.images_seen, **kept)
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._asked.add(name)
        return super().__getitem__(name)


def test_every_shipped_prior_is_declared() -> None:
    assert sorted(DECLARATIONS) == SHIPPED, "declare a positive and a zero scene for each prior in prior_scenes.py"
    assert all(DECLARATIONS.values())


@every_case
def test_positive_scene_is_positive_with_a_gradient_on_the_shape(name: str, case: Declaration) -> None:
    declared = case.positive(INDICES, False)
    result = evaluate(name, case, declared)
    assert bool((result.value > 0).all()) and bool(result.value.isfinite().all())
    found = gradients(result, declared.geometry)
    assert len(found) == len(declared.geometry)
    for gradient in found:
        assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0


@every_case
def test_zero_scene_is_zero(name: str, case: Declaration) -> None:
    declared = case.zero(INDICES, False)
    result = evaluate(name, case, declared)
    assert result.value.tolist() == [0.0] * len(INDICES)
    assert all(bool(g.isfinite().all()) for g in gradients(result, declared.geometry))


@every_case
def test_empty_rays_are_finite(name: str, case: Declaration) -> None:
    declared = nothing_in_view(INDICES, False)
    assert float(declared.scene.opacity.detach().abs().max()) == 0
    result = evaluate(name, case, declared)
    assert bool(result.value.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in gradients(result, declared.geometry))


@every_case
def test_shapes_and_kinds(name: str, case: Declaration) -> None:
    declared = case.positive(INDICES, False)
    result = evaluate(name, case, declared)
    count = (len(INDICES),)
    assert isinstance(result, PriorResult)
    assert result.value.shape == count and result.value.dtype == torch.float32
    assert result.counts().shape == count and bool((result.counts() >= 0).all())
    assert result.pixels is None or (result.pixels.shape == count and bool((result.pixels > 0).all()))
    assert not result.counts().requires_grad
    if result.heatmap is not None:
        assert result.heatmap.shape[:2] == (len(INDICES), 1) and not result.heatmap.requires_grad


@every_case
def test_float64_in_float64_out(name: str, case: Declaration) -> None:
    double = evaluate(name, case, case.positive(INDICES, True))
    assert double.value.dtype == torch.float64
    single = evaluate(name, case, case.positive(INDICES, False))
    assert_close(single.value.double(), double.value, rtol=0.02, atol=1e-6)


@every_case
def test_autocast_changes_nothing(name: str, case: Declaration) -> None:
    declared = case.positive(INDICES, False)
    plain = evaluate(name, case, declared)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = evaluate(name, case, declared)
    assert cast.value.dtype == torch.float32
    assert torch.equal(plain.value, cast.value)


@every_case
def test_global_random_numbers_are_neither_read_nor_moved(name: str, case: Declaration) -> None:
    prior, declared, values = build(name, case), case.positive(INDICES, False), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        values.append(prior(declared.scene, stream()).value)
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*values)


@every_case
def test_value_of_a_sample_does_not_depend_on_the_others(name: str, case: Declaration) -> None:
    together = evaluate(name, case, case.positive(INDICES, True)).value
    alone = torch.cat([evaluate(name, case, case.positive((i,), True), (i,)).value for i in INDICES])
    assert case.couples_samples is not torch.allclose(together, alone, rtol=1e-9)


@every_case
def test_needs_are_what_it_reads(name: str, case: Declaration) -> None:
    needs = PRIORS.get(name).needs(**case.options)
    assert isinstance(needs, frozenset)
    vocabulary = BUFFERS.keys() | DERIVED.keys()
    assert {need.removeprefix(OTHER_VIEW) for need in needs} <= vocabulary
    source = case.positive(INDICES, False).scene
    only = RecordingScene(source, needs | rendered_needs(needs - DERIVED.keys()))
    result = build(name, case)(only, stream())
    assert torch.equal(result.value, build(name, case)(source, stream()).value)
    asked = only._asked
    assert needs <= asked, "a need that is not read costs a render"
    assert asked <= needs | rendered_needs(needs)


@every_case
def test_copies_and_pickles_compute_the_same(name: str, case: Declaration) -> None:
    prior, declared = build(name, case), case.positive(INDICES, False)
    expected = prior(declared.scene, stream()).value
    other = build(name, case)
    other.load_state_dict(prior.state_dict())
    for copied in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior)), other):
        assert torch.equal(copied(declared.scene, stream()).value, expected)


@pytest.mark.parametrize("name", SHIPPED)
def test_documented_with_formula_shapes_and_example(name: str) -> None:
    text = inspect.getdoc(PRIORS.get(name)) or ""
    assert "L_b = " in text, "the loss of a sample as a formula"
    assert ">>>" in text, "an example that runs"
    signature = inspect.signature(PRIORS.get(name).__init__)
    for parameter in list(signature.parameters.values())[1:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.annotation is not inspect.Parameter.empty
        assert f"{parameter.name}:" in text or _inherited(name, parameter.name), f"option {parameter.name} is not explained"


def _inherited(name: str, option: str) -> bool:
    bases = [base for base in PRIORS.get(name).__mro__[1:] if getattr(base, "registry_name", "")]
    return any(f"{option}:" in (inspect.getdoc(base) or "") for base in bases)
