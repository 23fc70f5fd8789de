"""Bars of progress: on a terminal one for each part in turn, nothing where nobody watches."""

from __future__ import annotations

import io
import sys

import pytest
from priorzoo.training.progress import part_bars


class Terminal(io.StringIO):
    """A stream that says it is watched."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with part_bars("base") as report:
        for done in (2, 4):
            report("images", done, 4)
        report("shapes", 3, 3)
        report("images", 5, 5)  # of the next model
        report("inversion", 1, 2)  # stopped before its end
    return stream.getvalue()


def test_every_part_has_its_bar_also_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal())
    for part, counts in (("images", "4/4"), ("shapes", "3/3"), ("images", "5/5"), ("inversion", "1/2")):
        assert f"base: {part}" in text and counts in text


def test_nothing_is_shown_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO()) == ""
