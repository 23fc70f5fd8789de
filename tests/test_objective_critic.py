"""What stands before the discriminator: blur, noise on labels, augmentation and its controller."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from priorzoo.core.recipe import Recipe
from priorzoo.core.recipe.schema import Augmentation
from priorzoo.core.schedule import Linear
from priorzoo.core.streams import Stream
from priorzoo.data.heads import write_heads
from priorzoo.training.augment import AdaptiveAugmentation
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.critic import blur_taps, blurred, noisy_labels
from priorzoo.training.sources import open_sources
from priorzoo.training.trainer import Trainer, train
from torch import Tensor
from torch.testing import assert_close

EG3D = {
    "name": "eg3d", "z_dim": 4, "w_dim": 8, "plane_resolution": 16, "plane_channels": 4, "channel_base": 128,
    "channel_max": 8, "decoder_hidden": 8, "feature_channels": 4, "noise": "random", "superresolution": "2x", "superresolution_input": 8,
    "superresolution_channels": [8, 8], "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 4, "samples_fine": 4,
    "discriminator_channel_base": 128, "discriminator_channel_max": 8, "discriminator_mapping_layers": 1,
}  # fmt: skip
EVERYTHING = {"blur": 0.8, "label_noise": 0.5, "augmentation": {"probability": 0.7, "adaptive": False}, "pose_swap": 0.5}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    write_heads(path, images=8, resolution=16, held_out=0, supersample=1)
    return path


def recipe(heads: Path, objective: dict[str, Any], **training: object) -> Recipe:
    return Recipe.from_plain({
        "seed": 1, "backbone": EG3D, "data": {"name": "eg3d", "path": str(heads)}, "objective": {"r1": {"interval": 2}, **objective},
        "training": {"images": 16, "batch": 4, "checkpoint": {"every": 100}, "log_every": 4, "samples": None, "threads": 1, **training},
    })  # fmt: skip


def started(given: Recipe, folder: Path) -> Trainer:
    trainer = Trainer(given, folder, open_sources(given, folder))
    trainer.start()
    return trainer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------------------------------------------------- blur


def test_blur_taps_by_hand() -> None:
    # sigma 0.5: half-width floor(1.5) = 1; 2^-(1/0.5)^2 = 1/16; the sum is 1 + 2/16 = 18/16.
    assert blur_taps(0.5) == pytest.approx([1 / 18, 16 / 18, 1 / 18])
    # sigma 1: half-width 3, 2^0, 2^-1, 2^-4, 2^-9
    wanted = [2.0**-9, 2.0**-4, 0.5, 1.0, 0.5, 2.0**-4, 2.0**-9]
    assert blur_taps(1.0) == pytest.approx([tap / sum(wanted) for tap in wanted])
    assert len(blur_taps(10.0)) == 61 and sum(blur_taps(10.0)) == pytest.approx(1.0)
    assert blur_taps(10.0)[40] == pytest.approx(blur_taps(10.0)[30] / 2), "at distance sigma the kernel has fallen to half"
    assert blur_taps(0.33) == [1.0] and blur_taps(0.0) == [1.0], "floor(3 sigma) = 0: no blur"
    assert len(blur_taps(0.334)) == 3


def test_the_published_fade_is_a_linear_schedule() -> None:
    fade = Linear(start=10.0, end=0.0, until=200_000)
    for seen in (0, 32, 100_000, 199_999, 200_000, 10**6):
        assert fade.at(images=seen, steps=0) == pytest.approx(10 * max(1 - seen / 200_000, 0))


def test_blur_against_a_slow_sum_and_zeros_outside() -> None:
    image, sigma = noise(2, 3, 6, 7), 0.9
    taps = blur_taps(sigma)
    reach = len(taps) // 2
    slow = torch.zeros_like(image)
    for y in range(6):
        for x in range(7):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                        slow[..., y, x] += taps[reach + dy] * taps[reach + dx] * image[..., y + dy, x + dx]
    assert_close(blurred(image, sigma), slow)
    # A constant image darkens towards the border, where zeros come in.
    constant = blurred(torch.ones(1, 1, 9, 9, dtype=torch.float64), 0.5)[0, 0]
    assert float(constant[4, 4]) == pytest.approx(1.0)
    assert float(constant[0, 4]) == pytest.approx(17 / 18) and float(constant[0, 0]) == pytest.approx((17 / 18) ** 2)
    assert blurred(image, 0.3) is image


def test_blur_is_differentiable_twice() -> None:
    image = noise(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: blurred(x, 0.7), image)
    assert torch.autograd.gradgradcheck(lambda x: blurred(x, 0.7).square(), image)


def seen_by_the_discriminator(trainer: Trainer, phase: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What each call of the discriminator gets in a phase."""
    calls: list[dict[str, Tensor]] = []
    plain = trainer.backbone.criticise
    with monkeypatch.context() as patch:
        patch.setattr(trainer.backbone, "criticise", lambda seen, label: (calls.append({**seen, "label": label}), plain(seen, label))[1])
        (chosen,) = [p for p in trainer.phases if p.name == phase]
        (micro,) = trainer.micro_batches()
        chosen.terms(micro)
    return calls


def test_blur_reaches_what_the_published_code_blurs(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of fakes and reals, and the raw version of reals; the raw version of fakes stays sharp."""
    sigma = 1.1
    plain, blurry = (started(recipe(heads, {"blur": b}), tmp_path) for b in (0.0, sigma))
    blurry.backbone.load_state_dict(plain.backbone.state_dict())
    for phase in ("Gmain", "Dmain", "R1"):
        calls = zip(*(seen_by_the_discriminator(t, phase, monkeypatch) for t in (plain, blurry)), strict=True)
        for place, (sharp, soft) in enumerate(calls):
            assert_close(soft["image"], blurred(sharp["image"], sigma))
            real = phase == "R1" or place == 1
            expected = blurred(sharp["image_raw"], sigma) if real else sharp["image_raw"]
            assert_close(soft["image_raw"], expected)
            assert torch.equal(soft["label"], sharp["label"])


def test_r1_goes_through_the_blur(heads: Path, tmp_path: Path) -> None:
    """The gradient is taken before the blur, and with respect to the raw image as it was built, blur included."""
    trainer = started(recipe(heads, {"blur": 0.8}), tmp_path)
    trainer.backbone.double()
    (micro,) = trainer.micro_batches()
    micro.real = micro.real.double()
    (term,) = trainer.objective._r1_terms(micro)
    seen = trainer.backbone.critic_input(micro.real)
    image, raw = seen["image"].requires_grad_(), blurred(seen["image_raw"], 0.8).requires_grad_()
    logits = trainer.backbone.criticise({"image": blurred(image, 0.8), "image_raw": raw}, micro.labels)
    slopes = torch.autograd.grad(logits.sum(), [image, raw])
    assert_close(term.value.detach(), sum(s.square().sum(dim=(1, 2, 3)) for s in slopes))
    assert term.weight == 1.0 / 2 * 2


# ------------------------------------------------------------------------------------------------------ noise on labels


def test_label_noise_scales_with_the_global_batch(heads: Path) -> None:
    everyone = torch.zeros(400, 25)
    everyone[:200, 3] = 2.0  # deviation of entry 3: 1, of the others: 0
    labels = everyone.clone()
    noisy = noisy_labels(labels, everyone, 0.1, Stream(0, 0, "label_noise", tuple(range(400))))
    moved = noisy - everyone
    assert torch.equal(labels, everyone), "not in place"
    assert float(moved[:, 3].std()) == pytest.approx(0.1 * 400**0.5 / 399**0.5, rel=0.1)
    assert not bool(moved[:, :3].any()) and not bool(moved[:, 4:].any())
    alone = noisy_labels(labels[:1], labels[:1], 0.1, Stream(0, 0, "label_noise", (0,)))
    assert torch.equal(alone, labels[:1]), "a batch of one has no deviation"


def test_label_noise_reaches_every_call_of_the_discriminator(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for reuse in (False, True):
        plain, noisy = (started(recipe(heads, {"label_noise": s, "reuse_fakes": reuse}), tmp_path) for s in (0.0, 0.5))
        for phase in ("Gmain", "Dmain", "R1"):
            both = zip(*(seen_by_the_discriminator(t, phase, monkeypatch) for t in (plain, noisy)), strict=True)
            for clean, moved in both:
                difference = moved["label"] - clean["label"]
                # Every sample is there, so the deviation is that of the labels seen.
                assert bool((difference.abs() > 0).any(dim=1).all())
                spread = clean["label"].std(dim=0)
                assert not bool(difference[:, spread == 0].any())
                assert float((difference / spread.clamp_min(1e-9)).abs().max()) < 0.5 * 5


# --------------------------------------------------------------------------------------------------------- augmentation


def controller(**options: Any) -> AdaptiveAugmentation:
    return AdaptiveAugmentation(Augmentation(**options), batch=32)


ALONE = SimpleNamespace(world_size=1, device=torch.device("cpu"))


def test_the_controller_by_hand() -> None:
    ada = controller(images=500_000, target=0.6, interval=4)
    step = 32 * 4 / 500_000
    seen = []
    signs = [1.0] * 8 + [-1.0] * 4 + [1.0] * 12  # by step
    for number, sign in enumerate(signs, start=1):
        ada.observe(torch.full((32,), sign))
        ada.after_step(number, ALONE)
        seen.append(ada.probability)
    rises = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]
    assert seen == pytest.approx([step * n for n in rises])


def test_the_mean_is_that_since_the_last_change() -> None:
    ada = controller(images=1_000, target=0.5, interval=2, probability=0.3)
    # Means by interval: (1 + 0.4) / 2 = 0.7 above, (0.9 - 0.1) / 2 = 0.4 below, exactly the target: no change.
    for number, mean in enumerate((1.0, 0.4, 0.9, -0.1, 0.5, 0.5), start=1):
        ada.observe(torch.full((8,), mean))
        ada.after_step(number, ALONE)
    assert ada.probability == pytest.approx(0.3)


def test_probability_has_a_floor_and_no_ceiling() -> None:
    falling, rising = controller(images=64, interval=1), controller(images=16, interval=1)
    for number in range(1, 4):
        falling.observe(torch.tensor([-1.0]))
        rising.observe(torch.tensor([1.0]))
        falling.after_step(number, ALONE)
        rising.after_step(number, ALONE)
    assert falling.probability == 0.0 and rising.probability == pytest.approx(6.0)


def test_a_fixed_probability_stays() -> None:
    fixed = controller(adaptive=False, probability=0.2)
    fixed.observe(torch.ones(4))
    fixed.after_step(4, ALONE)
    fixed.restore({"probability": 0.9, "signs": 1.0, "count": 1.0})
    assert fixed.probability == 0.2


def test_all_processes_decide_alike() -> None:
    """Two processes, of which one saw +1 and the other -1: the sum over both decides."""
    pair = [controller(images=100, target=0.0, interval=1) for _ in range(2)]
    observed = [torch.tensor([1.0, 1.0, 1.0]), torch.tensor([-1.0])]
    sums = torch.tensor([2.0, 4.0])
    for ada, signs in zip(pair, observed, strict=True):
        ada.observe(signs)
        both = SimpleNamespace(world_size=2, device=torch.device("cpu"), all_reduce=lambda t, reduce_op: sums)
        ada.after_step(1, both)
    assert [a.probability for a in pair] == pytest.approx([0.32, 0.32])
    assert pair[0].state() == pair[1].state()


def test_one_sample_is_augmented_alike_in_any_split(heads: Path, tmp_path: Path) -> None:
    """Gradients of every phase in float64 with blur, augmentation and noise on labels, one slice against two."""
    found = []
    for micro in (None, 2):
        trainer = started(recipe(heads, EVERYTHING, micro_batch=micro), tmp_path)
        trainer.backbone.double()
        with torch.no_grad():  # the minibatch deviation acts within a slice: leave it out
            trainer.backbone.discriminator.b4.conv.weight[:, -1] = 0
        trainer.objective.real_labels = trainer.objective.real_labels.double()
        slices = trainer.micro_batches()
        for part in slices:
            part.real, part.labels = part.real.double(), part.labels.double()
        gradients = {}
        for phase in trainer.phases:
            trainer.optimisers[phase.part].step = lambda: None  # type: ignore[assignment,method-assign]
            trainer.runner.run(phase, slices)
            gradients[phase.name] = {n: p.grad.clone() for n, p in trainer.runner.named(phase.part) if p.grad is not None}
        found.append(gradients)
    for phase, expected in found[0].items():
        assert expected and all(bool(g.isfinite().all()) for g in expected.values())
        for name, gradient in expected.items():
            if name != "discriminator.b4.conv.weight":
                assert_close(found[1][phase][name], gradient, rtol=1e-6, atol=1e-11)


def test_augmentation_off_is_as_if_absent(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, zero = (started(recipe(heads, o), tmp_path) for o in ({}, {"augmentation": {"adaptive": False}}))
    for phase in ("Gmain", "Dmain", "R1"):
        for plain, seen in zip(*(seen_by_the_discriminator(t, phase, monkeypatch) for t in (absent, zero)), strict=True):
            assert torch.equal(plain["image"], seen["image"])
            # As published, the raw image goes to the image's size and back also where nothing acts.
            there = torch.nn.functional.interpolate(plain["image_raw"], (16, 16), mode="bilinear", antialias=True)
            back = torch.nn.functional.interpolate(there, (8, 8), mode="bilinear", antialias=True)
            assert_close(seen["image_raw"], back)


def test_probability_is_logged_kept_and_resumed(heads: Path, tmp_path: Path) -> None:
    adaptive = {**EVERYTHING, "augmentation": {"images": 100, "interval": 2, "probability": 0.4, "target": 0.1}}

    def state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        last = checkpoint_folders(folder)[-1]
        return json.loads((last / "state.json").read_text()), read_checkpoint(last).model

    train(recipe(heads, adaptive, images=24), tmp_path / "whole", progress=False)
    train(recipe(heads, adaptive, images=12), tmp_path / "halves", progress=False)  # three steps: between two changes
    pending = state(tmp_path / "halves")[0]["objective"]["augmentation"]
    assert pending["count"] == 4 and abs(pending["probability"] - 0.4) == pytest.approx(0.08)
    train(recipe(heads, adaptive, images=24), tmp_path / "halves", resume=True, allow_changes=True, progress=False)
    whole, halves = state(tmp_path / "whole"), state(tmp_path / "halves")
    assert whole[0]["objective"] == halves[0]["objective"]
    assert all(torch.equal(whole[1][name], halves[1][name]) for name in whole[1])
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    expected, signs = 0.4, []
    for line in lines:
        assert line["augmentation/p"] == pytest.approx(expected)
        signs.append(line["D/sign_real"])
        if len(signs) == 2:
            expected += 0.08 if sum(signs) / 2 > 0.1 else -0.08  # 4 * 2 / 100
            signs = []
