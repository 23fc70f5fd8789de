"""Schedules by hand, and what a wrong one says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from priorzoo.core.errors import PriorzooError
from priorzoo.core.schedule import Cosine, Exponential, Linear, Schedule, Steps, schedule_from_plain, value_at


def curve(schedule: Schedule, positions: list[float]) -> list[float]:
    return [schedule.at(images=int(p), steps=-1) for p in positions]


def test_linear_by_hand() -> None:
    assert curve(Linear(start=1.0, end=3.0, begin=10, until=20), [0, 10, 15, 20, 99]) == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert curve(Linear(start=1.0, end=3.0, begin=10, until=10), [9, 10]) == [1.0, 3.0]


def test_cosine_by_hand() -> None:
    values = curve(Cosine(start=1.0, end=0.0, until=90), [0, 30, 45, 90, 200])
    assert values == pytest.approx([1.0, 0.75, 0.5, 0.0, 0.0])
    assert curve(Cosine(start=1.0, end=2.0, begin=5, until=5), [4, 5]) == [1.0, 2.0]


def test_exponential_by_hand_and_capped() -> None:
    schedule = Exponential(start=0.01, rate=0.1, cap=10.0)
    assert curve(schedule, [0, 10, 100]) == pytest.approx([0.01, 0.01 * math.e, 0.1])
    assert Exponential(start=2.0, rate=1.0).at(images=10**9, steps=0) > 1e300  # no overflow error


def test_steps_by_hand() -> None:
    assert curve(Steps(values=(32.0, 64.0, 128.0), at_positions=(0, 100, 300)), [0, 99, 100, 299, 300, 900]) == [
        32.0, 32.0, 64.0, 64.0, 128.0, 128.0,
    ]  # fmt: skip


def test_unit_chooses_the_clock() -> None:
    assert Linear(until=100).at(images=50, steps=1) == 0.5
    assert Linear(until=100, unit="steps").at(images=50, steps=1) == 0.01


def test_plain_numbers_are_themselves() -> None:
    assert value_at(3, images=10, steps=2) == 3.0
    assert value_at(Linear(until=10), images=5, steps=0) == 0.5


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(end=2.0, until=7.0),
        Cosine(until=5.0, unit="steps"),
        Exponential(rate=0.1, cap=3.0),
        Steps(values=(1.0, 2.0), at_positions=(0.0, 9.0)),
    ],
)
def test_mapping_round_trip(schedule: Schedule) -> None:
    assert schedule_from_plain(schedule.to_plain()) == schedule


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"kind": "linera"}, "'linera' is not one of linear, exponential, cosine, steps, did you mean 'linear'"),
        ({}, "kind None is not one of"),
        ({"kind": "linear", "untill": 3}, "unknown field 'untill'; allowed: .*until.*did you mean 'until'"),
        ({"kind": "linear", "until": "soon"}, "until must be a number, got 'soon'"),
        ({"kind": "linear", "until": True}, "until must be a number, got True"),
        ({"kind": "cosine", "begin": 100}, "cosine: until must not lie before begin 100, got 1"),
        ({"kind": "linear", "begin": 9, "until": 4}, "linear: until must not lie before begin 9, got 4"),
        ({"kind": "linear", "unit": "epochs"}, "unit 'epochs' is not one of images, steps"),
        ({"kind": "steps", "values": [1, 2], "at_positions": [5, 9]}, "must start at 0"),
        ({"kind": "steps", "values": [1, 2], "at_positions": [0, 0]}, "grow"),
        ({"kind": "steps", "values": [1, 2], "at_positions": [0]}, "as many as values"),
        ({"kind": "steps", "values": [1, "x"], "at_positions": [0, 1]}, "values must be a number"),
    ],
)
def test_wrong_schedules_say_what_is_allowed(mapping: dict[str, Any], words: str) -> None:
    with pytest.raises(PriorzooError, match=words):
        schedule_from_plain(mapping)
