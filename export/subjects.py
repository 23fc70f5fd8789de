"""What a report is about: models with what is known of them, read from runs, checkpoints, weights or an ablation's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import PriorzooError, RunError
from ..training.ablation import BASE, is_ablation, load_ablation
from ..training.journal import read_metrics
from ..training.measuring import result_path
from ..training.run import Run, load_run, read_record
from .curves import LINE_COLOURS
from .measures import Measured
from .published import PublishedTable

if TYPE_CHECKING:
    from ..metrics.protocol import Result


@dataclass
class Subject:
    """One model: its name, the run it can be built from, and whatever was logged and measured."""

    name: str
    run: Run
    result: Result | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, bool] = field(default_factory=dict)
    is_start: bool = False

    def measured(self) -> Measured | None:
        """Its row in tables, None where it was not measured."""
        return None if self.result is None else Measured(self.name, self.result, self.switches)


@dataclass
class Subjects:
    """Models to be reported together: the first is the reference of ``differences`` unless ``control`` names another.

    ``published``: the table that an ablation's recipe copies from elsewhere.
    """

    title: str
    models: list[Subject]
    control: str | None
    published: PublishedTable | None = None

    @property
    def colours(self) -> dict[str, str]:
        """One colour a model, the same in every plot; the start of an ablation is grey."""
        trained = [model.name for model in self.models if not model.is_start]
        return {**{m.name: "#888888" for m in self.models}, **dict(zip(trained, cycle(LINE_COLOURS), strict=False))}

    @property
    def rows(self) -> list[Measured]:
        """Rows of those that were measured."""
        return [row for row in (model.measured() for model in self.models) if row is not None]


def read_subjects(places: Sequence[str | Path]) -> Subjects:
    """Read one ablation folder, or any number of runs, checkpoints and shipped weights (the first is the reference).

    Raises RunError when there is nothing of the kind, PriorzooError for an ablation among several.
    """
    if not places:
        raise PriorzooError("report: name a run, or the folder of an ablation")
    ablations = [place for place in places if is_ablation(place)]
    if ablations and len(places) > 1:
        raise PriorzooError(f"report: {ablations[0]} is an ablation, which is reported alone; name its runs to mix them with others")
    if ablations:
        return _of_ablation(Path(ablations[0]))
    models = [_of_run(place) for place in places]
    _name_apart(models, places)
    control = models[0].name if len(models) > 1 else None
    return Subjects(", ".join(model.name for model in models), models, control)


def _of_ablation(folder: Path) -> Subjects:
    ablation = load_ablation(folder)
    if not ablation.rows:
        raise RunError(f"{folder}: nothing of this ablation has been measured yet")
    models = []
    for row in ablation.rows:
        place = folder / row.folder
        run = load_run(ablation.recipe.init) if row.name == BASE and ablation.recipe.init else load_run(place)
        # The base's own record would tell of its training, which is another run.
        start = row.name == BASE
        metrics, record = ([], {}) if start else (read_metrics(place), read_record(place))
        models.append(Subject(row.name, run, ablation.result(row), metrics, record, row.switches, start))
    measured = {row.name for row in ablation.rows}
    published = ablation.recipe.evaluation.published
    beside = None if published is None else PublishedTable(published, (BASE, *ablation.recipe.variants))
    return Subjects(ablation.name, models, ablation.control if ablation.control in measured else None, beside)


def _of_run(place: str | Path) -> Subject:
    from ..metrics.protocol import Result

    run = load_run(place)
    path = result_path(place, run)
    result = Result.load(path, features=False) if path.is_file() else None
    return Subject(run.folder.resolve().name, run, result, read_metrics(run.folder), read_record(run.folder))


def _name_apart(models: Sequence[Subject], places: Sequence[str | Path]) -> None:
    """Runs of one folder name are called by the path that was given."""
    names = [model.name for model in models]
    for model, place in zip(models, places, strict=True):
        if names.count(model.name) > 1:
            model.name = str(place)
