"""The trainer's parts, each against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from priorzoo.core.errors import CheckpointError, RunError
from priorzoo.training.averaging import average_decay, update_average
from priorzoo.training.checkpoints import (
    Checkpoint,
    checkpoint_folders,
    load_module,
    load_optimiser,
    optimiser_tensors,
    read_checkpoint,
    write_checkpoint,
)  # fmt: skip
from priorzoo.training.journal import Journal, read_metrics
from priorzoo.training.optimiser import first_nonfinite, gradients_finite, lazy_adam, lazy_ratio, replace_nonfinite
from priorzoo.training.order import image_at
from priorzoo.training.run import locked
from priorzoo.training.terms import Term


def test_lazy_adam_carries_the_published_numbers() -> None:
    # EG3D: G 0.0025 with a phase every 4 steps, D 0.002 with R1 every 16.
    weight = torch.nn.Parameter(torch.zeros(1))
    group = lazy_adam([[weight]], 0.0025, (0.0, 0.99), [4]).param_groups[0]
    assert group["lr"] == pytest.approx(0.002) and group["betas"][1] == pytest.approx(0.99199, abs=1e-5)
    group = lazy_adam([[weight]], 0.002, (0.0, 0.99), [16]).param_groups[0]
    assert group["lr"] == pytest.approx(0.00188235, abs=1e-8) and group["betas"][1] == pytest.approx(0.990585, abs=1e-6)
    assert lazy_ratio([4, 4]) == pytest.approx(1 / 1.5)


def test_average_follows_the_half_life() -> None:
    old, new = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        old.weight.fill_(0.0)
        new.weight.fill_(1.0)
    update_average(old, new, average_decay(100, 10**9, 100, 0.05))
    assert old.weight.item() == pytest.approx(0.5)
    assert average_decay(32, 1000, 10_000, 0.05) == pytest.approx(0.5 ** (32 / 50))


def test_order_is_a_fresh_permutation_every_pass() -> None:
    passes = [[image_at(3, e * 10 + i, 10) for i in range(10)] for e in range(3)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0] != passes[1]
    assert image_at(4, 0, 10**6) != image_at(3, 0, 10**6)


def test_term_reduces_over_the_global_batch() -> None:
    first = Term("t", torch.tensor([1.0, 3.0]), weight=2.0, count=torch.tensor([1.0, 3.0]))
    second = Term("t", torch.tensor([5.0]), weight=2.0, count=torch.tensor([4.0]))
    total = float(first.total_count() + second.total_count())
    # 2 * (1*1 + 3*3 + 5*4) / 8
    assert float(first.share(total) + second.share(total)) == pytest.approx(2 * 30 / 8)
    assert float(Term("t", torch.tensor([7.0]), count=torch.tensor([0.0])).share(0.0)) == 0.0


def test_nonfinite_gradients_are_seen_and_replaced() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    a.grad, b.grad = torch.zeros(2), torch.tensor([float("nan"), float("-inf")])
    assert gradients_finite([a]) and not gradients_finite([a, b])
    assert first_nonfinite([("a", a.grad), ("none", None), ("b", b.grad)]) == "b"
    replace_nonfinite([a, b])
    assert b.grad.tolist() == [0.0, -1e5]


def _checkpoint(number: float) -> Checkpoint:
    return Checkpoint({"generator.w": torch.full((2,), number)}, {"generator.w|step": torch.tensor(3.0)}, {"images": int(number)})


def test_checkpoints_keep_the_newest_and_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        write_checkpoint(tmp_path, f"{number:09d}", _checkpoint(number), keep=2)
    assert [p.name for p in checkpoint_folders(tmp_path)] == ["000000002", "000000003"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("priorzoo.training.checkpoints.save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*untouched"):
        write_checkpoint(tmp_path, "000000004", _checkpoint(4), keep=2)
    assert [p.name for p in checkpoint_folders(tmp_path)] == ["000000002", "000000003"]
    assert read_checkpoint(tmp_path / "checkpoints" / "000000003").model["generator.w"].tolist() == [3.0, 3.0]


def test_a_half_written_checkpoint_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".partial-000000009").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".partial-000000009" / "state.json").write_text("{}")
    assert checkpoint_folders(tmp_path) == []
    write_checkpoint(tmp_path, "000000001", _checkpoint(1), keep=1)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000000001"]


def test_a_cut_checkpoint_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, "000000001", _checkpoint(1), keep=1)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-3])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_checkpoint(folder)


def test_weights_that_do_not_fit_are_listed() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_module(torch.nn.Linear(2, 3), {"weight": torch.zeros(3, 4), "bia": torch.zeros(3)}, "file.safetensors")
    text = str(caught.value)
    assert "file.safetensors" in text and "missing: bias" in text and "did you mean 'bias'" in text
    assert "weight: file [3, 4], model [3, 2]" in text


def test_optimiser_state_returns_to_its_parameter() -> None:
    def trained() -> tuple[torch.nn.Linear, torch.optim.Adam]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(2, 2)
        adam = lazy_adam([layer.parameters()], 0.1, (0.0, 0.99), [])
        for _ in range(3):
            adam.zero_grad()
            layer(torch.ones(1, 2)).square().sum().backward()
            adam.step()
        return layer, adam

    layer, adam = trained()
    stored = optimiser_tensors(adam, {p: n for n, p in layer.named_parameters()})
    other = torch.nn.Linear(2, 2)
    fresh = lazy_adam([other.parameters()], 0.1, (0.0, 0.99), [])
    load_optimiser(fresh, stored, other.named_parameters())
    for mine, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        for key, value in adam.state[mine].items():
            assert torch.equal(value, fresh.state[theirs][key])


def test_journal_means_and_the_warning_of_a_blind_term(tmp_path: Path) -> None:
    journal = Journal(tmp_path, batch=2)
    for value, pixels in ((1.0, 0.0), (3.0, 0.0)):
        journal.add(Term("prior/skin", torch.full((2,), value), weight=10.0, pixels=torch.full((2,), pixels)), 2.0)
        journal.add(Term("G/adversarial", torch.full((2,), value)), 2.0)
    with pytest.warns(UserWarning, match="prior 'skin' saw no pixel in the 4 images before image 4"):
        record = journal.line(4, 2, {})
    assert record["prior/skin/raw"] == 2.0 and record["prior/skin/weighted"] == 20.0
    assert record["prior/skin/pixels"] == 0.0 and record["G/adversarial"] == 2.0
    journal.write(record)
    journal.write({**record, "images": 8})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"images": 12, "G/adv')  # cut by a kill
    assert [r["images"] for r in read_metrics(tmp_path)] == [4, 8]
    journal.rewind(4)
    assert [json.loads(line)["images"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [4]


def test_a_run_has_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="another process is using this run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
