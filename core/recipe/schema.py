"""The schema of a recipe: what every key means, what it may be, and what it is when absent.

All models are frozen. Unknown keys, wrong types and values out of range are found by ``validating``, which knows file and line; the
models here hold what was found good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PrivateAttr

from ..schedule import Schedule
from .nodes import Node
from .problems import Problem

Positive = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
# Numbers that may follow a schedule; the bounds hold for the schedule's values too.
Weight = Annotated[float, Ge(0)] | InstanceOf[Schedule]
Probability = Annotated[float, Ge(0), Le(1)] | InstanceOf[Schedule]
Side = Annotated[int, Ge(1)] | InstanceOf[Schedule]


class InRecipeFolder:
    """Marks text as a path: a relative one starts from the folder of the recipe file that mentions it."""


FilePath = Annotated[str, InRecipeFolder()]


class Section(BaseModel):
    """Base of the typed sections: frozen, no unknown keys, plain values out by ``model_dump``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(Section):
    """A registered part: its registry ``name`` and its ``options``, defaults filled in. In YAML the options stand beside the name."""

    name: str
    options: dict[str, Any] = {}


class PriorEntry(Section):
    """One entry of ``priors``: in YAML the prior's options stand beside ``name weight interval phase``.

    The term acts every ``interval`` steps with gain ``interval``; ``phase: own`` gives it latents, backward and optimiser step of its own.
    """

    name: str
    weight: Weight
    interval: Positive = 1
    phase: Literal["main", "own"] = "main"
    options: dict[str, Any] = {}


class HeadsData(Section):
    """Procedural heads, generated when first needed: ``images`` of ``resolution`` pixels a side; ``held_out`` identities only measure.

    ``wide_yaw`` is the share of identities seen from wide angles.
    """

    name: Literal["heads"] = "heads"
    images: Positive = 500
    resolution: Annotated[int, Ge(16)] = 64
    seed: Count = 0
    held_out: Count = 16
    background: Literal["plain", "gradient", "textured"] = "plain"
    accessories: bool = False
    wide_yaw: Annotated[float, Ge(0), Le(1)] = 0.5
    images_per_identity: Positive = 2


class FolderData(Section):
    """A data set in EG3D's format, zip or folder; ``held_out`` and ``truth`` are files of the same format that only measure."""

    name: Literal["eg3d"] = "eg3d"
    path: FilePath
    held_out: FilePath | None = None
    truth: FilePath | None = None
    mirror: bool = False


class SecondView(Section):
    """The step's one extra camera: ``angle`` in radians bounds a near view's turn, ``zoom`` multiplies the focal length."""

    kind: Literal["near", "mirrored", "frontal"]
    angle: Annotated[float, Ge(0), Le(3.1416)] = 0.3
    zoom: Annotated[float, Gt(0)] = 1.0


class R1(Section):
    """Lazy R1: ``gamma`` / 2 times the squared gradient of D on real images, every ``interval`` steps with gain ``interval``.

    ``gamma`` may follow a schedule: finer images want a larger one.
    """

    gamma: Weight = 1.0
    interval: Positive = 16


class Augmentation(Section):
    """Adaptive augmentation of everything the discriminator sees (Karras et al. 2020, ADA).

    Every ``interval`` steps the probability p moves so that the mean sign of D on real images comes to ``target``, fast enough to pass
    from 0 to 1 in ``images`` real images. ``probability`` is p at the start and, where not ``adaptive``, throughout.
    """

    adaptive: bool = True
    probability: Annotated[float, Ge(0)] = 0.0
    target: Annotated[float, Ge(-1), Le(1)] = 0.6
    images: Positive = 500_000
    interval: Positive = 4


class Objective(Section):
    """The adversarial losses. ``pose_swap`` is the probability that a sample is conditioned on another's camera; null: no conditioning.

    ``reuse_fakes`` lets the discriminator's step take the images of the generator's step. ``blur``, in pixels, is the
    distance at which the Gaussian over what the discriminator sees has fallen to half. ``label_noise`` times the global batch's deviation
    is added to the labels that it sees.
    """

    name: Literal["eg3d"] = "eg3d"
    r1: R1 | None = R1()
    pose_swap: Probability | None = None
    reuse_fakes: bool = False
    blur: Weight = 0.0
    label_noise: Weight = 0.0
    augmentation: Augmentation | None = None


class LearningRate(Section):
    """Learning rates before lazy correction."""

    generator: Annotated[float, Gt(0)] = 0.0025
    discriminator: Annotated[float, Gt(0)] = 0.002


class Average(Section):
    """The generator's moving average: ``half_life`` in images; ``ramp_up`` bounds it by that share of the images seen, null: never."""

    half_life: Annotated[float, Gt(0)] = 10_000.0
    ramp_up: Annotated[float, Gt(0)] | None = 0.05


class CheckpointPlan(Section):
    """A checkpoint ``every`` so many images, and at the end; the newest ``keep`` stay."""

    every: Positive = 10_000
    keep: Positive = 2


class SamplePlan(Section):
    """A picture of ``count`` fixed latents ``every`` so many images."""

    every: Positive = 10_000
    count: Positive = 16


class Training(Section):
    """The length and the manner of training. ``images`` counts real images; ``batch`` is the global one, over all devices.

    ``micro_batch`` is what one device computes at once; null: its whole share. ``neural_resolution`` is the side of the volume rendering;
    null: the backbone's own. ``accelerator: auto`` is CUDA where there is any, else the CPU. ``precision: bf16-mixed`` (``16-mixed``)
    runs the networks in bfloat16 (float16); rendering and priors stay in float32. ``tf32`` lets CUDA round the factors of products.
    ``checkpoint_rendering`` computes the rendering's inner values again in the backward instead of keeping them. ``compile`` hands
    the planes' network and super-resolution to ``torch.compile``.
    """

    images: Positive
    batch: Positive = 8
    micro_batch: Positive | None = None
    learning_rate: LearningRate = LearningRate()
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.0, 0.99)
    average: Average = Average()
    neural_resolution: Side | None = None
    checkpoint: CheckpointPlan = CheckpointPlan()
    log_every: Positive = 1_000
    samples: SamplePlan | None = SamplePlan()
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    tf32: bool = False
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    checkpoint_rendering: bool = False
    compile: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    threads: Positive | None = None
    nonfinite_gradients: Literal["stop", "replace"] = "stop"


class Inversion(Section):
    """The fixed optimisation that finds a latent for a held-out image; ``resolution`` null: the backbone's own.

    ``learning_rate`` is in deviations of the mapped latents.
    """

    steps: Positive = 200
    learning_rate: Annotated[float, Gt(0)] = 0.3
    resolution: Positive | None = None


class GeometrySampling(Section):
    """Dense, deterministic samples along a ray when shapes are measured."""

    coarse: Positive = 48
    fine: Count = 48


class Published(Section):
    """A published table: ``rows`` by variant (``base``: the start), each a mapping of measures, and the ``source`` that they come from."""

    source: str
    rows: dict[str, dict[str, float]]


class Evaluation(Section):
    """The protocol of measuring, and when.

    During training ``every`` so many images (null: not); how many ``images``, ``geometry_samples`` latents for shapes and ``held_out``
    heads for paired truth. ``precision`` is the networks' (one for all rows of a table); ``feature_cache`` is a folder that keeps the
    real images' features; ``published`` is printed beside what is measured.
    """

    every: Positive | None = None
    images: Positive = 1024
    batch: Positive = 16
    seed: Count = 0
    sampling: GeometrySampling = GeometrySampling()
    geometry_samples: Positive = 64
    held_out: Count = 64
    inversion: Inversion = Inversion()
    features: Literal["heads", "inception"] = "heads"
    inception_weights: FilePath | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    feature_cache: FilePath | None = None
    published: Published | None = None


class Recipe(Section):
    """Everything a run needs, checked. ``load_recipe`` makes it; ``to_yaml`` gives text that makes it again.

    ``transforms`` and ``stages`` are reserved and empty.
    """

    seed: Count = 0
    backbone: Part
    background: Part = Part(name="none")
    init: FilePath | None = None
    data: Annotated[HeadsData | FolderData, Field(discriminator="name")] | None = None
    segmenter: Part | None = None
    estimator: Part | None = None
    priors: dict[str, PriorEntry] = {}
    transforms: tuple[Any, ...] = ()
    second_view: SecondView | None = None
    objective: Objective = Objective()
    training: Training
    stages: tuple[Any, ...] = ()
    evaluation: Evaluation = Evaluation()
    variants: dict[str, dict[str, Any]] = {}

    # How it came about: its name, the composed tree before variant and overrides, the overrides, and each value's place.
    _source: str = PrivateAttr(default="")
    _base: Node | None = PrivateAttr(default=None)
    _overrides: tuple[Node, ...] = PrivateAttr(default=())
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _check_files: bool = PrivateAttr(default=True)
    _missing: tuple[Problem, ...] = PrivateAttr(default=())

    def __eq__(self, other: object) -> bool:
        """Equal when every value is, wherever it came from."""
        return isinstance(other, Recipe) and self.to_plain() == other.to_plain()

    @classmethod
    def from_plain(cls, mapping: Mapping[str, Any], where: str = "<mapping>") -> Recipe:
        """Check a plain mapping, such as ``to_plain`` returns; ``where`` is the file named in errors. Files need not exist."""
        from .loading import recipe_from_plain

        return recipe_from_plain(mapping, where)

    @property
    def source(self) -> str:
        """What it was loaded from: a shipped name or path, with ``@variant`` where one was chosen."""
        return self._source

    @property
    def missing(self) -> tuple[Problem, ...]:
        """The files that it named in vain when it was loaded: key, path, and where each comes from."""
        return self._missing

    @property
    def origins(self) -> dict[str, str]:
        """The place of every value by dotted key: ``file:line``, an override, a variant, or ``default``."""
        return dict(self._origins)

    def origin(self, key: str) -> str:
        """Return the place of the value at a dotted key, or of the nearest key around it that stands somewhere."""
        while key and key not in self._origins:
            key = key.rpartition(".")[0]
        return self._origins.get(key, "default")

    def backbone_options(self) -> dict[str, Any]:
        """Return the backbone's keyword arguments: its options, and ``background`` where there is one."""
        background = self.background
        behind = {} if background.name == "none" else {"background": {"name": background.name, **background.options}}
        return {**self.backbone.options, **behind}

    def variant(self, name: str) -> Recipe:
        """Return the recipe of that variant, overrides applied after it; raises RecipeError with the nearest name."""
        from .loading import load_variant

        return load_variant(self, name)

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and scalars in a fixed key order, every default written out; feeds ``from_plain``."""
        from .writing import plain_recipe

        return plain_recipe(self)

    def to_yaml(self, origins: bool = False) -> str:
        """Return the resolved recipe as YAML that can be fed back; ``origins`` adds each value's place as a comment."""
        from .writing import write_yaml

        return write_yaml(self.to_plain(), self.origin if origins else None)

    def difference(self, other: Recipe) -> list[str]:
        """Return one line for each dotted key whose value differs, from this to the other; variants do not count."""
        from .writing import difference

        return difference(self.to_plain(), other.to_plain())
