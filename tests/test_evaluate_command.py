"""`priorzoo evaluate`: on several processes, by another recipe, of an official file, on the machine at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import analytic  # noqa: F401  registers the analytic backbone and segmenter
import numpy as np
import pytest
from priorzoo.cli.main import main
from priorzoo.core.recipe import Recipe
from priorzoo.core.recipe.schema import Evaluation, GeometrySampling, Inversion, Training
from priorzoo.data.heads import HeadsFiles, write_heads
from priorzoo.metrics.protocol import Result, require_equal_protocols
from priorzoo.training.measuring import evaluator_for, measuring_plan
from priorzoo.training.run import build_backbone
from priorzoo.training.sources import open_sources
from published_pickle import write_published_pickle
from safetensors.torch import save_file

PLAN = Evaluation(
    images=11, batch=2, geometry_samples=5, held_out=3, sampling=GeometrySampling(coarse=6, fine=0),
    inversion=Inversion(steps=2, learning_rate=0.1, resolution=8),
)  # fmt: skip
BALL = {"name": "analytic_sphere", "neural_resolution": 16, "image_resolution": 16}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> HeadsFiles:
    return write_heads(tmp_path_factory.mktemp("heads") / "heads.zip", images=10, resolution=16, held_out=4, supersample=1)


@pytest.fixture
def weights(heads: HeadsFiles, tmp_path: Path) -> Path:
    """Weights with a card, to be measured on the heads."""
    plain = {
        "backbone": BALL, "segmenter": {"name": "analytic_colours"}, "training": {"images": 4},
        "data": {"name": "eg3d", "path": str(heads.images), "held_out": str(heads.held_out), "truth": str(heads.truth)},
        "evaluation": PLAN.model_dump(),
    }  # fmt: skip
    recipe = Recipe.from_plain(plain)
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(
        {f"generator.{k}": v.contiguous() for k, v in build_backbone(recipe).generator.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "card.json").write_text(json.dumps({"recipe": recipe.to_plain()}))
    return folder


@pytest.mark.slow
def test_two_processes_measure_what_one_does(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`priorzoo evaluate --devices 2` over gloo, against one process."""
    (tmp_path / "driver.py").write_text("import analytic, sys; from priorzoo.cli.main import main; sys.exit(main(sys.argv[1:]))")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = ["evaluate", str(weights), "--device", "cpu", "--out", str(tmp_path / "two.json"), "--devices", "2"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), *command], capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("two.json") == 1 and "FD(heads)" in done.stdout  # the first process alone prints
    assert main(["evaluate", str(weights), "--device", "cpu", "--out", str(tmp_path / "one.json")]) == 0
    one, two = Result.load(tmp_path / "one.json"), Result.load(tmp_path / "two.json")
    require_equal_protocols([one, two])
    assert one.features is not None and two.features is not None
    assert float(np.abs(one.features - two.features).max()) <= 1e-6
    for key in one.columns():
        assert np.allclose(one.terms[key], two.terms[key], rtol=1e-9, atol=1e-6, equal_nan=True), key
    assert not list(tmp_path.glob("*.unfinished"))


def test_real_images_are_not_mirrored(heads: HeadsFiles, tmp_path: Path) -> None:
    """EG3D's FID: generated images against all real ones as they are stored, cameras drawn from theirs."""
    plain = {"backbone": BALL, "training": {"images": 8}, "data": {"name": "eg3d", "path": str(heads.images), "mirror": True}}
    recipe = Recipe.from_plain(plain)
    assert len(open_sources(recipe, tmp_path).train) == 20
    measured = evaluator_for(recipe, tmp_path)
    assert len(measured.data.real) == len(measured.data.real.labels) == 10


def test_the_machine_decides_how_many_measure_unless_told() -> None:
    plan = Training(images=8, batch=16, devices=8, nodes=2)
    on_this = measuring_plan(plan, device="cpu")
    assert (on_this.devices, on_this.nodes, on_this.accelerator) == (1, 1, "cpu")
    assert measuring_plan(plan, device="cpu", devices=3).devices == 3
    assert measuring_plan(plan.model_copy(update={"accelerator": "cpu"})).devices == 8


def test_another_recipe_gives_data_and_protocol(
    weights: Path, heads: HeadsFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that know no data need --recipe, or the data as an override; an extractor of another recipe is its protocol."""
    monkeypatch.chdir(tmp_path)
    card = json.loads((weights / "card.json").read_text())
    card["recipe"]["data"] = None
    (weights / "card.json").write_text(json.dumps(card))
    assert main(["evaluate", "weights"]) == 2
    assert "weights: nothing is known of the data" in (error := capsys.readouterr().err) and "--recipe" in error and "data.path=" in error
    (tmp_path / "table.yaml").write_text(
        f"backbone: {{name: analytic_sphere, image_resolution: 16}}\ndata: {{name: eg3d, path: {heads.images}}}\n"
        "segmenter: {name: analytic_colours}\ntraining: {images: 8}\nevaluation: {images: 5, batch: 4, geometry_samples: 2}\n"
    )
    assert main(["evaluate", "weights", "--recipe", "table.yaml", "evaluation.batch=2", "--device", "cpu"]) == 0
    result = Result.load(tmp_path / "runs" / "weights" / "results" / "evaluation.json")
    assert result.protocol["images"]["count"] == 5 and len(result.terms["sr_skin"]) == 2
    assert main(["evaluate", "weights", "--recipe", "table.yml"]) == 2
    assert "table.yml" in capsys.readouterr().err
    large = (tmp_path / "table.yaml").read_text().replace("image_resolution: 16", "image_resolution: 16, neural_resolution: 8")
    (tmp_path / "table.yaml").write_text(large)
    assert main(["evaluate", "weights", "--recipe", "table.yaml", "backbone.radius=0.3"]) == 2
    assert "would change the model" in capsys.readouterr().err
    assert main(["evaluate", "weights", "data.name=eg3d", f"data.path={heads.images}", "--device", "cpu", "--out", "b.json"]) == 0


def test_an_official_file_is_measured_by_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`priorzoo evaluate FILE.pkl --recipe R`: conditioned and rendered as the file says, by R's data and protocol."""
    monkeypatch.chdir(tmp_path)
    write_published_pickle(Path("tiny.pkl"))
    for side in (128, 16):
        write_heads(Path(f"{side}.zip"), images=5, resolution=side, held_out=0, supersample=1)
        Path(f"r{side}.yaml").write_text(
            f"backbone: {{name: analytic_sphere, image_resolution: {side}}}\ndata: {{name: eg3d, path: {side}.zip}}\n"
            "training: {images: 8}\nevaluation: {images: 4, batch: 2}\n"
        )
    assert main(["evaluate", "tiny.pkl", "--recipe", "r128.yaml", "--device", "cpu"]) == 0
    result = Result.load(tmp_path / "runs" / "tiny" / "results" / "evaluation.json")
    assert result.protocol["conditioned"] is True and result.protocol["images"]["resolution"] == 128
    assert result.protocol["images"]["sampling"] == "random" and len(result.terms["fd_heads"]) == 4
    assert main(["evaluate", "tiny.pkl"]) == 2
    assert "tiny.pkl: nothing is known of the data" in capsys.readouterr().err
    assert main(["evaluate", "tiny.pkl", "--recipe", "r16.yaml", "--device", "cpu"]) == 2
    assert "images of 16 x 16 pixels, the backbone makes 128 x 128" in capsys.readouterr().err


def test_files_that_measuring_does_not_read_need_not_be_there(
    weights: Path, heads: HeadsFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another recipe starts from is not asked for; its data and its features' weights are, all at once and before anything."""
    monkeypatch.chdir(tmp_path)
    text = (
        "backbone: {name: analytic_sphere, image_resolution: 16}\ninit: nowhere.pkl\nsegmenter: {name: analytic_colours}\n"
        "training: {images: 8}\nevaluation: {images: 5, batch: 4, geometry_samples: 2}\n"
    )
    Path("table.yaml").write_text(f"{text}data: {{name: eg3d, path: {heads.images}}}\n")
    assert main(["evaluate", "weights", "--recipe", "table.yaml", "--device", "cpu", "--out", "a.json"]) == 0
    assert Path("a.json").is_file()
    capsys.readouterr()
    Path("table.yaml").write_text(f"{text}data: {{name: eg3d, path: gone.zip}}\n")
    words = ["evaluation.features=inception", "evaluation.inception_weights=inception.pth"]
    assert main(["evaluate", "weights", "--recipe", "table.yaml", *words, "--out", "b.json"]) == 2
    error = capsys.readouterr().err
    assert "data.path: no such file" in error and "evaluation.inception_weights: no such file" in error and "nowhere.pkl" not in error
    assert main(["evaluate", "weights", "data.path=gone.zip", "data.truth=null", "data.held_out=null", "--out", "b.json"]) == 2
    assert "data.path: no such file" in capsys.readouterr().err and not Path("b.json").exists()
