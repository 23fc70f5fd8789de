"""Every mistake in a recipe is refused with its place, key, what was got, what is allowed, and the nearest name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from broken_recipes import BASE, BROKEN, IN_OVERRIDES, IN_PARENTS, IN_VARIANTS, SKIN, Broken
from priorzoo.cli.main import main
from priorzoo.core.errors import PriorzooError, RecipeError
from priorzoo.core.recipe import load_recipe
from priorzoo.core.recipe.problems import InvalidRecipe


def write(folder: Path, case: Broken) -> str:
    for name, text in {**case.files, "recipe.yaml": case.text}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return "recipe.yaml"


def test_the_recipe_that_the_cases_break_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(BASE + SKIN)
    assert load_recipe("recipe.yaml").priors["skin"].options["region"] == "skin"


def test_there_are_enough_cases():
    assert len(BROKEN) >= 40
    assert len(IN_OVERRIDES) + len(IN_VARIANTS) + len(IN_PARENTS) >= 10


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_is_refused_with_everything_needed_to_mend_it(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, case), case.overrides, case.variant)
    assert isinstance(caught.value, InvalidRecipe)
    assert len(caught.value.problems) == 1, str(caught.value)
    (problem,) = caught.value.problems
    assert str(problem.origin) == case.where
    assert problem.key == case.key
    assert case.got in problem.got and bool(case.got) == bool(problem.got)
    assert case.allowed in problem.allowed
    assert problem.nearest == case.near
    assert case.says in problem.text


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_the_command_line_says_it_and_exits_with_2(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # `show` also shows recipes whose files are elsewhere.
    verb = "train" if case.key == "init" else "show"
    arguments = [verb, write(tmp_path, case), *case.overrides, *(["--variant", case.variant] if case.variant else [])]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    for part in (case.where, case.key, case.got, case.allowed, case.says):
        assert part in err
    assert (f"did you mean {case.near!r}?" in err) or case.near is None


def test_files_that_are_missing_are_reported_together_with_where_they_come_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ffhq/eg3d_ssr_table1@skin", "data.held_out=mine.zip"]) == 2
    heading, *lines = capsys.readouterr().err.splitlines()
    assert heading == "error: 5 files that the recipe names are not there (nothing is downloaded)"
    expected = {
        "init": ("recipes/ffhq/eg3d_ssr.yaml:", "'ffhq512-128.pkl'", "NVIDIA's EG3D checkpoints"),
        "data.path": ("recipes/ffhq/eg3d_base.yaml:", f"'{tmp_path}/FFHQ_512.zip'", "EG3D's data set preprocessing"),
        "data.held_out": ("override 1:", f"'{tmp_path}/mine.zip'", "a data set in EG3D's format"),
        "segmenter.weights": ("recipes/ffhq/eg3d_ssr.yaml:", f"{tmp_path}/79999_iter.pth", "zllrunning/face-parsing.PyTorch"),
        "evaluation.inception_weights": ("recipes/ffhq/eg3d_base.yaml:", "weights-inception-2015-12-05-6726825d.pth", "torch-fidelity"),
    }
    for line, (key, parts) in zip(lines, expected.items(), strict=True):
        assert f": {key}: " in line and line.endswith(f"; another place: {key}=PATH")
        assert all(part in line for part in parts), line
    assert not list(tmp_path.iterdir()), "refused before anything is written"


def test_a_recipe_can_be_shown_without_its_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["show", "ffhq/eg3d_ssr"]) == 0
    out, err = capsys.readouterr()
    assert f"  path: {tmp_path}/FFHQ_512.zip\n" in out
    notes = err.splitlines()
    assert len(notes) == 4 and all(note.startswith("note: recipes/ffhq/") for note in notes)
    assert [p.key for p in load_recipe("ffhq/eg3d_ssr", check_files=False).missing] == [
        "init", "data.path", "segmenter.weights", "evaluation.inception_weights",
    ]  # fmt: skip


def test_a_file_that_only_a_variant_starts_from_may_be_absent_until_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(BASE + "variants:\n  other: {init: there.safetensors}\n  wrong: {sede: 1}\n")
    with pytest.raises(InvalidRecipe) as caught:
        load_recipe("recipe.yaml")
    assert [p.key for p in caught.value.problems] == ["sede"]
    (tmp_path / "recipe.yaml").write_text(BASE + "variants:\n  other: {init: there.safetensors}\n")
    assert load_recipe("recipe.yaml").init is None
    with pytest.raises(InvalidRecipe, match=r"there\.safetensors"):
        load_recipe("recipe.yaml").variant("other")


def test_all_mistakes_are_reported_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(BASE.replace("1000", "many") + "sede: 1\npriors:\n  skin: {name: srr}\n")
    with pytest.raises(InvalidRecipe) as caught:
        load_recipe("recipe.yaml", ["training.batch=x"])
    places = [str(p.origin) for p in caught.value.problems]
    assert places == ["recipe.yaml:5", "recipe.yaml:7", "recipe.yaml:4", "override 1: training.batch=x"]
    assert str(caught.value).startswith("4 errors in the recipe\n")


def test_missing_files_and_folders_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes("name: café\n".encode("latin-1"))
    for source, text in {"none.yaml": "no such recipe file", "folder.yaml": "is a folder", "latin.yaml": "not UTF-8 text"}.items():
        with pytest.raises(RecipeError, match=text):
            load_recipe(source)


def test_a_recipe_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("seed: " + "[" * 500 + "]" * 500)
    with pytest.raises(RecipeError, match="nested deeper than"):
        load_recipe(path)


def test_nothing_but_a_recipe_error_comes_of_damaged_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    pieces = ["null", "{}", "[]", "-1", "1e9", ".nan", "'x'", "{a: 1}", "[1, {b: 2}]", "&a 1", "*a", "!!int 3", "{kind: linear}",
              "{name: ssr}", "|", '"', "::", "\t", "\x00", "? ", "- ", "#", "9" * 30]  # fmt: skip
    outcomes = set()
    for _ in range(150):
        lines = (BASE + SKIN + "variants: {a: {seed: 1}}\nobjective:\n  r1: {gamma: 1}\n").splitlines()
        at = draw.randrange(len(lines))
        cut = draw.randrange(len(lines[at]))
        lines[at] = lines[at][:cut] + draw.choice(pieces) + lines[at][cut + draw.randrange(4) :]
        (tmp_path / "r.yaml").write_text("\n".join(lines))
        try:
            load_recipe("r.yaml")
            outcomes.add("loaded")
        except RecipeError:
            outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}


def test_debug_shows_where_an_error_was_raised():
    with pytest.raises(PriorzooError, match="no shipped recipe of that name"):
        main(["show", "heads/none", "--debug"])


def test_what_is_said_of_a_file_that_nobody_looked_for_is_the_same_everywhere():
    """The message, the recipes and the how-to: whose training it is, that having it was not checked, what to begin from otherwise."""
    (missing,) = [p for p in load_recipe("afhq/eg3d_base", check_files=False).missing if p.key == "init"]
    root = Path(__file__).resolve().parent.parent
    recipes = [(root / "recipes" / name).read_text() for name in ("afhq/eg3d_base.yaml", "ffhq/eg3d_base.yaml")]
    page = " ".join((root / "docs" / "howto" / "ffhq.md").read_text().split())
    assert "the model that ffhq/eg3d_base trains" in str(missing) and "the model that `ffhq/eg3d_base` trains" in page
    for text in (str(missing), recipes[0], page):
        assert "was not checked" in text and "not public" not in text
    assert "ffhqrebalanced512-64.pkl" in str(missing) and "ffhqrebalanced512-64.pkl" in recipes[0] and "public ffhq512-64" not in recipes[1]
