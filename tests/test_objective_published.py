"""The published schedules and phases of EG3D's training, each against its own formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from priorzoo.core.recipe import Recipe
from priorzoo.core.streams import Streams
from priorzoo.data.heads import write_heads
from priorzoo.training.averaging import average_decay
from priorzoo.training.critic import blurred
from priorzoo.training.optimiser import replace_nonfinite
from priorzoo.training.sources import open_sources
from priorzoo.training.terms import MicroBatch
from priorzoo.training.trainer import Trainer
from test_objective_critic import EG3D

GOLDEN = Path(__file__).resolve().parent / "golden"
FADE = {"kind": "linear", "start": 1.0, "end": 0.5, "until": 1_000_000}
TV = {"name": "density_tv", "phase": "own", "interval": 4, "weight": 0.25, "points": 10}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    write_heads(path, images=64, resolution=16, held_out=0, supersample=1)
    return path


def trainer(heads: Path, folder: Path, objective: dict[str, Any] | None = None, **more: Any) -> Trainer:
    training = {"images": 16, "batch": 4, "samples": None, "threads": 1, **more.pop("training", {})}
    given = Recipe.from_plain({
        "backbone": EG3D, "data": {"name": "eg3d", "path": str(heads)}, "objective": objective or {}, "training": training, **more,
    })  # fmt: skip
    made = Trainer(given, folder, open_sources(given, folder))
    made.start()
    return made


def micro(count: int, images: int, step: int = 0) -> MicroBatch:
    streams = Streams(0, step, tuple(range(count)))
    return MicroBatch(0, streams, torch.zeros(count, 3, 16, 16), torch.zeros(count, 25), images, step)


@pytest.mark.parametrize(("name", "seed", "size"), [("eg3d", 1254, 128), ("eg3d_8xdc", 2045, 512)])
def test_blur_is_the_published_codes(name: str, seed: int, size: int) -> None:
    """A deviation of 2.5 pixels, hence 15 taps, of stored noise."""
    image = np.random.RandomState(seed).uniform(-1, 1, (4, 3, size, size)).astype(np.float32)[:1]
    with np.load(GOLDEN / name / "io.npz") as stored:
        wanted = torch.from_numpy(stored["blur2.5_sub"])
    found = blurred(torch.from_numpy(image), 2.5)[:, :, ::8, ::8]
    assert float((found - wanted).abs().max()) < 1e-6


# ------------------------------------------------------------------------------------------------------ pose conditioning


@pytest.mark.parametrize("seen", [0, 250_000, 999_999, 1_000_000, 5_000_000])
def test_poses_are_swapped_with_the_previous_sample_as_often_as_published(heads: Path, tmp_path: Path, seen: int) -> None:
    count = 2000
    objective = trainer(heads, tmp_path, {"pose_swap": FADE}, training={"batch": count}).objective
    _, labels, condition = objective._draw(micro(count, seen), "Gmain")
    assert condition is not None
    previous, differ = labels.roll(1, dims=0), (labels != labels.roll(1, dims=0)).any(dim=1)
    swapped = (condition == previous).all(dim=1)
    assert bool((swapped | (condition == labels).all(dim=1)).all()), "another's label, or its own"
    alpha = min(seen / 1_000_000, 1)
    assert float(swapped[differ].double().mean()) == pytest.approx((1 - alpha) * 1 + alpha * 0.5, abs=0.04)


def test_rendering_and_critic_use_the_own_label(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(heads, tmp_path, {"pose_swap": 1.0})
    backbone, labels = made.backbone, []
    prepare, render, criticise = backbone.prepare, backbone.render, backbone.criticise
    conditions: list[Any] = []
    monkeypatch.setattr(backbone, "prepare", lambda z, c, **k: (conditions.append(c), prepare(z, c, **k))[1])
    monkeypatch.setattr(backbone, "render", lambda z, camera, *a, **k: (labels.append(camera.label()), render(z, camera, *a, **k))[1])
    monkeypatch.setattr(backbone, "criticise", lambda seen, label: (labels.append(label), criticise(seen, label))[1])
    made.objective._generator_terms(micro(4, 0))
    rendered, judged = labels
    assert torch.equal(rendered, judged) and torch.equal(conditions[0], rendered.roll(1, dims=0))


def test_without_conditioning_the_label_is_zero(heads: Path, tmp_path: Path) -> None:
    assert trainer(heads, tmp_path).objective._draw(micro(4, 0), "Gmain")[2] is None
    generator = trainer(heads, tmp_path).backbone
    z = generator.draw(2, Streams(0, 0, (0, 1)))
    zeros = generator.prepare(z, torch.zeros(2, 25))["ws"]
    assert torch.equal(generator.prepare(z, None)["ws"], zeros)


def test_every_phase_has_latents_and_labels_of_its_own_and_a_coin_a_sample(heads: Path, tmp_path: Path) -> None:
    objective = trainer(heads, tmp_path, {"pose_swap": 0.5}, priors={"tv": TV}, training={"batch": 200}).objective
    drawn = {phase: objective._draw(micro(200, 0), phase) for phase in ("Gmain", "prior/tv", "Dmain")}
    latents = [z["z"] for z, _, _ in drawn.values()]
    assert not any(torch.equal(latents[i], latents[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for _, labels, condition in drawn.values():
        assert condition is not None
        kept = float((condition == labels).all(dim=1).double().mean())
        assert kept == pytest.approx(0.5, abs=0.12), "also in the density regularisation, where the published coin is the batch's"


# ------------------------------------------------------------------------------------------------- resolution and averages


def test_neural_resolution_is_rounded_as_published(heads: Path, tmp_path: Path) -> None:
    fade = {"kind": "linear", "start": 64, "end": 128, "until": 1_000_000}
    objective = trainer(heads, tmp_path, training={"neural_resolution": fade}).objective
    for seen in [*range(0, 1_100_000, 32 * 97), 7_808, 7_840, 992_160, 992_192, 999_968]:
        alpha = min(seen / 1_000_000, 1)
        assert objective.resolution(micro(1, seen)) == int(np.rint((1 - alpha) * 64 + alpha * 128)), seen
    assert trainer(heads, tmp_path).objective.resolution(micro(1, 0)) is None


def test_the_same_resolution_for_fakes_and_reals(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(heads, tmp_path, training={"neural_resolution": {"kind": "steps", "values": [4, 6], "at_positions": [0, 4]}})
    sizes: list[int] = []
    plain = made.backbone.criticise
    monkeypatch.setattr(made.backbone, "criticise", lambda seen, c: (sizes.append(seen["image_raw"].shape[-1]), plain(seen, c))[1])
    for seen, size in ((0, 4), (4, 6)):
        sizes.clear()
        made.objective._discriminator_terms(micro(4, seen))
        made.objective._r1_terms(micro(4, seen))
        assert sizes == [size] * 3


def test_average_ramps_up_as_published() -> None:
    """Half-life min(10,000, 0.05 images before the batch), at batch 32."""
    for before in (0, 32, 100_000, 199_968, 200_032, 10**7):
        published = 0.5 ** (32 / max(min(1000 * 10, 0.05 * before), 1e-8))
        assert average_decay(32, before, 10_000, 0.05) == pytest.approx(published)
    assert average_decay(32, 0, 10_000, None) == pytest.approx(0.5 ** (32 / 10_000)), "no ramp-up after --resume"


@pytest.mark.parametrize(("reuse", "mover"), [(False, "Dmain"), (True, "Gmain")])
def test_one_pass_a_step_moves_the_average_of_w(
    heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reuse: bool, mover: str
) -> None:
    """Published: the discriminator's pass over fakes alone. Where that takes the generator's fakes, the generator's."""
    made = trainer(heads, tmp_path, {"reuse_fakes": reuse}, priors={"tv": {**TV, "interval": 1}})
    moving: list[bool] = []
    plain = made.backbone.prepare

    def prepare(latents: Any, condition: Any, **rest: Any) -> Any:
        moving.append(rest["update_averages"])
        return plain(latents, condition, **rest)

    monkeypatch.setattr(made.backbone, "prepare", prepare)
    movers = []
    for phase in made.phases:
        moving.clear()
        phase.terms(micro(4, 0))
        movers += [phase.name] * sum(moving)
    assert movers == [mover]


# ------------------------------------------------------------------------------------------------------ phases and optimisers


def test_phases_their_order_and_their_intervals(heads: Path, tmp_path: Path) -> None:
    made = trainer(heads, tmp_path, priors={"tv": TV})
    assert [(p.name, p.part, p.interval) for p in made.phases] == [
        ("Gmain", "generator", 1), ("prior/tv", "generator", 4), ("Dmain", "discriminator", 1), ("R1", "discriminator", 16),
    ]  # fmt: skip
    run: list[tuple[int, str]] = []
    made.runner.run = lambda phase, _: run.append((made.step, phase.name))  # type: ignore[method-assign,assignment]
    for _ in range(17):
        made.train_step()
    assert [step for step, name in run if name == "prior/tv"] == [0, 4, 8, 12, 16]
    assert [step for step, name in run if name == "R1"] == [0, 16]
    assert sum(name == "Gmain" for _, name in run) == sum(name == "Dmain" for _, name in run) == 17


def groups(made: Trainer) -> dict[str, tuple[float, tuple[float, float]]]:
    return {name: (o.param_groups[0]["lr"], o.param_groups[0]["betas"]) for name, o in made.optimisers.items()}


def test_adam_is_corrected_for_lazy_phases(heads: Path, tmp_path: Path) -> None:
    found = groups(trainer(heads, tmp_path, priors={"tv": TV}))
    for part, rate, interval in (("generator", 0.0025, 4), ("discriminator", 0.002, 16)):
        ratio = interval / (interval + 1)
        assert found[part] == (pytest.approx(rate * ratio), (0.0, pytest.approx(0.99**ratio)))
    absent = groups(trainer(heads, tmp_path, {"r1": None}, priors={"tv": {**TV, "weight": 0.0}}))
    assert absent == {"generator": (0.0025, (0.0, 0.99)), "discriminator": (0.002, (0.0, 0.99))}
    # A further step every step is one too: m = 1 / (1 + 1).
    eager = groups(trainer(heads, tmp_path, {"r1": {"interval": 1}}, priors={"tv": {**TV, "interval": 1}}))
    assert eager["generator"][0] == pytest.approx(0.00125) and eager["discriminator"][0] == pytest.approx(0.001)


def test_lazy_phases_are_multiplied_by_their_interval(heads: Path, tmp_path: Path) -> None:
    made = trainer(heads, tmp_path, {"r1": {"gamma": 2.0, "interval": 16}}, priors={"tv": TV})
    weights = {p.name: [t.weight for t in p.terms(micro(4, 0))] for p in made.phases if p.interval > 1}
    assert weights == {"prior/tv": [0.25 * 4], "R1": [2.0 / 2 * 16]}


def test_gradients_are_replaced_as_published() -> None:
    weight = torch.nn.Parameter(torch.zeros(5))
    weight.grad = torch.tensor([float("nan"), float("inf"), float("-inf"), 3e5, -2.0])
    replace_nonfinite([weight])
    assert weight.grad.tolist() == [0.0, 1e5, -1e5, 3e5, -2.0]
