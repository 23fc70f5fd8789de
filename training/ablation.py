"""Ablation: every variant of a recipe trained from one start and measured alike, resumable at every point.

The folder holds ``recipe.yaml`` (with the variants), ``data/`` (generated once, used by all), ``features/`` (of the real images),
one run a variant, ``base/`` with the measures of the start, and ``results.json``: who was measured, with which switches, and where
its result lies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import PriorzooError, RunError, did_you_mean
from ..core.files import write_text_atomically
from ..core.recipe import Recipe, load_recipe
from ..core.recipe.writing import write_yaml
from ..core.schedule import Schedule
from .measuring import evaluator_for, measure_run, save_result, unfinished_folder
from .processes import first_process_says, launch, together
from .resuming import MANNER
from .run import Run, circumstances, load_run, locked, read_record
from .trainer import Monitor, train

if TYPE_CHECKING:
    from ..metrics.evaluation import Evaluator, Progress
    from ..metrics.protocol import Result

KIND, VERSION = "priorzoo ablation", 1
BASE, DATA, FEATURES, RESULTS = "base", "data", "features", "results.json"
RESULT = Path("results") / "evaluation.json"
# What pairing rests on, and the processes that all variants are trained with.
_SAME = (
    "seed", "data", "evaluation", "init", "training.images", "training.batch", "training.devices", "training.nodes", "training.accelerator",
)  # fmt: skip
_NOT_MEASURING = ("every", "feature_cache", "published")  # keys of `evaluation` that no number depends on

Measure = Callable[[Run, str], "Result | None"]
"""Measures a run, named for people; on every process but the first it may return None."""


@dataclass(frozen=True)
class Row:
    """One measured model: ``folder`` relative to the ablation's (its result lies in it), ``switches`` as in the paper's Table 1.

    ``key`` identifies the weights and the protocol that the result belongs to; ``images`` and ``seconds`` of training.
    """

    name: str
    folder: str
    switches: dict[str, bool]
    key: str
    images: int
    seconds: float


@dataclass
class Ablation:
    """A folder's state: the recipe with its variants, the rows measured so far, in order, and the control's name."""

    folder: Path
    recipe: Recipe
    rows: list[Row] = field(default_factory=list)
    circumstances: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def control(self) -> str:
        """The first variant: what the others are compared with."""
        return next(iter(self.recipe.variants))

    def result(self, row: Row) -> Result:
        """Read a row's result."""
        from ..metrics.protocol import Result

        return Result.load(self.folder / row.folder / RESULT, features=False)

    def save(self) -> None:
        """Write ``results.json``: rows, and per column the value and the paired difference to the control."""
        plain = {
            "kind": KIND, "version": VERSION, "recipe": self.name, "control": self.control,
            "circumstances": self.circumstances, "rows": [{**vars(row), **self._measures(row)} for row in self.rows],
        }  # fmt: skip
        write_text_atomically(self.folder / RESULTS, json.dumps(plain, indent=1) + "\n")

    def _measures(self, row: Row) -> dict[str, Any]:
        from ..metrics.columns import COLUMNS, TRUE
        from ..metrics.protocol import paired_difference

        result = self.result(row)
        control = next((self.result(r) for r in self.rows if r.name == self.control and r.name != row.name), None)
        columns: dict[str, Any] = {}
        for key in result.columns():
            columns[key] = {"value": result.value(key).to_plain()}
            true = result.true_value(key)
            if true is not None:
                columns[key]["true"] = true.to_plain()
            if control is not None and key in control.terms:
                to_true = COLUMNS[key].goal == TRUE and result.has_true_value(key)
                name = "difference_of_distances_to_true" if to_true else "difference_to_control"
                columns[key][name] = paired_difference(result, control, key, distance=to_true).to_plain()
        return {"columns": columns}


def run_ablation(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    allow_changes: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
    report: Progress | None = None,
    measure: Measure | None = None,
    monitors: Callable[[Recipe], Sequence[Monitor]] = lambda _: (),
    fabric: Any = None,
) -> Ablation:
    """Train every variant of ``recipe`` (or those named in ``only``) into ``folder``, measure the start and each of them.

    What is finished is not done again: a run by its record, a measure by the weights and the protocol that it belongs to. The
    control is the first variant; with ``only`` it may be missing, and the differences with it, until it is run too.
    ``say`` is told what begins, ``report`` how far measuring is, on the first process; ``measure`` replaces the measuring;
    ``monitors`` gives the training of each variant what it calls at every sample picture. ``fabric`` are processes that the caller
    started and will part; without it they are started here. The rows are known to the first process.

    Raises RecipeError or RunError when there are no variants, one is unknown, they cannot be paired, or the folder belongs to
    another recipe (unless ``allow_changes``); and whatever training raises.
    """
    place = Path(folder)
    variants = _variants(recipe, only)
    parted = together if fabric is None else nullcontext
    fabric = fabric or launch(recipe.training)
    first = fabric.is_global_zero
    with parted(fabric), locked(place) if first else nullcontext():
        ablation = Ablation(place, recipe)
        first_process_says(fabric, lambda: _begin(ablation, allow_changes))
        steps = _Steps(ablation, fabric, measure or _Measuring(recipe, place, report if first else None, fabric, say if first else None))
        if recipe.init is not None:
            steps.say(say, f"{BASE}: measuring the start, {Path(recipe.init).name}")
            off = dict.fromkeys(switches(recipe), False)
            # Rendered by this recipe's rules (samples a ray above all), as the variants are: one sampling for all rows.
            start = replace(load_run(recipe.init), recipe=recipe)
            steps.measured(BASE, start, off)
        for name, variant in variants.items():
            steps.say(say, f"{name}: training")
            run = train(
                variant,
                place / name,
                resume=(place / name / "recipe.yaml").exists(),
                data_folder=place / DATA,
                allow_changes=allow_changes,
                progress=progress,
                monitors=monitors(variant),
                fabric=fabric,
            )
            steps.say(say, f"{name}: measuring")
            steps.measured(name, run, _switched(recipe, variant))
    return ablation


def load_ablation(folder: str | os.PathLike[str]) -> Ablation:
    """Open an ablation folder, which may have been moved; raises RunError where it is none or damaged."""
    place = Path(folder)
    path = place / RESULTS
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["kind"] != KIND or plain["version"] != VERSION:
            raise ValueError(f"kind {plain['kind']!r}, version {plain['version']!r}")
        names = Row.__dataclass_fields__
        rows = [Row(**{name: row[name] for name in names}) for row in plain["rows"]]
    except FileNotFoundError as error:
        raise RunError(f"{place}: not an ablation (no {RESULTS})") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as results of `priorzoo ablate` of version {VERSION} ({error!r})") from error
    recipe = load_recipe((place / "recipe.yaml").resolve(), check_files=False)
    return Ablation(place, recipe, rows, plain["circumstances"], plain["recipe"])


def is_ablation(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder holds the results of an ablation."""
    path = Path(folder) / RESULTS
    return path.is_file() and f'"{KIND}"' in path.read_text(encoding="utf-8")[:200]


class _Measuring:
    """Measures runs by the ablation's own recipe, whatever their own says; builds what they share when the first is measured."""

    def __init__(
        self, recipe: Recipe, folder: Path, report: Progress | None, fabric: Any = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.recipe, self.folder, self.report, self.fabric = recipe, folder, report, fabric
        self.say = say or (lambda _: None)
        self.evaluator: Evaluator | None = None

    def __call__(self, run: Run, subject: str) -> Result | None:
        data = self.folder / DATA
        self.evaluator = self.evaluator or evaluator_for(
            self.recipe, data, fabric=self.fabric, cache=self.folder / FEATURES, progress=self.report is not None, say=self.say
        )
        kept = unfinished_folder(self.folder / subject / RESULT)
        return measure_run(run, data, evaluator=self.evaluator, subject=subject, progress=self.report, kept_in=kept)


@dataclass
class _Steps:
    """What the processes do together; the first one decides and writes."""

    ablation: Ablation
    fabric: Any
    measure: Measure

    def say(self, say: Callable[[str], None], text: str) -> None:
        if self.fabric.is_global_zero:
            say(text)

    def measured(self, name: str, run: Run, on: Mapping[str, bool]) -> None:
        """Measure a run unless its result is there, and put its row in its place."""
        known = first_process_says(self.fabric, lambda: _known(self.ablation, name, run))
        result = None if known else self.measure(run, name)
        first_process_says(self.fabric, lambda: _add(self.ablation, name, run, on, result))


def switches(recipe: Recipe) -> list[str]:
    """Return the switches of an ablation's table: ``R1``, then every prior that some variants have and others have not."""
    active = [_active(recipe.variant(name)) for name in recipe.variants]
    names = dict.fromkeys(name for one in active for name in one)
    return ["R1", *(n for n in names if n != "R1" and not all(n in one for one in active))]


def _active(recipe: Recipe) -> list[str]:
    """Entries that act: R1 and the priors whose weight is not the constant 0."""
    r1 = ["R1"] if recipe.objective.r1 is not None and recipe.objective.r1.gamma != 0 else []
    return r1 + [n for n, e in recipe.priors.items() if isinstance(e.weight, Schedule) or e.weight != 0]


def _switched(recipe: Recipe, variant: Recipe) -> dict[str, bool]:
    active = _active(variant)
    return {name: name in active for name in switches(recipe)}


def _variants(recipe: Recipe, only: Sequence[str]) -> dict[str, Recipe]:
    """The wanted variants' recipes, in the recipe's order; checks names and that they can be paired."""
    where = recipe.source or "this recipe"
    if not recipe.variants:
        raise PriorzooError(f"{where}: has no `variants`, so there is nothing to compare; `priorzoo train` runs a single recipe")
    for name in only:
        if name not in recipe.variants:
            raise PriorzooError(
                f"--only: {where} has no variant {name!r}{did_you_mean(name, recipe.variants)}; it has: {', '.join(recipe.variants)}"
            )
    for name in recipe.variants:
        if name in (BASE, DATA, FEATURES) or not name.replace("_", "").replace("-", "").isalnum():
            raise PriorzooError(
                f"{where}: a variant cannot be called {name!r}: it names a folder of letters, digits, - and _, "
                f"and {BASE}, {DATA} and {FEATURES} are taken"
            )
    _check_published(recipe, where)
    resolved = {name: recipe.variant(name) for name in recipe.variants}
    control, first = next(iter(resolved.items()))
    for name, variant in resolved.items():
        for line in first.difference(variant):
            key = line.split(":")[0]
            if any(key == same or key.startswith(f"{same}.") for same in _SAME):
                raise PriorzooError(
                    f"{where}: variants {control!r} and {name!r} cannot be paired: {line}. All variants share {', '.join(_SAME)}"
                )
    return {name: variant for name, variant in resolved.items() if not only or name in only}


def _check_published(recipe: Recipe, where: str) -> None:
    """Refuse a published table that speaks of other rows or columns than ours: nothing would stand beside it."""
    from ..metrics.columns import COLUMNS

    published = recipe.evaluation.published
    rows = (BASE, *recipe.variants)
    for name, values in published.rows.items() if published is not None else ():
        if name not in rows:
            raise PriorzooError(
                f"{where}: evaluation.published.rows: no row {name!r}{did_you_mean(name, rows)}; this ablation has: {', '.join(rows)}"
            )
        for key in values:
            if key not in COLUMNS:
                raise PriorzooError(
                    f"{where}: evaluation.published.rows.{name}: no measure {key!r}{did_you_mean(key, COLUMNS)}; measures are: "
                    + ", ".join(COLUMNS)
                )


def _begin(ablation: Ablation, allow_changes: bool) -> None:
    """Make or reopen the folder; a changed recipe is refused with the difference."""
    folder, recipe = ablation.folder, ablation.recipe
    path = folder / "recipe.yaml"
    if path.exists() and not allow_changes:
        changes = _changes(load_recipe(path.resolve(), check_files=False), recipe)
        if changes:
            lines = "\n".join(f"  {line}" for line in changes)
            raise RunError(
                f"{folder}: the recipe is not the one this ablation began with:\n{lines}\n--allow-changes continues with the new one"
            )
    write_text_atomically(path, write_yaml(_with_variants(recipe)))
    rows = load_ablation(folder).rows if is_ablation(folder) else []
    order = [BASE, *recipe.variants]
    known = [row for row in rows if row.name in order and (folder / row.folder / RESULT).is_file()]
    ablation.rows = sorted(known, key=lambda row: order.index(row.name))
    ablation.circumstances, ablation.name = circumstances(), recipe.source or folder.name


def _with_variants(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values whose variants say what differs after overrides, so that it can be read back alone."""
    plain = recipe.to_plain()
    resolved = {name: recipe.variant(name).to_plain() for name in recipe.variants}
    base = {key: value for key, value in plain.items() if key != "variants"}
    return {**plain, "variants": {name: _overlay(base, one) for name, one in resolved.items()}}


def _overlay(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What must be merged over ``base`` to give ``wanted``; None removes a key."""
    out: dict[str, Any] = {key: None for key in base if key not in wanted}
    for key, value in wanted.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = _overlay(old, value)
            if inner:
                out[key] = inner
        elif value != old or key not in base:
            out[key] = value
    return out


def _changes(old: Recipe, new: Recipe) -> list[str]:
    """Differences of two recipes and of their variants, one line each."""
    lines = _what(old.difference(new))
    for name in dict.fromkeys([*old.variants, *new.variants]):
        if name not in new.variants or name not in old.variants:
            lines.append(f"variants.{name}: {'removed' if name in old.variants else 'new'}")
            continue
        own = _what(old.variant(name).difference(new.variant(name)))
        lines += [f"variants.{name}: {line}" for line in own if line not in lines]
    return lines


def _what(lines: Sequence[str]) -> list[str]:
    """Differences in what is computed, without those in how: another number of devices may go on with an ablation."""
    return [line for line in lines if line.split(":")[0] not in MANNER]


def _known(ablation: Ablation, name: str, run: Run) -> str | None:
    """Whether the result of these weights under this protocol is there."""
    key = _key(run, ablation.recipe)
    return "yes" if any(row.name == name and row.key == key for row in ablation.rows) else None


def _add(ablation: Ablation, name: str, run: Run, on: Mapping[str, bool], result: Result | None) -> None:
    """Write a new result, and put its row in its place."""
    if result is not None:
        save_result(result, ablation.folder / name / RESULT)
    # The start's own training is another run's.
    seconds = 0.0 if name == BASE else float(read_record(ablation.folder / name).get("seconds", 0.0))
    row = Row(name, name, dict(on), _key(run, ablation.recipe), run.images, round(seconds, 1))
    order = [BASE, *ablation.recipe.variants]
    rows = [r for r in ablation.rows if r.name != name]
    ablation.rows = sorted([*rows, row], key=lambda r: order.index(r.name))
    ablation.save()


def _key(run: Run, recipe: Recipe) -> str:
    """A hash of the weights and of everything in the recipe that measuring depends on."""
    digest = hashlib.blake2b(run.weights.read_bytes(), digest_size=16)
    plain = recipe.to_plain()
    measured = {key: plain.get(key) for key in ("background", "data", "segmenter", "estimator")}
    measured["evaluation"] = {key: value for key, value in plain["evaluation"].items() if key not in _NOT_MEASURING}
    digest.update(json.dumps([run.recipe.to_plain()["backbone"], measured], sort_keys=True).encode())
    return digest.hexdigest()
