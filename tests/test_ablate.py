"""Ablation: every variant from one start, measured alike, resumed where it stopped, refused where it cannot be paired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import AnalyticSphere
from priorzoo.cli.main import main
from priorzoo.core.errors import PriorzooError, RunError
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.data.heads import HeadsFiles, write_heads
from priorzoo.export.report import write_report
from priorzoo.export.subjects import read_subjects
from priorzoo.metrics.images import HeadsFeatures
from priorzoo.metrics.protocol import Result
from priorzoo.training.ablation import BASE, RESULT, is_ablation, load_ablation, run_ablation, switches
from priorzoo.training.checkpoints import Checkpoint, write_checkpoint
from priorzoo.training.run import Run, locked

RECIPE = """
backbone: {name: analytic_sphere, neural_resolution: 16, image_resolution: 16}
init: start
data: {name: eg3d, path: heads.zip, held_out: heads.held_out.zip, truth: heads.truth.zip}
segmenter: {name: analytic_colours}
priors:
  skin: {name: ssr, region: skin, erosion: 1, weight: 2.0}
  eyes: {name: ssr, region: [left_eye, right_eye], erosion: 1, weight: 1.0}
objective: {r1: {gamma: 0.1, interval: 4}}
training: {images: 16, batch: 4, log_every: 8, samples: null}
evaluation: {images: 8, batch: 4, geometry_samples: 4, held_out: 2, inversion: {steps: 2}, sampling: {coarse: 6, fine: 0}}
variants:
  finetune: {priors: {skin: null, eyes: null}}
  skin: {priors: {eyes: null}}
  skin_eyes: {}
"""


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> HeadsFiles:
    """A few heads, written once."""
    return write_heads(tmp_path_factory.mktemp("heads") / "heads.zip", 8, 16, held_out=4)


@pytest.fixture
def recipe_file(tmp_path: Path, heads: HeadsFiles) -> Path:
    """A recipe with three variants, and the ball that they start from."""
    for file in (heads.images, heads.held_out, heads.truth):
        (tmp_path / file.name).symlink_to(file)
    path = tmp_path / "table.yaml"
    path.write_text(RECIPE)
    start = tmp_path / "start"
    start.mkdir()
    (start / "recipe.yaml").write_text("\n".join(line for line in RECIPE.split("variants:")[0].splitlines() if "init" not in line))
    ball = AnalyticSphere(neural_resolution=16, image_resolution=16)
    tensors = {f"{part}.{k}": v for part in ("generator", "average") for k, v in ball.generator.state_dict().items()}
    tensors |= {f"discriminator.{k}": v for k, v in ball.discriminator.state_dict().items()}
    write_checkpoint(start, "000000100", Checkpoint(tensors, {"none": torch.zeros(1)}, {"images": 100}), keep=1)
    return path


def recipe(path: Path, *overrides: str) -> Recipe:
    return load_recipe(path, overrides)


class Measure:
    """Invents results that tell the subject, remembers who asked, and may be interrupted."""

    def __init__(self, interrupted_at: str = "") -> None:
        self.asked: list[str] = []
        self.interrupted_at = interrupted_at

    def __call__(self, run: Run, subject: str) -> Result:
        if subject == self.interrupted_at:
            raise KeyboardInterrupt
        self.asked.append(subject)
        values = float(len(subject)) + np.arange(6.0) + 0.01 * np.random.default_rng(len(subject)).normal(size=6)
        return Result(subject, {"seed": 0}, {"truth_depth": values, "sr_skin": values}, {"sr_skin": np.full(6, 20.0)})


def test_all_variants_are_trained_and_measured_and_nothing_is_done_twice(recipe_file: Path, tmp_path: Path) -> None:
    measure, folder, said = Measure(), tmp_path / "out", list[str]()
    made = run_ablation(recipe(recipe_file), folder, progress=False, measure=measure, say=said.append)
    assert measure.asked == [row.name for row in made.rows] == [BASE, "finetune", "skin", "skin_eyes"]
    assert said[0].startswith("base: measuring the start") and "skin_eyes: training" in said
    assert [row.images for row in made.rows] == [100, 16, 16, 16]
    assert made.rows[2].switches == {"R1": True, "skin": True, "eyes": False}
    assert not any(made.rows[0].switches.values())
    weights = {name: (folder / name / "checkpoints/000000016/model.safetensors") for name in ("finetune", "skin", "skin_eyes")}
    contents = {name: path.read_bytes() for name, path in weights.items()}
    assert len(set(contents.values())) == 3
    stamps = {path: path.stat().st_mtime_ns for path in weights.values()}

    again = run_ablation(recipe(recipe_file), folder, progress=False, measure=measure)
    assert len(measure.asked) == 4 and again.rows == made.rows
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_results_hold_values_and_paired_differences_to_the_control(recipe_file: Path, tmp_path: Path) -> None:
    run_ablation(recipe(recipe_file), tmp_path / "out", progress=False, measure=Measure())
    plain = json.loads((tmp_path / "out" / "results.json").read_text())
    assert plain["control"] == "finetune" and plain["recipe"].endswith("table.yaml")
    columns = {row["name"]: row["columns"] for row in plain["rows"]}
    assert "difference_to_control" not in columns["finetune"]["truth_depth"]
    shift = columns["skin"]["truth_depth"]["difference_to_control"]
    assert shift["low"] < shift["value"] < shift["high"] and abs(shift["value"] - (len("skin") - len("finetune"))) < 0.05
    to_true = columns["skin"]["sr_skin"]["difference_of_distances_to_true"]
    assert abs(to_true["value"] - 4.0) < 0.05  # lower by 4 where the true value is above both


def test_an_interrupted_ablation_goes_on_where_it_stopped(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_ablation(recipe(recipe_file), folder, progress=False, measure=Measure(interrupted_at="skin"))
    assert [row.name for row in load_ablation(folder).rows] == [BASE, "finetune"]
    measure = Measure()
    whole = run_ablation(recipe(recipe_file), folder, progress=False, measure=measure)
    assert measure.asked == ["skin", "skin_eyes"] and len(whole.rows) == 4
    # A result that vanished is measured again, and only that one.
    (folder / "skin" / RESULT).unlink()
    run_ablation(recipe(recipe_file), folder, progress=False, measure=measure)
    assert measure.asked == ["skin", "skin_eyes", "skin"]


def test_another_recipe_is_refused_with_what_differs_and_allowed_on_demand(recipe_file: Path, tmp_path: Path) -> None:
    folder, measure = tmp_path / "out", Measure()
    run_ablation(recipe(recipe_file), folder, only=["finetune"], progress=False, measure=measure)
    longer = recipe(recipe_file, "training.images=20")
    with pytest.raises(RunError, match=r"training\.images: 16 -> 20(?s:.*)--allow-changes"):
        run_ablation(longer, folder, only=["finetune"], progress=False, measure=measure)
    made = run_ablation(longer, folder, only=["finetune"], allow_changes=True, progress=False, measure=measure)
    assert made.rows[1].images == 20 and measure.asked == [BASE, "finetune", "finetune"]
    text = recipe_file.read_text().replace("{priors: {eyes: null}}", "{priors: {eyes: null, skin: {weight: 9}}}")
    recipe_file.write_text(text)
    with pytest.raises(RunError, match=r"variants\.skin: priors\.skin\.weight: 2\.0 -> 9"):
        run_ablation(recipe(recipe_file, "training.images=20"), folder, progress=False, measure=measure)


def test_some_variants_alone_have_no_differences_until_the_control_comes(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made = run_ablation(recipe(recipe_file), folder, only=["skin_eyes"], progress=False, measure=Measure())
    assert [row.name for row in made.rows] == [BASE, "skin_eyes"] and "difference" not in (folder / "results.json").read_text()
    made = run_ablation(recipe(recipe_file), folder, only=["finetune"], progress=False, measure=Measure())
    assert [row.name for row in made.rows] == [BASE, "finetune", "skin_eyes"]
    assert "difference_to_control" in (folder / "results.json").read_text()


def test_overrides_reach_every_variant_and_are_remembered(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    changed = recipe(recipe_file, "training.images=8", "objective.r1.gamma=0")
    assert switches(changed) == ["R1", "skin", "eyes"]
    made = run_ablation(changed, folder, only=["skin"], progress=False, measure=Measure())
    assert made.rows[1].images == 8 and made.rows[1].switches == {"R1": False, "skin": True, "eyes": False}
    stored = load_ablation(folder).recipe
    for name in changed.variants:
        assert stored.variant(name).difference(changed.variant(name)) == []
    run_ablation(changed, folder, only=["skin"], progress=False, measure=Measure())  # the same again is no change


@pytest.mark.parametrize(
    ("edit", "only", "message"),
    [
        (lambda text: text, ["skim"], r"no variant 'skim', did you mean 'skin'\?; it has: finetune, skin, skin_eyes"),
        (lambda text: text.split("variants:")[0], [], "has no `variants`"),
        (lambda text: text.replace("skin_eyes: {}", "other: {seed: 7}"), [], "'finetune' and 'other' cannot be paired: seed: 0 -> 7"),
        (lambda text: text.replace("skin_eyes: {}", "b: {evaluation: {seed: 7}}"), [], "cannot be paired: evaluation.seed: 0 -> 7"),
        (lambda text: text.replace("skin_eyes: {}", "b: {training: {images: 32}}"), [], "cannot be paired: training.images: 16 -> 32"),
        (lambda text: text.replace("skin_eyes: {}", "b: {training: {batch: 8}}"), [], "cannot be paired: training.batch: 4 -> 8"),
        (lambda text: text.replace("skin_eyes: {}", "data: {}"), [], "cannot be called 'data'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(
    recipe_file: Path, tmp_path: Path, edit: Callable[[str], str], only: list[str], message: str
) -> None:
    recipe_file.write_text(edit(RECIPE))
    with pytest.raises(PriorzooError, match=message):
        run_ablation(recipe(recipe_file), tmp_path / "out", only=only, progress=False, measure=Measure())
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(RunError, match="another process"):
        run_ablation(recipe(recipe_file), tmp_path / "out", progress=False, measure=Measure())


def test_damaged_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not an ablation \(no results.json\)"):
        load_ablation(tmp_path)
    (tmp_path / "results.json").write_text('{"kind": "priorzoo ablation", "version": 99}')
    assert is_ablation(tmp_path)
    with pytest.raises(RunError, match="version 99"):
        load_ablation(tmp_path)
    (tmp_path / "results.json").write_text('{"kind": "pri')
    with pytest.raises(RunError, match="cannot be read"):
        load_ablation(tmp_path)


def test_a_moved_ablation_can_be_reported(recipe_file: Path, tmp_path: Path) -> None:
    run_ablation(recipe(recipe_file), tmp_path / "out", progress=False, measure=Measure())
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    text = write_report([moved], heads=1, resolution=16).read_text(encoding="utf-8")
    assert "skin_eyes against finetune" in text and "base against" not in text
    assert text.count("data:image/png;base64,") == 4 * 6 + 1
    with pytest.raises(PriorzooError, match="reported alone"):
        write_report([moved, moved / "skin"])


PUBLISHED = """
  published:
    source: A Report, Table 1
    rows:
      base: {fid: 4.30, kid: 0.139}
      finetune: {fid: 3.88, kid: 0.121}
      skin: {fid: 3.81}
      skin_eyes: {fid: 3.62, kid: 0.119, truth_depth: 0.5}
"""


def with_published(path: Path, published: str = PUBLISHED) -> None:
    text = RECIPE.replace("evaluation: {", "evaluation:\n  ").replace("sampling: {coarse: 6, fine: 0}}", "sampling: {coarse: 6, fine: 0}")
    lines = []
    for line in text.splitlines():  # the section in block style, one key a line
        if line.startswith("  images: 8, batch"):
            lines += ["  images: 8", "  batch: 4", "  geometry_samples: 4", "  held_out: 2", "  inversion: {steps: 2}",
                      "  sampling: {coarse: 6, fine: 0}", *published.strip("\n").splitlines()]  # fmt: skip
        else:
            lines.append(line)
    path.write_text("\n".join(lines))


def test_a_published_table_stands_beside_what_was_measured(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows and columns are all there: not run, not measured, or with our number beside theirs; marked with its source."""
    with_published(recipe_file)
    folder = tmp_path / "out"
    run_ablation(recipe(recipe_file), folder, only=["finetune", "skin_eyes"], progress=False, measure=Measure())
    subjects = read_subjects([folder])
    assert subjects.published is not None
    headings, rows = subjects.published.table(subjects.rows)
    assert headings == ["model", "FID ↓", "published", "KID x100 ↓", "published", "depth (deviations) ↓", "published"]
    cells = {row.name: [cell.text for cell in row.cells] for row in rows}
    assert list(cells) == [BASE, "finetune", "skin", "skin_eyes"]
    assert cells["skin"] == ["not run", "3.81", "not run", "–", "not run", "–"]
    assert cells["skin_eyes"] == ["not measured", "3.62", "not measured", "0.119", "11.5", "0.500"]
    text = write_report([folder], heads=1, resolution=16).read_text(encoding="utf-8")
    assert "Beside the published table" in text and "A Report, Table 1" in text and "not run" in text
    assert main(["compare", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "A Report, Table 1" in printed and "not run" in printed and "compared to finetune" in printed
    assert main(["compare", str(folder), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["published"]["rows"]["skin"] == {"fid": 3.81}
    assert [row["subject"] for row in plain["columns"]["truth_depth"]["runs"]] == ["finetune", BASE, "skin_eyes"]
    assert main(["compare", str(folder), str(folder / "finetune")]) == 2
    assert "compared alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "      skin: {",
            "      skim: {",
            r"published\.rows: no row 'skim', did you mean 'skin'\?; this ablation has: base, finet",
        ),
        ("skin: {fid", "skin: {fidd", r"published\.rows\.skin: no measure 'fidd', did you mean 'fid'\?"),
    ],
)
def test_a_published_table_of_something_else_is_refused(recipe_file: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    with_published(recipe_file, PUBLISHED.replace(old, new, 1))
    with pytest.raises(PriorzooError, match=message):
        run_ablation(recipe(recipe_file), tmp_path / "out", progress=False, measure=Measure())


def test_what_no_number_depends_on_does_not_measure_again(recipe_file: Path, tmp_path: Path) -> None:
    folder, measure = tmp_path / "out", Measure()
    run_ablation(recipe(recipe_file), folder, only=["finetune"], progress=False, measure=measure)
    with_published(recipe_file)
    changed = recipe(recipe_file, "evaluation.feature_cache=cache", "training.threads=1")
    run_ablation(changed, folder, only=["finetune"], allow_changes=True, progress=False, measure=measure)
    assert measure.asked == [BASE, "finetune"]
    rounded = recipe(recipe_file, "evaluation.precision=bf16-mixed")
    run_ablation(rounded, folder, only=["finetune"], allow_changes=True, progress=False, measure=measure)
    assert measure.asked == [BASE, "finetune"] * 2


def test_the_rows_of_a_table_share_the_features_of_the_real_images(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    run_ablation(recipe(recipe_file), folder, only=["finetune"], progress=False)
    assert len(list((folder / "features").glob("real-*.safetensors"))) == 1
    assert not list(folder.rglob("*.unfinished"))
    read = HeadsFeatures.__call__
    seen: list[int] = []
    monkeypatch.setattr(HeadsFeatures, "__call__", lambda self, image: (seen.append(len(image)), read(self, image))[1])
    run_ablation(recipe(recipe_file), folder, only=["skin"], progress=False)
    assert sum(seen) == 8  # the generated images of the one new row


@pytest.mark.slow
def test_two_processes_make_the_table_that_one_makes(recipe_file: Path, tmp_path: Path) -> None:
    """`priorzoo ablate --devices 2`: trained and measured by both, written and printed once; and gone on with by one."""
    driver = tmp_path / "driver.py"
    driver.write_text("import analytic, sys; from priorzoo.cli.main import main; sys.exit(main(sys.argv[1:]))")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])

    def ablate(folder: str, *options: str) -> str:
        command = [sys.executable, str(driver), "ablate", str(recipe_file), "training.accelerator=cpu", "--no-report", "--out", folder]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, timeout=300, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = ablate("two", "--devices", "2", "--only", "finetune")
    assert printed.count("base: measuring the start") == 1 and printed.count("FD(heads)") >= 1
    ablate("one", "--only", "finetune")
    one, two = (
        {row["name"]: row["columns"] for row in json.loads((tmp_path / folder / "results.json").read_text())["rows"]}
        for folder in ("one", "two")
    )
    assert list(one) == list(two) == [BASE, "finetune"]
    for column, measured in one[BASE].items():  # the same weights: the same numbers
        assert two[BASE][column]["value"]["value"] == pytest.approx(measured["value"]["value"], rel=1e-5, abs=1e-6, nan_ok=True), column
    for column in ("fd_heads", "truth_depth", "truth_iou"):  # trained by two: the same up to rounding
        assert two["finetune"][column]["value"]["value"] == pytest.approx(one["finetune"][column]["value"]["value"], rel=0.05), column
    stamps = (tmp_path / "two" / "finetune" / RESULT).stat().st_mtime_ns
    assert "skin: training" in ablate("two", "--only", "finetune,skin")  # one process goes on
    assert (tmp_path / "two" / "finetune" / RESULT).stat().st_mtime_ns == stamps


def test_the_verb_measures_for_real_prints_the_table_and_writes_the_report(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "small"
    generated = "data: {name: heads, images: 8, resolution: 16, held_out: 4}"
    recipe_file.write_text("\n".join(generated if line.startswith("data:") else line for line in RECIPE.splitlines()))
    call = ["ablate", str(recipe_file), "training.images=8", "--only", "finetune,skin", "--out", str(out)]
    assert main(call) == 0
    printed = capsys.readouterr().out
    for expected in ("FD(heads)", "finetune (control)", "true heads", "(a) Shape against truth", "skin against finetune", "report.html"):
        assert expected in printed, expected
    assert len(list((out / "data").glob("heads-*.zip"))) == 3  # images, held-out images, truth: once for all
    assert not list(out.glob("*/data"))
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "Protocol of the measures" in text and "samples_per_ray" in text
    assert Result.load(out / "skin" / RESULT).inverted["true_depth"].shape == (2, 1, 16, 16)
    assert main([*call[:-1], str(out), "--allow-changes", "--only", "skim"]) == 2
    assert "did you mean 'skin'" in capsys.readouterr().err


def test_two_recipes_of_one_name_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says --out: the heads' table and FFHQ's are called as their trainings are."""
    folders: list[Path] = []

    def stop(recipe: Recipe, folder: Path, **_: object) -> None:
        folders.append(folder)
        raise PriorzooError("far enough")

    monkeypatch.setattr("priorzoo.training.ablation.run_ablation", stop)
    monkeypatch.setattr("priorzoo.core.recipe.load_recipe", lambda source, overrides: load_recipe(source, overrides, check_files=False))
    monkeypatch.chdir(tmp_path)
    for name in ("heads/eg3d_ssr_table1", "ffhq/eg3d_ssr_table1"):
        assert main(["ablate", name, "training.devices=1", "training.accelerator=cpu"]) == 2
    assert folders == [Path("runs/heads_eg3d_ssr_table1"), Path("runs/ffhq_eg3d_ssr_table1")]
