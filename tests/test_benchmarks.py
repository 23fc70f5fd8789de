"""The programs in benchmarks/ run in small, add up, and refuse what is no measurement."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from priorzoo.data.heads import write_heads
from priorzoo.training.flop_count import FlopCount

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import floors
import synthesis
import training_step

SMALL = {
    "name": "eg3d", "z_dim": 4, "w_dim": 8, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 8,
    "decoder_hidden": 4, "feature_channels": 4, "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 4, "samples_fine": 4,
    "superresolution": "2x", "superresolution_channels": [4, 4], "superresolution_input": 8,
    "discriminator_channel_base": 64, "discriminator_channel_max": 8,
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads_as_before() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_floor_of_synthesis_is_the_arithmetic_of_its_layers() -> None:
    """Against the FLOPs that torch itself counts while the slow form of the network runs."""
    with torch.no_grad():
        made = synthesis.Synthesis(synthesis.SMALL)
        floor = made.floor()
        with FlopCount() as count:
            made.image()
    depthwise = 2 * 16 * 1  # per output of the filters, which are not part of the floor
    filters = sum(
        depthwise * layer.weight.shape[0] * layer.resolution**2
        for layer in made.backbone.generator.modules()
        if isinstance(layer, synthesis.SynthesisLayer) and layer.up
    )
    arithmetic = sum(one.flops * one.count for one in floor)
    assert arithmetic < count.total < 1.1 * (arithmetic + filters)
    assert {one.part for one in floor} == set(synthesis.PARTS)
    assert sum(one.name.startswith("grid sample") for one in floor) == 2


def test_synthesis_is_measured_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert synthesis.main(["--small", "--rounds", "1", "--threads", "1", "--clock", "processor", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["seconds"] == pytest.approx(sum(part["seconds"] for part in figures["parts"].values()))
    assert figures["floor_seconds"] == pytest.approx(sum(one["seconds"] for one in figures["operations"]))
    assert figures["share_of_floor"] == pytest.approx(figures["floor_seconds"] / figures["seconds"])
    assert figures["peak_temporary_bytes"] > figures["largest_layer_bytes"] > 0
    assert figures["circumstances"]["command"].startswith("python benchmarks/synthesis.py --small")
    assert "floor/time" in capsys.readouterr().out


def test_a_slow_floor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    slow = {"floor_of_matrix_product": 0.49, "floor_flops_per_second": 49e9, "matrix_product_flops_per_second": 100e9}
    monkeypatch.setattr(synthesis, "measure", lambda *_, **__: slow)
    assert synthesis.main(["--rounds", "1", "--threads", "1", "--json", str(out)]) == 1
    shown = capsys.readouterr()
    assert "49.0 GFLOP/s, under 50 % of a matrix product's 100.0" in shown.err and not shown.out and not out.exists()
    assert synthesis.refusal({**slow, "floor_of_matrix_product": 0.5}) is None
    with pytest.raises(SystemExit):
        synthesis.main(["--small", "--threads", "2", "--clock", "processor"])
    assert "needs --threads 1" in capsys.readouterr().err


def test_an_operation_takes_its_best_form() -> None:
    one = floors.Operation("part", "name", flops=6.0, bytes=1.0, forms=dict, count=2)
    one.seconds = {(1, "slow"): 3.0, (1, "fast"): 1.0, (2, "slow"): 0.5}
    assert (one.best(1), one.best(2), one.best_form(1)) == (2.0, 1.0, "fast")
    reading = floors.Operation("part", "grid", flops=0.0, bytes=1.0, forms=dict)
    reading.seconds = {(1, "only"): 5.0}
    assert floors.rate([one, reading], 1) == 6.0 and floors.best_rate([one], 1) == 6.0


def test_peak_of_temporaries_is_what_is_held_at_once(tmp_path: Path) -> None:
    def work() -> None:
        first = torch.ones(1000, 100)
        del first
        second = torch.ones(2000, 100)
        third = torch.ones(500, 100)
        del second, third

    work()
    assert 4 * 250_000 <= floors.peak_of_temporaries(work, str(tmp_path)) < 4 * 260_000


def test_a_training_step_is_measured_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_heads(tmp_path / "heads.zip", images=4, resolution=16, held_out=0, supersample=1)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump({
        "backbone": SMALL, "segmenter": {"name": "unet"}, "data": {"name": "eg3d", "path": str(tmp_path / "heads.zip")},
        "priors": {"skin": {"name": "ssr", "region": "skin", "erosion": 1, "weight": 1.0}},
        "objective": {"r1": {"gamma": 1.0, "interval": 2}},
        "training": {"images": 16, "batch": 2, "checkpoint": {"every": 100}, "samples": None, "threads": 1},
    }))  # fmt: skip
    out = tmp_path / "out.json"
    assert training_step.main([str(recipe), "training.batch=2", "--precisions", "fp32", "bf16", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["steps"]
    assert [row["precision"] for row in rows] == ["fp32", "bf16"]
    for row in rows:
        assert "prior skin" in row["with"]["shares"] and "segmenter" in row["with"]["shares"]
        assert not {"prior skin", "segmenter"} & set(row["without"]["shares"])
        assert row["with"]["flops"] > row["without"]["flops"] > 0 and row["with"]["share_of_matrix_product"] > 0
    assert "images/s" in capsys.readouterr().out
    assert training_step.main([str(recipe), "priors.skin=null"]) == 2
    assert "no ssr prior" in capsys.readouterr().err
