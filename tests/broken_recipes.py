"""Recipes with one mistake each, and what must be said about it: where, key, what was got, what is allowed, the nearest name."""

from __future__ import annotations

from dataclasses import dataclass, field

# Lines 1 to 4 of a recipe that works; what a case adds begins at line 5.
BASE = """\
backbone: {name: eg3d, image_resolution: 64, superresolution: none}
data: {name: heads}
segmenter: {name: unet}
training: {images: 1000}
"""
SKIN = "priors: {skin: {name: ssr, region: skin, weight: 0.02}}\n"  # line 5 where it follows BASE


@dataclass(frozen=True)
class Broken:
    """``where`` is the place as shown; ``got`` and ``allowed`` are parts of what is shown; ``near`` the nearest name."""

    name: str
    text: str
    where: str
    key: str
    got: str = ""
    allowed: str = ""
    near: str | None = None
    says: str = ""
    overrides: tuple[str, ...] = ()
    variant: str | None = None
    files: dict[str, str] = field(default_factory=dict)


def over(name: str, key: str, value: str, **expected: str) -> Broken:
    """A mistake in the second of two overrides of a recipe that works."""
    text = f"{key}={value}"
    return Broken(name, BASE + SKIN, f"override 2: {text}", expected.pop("at", key), overrides=("seed=1", text), **expected)


UNKNOWN_KEYS = [
    Broken("top-level key", BASE + "traning: {}\n", "recipe.yaml:5", "traning", "'traning'", "training", "training"),
    Broken("key of a section", BASE.replace("images: 1000", "images: 1000, batchs: 4"), "recipe.yaml:4", "training.batchs", "'batchs'",
           "batch, micro_batch", "batch"),
    Broken("key two sections deep", BASE + "objective:\n  r1:\n    gama: 1\n", "recipe.yaml:7", "objective.r1.gama", "'gama'",
           "gamma, interval", "gamma"),
    Broken("option of a prior", BASE + SKIN.replace("weight", "erosoin: 3, weight"), "recipe.yaml:5", "priors.skin.erosoin",
           "'erosoin'", "erosion", "erosion"),
    Broken("option of the backbone", BASE.replace("superresolution", "super_resolution"), "recipe.yaml:1",
           "backbone.super_resolution", "'super_resolution'", "superresolution", "superresolution"),
    Broken("option of the segmenter", BASE.replace("unet", "unet, weihgts: x"), "recipe.yaml:3", "segmenter.weihgts", "'weihgts'",
           "weights", "weights"),
    Broken("key of the data", BASE.replace("heads", "heads, image: 3"), "recipe.yaml:2", "data.image", "'image'", "images", "images"),
]  # fmt: skip

UNKNOWN_NAMES = [
    Broken("prior", BASE + SKIN.replace("ssr", "ssrr"), "recipe.yaml:5", "priors.skin.name", "'ssrr'", "ssr", "ssr"),
    Broken("regulariser that published code does not compute", BASE + SKIN.replace("ssr", "total-variation"), "recipe.yaml:5",
           "priors.skin.name", "'total-variation'", "density_tv", None, "refused: EG3D's command line accepts this regulariser, its "),
    Broken("the same with an underscore", BASE + SKIN.replace("ssr", "l1_alt"), "recipe.yaml:5", "priors.skin.name", "'l1_alt'",
           "density_monotonic", None, "released code computes nothing for it"),
    Broken("backbone", BASE.replace("eg3d", "eg3b"), "recipe.yaml:1", "backbone.name", "'eg3b'", "eg3d", "eg3d"),
    Broken("segmenter", BASE.replace("unet", "umet"), "recipe.yaml:3", "segmenter.name", "'umet'", "unet", "unet"),
    Broken("estimator", BASE + "estimator: {name: haeds}\n", "recipe.yaml:5", "estimator.name", "'haeds'", "heads", "heads"),
    Broken("data", BASE.replace("heads", "head"), "recipe.yaml:2", "data.name", "'head'", "heads, eg3d", "heads"),
    Broken("data named by a list", BASE.replace("heads", "[heads]"), "recipe.yaml:2", "data.name", "['heads']", "heads, eg3d", "heads"),
    Broken("prior named by a mapping", BASE + SKIN.replace("ssr", "{a: 1}"), "recipe.yaml:5", "priors.skin.name", "{'a': 1}", "ssr"),
    Broken("kind named by a list", BASE + SKIN.replace("0.02", "{kind: [linear]}"), "recipe.yaml:5", "priors.skin.weight.kind",
           "['linear']", "linear", "linear"),
    Broken("background", BASE + "background: {name: non}\n", "recipe.yaml:5", "background.name", "'non'", "none", "none"),
    Broken("objective", BASE + "objective: {name: eg3}\n", "recipe.yaml:5", "objective.name", "'eg3'", "eg3d", "eg3d"),
    Broken("second view", BASE + "second_view: {kind: mirored}\n", "recipe.yaml:5", "second_view.kind", "'mirored'",
           "near, mirrored, frontal", "mirrored"),
    Broken("phase", BASE + SKIN.replace("weight", "phase: mian, weight"), "recipe.yaml:5", "priors.skin.phase", "'mian'",
           "main, own", "main"),
    Broken("precision", BASE.replace("1000", "1000, precision: bf16-mix"), "recipe.yaml:4", "training.precision", "'bf16-mix'",
           "bf16-mixed", "bf16-mixed"),
    Broken("region", BASE + SKIN.replace("region: skin", "region: [skin, left_eey]"), "recipe.yaml:5", "priors.skin.region",
           "'left_eey'", "left_eye", "left_eye", "class that segmenter unet does not know"),
    Broken("shipped recipe", "extends: heads/eg3d_bas\n", "recipe.yaml:1", "extends", "'heads/eg3d_bas'", "heads/eg3d_base",
           "heads/eg3d_base"),
    Broken("schedule", BASE + SKIN.replace("0.02", "{kind: liner, end: 2}"), "recipe.yaml:5", "priors.skin.weight.kind", "'liner'",
           "linear", "linear"),
    Broken("field of a schedule", BASE + SKIN.replace("0.02", "{kind: linear, untill: 2}"), "recipe.yaml:5",
           "priors.skin.weight.untill", "'untill'", "until", "until"),
    Broken("unit of a schedule", BASE + SKIN.replace("0.02", "{kind: linear, unit: step}"), "recipe.yaml:5",
           "priors.skin.weight.unit", "'step'", "images, steps", "steps"),
]  # fmt: skip

WRONG_VALUES = [
    Broken("text for a number", BASE.replace("1000", "many"), "recipe.yaml:4", "training.images", "'many'", "an integer >= 1"),
    Broken("number for text", BASE.replace("name: unet", "name: unet, weights: 3"), "recipe.yaml:3", "segmenter.weights", "3"),
    Broken("truth value for a number", BASE + "seed: true\n", "recipe.yaml:5", "seed", "True", "an integer >= 0"),
    Broken("yes for a truth value", BASE.replace("heads}", "heads, accessories: yes}"), "recipe.yaml:2", "data.accessories", "'yes'",
           "true or false", "true"),
    Broken("point in a whole number", BASE.replace("1000", "2e5"), "recipe.yaml:4", "training.images", "200000.0", "an integer",
           "200000", "no point and no exponent"),
    Broken("not a number", BASE + SKIN.replace("0.02", ".nan"), "recipe.yaml:5", "priors.skin.weight", "nan", "a number >= 0"),
    Broken("infinite", BASE + SKIN.replace("0.02", ".inf"), "recipe.yaml:5", "priors.skin.weight", "inf", "a number >= 0"),
    Broken("sexagesimal stays text", BASE + "seed: 1:30\n", "recipe.yaml:5", "seed", "'1:30'", "an integer"),
    Broken("negative weight", BASE + SKIN.replace("0.02", "-1"), "recipe.yaml:5", "priors.skin.weight", "-1", "a number >= 0"),
    Broken("negative weight in a schedule", BASE + SKIN.replace("0.02", "{kind: linear, start: -1, until: 9}"), "recipe.yaml:5",
           "priors.skin.weight.start", "-1", ">= 0"),
    Broken("text in a schedule", BASE + SKIN.replace("0.02", "{kind: linear, until: late}"), "recipe.yaml:5",
           "priors.skin.weight.until", "'late'", "a number"),
    Broken("positions of a schedule", BASE + SKIN.replace("0.02", "{kind: steps, values: [1, 2], at_positions: [5, 9]}"),
           "recipe.yaml:5", "priors.skin.weight", "a mapping", "", None, "must start at 0"),
    Broken("whole number along a line", BASE + SKIN.replace("weight", "erosion: {kind: linear, start: 5, end: 1, until: 9}, weight"),
           "recipe.yaml:5", "priors.skin.erosion.kind", "'linear'", "steps", None, "a whole number changes in steps"),
    Broken("whole number with a point", BASE + SKIN.replace("weight", "window: {kind: steps, values: [3.0]}, weight"),
           "recipe.yaml:5", "priors.skin.window.values", "[3.0]", "a list of integers", None, "not a whole number"),
    Broken("later value that the prior refuses",
           BASE + SKIN.replace("weight", "erosion: {kind: steps, values: [5, 4], at_positions: [0, 500]}, weight"),
           "recipe.yaml:5", "priors.skin.erosion", "a mapping", "", None, "odd whole number >= 1, got 4"),
    Broken("last value that the prior refuses", BASE + SKIN.replace("weight", "hardest: {kind: exponential, start: 0.5, rate: 0.01}, weight"),
           "recipe.yaml:5", "priors.skin.hardest", "a mapping", "", None, "> 0 and <= 1"),
    Broken("schedule without kind", BASE + SKIN.replace("0.02", "{end: 2}"), "recipe.yaml:5", "priors.skin.weight.kind", "nothing",
           "linear, exponential, cosine, steps"),
    Broken("interval of 0", BASE + SKIN.replace("weight", "interval: 0, weight"), "recipe.yaml:5", "priors.skin.interval", "0",
           "an integer >= 1"),
    Broken("keep 0 checkpoints", BASE.replace("1000", "1000, checkpoint: {keep: 0}"), "recipe.yaml:4", "training.checkpoint.keep",
           "0", "an integer >= 1"),
    Broken("three betas", BASE.replace("1000", "1000, betas: [0, 0.9, 0.99]"), "recipe.yaml:4", "training.betas",
           "[0, 0.9, 0.99]", "a list of 2"),
    Broken("beta of 1", BASE.replace("1000", "1000, betas: [0, 1.0]"), "recipe.yaml:4", "training.betas", "[0, 1.0]", "< 1"),
    Broken("probability above 1", BASE + "objective: {pose_swap: 1.5}\n", "recipe.yaml:5", "objective.pose_swap", "1.5", "<= 1"),
    Broken("section that is a number", BASE + "evaluation: 5\n", "recipe.yaml:5", "evaluation", "5", "images, batch"),
    Broken("priors as a list", BASE + "priors: [ssr]\n", "recipe.yaml:5", "priors", "['ssr']", "a mapping of entries"),
    Broken("prior that is a name", BASE + "priors:\n  skin: ssr\n", "recipe.yaml:6", "priors.skin", "'ssr'", "a mapping with a name"),
    Broken("entry that overrides cannot address", BASE + "priors:\n  a.b: {name: ssr}\n", "recipe.yaml:6", "priors.a.b", "'a.b'",
           "letters, digits"),
    Broken("value that the prior refuses", BASE + SKIN.replace("weight", "window: 4, weight"), "recipe.yaml:5",
           "priors.skin.window", "4", "", None, "odd"),
    Broken("value that the backbone refuses", BASE.replace("none}", "none, plane_resolution: 100}"), "recipe.yaml:1",
           "backbone.plane_resolution", "100", "", None, "power of two"),
]  # fmt: skip

MISSING = [
    Broken("weight", BASE + "priors:\n  skin:\n    name: ssr\n    region: skin\n", "recipe.yaml:6", "priors.skin.weight", "nothing",
           "a number >= 0 or a schedule"),
    Broken("mandatory option", BASE + "priors:\n  skin: {name: ssr, weight: 1}\n", "recipe.yaml:6", "priors.skin.region", "nothing",
           "text or a list"),
    Broken("name of a prior", BASE + "priors:\n  skin: {weight: 1}\n", "recipe.yaml:6", "priors.skin.name", "nothing", "ssr"),
    Broken("backbone", "data: {name: heads}\ntraining: {images: 1}\n", "recipe.yaml:1", "backbone", "nothing"),
    Broken("images", "backbone: {name: eg3d}\ntraining:\n  batch: 4\n", "recipe.yaml:2", "training.images", "nothing", "an integer"),
    Broken("removed by null", BASE.replace("1000", "null"), "recipe.yaml:4", "training.images", "null", "an integer >= 1"),
    Broken("path of the data", BASE.replace("heads", "eg3d"), "recipe.yaml:2", "data.path", "nothing", "text"),
]  # fmt: skip

NOT_YAML = [
    Broken("duplicate key", BASE + "seed: 1\nseed: 2\n", "recipe.yaml:6", "seed", "'seed' twice", "one", None,
           "first given at recipe.yaml:5"),
    Broken("duplicate in a mapping", BASE.replace("1000", "1000, batch: 4, batch: 8"), "recipe.yaml:4", "training.batch",
           "'batch' twice", "one"),
    Broken("bracket left open", BASE + "seed: [1\n", "recipe.yaml:6", "", "", "", None, "not YAML"),
    Broken("tab", BASE + "evaluation:\n\timages: 3\n", "recipe.yaml:6", "", "", "", None, "not YAML"),
    Broken("alias", BASE + "stages: [*t]\n", "recipe.yaml:5", "stages.0", "*t", "a value", None,
           "aliases are not read"),
    Broken("anchor", BASE + "seed: &s 3\n", "recipe.yaml:5", "seed", "&s", "a value", None, "anchors are not read"),
    Broken("merge key", BASE + "evaluation:\n  <<: {images: 3}\n", "recipe.yaml:6", "evaluation.<<", "'<<'", "a plain key"),
    Broken("tag", BASE + "seed: !!python/object/apply:os.getpid []\n", "recipe.yaml:5", "seed", "python/object", "a plain value"),
    Broken("two documents", BASE + "---\nseed: 1\n", "recipe.yaml:5", "", "a second document", "", None, "one YAML document"),
    Broken("a list", "- 1\n- 2\n", "recipe.yaml:1", "", "[1, 2]", "keys and values"),
    Broken("nothing", "# only a comment\n", "recipe.yaml:1", "", "an empty file", "keys and values"),
    Broken("a list as a key", BASE + "[1, 2]: 3\n", "recipe.yaml:5", "", "as a key", "text"),
]  # fmt: skip

IMPOSSIBLE = [
    Broken("need of a segmenter", BASE.replace("segmenter: {name: unet}", "") + SKIN, "recipe.yaml:5", "priors.skin",
           "a need that is not met", "segmenter: {name: ...} with one of", None, "prior ssr needs 'segmentation'"),
    Broken("needs that change", BASE + SKIN.replace("weight", "min_opacity: {kind: linear, start: 0, end: 0.5, until: 9}, weight"),
           "recipe.yaml:5", "priors.skin", "needs that change", "reads the same throughout", None, "to read opacity"),
    Broken("truth on generated images", BASE.replace("unet", "truth, data: heads.zip") + SKIN, "recipe.yaml:3", "segmenter.name",
           "'truth'", "unet", None, "cannot segment generated images, which prior 'skin' (ssr) needs"),
    Broken("micro-batches", BASE.replace("1000", "1000, batch: 8, micro_batch: 3"), "recipe.yaml:4", "training.micro_batch", "3",
           "1, 2, 4, 8"),
    Broken("devices", BASE.replace("1000", "1000, batch: 8, devices: 3"), "recipe.yaml:4", "training.batch", "8", "a multiple of 3"),
    Broken("resolution of the data", BASE.replace("heads}", "heads, resolution: 32}"), "recipe.yaml:2", "data.resolution", "32", "64"),
    Broken("reserved stages", BASE + "stages:\n- {images: 3}\n", "recipe.yaml:6", "stages", "1 of them", "an empty list", None,
           "reserved"),
    Broken("reserved transforms", BASE + "transforms: [shading]\n", "recipe.yaml:5", "transforms", "1 of them", "an empty list"),
    Broken("init that is not there", BASE + "init: runs/nowhere\n", "recipe.yaml:5", "init", "'runs/nowhere'", "a path, or shipped"),
    Broken("init with weights of a segmenter", BASE + "init: unet_heads\n", "recipe.yaml:5", "init", "'unet_heads'",
           "shipped weights: heads_eg3d_base"),
    Broken("extends that is not there", "extends: ./bse.yaml\n", "recipe.yaml:1", "extends", "'./bse.yaml'", "a recipe file",
           None, "did you mean 'base.yaml'?", files={"base.yaml": BASE}),
    Broken("extends in a circle", "extends: ./b.yaml\n", "b.yaml:1", "extends", "recipe.yaml -> b.yaml -> recipe.yaml",
           "a chain that ends", files={"b.yaml": "extends: ./recipe.yaml\n"}),
    Broken("extends a number", "extends: [./base.yaml, 3]\n", "recipe.yaml:1", "extends", "3", "a shipped name, a path",
           files={"base.yaml": BASE}),
]  # fmt: skip

IN_OVERRIDES = [
    over("unknown key", "training.btach", "4", got="'btach'", allowed="batch", near="batch"),
    over("unknown option", "priors.skin.wieght", "4", got="'wieght'", allowed="weight", near="weight"),
    over("unknown entry", "priors.skni.weight", "4", at="priors.skni.name", got="nothing", allowed="ssr", near="skin"),
    over("wrong value", "training.batch", "4.5", got="4.5", allowed="an integer >= 1"),
    over("removes what must be", "training.images", "null", got="null", allowed="an integer >= 1"),
    over("not YAML", "training.betas", "[0, 1", at="", says="not YAML"),
    over("no value", "seed", "", got="nothing", allowed="null removes the key"),
    over("not a dotted key", "training..batch", "3", got="'training..batch'", allowed="dotted.key=value"),
    over("extends", "extends", "heads/eg3d_base", got="'heads/eg3d_base'", allowed="a recipe file that extends both"),
    over("duplicate key inside", "training.checkpoint", "{keep: 1, keep: 2}", at="keep", got="'keep' twice"),
    over("impossible", "training.micro_batch", "5", got="5", allowed="1, 2, 4, 8"),
    Broken("no equals sign", BASE, "override 1: seed", "", "'seed'", "dotted.key=value", overrides=("seed",)),
]  # fmt: skip

IN_VARIANTS = [
    Broken("chosen by a wrong name", BASE + "variants: {small: {seed: 1}}\n", "command line", "variants", "'smal'", "small", "small",
           variant="smal"),
    Broken("unknown key", BASE + "variants:\n  small:\n    training: {btach: 4}\n", "recipe.yaml:7 (variant small)", "training.btach",
           "'btach'", "batch", "batch"),
    Broken("unknown option", BASE + SKIN + "variants:\n  soft: {priors: {skin: {erosoin: 3}}}\n", "recipe.yaml:7 (variant soft)",
           "priors.skin.erosoin", "'erosoin'", "erosion", "erosion"),
    Broken("wrong value", BASE + "variants:\n  small:\n    seed: -1\n", "recipe.yaml:7 (variant small)", "seed", "-1",
           "an integer >= 0"),
    Broken("removes a need", BASE + SKIN + "variants:\n  bare: {segmenter: null}\n", "recipe.yaml:5", "priors.skin",
           "a need that is not met", "segmenter: {name: ...}", None, "needs a segmenter"),
    Broken("extends", BASE + "variants:\n  small:\n    extends: heads/eg3d_base\n", "recipe.yaml:7", "variants.small.extends",
           "'heads/eg3d_base'", "overrides of the recipe's other keys"),
    Broken("a number", BASE + "variants:\n  small: 3\n", "recipe.yaml:6", "variants.small", "3", "a mapping of overrides"),
    Broken("a list", BASE + "variants: [small]\n", "recipe.yaml:5", "variants", "['small']", "a mapping of names to overrides"),
]  # fmt: skip

IN_PARENTS = [
    Broken("unknown key", "extends: ./base.yaml\nseed: 1\n", "base.yaml:4", "training.btach", "'btach'", "batch", "batch",
           files={"base.yaml": BASE.replace("images: 1000", "images: 1000, btach: 4")}),
    Broken("option two parents up", "extends: ./middle.yaml\n", "base.yaml:1", "backbone.plane_chanels", "'plane_chanels'",
           "plane_channels", "plane_channels",
           files={"middle.yaml": "extends: ./base.yaml\n", "base.yaml": BASE.replace("none}", "none, plane_chanels: 3}")}),
    Broken("wrong value in the second parent", "extends: [./base.yaml, ./more.yaml]\n", "more.yaml:1", "seed", "'one'", "an integer",
           files={"base.yaml": BASE, "more.yaml": "seed: one\n"}),
    Broken("not YAML", "extends: ./base.yaml\n", "base.yaml:6", "", "", "", None, "begins in line 5",
           files={"base.yaml": BASE + "seed: [1\n"}),
    Broken("in a parent's folder", "extends: ./sub/base.yaml\n", "sub/base.yaml:5", "init", "'there.safetensors'", "a path",
           files={"sub/base.yaml": BASE + "init: there.safetensors\n", "there.safetensors": ""}),
    Broken("variant of a parent", "extends: ./base.yaml\n", "base.yaml:5 (variant small)", "sede", "'sede'", "seed", "seed",
           files={"base.yaml": BASE + "variants: {small: {sede: 3}}\n"}),
]  # fmt: skip

BROKEN = {
    f"{group}: {case.name}": case
    for group, cases in {
        "unknown key": UNKNOWN_KEYS, "unknown name": UNKNOWN_NAMES, "wrong value": WRONG_VALUES, "missing": MISSING,
        "not YAML": NOT_YAML, "impossible": IMPOSSIBLE, "override": IN_OVERRIDES, "variant": IN_VARIANTS, "parent": IN_PARENTS,
    }.items()
    for case in cases
}  # fmt: skip
