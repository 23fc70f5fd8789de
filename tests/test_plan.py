"""`priorzoo plan`: what the measured steps say, and what follows from them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from priorzoo.cli.main import main
from priorzoo.core.errors import PriorzooError
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.training import planning
from priorzoo.training.flop_count import FlopCount
from priorzoo.training.phase_clock import BESIDE
from priorzoo.training.planning import Plan, Probe, _probe, held_bytes, read_memory
from priorzoo.training.probe import probe as run_probe
from priorzoo.training.stand_ins import with_stand_ins

GIB = 2**30
PARTS = {"generator: backbone": 10, "discriminator": 4, "(segmenter)": 3}


def probe(size: int, gibibytes: float, **fields: Any) -> Probe:
    values: dict[str, Any] = {
        "parameters": PARTS, "seconds": {"Gmain": 1.0 * size, "R1": 8.0 * size}, "intervals": {"Gmain": 1, "R1": 16},
        "flops": {"Gmain": 2e9, "R1": 16e9} if size == 1 else {}, "device": "cpu",
    }  # fmt: skip
    return Probe(micro_batch=size, peak=int(gibibytes * GIB), **{**values, **fields})


def fake(group: int | None = 4, devices: int = 8, batch: int = 32) -> Plan:
    return Plan([probe(1, 5), probe(2, 7)], batch=batch, images=16_000, devices=devices, group=group)


# ------------------------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize(
    ("memory", "largest", "chosen", "accumulated"),
    [(4, 0, 0, None), (5, 1, 1, 4), (8.9, 2, 2, 2), (10.9, 3, 2, 2), (11, 4, 4, 1), (80, 38, 4, 1)],
)
def test_the_largest_micro_batch_that_fits_divides_a_devices_share(
    memory: float, largest: int, chosen: int, accumulated: int | None
) -> None:
    plan = fake()
    assert plan.share == 4 and plan.each == 2 * GIB
    assert plan.largest(int(memory * GIB)) == largest and plan.micro_batch(int(memory * GIB)) == chosen
    assert accumulated is None or plan.accumulated(chosen) == accumulated


def test_a_micro_batch_below_the_discriminators_group_is_warned_of() -> None:
    (warning,) = fake().warnings(8 * GIB)
    assert "a micro-batch of 2 is smaller than the group of 4" in warning and "training.checkpoint_rendering=true" in warning
    assert fake().warnings(11 * GIB) == [] and fake(group=None).warnings(8 * GIB) == []
    assert fake(devices=16).warnings(80 * GIB) == [], "a share of 2 has no group of 4, whatever the memory"
    (warning,) = fake().warnings(3 * GIB)
    assert warning.startswith("not even one sample fits: 5.00 GiB are needed")


def test_time_and_operations_count_lazy_phases_by_their_interval() -> None:
    plan = fake()
    assert plan.probes[-1].clock().seconds_for(1000) == pytest.approx(1000 * (1 + 8 / 16))
    assert plan.probes[0].flops_for(1000) == pytest.approx(1000 * (2e9 + 16e9 / 16))


def test_what_is_held_whatever_the_micro_batch() -> None:
    # Generator: itself, average, gradient, two moments; discriminator: itself, gradient, two moments; segmenter: itself.
    assert held_bytes(PARTS) == 4 * (5 * 10 + 4 * 4 + 3)


@pytest.mark.parametrize(("text", "wanted"), [("24GB", 24 * 10**9), ("24 GiB", 24 * GIB), (" 512mib", 2**29), ("1.5gb", 15 * 10**8)])
def test_amounts_of_memory(text: str, wanted: int) -> None:
    assert read_memory(text) == wanted


@pytest.mark.parametrize("text", ["24", "GB", "-1GB", "0GB", "24 GB of it", "24XB", "1,5GB", ""])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(PriorzooError, match=r"is no amount of memory; allowed: .* one of MB, GB, TB, MiB, GiB, TiB, such as 24GB"):
        read_memory(text)


def test_operations_are_counted_forward_and_backward_and_twice() -> None:
    x, w = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
    with FlopCount() as counter:
        (slope,) = torch.autograd.grad((x @ w).square().sum(), x, create_graph=True)
    assert counter.total == 2 * 2 * 3 * 5 * 7, "the product and its derivative"
    with FlopCount() as counter:
        slope.square().sum().backward()
    assert counter.total >= 2 * 2 * 3 * 5 * 7
    image, kernel = torch.ones(1, 2, 8, 8), torch.ones(4, 2, 3, 3)
    with FlopCount() as counter:
        torch.nn.functional.conv2d(image, kernel, padding=1)
    assert counter.total == 2 * 8 * 8 * 4 * 2 * 9


FORGOTTEN = """
import torch
from priorzoo.training.peak_memory import forget_peak, peak_memory
cpu = torch.device("cpu")
forget_peak(cpu)
before = peak_memory(cpu)
torch.ones(40, 2**20)
held = peak_memory(cpu)
forget_peak(cpu)
print(held - before > 150 * 2**20, peak_memory(cpu) < held)
"""


def test_a_forgotten_peak_no_longer_counts() -> None:
    # In a process of its own: after other tests freed memory may stay with this one, and an allocation need not grow it.
    done = subprocess.run([sys.executable, "-c", FORGOTTEN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]


# ------------------------------------------------------------------------------------------------------------- measured


def ready(folder: Path, *overrides: str) -> Recipe:
    return with_stand_ins(load_recipe("heads/eg3d_ssr", ["training.threads=1", *overrides]), folder / "stand_ins", lambda _: None)


@pytest.mark.slow
def test_the_memory_of_four_follows_from_one_and_two(tmp_path: Path) -> None:
    recipe = ready(tmp_path)
    measured = {size: _probe(recipe, size, tmp_path) for size in (1, 2, 4)}
    plan = Plan([measured[1], measured[2]], batch=8, images=1000)
    growth = measured[4].peak - measured[1].peak
    assert growth > 50 * 2**20, "more samples take more memory"
    assert plan.peak(4) - plan.peak(1) == pytest.approx(growth, rel=0.3)
    assert plan.peak(4) == pytest.approx(measured[4].peak, rel=0.1)
    assert measured[1].parameters == measured[4].parameters and measured[1].flops and not measured[2].flops


def test_every_phase_is_measured(tmp_path: Path) -> None:
    plain = run_probe(ready(tmp_path, "training.batch=1"), tmp_path / "data")
    measured = Probe.from_plain(json.loads(json.dumps(plain)))
    phases = {"Gmain": 1, "prior/density_tv": 4, "Dmain": 1, "R1": 16}
    assert measured.micro_batch == 1 and measured.intervals == {BESIDE: 1, **phases}
    assert set(measured.seconds) == {BESIDE, *phases} and all(s > 0 for s in measured.seconds.values())
    assert set(measured.flops) == set(phases)
    assert measured.flops["Gmain"] > measured.flops["prior/density_tv"] > 1e6
    # R1's gradient of a gradient alone costs more than half of the discriminator's pass over a real and a generated image.
    assert measured.flops["R1"] > 0.5 * measured.flops["Dmain"]
    assert sum(n for name, n in measured.parameters.items() if name.startswith("generator")) == 310_261


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(planning, "plan", lambda recipe, say: (asked.append(recipe.training.devices), fake())[1])
    out = tmp_path / "plan.json"
    assert main(["plan", "ffhq/eg3d_ssr", "--memory", "8GiB", "--devices", "8", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert asked == [8], "files need not be there"
    assert "5.00 GiB at 1, 7.00 GiB at 2; each further sample 2.00 GiB" in shown
    assert "batch 32 over 8 devices: 4 images each; in 8.00 GiB fits training.micro_batch=2 (7.00 GiB), 2 of them" in shown
    assert "warning: a micro-batch of 2 is smaller than the group of 4" in shown
    assert "3.0 TFLOP for 1,000 images" in shown and "25 minutes for 1,000 images" in shown
    assert "16,000 images: 50 minutes on 8 such devices at best" in shown
    told = json.loads(out.read_text())
    assert told["micro_batch"] == 2 and told["bytes_per_sample"] == 2 * GIB and told["seconds_in_all"] == pytest.approx(3000)
    assert main(["plan", "ffhq/eg3d_ssr", "--memory", "8"]) == 2
    assert "error: --memory: '8' is no amount of memory" in capsys.readouterr().err


def test_small_figures_are_shown_in_small_units(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed as zero that is not; and what a CPU's peak holds besides is said, of a GPU's not."""
    flops = {"Gmain": 4e6, "R1": 0.0}
    probes = [probe(n, (0.3 + 0.001 * n), flops=flops if n == 1 else {}) for n in (1, 2)]
    monkeypatch.setattr(planning, "plan", lambda recipe, say: Plan(probes, batch=8, images=16_000))
    assert main(["plan", "heads/eg3d_base"]) == 0
    shown = capsys.readouterr().out
    assert "308.22 MiB at 1, 309.25 MiB at 2; each further sample 1.02 MiB" in shown and "optimisers: 0.27 KiB" in shown
    assert "4.0 GFLOP for 1,000 images" in shown and "0.00" not in shown
    assert "on a CPU that is the memory of the whole process" in shown
    probes = [replace(one, device="cuda") for one in probes]
    assert main(["plan", "heads/eg3d_base"]) == 0
    assert "whole process" not in capsys.readouterr().out


def test_two_samples_that_do_not_fit_here_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(recipe: Any, size: int, folder: Path) -> Probe:
        if size == 2:
            raise PriorzooError("a step of 2 images cannot be measured here: the system ended it: out of memory")
        return probe(1, 5)

    told: list[str] = []
    monkeypatch.setattr(planning, "_probe", run)
    made = planning.plan(load_recipe("heads/eg3d_ssr"), say=told.append)
    assert len(made.probes) == 1 and made.each == 0 and "out of memory; what follows rests on one sample alone" in told[-1]


@pytest.mark.parametrize(
    ("code", "stderr", "says"), [(2, "a\nerror: data x: bad\n", "data x: bad"), (-9, "", "out of memory"), (1, "", "nothing")]
)
def test_a_failed_measure_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, stderr: str, says: str) -> None:
    monkeypatch.setattr(planning.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, "", stderr))
    with pytest.raises(PriorzooError, match=f"a step of 1 image cannot be measured here: .*{says}"):
        _probe(load_recipe("heads/eg3d_ssr"), 1, tmp_path)
