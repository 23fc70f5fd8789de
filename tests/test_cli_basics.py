"""The command line: quick, lazy, clean about the input's faults."""

from __future__ import annotations

import importlib.util
import keyword
import subprocess
import sys
from pathlib import Path

import priorzoo
import pytest
from broken_recipes import BASE, SKIN
from priorzoo.cli import main as command_line
from priorzoo.cli.main import VERBS, main
from priorzoo.core.errors import DataError


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def seconds_of(code: str, runs: int = 3) -> float:
    """Processor time of a fresh interpreter, the best of some runs: a busy machine must not decide."""
    measured = f"{code}\nimport sys, time; print(time.process_time(), file=sys.stderr)"
    times = []
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True, timeout=60)
        times.append(float(done.stderr.split()[-1]))
    return min(times)


def test_import_is_light():
    loaded = python("import sys; import priorzoo; print(*sorted({m.partition('.')[0] for m in sys.modules}))").split()
    assert not {"torch", "numpy", "pydantic", "yaml", "rich", "typer"} & set(loaded)
    assert seconds_of("import priorzoo") - seconds_of("pass") < 0.1


def test_help_is_quick_and_imports_no_torch():
    code = "import sys; from priorzoo.cli.main import main; main(['--help']); assert 'torch' not in sys.modules, 'torch'"
    assert seconds_of(code) < 0.7


def test_listing_recipes_and_the_help_of_show_import_no_torch():
    python("import sys; from priorzoo.cli.main import main; main(['list', 'recipes']); main(['show', '--help'])\n"
           "assert 'torch' not in sys.modules, 'torch'")  # fmt: skip


def test_every_verb_has_its_file_and_its_line(capsys):
    for verb in VERBS:
        module = verb.replace("-", "_") + "_" * keyword.iskeyword(verb)
        assert importlib.util.find_spec(f"priorzoo.cli.{module}"), verb
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_can_be_read(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert "Usage: priorzoo" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"priorzoo {priorzoo.__version__}\n"


def test_a_misspelt_verb_is_refused_with_the_nearest(capsys):
    assert main(["shw"]) == 2
    assert "show" in capsys.readouterr().err


def test_show_prints_what_can_be_fed_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(BASE + SKIN + "variants: {soft: {priors: {skin: {weight: 5e-5}}}}\n")
    assert main(["show", "a.yaml@soft", "seed=3"]) == 0
    first = capsys.readouterr().out
    assert "  skin:\n    name: ssr\n    weight: 5e-05\n" in first and first.startswith("seed: 3\n")
    Path("b.yaml").write_text(first)
    assert main(["show", "b.yaml"]) == 0
    assert capsys.readouterr().out == first


def test_show_origin_writes_the_place_beside_each_value(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("a.yaml").write_text("extends: ./base.yaml\n" + SKIN + "variants: {soft: {priors: {skin: {weight: 5e-5}}}}\n")
    assert main(["show", "a.yaml", "training.batch=4", "--variant", "soft", "--origin"]) == 0
    places = {}
    for line in capsys.readouterr().out.splitlines():
        text, _, place = line.partition("  # ")
        places[text.strip()] = place
    assert places["images: 1000"] == "base.yaml:4"
    assert places["batch: 4"] == "override 1: training.batch=4"
    assert places["region: skin"] == "a.yaml:2"
    assert places["weight: 5e-05"] == "a.yaml:3 (variant soft)"
    assert places["keep: 2"] == "default"
    assert places["priors:"] == ""


def test_list_says_what_there_is_and_where_from(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for line in ("priors:", "backbones:", "segmenters:", "estimators:", "recipes:", "heads/eg3d_base", "ssr", "eg3d", "unet"):
        assert line in out
    assert all(line.endswith("[priorzoo]") for line in out.splitlines() if line.startswith("  heads/"))
    assert main(["list", "priors", "density_*"]) == 0
    out = capsys.readouterr().out
    assert "density_tv" in out and "ssr" not in out
    assert main(["list", "prior"]) == 2
    assert "did you mean 'priors'?" in capsys.readouterr().err


def test_faults_of_the_input_end_cleanly_and_interruptions_with_130(monkeypatch, capsys):
    class Verb:
        error: BaseException = DataError("images.zip: entry 3.png is [bold]broken[/bold]")

        @staticmethod
        def command() -> None:
            """Fail."""
            raise Verb.error

    monkeypatch.setattr(command_line.importlib, "import_module", lambda *_: Verb)
    assert main(["bench"]) == 2
    assert capsys.readouterr().err == "error: images.zip: entry 3.png is [bold]broken[/bold]\n"
    with pytest.raises(DataError):
        main(["--debug", "bench"])
    Verb.error = KeyboardInterrupt()
    assert main(["bench"]) == 130
    Verb.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["bench"])


def test_the_python_interface_is_whole():
    for name in priorzoo.__all__:
        assert getattr(priorzoo, name) is not None
    assert "eg3d" in priorzoo.list_backbones("eg*") and priorzoo.list_priors("no such") == []
    assert priorzoo.create_prior("ssr", region="skin").registry_name == "ssr"
    with pytest.raises(AttributeError, match="no attribute"):
        _ = priorzoo.nothing


def _commands(verb):
    """Every command of a verb with its words: the verb's own, or each of its group's."""
    import typer
    from priorzoo.cli.main import application

    group = typer.main.get_group(application(verb))
    found = group.commands[verb]
    inner = getattr(found, "commands", None)
    return [([verb], found)] if inner is None else [([verb, name], command) for name, command in inner.items()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_default_is_shown_in_the_help(verb, capsys, monkeypatch):
    """Rich takes what stands in brackets in a help text for markup and drops it: defaults in words are show_default's."""
    monkeypatch.setenv("COLUMNS", "400")
    for words, command in _commands(verb):
        assert main([*words, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            assert "[default" not in text and "default: " not in text, f"{words}: {text}"
            if isinstance(parameter.show_default, str):
                assert f"[default: ({parameter.show_default})]" in shown, f"{words}: {parameter.name}"
