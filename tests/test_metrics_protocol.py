"""Results: stored whole, read back, compared only under one protocol, paired over the same latents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from priorzoo.cli.main import main
from priorzoo.core.errors import PriorzooError
from priorzoo.metrics.columns import COLUMNS, GROUPS
from priorzoo.metrics.protocol import Result, judged_difference, paired_difference, require_equal_protocols
from priorzoo.metrics.statistics import mean_interval, paired_interval, student_quantile

PROTOCOL = {"seed": 0, "images": {"count": 4, "sampling": "random"}, "shapes": {"resolution": 64}}


def result(subject: str = "a", shift: float = 0.0, **protocol: object) -> Result:
    drawn = np.random.default_rng(0)
    base = drawn.normal(size=8)
    own = np.random.default_rng(sum(subject.encode())).normal(size=8) * 0.01
    terms = {"truth_depth": base + shift + own, "sr_skin": 10 + base + shift + own, "truth_iou": 0.5 + shift + 0.1 * own}
    true = {"sr_skin": np.full(5, 8.0), "truth_depth": np.zeros(5)}
    return Result(subject, {**PROTOCOL, **protocol}, terms, true, np.ones((3, 2), np.float32), {"images": 1.0})


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    saved = result()
    saved.terms["sr_eyes"] = np.array([math.nan, 1.0])
    saved.save(tmp_path / "results" / "evaluation.json")
    loaded = Result.load(tmp_path / "results" / "evaluation.json")
    assert loaded.protocol == saved.protocol
    assert loaded.columns() == saved.columns() == ["truth_depth", "truth_iou", "sr_skin", "sr_eyes"]
    for column in saved.columns():
        assert np.array_equal(loaded.terms[column], saved.terms[column], equal_nan=True)
    assert loaded.true_value("sr_skin") == saved.true_value("sr_skin")
    assert loaded.features is not None
    assert loaded.features.shape == (3, 2)
    assert {p.name for p in (tmp_path / "results").iterdir()} == {"evaluation.json", "evaluation.npz"}


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    result("old").save(path)
    broken = result("new")
    broken.protocol["unwritable"] = object()
    with pytest.raises(TypeError):
        broken.save(path)
    assert Result.load(path).subject == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"evaluation.json", "evaluation.npz"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read as a result"),
        ("{}", "not a result of `priorzoo evaluate`"),
        ('{"kind": "priorzoo evaluation", "version": 1}', "a damaged result"),
        ('{"kind": "priorzoo evaluation", "version": 99}', "version 99"),
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(PriorzooError, match=says):
        Result.load(path)


def test_unequal_protocols_are_refused_naming_the_field() -> None:
    other = result("b", images={"count": 5, "sampling": "random"})
    with pytest.raises(PriorzooError, match=r"protocol field `images\.count` is 4 in a and 5 in b"):
        require_equal_protocols([result("a"), other])
    with pytest.raises(PriorzooError, match=r"`conditioned` is absent in a and true in b"):
        paired_difference(result("a"), result("b", conditioned=True), "truth_depth")


def test_paired_differences_see_what_separate_intervals_do_not() -> None:
    a, b = result("a", shift=0.1), result("b")
    difference = paired_difference(a, b, "truth_depth")
    assert difference.value == pytest.approx(0.1, abs=0.03)
    assert difference.excludes_zero
    assert a.value("truth_depth").low < b.value("truth_depth").value < a.value("truth_depth").high


def test_distances_to_the_true_value_are_compared_and_better_is_negative() -> None:
    near, far = result("a", shift=-1.0), result("b")
    assert near.distance("sr_skin").value == pytest.approx(far.distance("sr_skin").value - 1.0, abs=0.03)
    assert judged_difference(near, far, "sr_skin").high < 0
    # Below the true value again: as far away as before, on the other side.
    below, above = result("a", shift=-4.0), result("b")
    mean = above.value("sr_skin").value
    assert judged_difference(below, above, "sr_skin").value == pytest.approx((8 - (mean - 4)) - (mean - 8), abs=0.03)
    # More intersection over union is better, hence negative when judged.
    assert judged_difference(result("a", shift=0.2), result("b"), "truth_iou").high < 0


def test_unknown_columns_name_the_nearest() -> None:
    with pytest.raises(PriorzooError, match="did you mean 'truth_depth'"):
        result().value("truth_dept")
    with pytest.raises(PriorzooError, match="has no true value"):
        result().distance("truth_iou")


def test_intervals() -> None:
    assert student_quantile(7) == pytest.approx(2.364624, abs=1e-5)
    alone = mean_interval(np.array([3.0, math.nan]))
    assert (alone.value, alone.count) == (3.0, 1)
    assert math.isnan(alone.low)
    assert not alone.excludes_zero
    assert mean_interval(np.array([])).count == 0
    pairs = paired_interval(np.array([1.0, math.nan, 3.0, 4.0]), np.array([0.0, 0.0, math.nan, 2.0]))
    assert (pairs.value, pairs.count) == (1.5, 2)


def test_the_intervals_cover_the_truth_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(0)
    covered = [(i := mean_interval(drawn.normal(1.0, 2.0, 6))).low < 1.0 < i.high for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_our_features_are_never_called_fid() -> None:
    assert COLUMNS["fd_heads"].label == "FD(heads)"
    assert [c.key for c in COLUMNS.values() if c.label.startswith(("FID", "KID"))] == ["fid", "kid"]
    assert {c.group for c in COLUMNS.values()} == set(GROUPS)


def test_compare_prints_paired_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("control", 0.0), ("ours", -0.5)):
        result(name, shift).save(tmp_path / name / "results" / "evaluation.json")
    assert main(["compare", str(tmp_path / "control"), str(tmp_path / "ours"), "--json"]) == 0
    column = json.loads(capsys.readouterr().out)["columns"]["sr_skin"]
    assert column["true"]["value"] == 8.0
    assert column["runs"][0]["difference"] is None
    assert column["runs"][1]["difference"]["high"] < 0  # closer to the true value
    assert main(["compare", str(tmp_path / "control"), str(tmp_path / "ours")]) == 0
    printed = capsys.readouterr().out
    assert "closer to true" in printed
    assert "ours" in printed


def test_compare_refuses_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result("a").save(tmp_path / "a" / "results" / "evaluation.json")
    result("b", seed=1).save(tmp_path / "b" / "results" / "evaluation.json")
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "protocol field `seed` is 0 in a and 1 in b" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "empty")]) == 2
    assert "priorzoo evaluate" in capsys.readouterr().err
    for words in (["nothere"], [str(tmp_path / "a"), "nothere"], ["nothere.json", str(tmp_path / "a")]):
        assert main(["compare", *words]) == 2
        assert "nothere" in (error := capsys.readouterr().err) and ": no such run, result file or ablation" in error
    assert main(["compare", str(tmp_path / "a")]) == 2
    assert "at least two runs, got 1" in capsys.readouterr().err
