"""The command line: one file per verb, imported when its verb is called, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import keyword
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from ..core.errors import PriorzooError, StoppedError

# Verb: its line in the help. Its file is cli/<verb>.py (dashes become underscores, a word of Python gets one behind it) with a function
# `command`, or a Typer group `app`.
VERBS = {
    "train": "Train a recipe into a run folder, or resume a run.",
    "plan": "Measure what a recipe needs: memory, time, the micro-batch that fits.",
    "evaluate": "Measure images and shapes of a run or a checkpoint.",
    "report": "Write a self-contained HTML report of runs.",
    "compare": "Put the results of several runs side by side.",
    "ablate": "Train and evaluate every variant of a recipe and make the table.",
    "sample": "Draw samples: seeds, poses, images, depth and normals.",
    "video": "Make a clip: an orbit, or an interpolation between samples.",
    "mesh": "Extract meshes with vertex colours, and say whether they are whole.",
    "show": "Print a recipe resolved, as YAML that can be fed back.",
    "list": "List priors, backbones, backgrounds, segmenters, estimators and recipes.",
    "data": "Make, mirror, check and look at data sets in the EG3D format.",
    "import": "Import an official checkpoint as safetensors.",
    "bench": "Measure the speed and memory of a training step.",
    "train-segmenter": "Train a segmenter on procedural heads.",
}
INTERRUPTED, TERMINATED, REFUSED = 130, 143, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 the input's fault, 130 interrupted, 143 asked to stop (SIGTERM).

    ``--debug`` anywhere shows the traceback of an input's fault too.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    called = next((word for word in given if not word.startswith("-")), None)
    try:
        application(called)(given, prog_name="priorzoo")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except StoppedError as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return TERMINATED
    except PriorzooError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def application(called: str | None) -> Callable[..., Any]:
    """Build the command line for one call: the called verb is imported, of the others only the help lines are known."""
    app = typer.Typer(
        name="priorzoo", help="Shape priors for 3D-aware GANs, composed by recipes.", no_args_is_help=True,
        pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    app.callback()(_options)
    for verb, line in VERBS.items():
        if verb != called:
            app.command(verb, help=line)(_not_called)
            continue
        name = verb.replace("-", "_") + "_" * keyword.iskeyword(verb)
        module = importlib.import_module(f".{name}", __package__)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb, help=line)
        else:
            app.command(verb)(module.command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"priorzoo {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    """The options before the verb; ``--debug`` is taken out earlier, so that it may stand anywhere."""


def _not_called() -> None:
    raise AssertionError("the called verb is imported before the command line is built")
