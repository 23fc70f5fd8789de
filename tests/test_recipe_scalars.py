"""Scalars are YAML 1.2's, and what is written is read back exactly."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from priorzoo.core.recipe.problems import Origin
from priorzoo.core.recipe.reading import read_text
from priorzoo.core.recipe.scalars import read_scalar, write_scalar
from priorzoo.core.recipe.writing import write_yaml

HERE = Origin("text", 0, Path())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5), ("1E3", 1000.0), ("0.5e-5", 0.5e-5), (".5", 0.5), ("1.", 1.0), ("+3", 3), ("-0", 0), ("017", 17),
        ("0o17", 15), ("0x1F", 31), ("16_000", 16000), ("1_000.5", 1000.5), (".inf", math.inf), ("-.Inf", -math.inf),
        ("true", True), ("True", True), ("false", False), ("null", None), ("~", None), ("", None),
        # YAML 1.1 would make numbers, truth values and dates of these.
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no"), ("y", "y"), ("1:30", "1:30"), ("190:20:30", "190:20:30"),
        ("2026-01-02", "2026-01-02"), ("0b11", "0b11"), ("1__0", "1__0"), ("_1", "_1"), ("1_", "1_"), ("e5", "e5"), ("1e", "1e"),
        ("tRue", "tRue"), ("0o8", "0o8"), ("inf", "inf"), ("nan", "nan"), (".", "."), ("-", "-"), ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_reads_as_yaml_1_2(text, value):
    read = read_scalar(text)
    assert read == value and type(read) is type(value)


def test_reads_not_a_number():
    assert math.isnan(read_scalar(".nan"))


def test_quotes_make_text():
    tree = read_text("{a: '5', b: \"true\", c: 5, d: |\n  null\n}".replace(", d: |\n  null\n", ""), HERE)
    assert tree.plain() == {"a": "5", "b": "true", "c": 5}
    assert read_text("a: |\n  5\n", HERE).plain() == {"a": "5\n"}


def test_keys_are_text():
    assert read_text("{on: 1, 5: 2, null: 3}", HERE).plain() == {"on": 1, "5": 2, "null": 3}


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(exclude_categories=["Cs"])),
    st.from_regex(r"[-+0-9._eExo:~a-z ]{1,8}", fullmatch=True),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(scalars)
def test_every_scalar_comes_back(value):
    read = read_text(f"[{write_scalar(value)}]", HERE).plain()[0]
    assert read == value and type(read) is type(value)


plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_ :#-5", min_size=1, max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b.c", "on", "5"]), plain, min_size=1, max_size=3))
def test_every_mapping_comes_back(mapping):
    assert read_text(write_yaml(mapping), HERE).plain() == mapping
    assert read_text(write_yaml(mapping, lambda key: "here:1"), HERE).plain() == mapping


def test_lines_of_keys_and_values_are_kept():
    tree = read_text("a: 1\nb:\n  - 2\n  - {c: 3,\n     d:\n       4}\n", HERE)
    assert [(key, node.origin.line, node.key_origin.line) for key, node in tree.leaves()] == [("a", 1, 1), ("b", 3, 2)]
    inner = tree.value["b"].value[1]
    assert (inner.value["d"].key_origin.line, inner.value["d"].origin.line) == (5, 6)
