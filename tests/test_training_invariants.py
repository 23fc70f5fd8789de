"""What must not change a run, and what must stop it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import analytic
import pytest
import torch
from priorzoo.core.errors import DataError, NonFiniteError, PriorzooError, RunError
from priorzoo.core.recipe import Recipe
from priorzoo.core.registry import register_prior
from priorzoo.core.scene import Scene
from priorzoo.core.streams import Stream
from priorzoo.data.heads import write_heads
from priorzoo.priors.base import Prior, PriorResult
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.objective import Phase
from priorzoo.training.phase_clock import BESIDE, PhaseClock
from priorzoo.training.sources import open_sources
from priorzoo.training.trainer import Trainer, train


@register_prior("test_counted_depth")
class CountedDepth(Prior):
    """A pooled mean: every sample's depth counts as often as the sample has opaque pixels."""

    def __init__(self, *, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    @classmethod
    def needs(cls, **options: object) -> frozenset[str]:
        return frozenset({"depth", "opacity"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        opaque = scene.opacity.detach() > 0.5
        count = opaque.flatten(1).sum(1).float()
        value = torch.where(opaque, scene.depth, 0.0).flatten(1).sum(1) / count.clamp_min(1)
        noise = 0.0 * stream.normal(1)[:, 0]
        return PriorResult(self.gain * value + noise, count=count, pixels=count)


@register_prior("test_second_view")
class SecondView(Prior):
    """Difference of mean depth between the two views."""

    @classmethod
    def needs(cls, **options: object) -> frozenset[str]:
        return frozenset({"depth", "other_view.depth"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        return PriorResult((scene.depth.flatten(1).mean(1) - scene.other_view.depth.flatten(1).mean(1)).square())


@register_prior("test_broken")
class Broken(Prior):
    """Finite value, infinite gradient: the square root at zero."""

    def __init__(self, *, value: bool = False) -> None:
        super().__init__()
        self.value = value

    @classmethod
    def needs(cls, **options: object) -> frozenset[str]:
        return frozenset({"depth"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        depth = scene.depth.flatten(1).mean(1)
        if self.value:
            return PriorResult(depth * float("nan"))
        return PriorResult((depth - depth.detach()).abs().sqrt())


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    write_heads(path, images=8, resolution=16, held_out=0, supersample=1)
    return path


def recipe(heads: Path, priors: dict[str, object] | None = None, **training: object) -> Recipe:
    return Recipe.from_plain({
        "seed": 1,
        "backbone": {"name": "analytic_sphere"},
        "segmenter": {"name": "analytic_colours"},
        "data": {"name": "eg3d", "path": str(heads)},
        "priors": priors or {},
        "second_view": {"kind": "near", "angle": 0.3},
        "training": {"images": 16, "batch": 4, "checkpoint": {"every": 100}, "samples": None, "threads": 1, **training},
    })  # fmt: skip


def weights(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    train(recipe, folder, progress=False)
    return read_checkpoint(checkpoint_folders(folder)[-1]).model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


EG3D = {
    "name": "eg3d", "z_dim": 4, "w_dim": 8, "conditioning": "none", "plane_resolution": 16, "plane_channels": 4, "channel_base": 128,
    "channel_max": 8, "decoder_hidden": 8, "feature_channels": 3, "noise": "random", "superresolution": "none",
    "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 4, "samples_fine": 4,
    "discriminator_channel_base": 128, "discriminator_channel_max": 8, "discriminator_mapping_layers": 1,
}  # fmt: skip
SKIN = {"name": "ssr", "region": "skin", "erosion": 1, "weight": 0.0}
TV = {"name": "density_tv", "phase": "own", "interval": 2, "weight": 0.0}


def test_priors_of_weight_zero_are_as_if_absent(heads: Path, tmp_path: Path) -> None:
    control = weights(recipe(heads), tmp_path / "control")
    assert same(control, weights(recipe(heads, {"skin": SKIN, "tv": TV}), tmp_path / "zero"))
    assert not same(control, weights(recipe(heads, {"skin": {**SKIN, "weight": 5.0}}), tmp_path / "one"))


def test_another_prior_changes_no_draw(heads: Path, tmp_path: Path) -> None:
    """A prior that draws, with an all but vanishing weight: latents, cameras and data stay the control's."""
    control = weights(recipe(heads), tmp_path / "control")
    nearby = weights(recipe(heads, {"c": {"name": "test_counted_depth", "weight": 1e-12}}), tmp_path / "nearby")
    assert all(torch.allclose(control[k], nearby[k], atol=1e-4) for k in control)


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_do_not_matter(heads: Path, tmp_path: Path, size: int) -> None:
    """Gradients of a pooled prior and of the whole step in float64, one slice against several."""
    priors = {
        "pooled": {"name": "test_counted_depth", "weight": 0.3},
        "view": {"name": "test_second_view", "weight": 2.0},
        "tv": {**TV, "weight": 0.1},
    }
    gradients = []
    for micro in (None, size):
        given = recipe(heads, priors, micro_batch=micro)
        trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
        trainer.start()
        trainer.backbone.double()
        trainer.objective.real_labels = trainer.objective.real_labels.double()
        slices = trainer.micro_batches()
        for part in slices:
            part.real, part.labels = part.real.double(), part.labels.double()
        found = {}
        for phase in trainer.phases:
            trainer.optimisers[phase.part].step = lambda: None  # type: ignore[assignment,method-assign]
            trainer.runner.run(phase, slices)
            found[phase.name] = {n: p.grad.clone() for n, p in trainer.runner.named(phase.part) if p.grad is not None}
        gradients.append(found)
    for phase in gradients[0]:
        assert gradients[0][phase].keys() == gradients[1][phase].keys() and gradients[0][phase]
        for name, expected in gradients[0][phase].items():
            assert torch.allclose(gradients[1][phase][name], expected, rtol=1e-6, atol=1e-12), (phase, name)


def test_every_phase_is_run_within_what_is_around(heads: Path, tmp_path: Path) -> None:
    given = recipe(heads, {"tv": TV})
    trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
    trainer.start()
    seen: list[str] = []

    @contextmanager
    def noted(who: str, phase: Phase) -> Iterator[None]:
        seen.append(f"{who} begins {phase.name}")
        yield
        seen.append(f"{who} ends {phase.name}")

    with trainer.runner.around(partial(noted, "outer")), trainer.runner.around(partial(noted, "inner")):
        trainer.train_step()
    trainer.train_step()
    expected = [f"{what} {phase.name}" for phase in trainer.phases for what in ("outer begins", "inner begins", "inner ends", "outer ends")]
    assert seen == expected and len(trainer.phases) == 3
    clock = PhaseClock.of(trainer)
    trainer.step = 0
    with clock.timing(trainer):
        trainer.train_step()
    assert list(clock.seconds) == [*(phase.name for phase in trainer.phases), BESIDE] and all(s > 0 for s in clock.seconds.values())


def test_a_seed_gives_the_same_run(heads: Path, tmp_path: Path) -> None:
    assert same(weights(recipe(heads), tmp_path / "a"), weights(recipe(heads), tmp_path / "b"))


@pytest.mark.parametrize(("value", "text"), [(True, "its value is not finite"), (False, "its gradient of generator.")])
def test_nonfinite_stops_and_names_term_step_and_parameter(heads: Path, tmp_path: Path, value: bool, text: str) -> None:
    given = recipe(
        heads, {"fine": {"name": "test_counted_depth", "weight": 1.0}, "bad": {"name": "test_broken", "value": value, "weight": 1.0}}
    )
    with pytest.raises(NonFiniteError) as caught:
        train(given, tmp_path / "run", progress=False)
    message = str(caught.value)
    assert "step 0" in message and "phase Gmain" in message and "'prior/bad'" in message and text in message
    assert not checkpoint_folders(tmp_path / "run")


def test_nonfinite_gradients_can_be_replaced(heads: Path, tmp_path: Path) -> None:
    given = recipe(heads, {"bad": {"name": "test_broken", "weight": 1.0}}, nonfinite_gradients="replace")
    assert all(bool(torch.isfinite(t).all()) for t in weights(given, tmp_path / "run").values())


def test_a_term_that_sees_nothing_warns_by_name(heads: Path, tmp_path: Path) -> None:
    blind = {"gone": {**SKIN, "erosion": 15, "weight": 1.0}}
    with pytest.warns(UserWarning, match="prior 'gone' saw no pixel"):
        train(recipe(heads, blind, log_every=8), tmp_path / "run", progress=False)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["prior/gone/pixels"] == 0.0 and records[0]["prior/gone/samples"] == 0.0


def test_scheduled_options_and_weights_reach_the_prior(heads: Path, tmp_path: Path) -> None:
    ramp = {"kind": "linear", "start": 1.0, "end": 3.0, "until": 16}
    given = recipe(heads, {"c": {"name": "test_counted_depth", "weight": ramp, "gain": ramp}}, log_every=4)
    train(given, tmp_path / "run", progress=False)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for record, scale in zip(records, (1.0, 1.5, 2.0, 2.5), strict=True):
        assert record["prior/c/weighted"] / record["prior/c/raw"] == pytest.approx(scale)
        assert record["prior/c/raw"] / scale == pytest.approx(2.5, abs=0.3)  # the ball's depth


def test_the_extra_view_is_rendered_once_and_only_when_asked(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renders: list[int] = []
    plain = analytic.AnalyticSphere.render
    monkeypatch.setattr(analytic.AnalyticSphere, "render", lambda self, *a, **k: (renders.append(1), plain(self, *a, **k))[1])
    views = {f"view{i}": {"name": "test_second_view", "weight": 1.0} for i in range(3)}
    for priors, expected in (({}, 2), (views, 3)):  # generator and discriminator phase, and one more view
        given = recipe(heads, priors)
        trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
        trainer.start()
        renders.clear()
        trainer.train_step()
        assert len(renders) == expected


def test_errors_are_priorzoo_errors() -> None:
    assert issubclass(NonFiniteError, PriorzooError)


def test_counting_and_replaying_have_no_effects(heads: Path, tmp_path: Path) -> None:
    """A pooled prior makes the trainer count the other slices first: averages and fakes must not notice."""
    averages = []
    for priors in ({}, {"pooled": {"name": "test_counted_depth", "weight": 1e-12}}):
        given = recipe(heads, priors, micro_batch=2)
        given = Recipe.from_plain({**given.to_plain(), "objective": {"reuse_fakes": True}})
        trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
        trainer.start()
        trainer.train_step()
        averages.append(trainer.backbone.generator.w_avg.clone())
    assert bool(averages[0].any()) and torch.equal(averages[0], averages[1])


def test_a_run_goes_on_with_another_batch_from_its_position(heads: Path, tmp_path: Path) -> None:
    train(recipe(heads), tmp_path / "run", progress=False)
    longer = recipe(heads, images=32, batch=8)
    run = train(longer, tmp_path / "run", resume=True, allow_changes=True, progress=False)
    assert run.images == 32
    state = json.loads((checkpoint_folders(tmp_path / "run")[-1] / "state.json").read_text())
    assert state["images"] == 32 and state["streams"]["step"] == 4 + 2


def test_a_run_keeps_its_seed(heads: Path, tmp_path: Path) -> None:
    train(recipe(heads), tmp_path / "run", progress=False)
    other = Recipe.from_plain({**recipe(heads).to_plain(), "seed": 2})
    with pytest.raises(RunError, match="keeps the seed it began with"):
        train(other, tmp_path / "run", resume=True, allow_changes=True, progress=False)


def test_a_failed_start_is_not_a_run(heads: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        train(recipe(heads.parent / "nowhere.zip"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    train(recipe(heads), tmp_path / "run", progress=False)


def test_own_phase_priors_see_the_second_view_too(heads: Path, tmp_path: Path) -> None:
    own = {"view": {"name": "test_second_view", "phase": "own", "weight": 1.0}}
    assert not same(weights(recipe(heads), tmp_path / "a"), weights(recipe(heads, own), tmp_path / "b"))


def test_two_views_of_a_sample_are_one_shape(heads: Path, tmp_path: Path) -> None:
    """EG3D's planes carry fresh noise: both views and the field must share one draw of it."""
    given = Recipe.from_plain({**recipe(heads).to_plain(), "backbone": EG3D, "second_view": {"kind": "near", "angle": 0.0}})
    trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
    trainer.start()
    with torch.no_grad():
        for name, parameter in trainer.backbone.generator.named_parameters():
            if "noise_strength" in name:
                parameter.fill_(1.0)
    (micro,) = trainer.micro_batches()
    needs = frozenset({"field", "rays", "depth", "other_view.field"})
    scene, _ = trainer.objective._render(micro, "Gmain", needs)
    points = torch.rand(4, 50, 3) - 0.5
    assert torch.equal(scene.field(points).raw, scene.other_view.field(points).raw)


def test_networks_may_run_in_bfloat16(heads: Path, tmp_path: Path) -> None:
    """Rendering and priors stay in float32; the result differs from float32's, and is finite."""
    found = []
    for precision in ("bf16-mixed", "32-true"):
        plain = recipe(heads, {"skin": {**SKIN, "weight": 1.0}}, precision=precision).to_plain()
        found.append(weights(Recipe.from_plain({**plain, "backbone": EG3D}), tmp_path / precision))
    half, full = found
    assert all(t.dtype == torch.float32 and bool(torch.isfinite(t).all()) for t in half.values() if t.is_floating_point())
    assert not same(half, full)


@register_prior("test_hidden_option")
class HiddenOption(CountedDepth):
    """Keeps its option under another name, where no schedule would reach it."""

    def __init__(self, *, strength: float = 1.0) -> None:
        super().__init__(gain=strength)


def test_a_schedule_that_could_not_be_followed_is_refused(heads: Path, tmp_path: Path) -> None:
    ramp = {"kind": "linear", "start": 1.0, "end": 3.0, "until": 16}
    given = recipe(heads, {"hidden": {"name": "test_hidden_option", "weight": 1.0, "strength": ramp}})
    with pytest.raises(PriorzooError, match=r"priors\.hidden\.strength: follows a schedule.*keeps no attribute"):
        Trainer(given, tmp_path, open_sources(given, tmp_path))


def test_images_of_another_size_than_the_backbones_are_refused(heads: Path, tmp_path: Path) -> None:
    plain = recipe(heads).to_plain()
    given = Recipe.from_plain({**plain, "backbone": {"name": "analytic_sphere", "image_resolution": 32}})
    with pytest.raises(DataError, match=r"images of 16 x 16 pixels, the backbone makes 32 x 32"):
        open_sources(given, tmp_path)


@register_prior("test_learned")
class Learned(Prior):
    """Has a parameter that trains with the generator, and a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.register_buffer("calls", torch.zeros(()))

    @classmethod
    def needs(cls, **options: object) -> frozenset[str]:
        return frozenset({"depth"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        self.calls += 1  # type: ignore[operator]
        return PriorResult((self.scale * scene.depth.flatten(1).mean(1) - 1.0).square())


def test_priors_with_parameters_and_buffers_train_and_resume(heads: Path, tmp_path: Path) -> None:
    learned = {"learned": {"name": "test_learned", "weight": 1.0}}
    whole = weights(recipe(heads, learned), tmp_path / "whole")
    assert whole["priors.learned.calls"].item() == 4
    assert whole["priors.learned.scale"].item() != 0.5
    train(recipe(heads, learned, images=8), tmp_path / "halves", progress=False)
    train(recipe(heads, learned), tmp_path / "halves", resume=True, allow_changes=True, progress=False)
    assert same(whole, read_checkpoint(checkpoint_folders(tmp_path / "halves")[-1]).model)
