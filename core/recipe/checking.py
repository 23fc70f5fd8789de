"""Impossible combinations, found before anything is built: needs that nothing meets, numbers that do not divide,
reserved keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import PriorzooError
from ..registry import BACKBONES, ESTIMATORS, PRIORS, SEGMENTERS, Registry
from .files import origin_of
from .nodes import Node
from .parts import met_options, refusal, starting_options
from .problems import MissingFile, Problem, join, unknown_name
from .reading import describe
from .schema import FolderData, HeadsData, Part, PriorEntry, Recipe
from .shipped import shipped_generators

SEGMENTATION, ESTIMATES = "segmentation", ("estimated_depth", "estimated_normals")


def check(recipe: Recipe, tree: Node) -> tuple[list[Problem], list[Problem]]:
    """Return everything that cannot work in a recipe whose every value is of the right type, and the files that it names in vain."""
    checker = _Checker(recipe, tree)
    checker.reserved()
    checker.training()
    checker.resolutions()
    checker.parts()
    checker.priors()
    wrong = checker.problems
    checker.problems = []
    checker.init()
    checker.data_files()
    checker.weight_files()
    checker.inception_weights()
    return wrong, checker.problems


class _Checker:
    def __init__(self, recipe: Recipe, tree: Node) -> None:
        self.recipe, self.tree = recipe, tree
        self.problems: list[Problem] = []
        self.provides: frozenset[str] | None = None
        self.classes: tuple[str, ...] | None = None

    def add(self, key: str, text: str, got: str, allowed: str) -> None:
        node = self.tree.nearest(*key.split("."))
        self.problems.append(Problem(node.origin if node.value is not None or not node.is_mapping else node.key_origin,
                                     key, text, got, allowed))  # fmt: skip

    def reserved(self) -> None:
        for key in ("transforms", "stages"):
            value = getattr(self.recipe, key)
            if value:
                self.add(key, "reserved: nothing of the kind exists yet", f"{len(value)} of them", "an empty list")
        background, backbone = self.recipe.background.name, self.recipe.backbone.name
        if background != "none" and not BACKBONES.get(backbone).takes_background:
            able = [n for n in BACKBONES.names() if BACKBONES.get(n).takes_background]
            self.add("background.name", f"backbone {backbone} takes no background", repr(background),
                     f"none, or one of the backbones {', '.join(able)}")  # fmt: skip

    def training(self) -> None:
        plan = self.recipe.training
        processes = plan.devices * plan.nodes
        if plan.batch % processes:
            self.add("training.batch", f"does not divide among {processes} processes (devices x nodes)", str(plan.batch),
                     f"a multiple of {processes}")  # fmt: skip
        elif plan.micro_batch and (plan.batch // processes) % plan.micro_batch:
            share = plan.batch // processes
            divisors = [n for n in range(1, share + 1) if share % n == 0]
            self.add("training.micro_batch", f"does not divide the {share} samples of a process's batch", str(plan.micro_batch),
                     "one of " + ", ".join(map(str, divisors)))  # fmt: skip

    def resolutions(self) -> None:
        made, data = self.recipe.backbone.options.get("image_resolution"), self.recipe.data
        if isinstance(data, HeadsData) and isinstance(made, int) and made != data.resolution:
            self.add("data.resolution", "is not the backbone's image_resolution", str(data.resolution), str(made))

    def parts(self) -> None:
        backbone = self.recipe.backbone
        try:
            self.provides = BACKBONES.get(backbone.name).provides(**self.recipe.backbone_options())
        except Exception as error:  # noqa: BLE001  a plug-in's own check: its message is what the user needs
            self.problems.append(refusal(error, self.tree.value["backbone"], "backbone", f"backbone {backbone.name}"))
        segmenter = self.recipe.segmenter
        if segmenter is not None:
            names = self._ask("segmenter", segmenter, SEGMENTERS, "class_names")
            self.classes = tuple(names) if names is not None else None
        for kind, registry in (("segmenter", SEGMENTERS), ("estimator", ESTIMATORS)):
            part = getattr(self.recipe, kind)
            if part is None or self.provides is None:
                continue
            reads = self._reads(kind, part, registry)
            lacking = sorted(reads - self.provides)
            if lacking:
                self.add(f"{kind}.name", f"reads {lacking[0]}, which backbone {backbone.name} does not provide with these options",
                         repr(part.name), f"a {kind} of {', '.join(sorted(self.provides & {'image', 'image_raw'}))}")  # fmt: skip

    def data_files(self) -> None:
        data = self.recipe.data
        if isinstance(data, FolderData):
            for name in ("path", "held_out", "truth"):
                self._file(f"data.{name}", getattr(data, name))

    def inception_weights(self) -> None:
        evaluation = self.recipe.evaluation
        if evaluation.features == "inception":
            self._file("evaluation.inception_weights", evaluation.inception_weights)

    def _file(self, key: str, path: str | None) -> None:
        if path is not None and not Path(path).exists():
            origin = self.tree.nearest(*key.split(".")).origin
            self.problems.append(MissingFile(origin, key, "no such file", repr(path), whence=origin_of(path, key)))

    def weight_files(self) -> None:
        # Not asked of a stored recipe that is only looked at: its files may lie on another machine.
        for kind, registry in (("segmenter", SEGMENTERS), ("estimator", ESTIMATORS)):
            part = getattr(self.recipe, kind)
            if part is None:
                continue
            before = len(self.problems)
            self._ask(kind, part, registry, "check_options")
            self.problems[before:] = [MissingFile(**vars(problem)) for problem in self.problems[before:]]
            if len(self.problems) == before:
                for name, value in part.options.items():
                    self._file(f"{kind}.{name}", str(value) if isinstance(value, Path) else None)

    def _ask(self, key: str, part: Part | PriorEntry, registry: Registry, method: str) -> Any:
        """Call a class method with the part's options; None and a problem when it refuses them, None when it has no
        such method.
        """
        question = getattr(registry.get(part.name), method, None)
        if question is None:
            return None
        node = self.tree.child(*key.split("."))
        assert node is not None
        try:
            return question(**starting_options(part.options))
        except Exception as error:  # noqa: BLE001  a plug-in's own check: its message is what the user needs
            self.problems.append(refusal(error, node, key, f"{key} ({part.name})"))
            return None

    def _reads(self, kind: str, part: Part, registry: Registry) -> frozenset[str]:
        if getattr(registry.get(part.name), "needs", None) is None:
            return frozenset({"image"})
        return frozenset(self._ask(kind, part, registry, "needs") or ())

    def priors(self) -> None:
        for name, entry in self.recipe.priors.items():
            key = join("priors", name)
            needs = self._met_needs(key, entry)
            for need in sorted(needs):
                self._need(need, key, entry)
            regions = self._ask(key, entry, PRIORS, "region_names")
            self._regions(list(regions or ()), key)

    def _met_needs(self, key: str, entry: PriorEntry) -> frozenset[str]:
        """What the prior reads, after all options that training will meet have been checked; nothing where one is refused."""
        plan, before = self.recipe.training, len(self.problems)
        needs: frozenset[str] | None = None
        for options in met_options(entry.options, plan.batch, plan.images):
            met = Part(name=entry.name, options=options)
            self._ask(key, met, PRIORS, "check_options")
            now = frozenset(self._ask(key, met, PRIORS, "needs") or ())
            if len(self.problems) > before:
                break
            needs = now if needs is None else needs
            if now != needs:
                changed = ", ".join(sorted(now ^ needs))
                node = self.tree.nearest(*key.split("."))
                text = f"prior {entry.name} begins or ceases to read {changed} while its options change"
                allowed = "schedules under which it reads the same throughout"
                self.problems.append(Problem(node.key_origin, key, text, "needs that change", allowed))
                break
        return needs or frozenset()

    def _regions(self, regions: list[str], key: str) -> None:
        unknown = [r for r in regions if self.classes is not None and r not in self.classes]
        for region in unknown:
            node = self.tree.child(*key.split("."))
            assert node is not None and self.recipe.segmenter is not None and self.classes is not None
            holders = [k for k, v in node.value.items() if region in _texts(v)]
            place = join(key, *holders[:1])
            origin = self.tree.nearest(*place.split(".")).origin
            text = f"a class that segmenter {self.recipe.segmenter.name} does not know"
            self.problems.append(unknown_name(origin, place, text, region, self.classes))

    def _need(self, need: str, key: str, entry: PriorEntry) -> None:
        from ..scene import BUFFERS, DERIVED, OTHER_VIEW, rendered_needs

        bare = need.removeprefix(OTHER_VIEW)
        if bare not in BUFFERS and bare not in DERIVED:
            self._refuse(
                need,
                key,
                entry,
                "is no buffer of a scene",
                f"the prior to ask for one of {', '.join([*BUFFERS, *DERIVED])}",
            )
            return
        if need != bare and self.recipe.second_view is None:
            self._refuse(need, key, entry, "needs a second view", "second_view: {kind: near, mirrored or frontal}")
        if self.provides is None or bare in self.provides:
            return
        made: dict[str, Any] = {}
        if bare == SEGMENTATION and not self._segmented(need, key, entry, made):
            return
        if bare in ESTIMATES:
            if self.recipe.estimator is None:
                self._refuse(need, key, entry, "needs a shape estimator", _add("estimator", ESTIMATORS))
                return
            made[bare] = self._reads("estimator", self.recipe.estimator, ESTIMATORS)
        provides = self.provides | ({"background_transmittance"} if "opacity" in self.provides else set())
        for lacking in sorted(rendered_needs({bare}, made=made) - provides):
            able = [n for n in BACKBONES.names() if lacking in _provides(n)]
            via = "" if lacking == bare else f" (made from {lacking})"
            self._refuse(need, key, entry, f"is not provided by backbone {self.recipe.backbone.name} with these options{via}",
                         "a backbone that does: " + (", ".join(able) or "none is registered"))  # fmt: skip

    def _segmented(self, need: str, key: str, entry: PriorEntry, made: dict[str, Any]) -> bool:
        segmenter = self.recipe.segmenter
        if segmenter is None:
            self._refuse(need, key, entry, "needs a segmenter", _add("segmenter", SEGMENTERS, generated=True))
            return False
        if not SEGMENTERS.get(segmenter.name).reads_generated_images():
            able = ", ".join(_able_segmenters())
            text = f"cannot segment generated images, which prior {key.rpartition('.')[2]!r} ({entry.name}) needs"
            self.add("segmenter.name", text, repr(segmenter.name), f"one of {able}")
            return False
        made[SEGMENTATION] = self._reads("segmenter", segmenter, SEGMENTERS)
        return True

    def _refuse(self, need: str, key: str, entry: PriorEntry, why: str, remedy: str) -> None:
        node = self.tree.nearest(*key.split("."))
        self.problems.append(
            Problem(
                node.key_origin,
                key,
                f"prior {entry.name} needs {need!r}, which {why}",
                "a need that is not met",
                remedy,
            )
        )

    def init(self) -> None:
        name = self.recipe.init
        if name is None or name in shipped_generators() or Path(name).exists():
            return
        node = self.tree.nearest("init")
        text = "no such run, checkpoint, safetensors file or shipped weights"
        found = unknown_name(node.origin, "init", text, str(node.value), shipped_generators())
        whence = origin_of(name)
        allowed = "" if whence else f"a path, or shipped weights: {found.allowed}"
        self.problems.append(MissingFile(found.origin, "init", text, describe(node), allowed, found.nearest, whence))


def _texts(node: Node) -> list[Any]:
    return [child.value for child in node.value] if isinstance(node.value, list) else [node.value]


def _provides(name: str) -> frozenset[str]:
    try:
        return frozenset(BACKBONES.get(name).provides())
    except (PriorzooError, TypeError, ValueError, KeyError):
        return frozenset()  # it cannot say without options


def _able_segmenters() -> list[str]:
    return [n for n in SEGMENTERS.names() if SEGMENTERS.get(n).reads_generated_images()]


def _add(kind: str, registry: Registry, generated: bool = False) -> str:
    names = _able_segmenters() if generated else registry.names()
    return f"{kind}: {{name: ...}} with one of {', '.join(names) or 'none registered'}"
