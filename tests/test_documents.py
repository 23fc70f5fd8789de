"""What the documents say holds: links lead somewhere, examples run, recipes are accepted, verbs exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(language: str) -> list[str]:
    return [text for path in DOCUMENTS for kind, text in BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [t for t in targets if t and not t.startswith(("http://", "https://"))]
    assert [t for t in local if not (path.parent / t).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|docs|core|priors|cli|\.ci|training|data|metrics)/[\w./]+)`", text)
    assert [n for n in named if not (ROOT / n).exists()] == []


def test_examples_in_the_readme_run():
    (example,) = [block for block in _blocks("python") if "import torch" in block]
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert float(names["loss"]) > 0  # type: ignore[arg-type]


def test_the_recipe_in_the_readme_is_accepted(tmp_path):
    from priorzoo import load_recipe

    recipes = _blocks("yaml")
    assert recipes
    for text in recipes:
        file = tmp_path / "my_recipe.yaml"
        file.write_text(text, encoding="utf-8")
        assert load_recipe(str(file)).priors


def test_verbs_in_the_documents_exist():
    from priorzoo.cli.main import VERBS

    verbs = {v for block in _blocks("") for v in re.findall(r"^priorzoo ([a-z-]+)", block, re.MULTILINE)}
    assert verbs
    missing = [verb for verb in verbs if verb not in VERBS]
    assert missing == []


def test_every_verb_is_in_the_documents():
    from priorzoo.cli.main import VERBS

    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert [verb for verb in VERBS if not re.search(rf"priorzoo {verb}\b", text)] == []


def test_every_buffer_and_class_is_explained():
    from priorzoo.core.classes import CLASS_NAMES
    from priorzoo.core.scene import BUFFERS, DERIVED

    explanation = ROOT / "docs" / "explanation"
    architecture = (explanation / "architecture.md").read_text(encoding="utf-8")
    assert [name for name in (*BUFFERS, *DERIVED) if f"`{name}`" not in architecture] == []
    conventions = " ".join((explanation / "conventions.md").read_text(encoding="utf-8").split())
    assert " ".join(CLASS_NAMES) in conventions


def test_every_measure_is_explained():
    from priorzoo.metrics.columns import COLUMNS

    measures = (ROOT / "docs" / "explanation" / "measures.md").read_text(encoding="utf-8")
    # A label may carry a region after a comma and a mark in brackets: "normals, skin (est.)".
    first_words = {column.label.split(",")[0].removesuffix(" (est.)").removesuffix(" x100") for column in COLUMNS.values()}
    first_words = {w.removesuffix(" eyes").removesuffix(" skin") for w in first_words}
    assert [word for word in first_words if word not in measures] == []


def test_every_option_that_deviates_is_an_option():
    from priorzoo.backbones.backgrounds.sphere import Sphere
    from priorzoo.backbones.eg3d.options import EG3DOptions
    from priorzoo.backbones.pigan import GOFOptions
    from priorzoo.core.recipe.schema import Objective, Training
    from priorzoo.core.registry import PRIORS
    from priorzoo.priors.density_monotonic import DensityMonotonic
    from priorzoo.priors.density_tv import DensityTV
    from priorzoo.priors.ssr import SSR

    text = (ROOT / "docs" / "explanation" / "deviations.md").read_text(encoding="utf-8")
    eg3d, ssr = text.split("## SSR")
    published = EG3DOptions.__dataclass_fields__ | GOFOptions.__dataclass_fields__
    cells = [line.split("|")[-2].strip() for line in eg3d.splitlines() if line.startswith("|") and line.count("|") == 5]
    networks = {word for cell in cells if not cell.startswith("prior") for word in re.findall(r"`(\w+)(?:: \w+)?`", cell)}
    assert {"plane_axes", "importance", "depth", "raw_image", "conditioning", "superresolution_noise", "discriminator"} <= networks
    assert sorted(networks - published.keys() - Sphere.__init__.__kwdefaults__.keys()) == []
    for cell in cells:
        named = re.fullmatch(r"prior `(\w+)`: `(\w+): (\w+)`.*", cell)
        if named and named[3] not in ("true", "false"):
            PRIORS.get(named[1]).check_options(**{named[2]: named[3] if named[3].isidentifier() else float(named[3])})
    for section, key in re.findall(r"`(objective|training)\.(\w+)", eg3d):
        assert key in {"objective": Objective, "training": Training}[section].model_fields
    assert DensityTV(as_published=True).as_published
    assert DensityMonotonic(as_published=True, smoothness=0.025).as_published
    for option in ("reduction", "min_opacity", "normalise", "scope", "empty", "max_view_angle", "view_angle_ramp", "second_order"):
        assert f"`{option}" in ssr
        assert option in SSR.__init__.__kwdefaults__ or option in SSR.__mro__[1].__init__.__kwdefaults__
