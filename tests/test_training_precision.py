"""How a step is computed: precision, loss scales, memory formats, recomputed rendering, compiled networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from priorzoo.backbones.eg3d import blockwise
from priorzoo.core.errors import PriorzooError
from priorzoo.core.precision import tf32
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.data.heads import write_heads
from priorzoo.training import precision as precision_module
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.precision import LossScale, Precision
from priorzoo.training.sources import open_sources
from priorzoo.training.trainer import Trainer, train
from processes_driver import RECIPE, losses

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precision")
    write_heads(folder / "heads.zip", images=6, resolution=16, held_out=0, supersample=1)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder / "tiny.yaml"


def recipe(file: Path, *overrides: str) -> Recipe:
    return load_recipe(str(file), overrides)


def trainer_of(file: Path, folder: Path, *overrides: str) -> Trainer:
    given = recipe(file, *overrides)
    trainer = Trainer(given, folder, open_sources(given, folder))
    trainer.start()
    return trainer


def gradients(trainer: Trainer) -> dict[str, dict[str, torch.Tensor]]:
    """Of every phase, at the trainer's present weights."""
    out = {}
    micros = trainer.micro_batches()
    for phase in trainer.phases:
        trainer.optimisers[phase.part].step = lambda *_, **__: None  # type: ignore[assignment,method-assign]
        trainer.runner.run(phase, micros)
        out[phase.name] = {name: p.grad.clone() for name, p in trainer.runner.named(phase.part) if p.grad is not None}
    return out


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of all gradients, relative."""
    assert a.keys() == b.keys()
    difference = sum(float((a[k] - b[k]).double().square().sum()) for k in a)
    return (difference / sum(float(a[k].double().square().sum()) for k in a)) ** 0.5


@pytest.mark.parametrize(("name", "close"), [("bf16-mixed", 0.2), ("16-mixed", 0.02)])
def test_half_precision_is_near_and_its_gradients_are_float32(recipe_file: Path, tmp_path: Path, name: str, close: float) -> None:
    full = gradients(trainer_of(recipe_file, tmp_path))
    half = gradients(trainer_of(recipe_file, tmp_path, f"training.precision={name}"))
    for phase, expected in full.items():
        assert all(t.dtype == torch.float32 for t in half[phase].values())
        if phase == "R1":  # differentiated twice: never in half precision
            assert all(torch.equal(expected[n], half[phase][n]) for n in expected)
        assert apart(expected, half[phase]) < close, phase
    assert apart(full["Gmain"], half["Gmain"]) > 1e-5  # not float32 under another name


@pytest.mark.parametrize("name", ["bf16-mixed", "16-mixed", "64-true"])
def test_scenes_hold_float32_whatever_the_networks_compute_in(recipe_file: Path, tmp_path: Path, name: str) -> None:
    trainer = trainer_of(recipe_file, tmp_path, f"training.precision={name}", "second_view={kind: near, angle: 0.2}")
    needs = trainer.backbone.provides() | {"points", "normals", "depth_normals", "sample_normals", "segmentation", "other_view.depth"}
    (micro,) = trainer.micro_batches()
    with trainer.precision.autocast():
        scene, labels = trainer.objective._render(micro, "Gmain", frozenset(needs))
        sampled = scene.field(torch.zeros(4, 5, 3))
        logits = trainer.backbone.criticise(trainer.backbone.critic_input(scene), labels)
        found = {n: scene[n] for n in needs - {"rays", "samples", "field", "segmentation", "other_view.depth"}}
        found |= {"samples": scene.samples.raw, "segmentation": scene.segmentation.probabilities, "other": scene.other_view.depth}
        values = {term.name: term.value for phase in trainer.phases for term in phase.terms(micro) if term.name != "augmentation/p"}
    found |= {"rays": scene.rays.directions, "field": sampled.raw, "colour": sampled.colour, "logits": logits, **values}
    assert {n: t.dtype for n, t in found.items()} == dict.fromkeys(found, trainer.precision.dtype)


def test_what_cannot_be_computed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that does not take float16 on a processor, as older ones, in which autocast warns and does nothing."""

    def refusing(*_: object, **__: object) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(precision_module.nn.functional, "conv2d", refusing)
    with pytest.raises(PriorzooError, match=r"training\.precision: 16-mixed does not work on cpu .*not implemented.*use 32-true"):
        Precision("16-mixed", CPU)
    Precision("32-true", CPU)


def test_an_overflow_halves_the_scale_of_its_phase_and_leaves_the_step_out(recipe_file: Path, tmp_path: Path) -> None:
    trainer = trainer_of(recipe_file, tmp_path, "training.precision=16-mixed")
    scale = trainer.runner.scales["Dmain"]
    scale.factor = 2.0**24 * 2.0**40  # float16 ends at 65504
    before = {n: t.clone() for n, t in trainer.backbone.discriminator.state_dict().items()}  # type: ignore[union-attr]
    phase = next(p for p in trainer.phases if p.name == "Dmain")
    micros = trainer.micro_batches()
    trainer.runner.run(next(p for p in trainer.phases if p.name == "Gmain"), micros)
    trainer.runner.run(phase, micros)
    assert scale.factor == 2.0**63 and trainer.runner.scales["Gmain"].factor == 2.0**16
    after = trainer.backbone.discriminator.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(before[n], after[n]) for n in before)
    scale.factor = 2.0**10
    trainer.runner.run(phase, micros)
    assert scale.factor == 2.0**10 and not torch.equal(before["b4.out.weight"], after["b4.out.weight"])


def test_an_infinite_gradient_stops_half_precision_too(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scale of 1 the scale is not to blame: the term is named as ever."""
    trainer = trainer_of(recipe_file, tmp_path, "training.precision=16-mixed")
    monkeypatch.setattr(trainer.objective.backbone, "criticise", _rooted(trainer.objective.backbone.criticise))
    phase, micros = trainer.phases[0], trainer.micro_batches()
    for _ in range(16):
        trainer.runner.run(phase, micros)
    assert trainer.runner.scales["Gmain"].factor == 1.0
    with pytest.raises(PriorzooError, match=r"phase Gmain, term 'G/adversarial': its gradient of generator"):
        trainer.runner.run(phase, micros)


def _rooted(criticise):  # type: ignore[no-untyped-def]
    def with_a_root_at_zero(*given: object) -> torch.Tensor:
        logits = criticise(*given)
        return logits + (logits - logits.detach()).abs().sqrt()

    return with_a_root_at_zero


def test_loss_scales_survive_in_checkpoints(recipe_file: Path, tmp_path: Path) -> None:
    trainer = trainer_of(recipe_file, tmp_path / "run", "training.precision=16-mixed")
    trainer.runner.scales["Dmain"] = LossScale(factor=32.0, passes=7)
    trainer.train_step()
    trainer.save()
    again = trainer_of(recipe_file, tmp_path / "run", "training.precision=16-mixed")
    assert again.step == 1
    assert again.runner.scales["Dmain"] == LossScale(factor=32.0, passes=8) and again.runner.scales["Gmain"].passes == 1
    assert "R1" not in again.runner.scales  # float32 needs none


def test_a_run_in_float64_is_whole(recipe_file: Path, tmp_path: Path) -> None:
    """Trained, looked at, saved and resumed; its losses are float32's within rounding."""
    for name in ("64-true", "32-true"):
        train(recipe(recipe_file, f"training.precision={name}", "training.images=8"), tmp_path / name, progress=False)
    model = read_checkpoint(checkpoint_folders(tmp_path / "64-true")[-1]).model
    assert all(t.dtype == torch.float64 for t in model.values() if t.is_floating_point())
    for a, b in zip(losses(tmp_path / "64-true"), losses(tmp_path / "32-true"), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    run = train(recipe(recipe_file, "training.images=12"), tmp_path / "64-true", resume=True, allow_changes=True, progress=False)
    assert run.images == 12
    resumed = read_checkpoint(checkpoint_folders(tmp_path / "64-true")[-1])
    assert all(t.dtype == torch.float32 for k, t in resumed.optimisers.items())


@pytest.mark.parametrize("name", ["contiguous", "channels_last"])
def test_memory_formats_agree(recipe_file: Path, tmp_path: Path, name: str) -> None:
    double = "training.precision=64-true"
    expected = gradients(trainer_of(recipe_file, tmp_path, double))
    trainer = trainer_of(recipe_file, tmp_path, double, f"training.memory_format={name}")
    weight = trainer.backbone.generator.get_parameter("superresolution.block0.conv0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) is (name == "channels_last")
    found = gradients(trainer)
    assert all(apart(expected[phase], found[phase]) < 1e-9 for phase in expected)


class Kept:
    """Counts the bytes that a forward pass keeps for its backward."""

    def __enter__(self) -> Kept:
        self.storages: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t)
        self._hooks.__enter__()
        return self

    def __exit__(self, *given: object) -> None:
        self._hooks.__exit__(*given)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


@pytest.mark.parametrize("plain", [False, True], ids=["blockwise", "plain operations"])
def test_recomputed_rendering_has_equal_gradients_and_keeps_less(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    """Both paths: the processor's blocks, and the plain operations that other devices run."""
    found, kept = [], []
    for checkpoint in (False, True):
        trainer = trainer_of(
            recipe_file, tmp_path, "training.precision=64-true", f"training.checkpoint_rendering={str(checkpoint).lower()}"
        )
        if plain:
            evaluate = blockwise.checkpointed_samples if checkpoint else blockwise.reference_samples
            monkeypatch.setattr("priorzoo.backbones.eg3d.renderer.evaluate_samples", lambda *a, checkpoint, e=evaluate, **k: e(*a, **k))
        (micro,) = trainer.micro_batches()
        with Kept() as count:
            scene, _ = trainer.objective._render(micro, "Gmain", frozenset({"depth"}))
        kept.append(count.bytes)
        del scene
        found.append(gradients(trainer))
    assert all(apart(found[0][phase], found[1][phase]) < 1e-12 for phase in found[0])
    assert kept[1] < kept[0]


def test_a_backbone_refuses_what_it_cannot_do(recipe_file: Path, tmp_path: Path) -> None:
    for option in ("checkpoint_rendering", "compile"):
        with pytest.raises(PriorzooError, match=rf"training\.{option}: backbone analytic_sphere cannot do it; set it to false"):
            trainer_of(recipe_file, tmp_path, "backbone={name: analytic_sphere}", f"training.{option}=true")


def test_no_compiler_is_said_before_the_first_step(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(PriorzooError, match=r"training\.compile: torch\.compile does not work here on cpu .*No working C\+\+ compiler"):
        trainer_of(recipe_file, tmp_path, "training.compile=true")


@pytest.mark.slow
def test_compiled_networks_train_alike(recipe_file: Path, tmp_path: Path) -> None:
    # Each way of calling a network is a graph to be compiled, for many seconds: the discriminator takes the generator's fakes.
    few = ("objective.reuse_fakes=true", "priors=null", "backbone.plane_resolution=8", "training.images=20")
    for name in ("false", "true"):
        train(recipe(recipe_file, f"training.compile={name}", *few), tmp_path / name, progress=False)
    for a, b in zip(losses(tmp_path / "false"), losses(tmp_path / "true"), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-4)


def test_a_manner_of_computing_may_change_on_resuming(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(recipe_file, "training.images=8"), tmp_path / "run", progress=False)
    shown = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**shown, "status": "running"}))
    changed = ("training.images=8", "training.checkpoint_rendering=true", "training.memory_format=contiguous", "training.threads=2")
    train(recipe(recipe_file, *changed), tmp_path / "run", resume=True, progress=False)
    assert "results stay the same up to rounding: training.checkpoint_rendering: false -> true; training.mem" in capsys.readouterr().err
    with pytest.raises(PriorzooError, match=r'training\.precision: "32-true" -> bf16-mixed\n--allow-changes'):
        train(recipe(recipe_file, "training.precision=bf16-mixed", *changed), tmp_path / "run", resume=True, progress=False)
    torch.set_num_threads(1)


@pytest.mark.parametrize("allowed", [True, False])
def test_products_are_rounded_as_the_recipe_says_inside_of_a_step_alone(allowed: bool) -> None:
    def now() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = now()
    with tf32(not allowed):
        with Precision("32-true", torch.device("cuda"), tf32=allowed).products():
            assert now() == (allowed, allowed)
        assert now() == (not allowed, not allowed)
        with Precision("32-true", CPU, tf32=allowed).products():
            assert now() == (not allowed, not allowed), "a processor's products are left as they are"
    assert now() == before
