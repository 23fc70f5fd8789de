"""The figure of analytic rays by pencil, and the page about separation against the results that it names."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from priorzoo.export.ray_losses import COLOURS, INTERVALS, main, ray_losses_png, ray_panels

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "explanation" / "separation.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def panels():
    return ray_panels()


def result(name: str) -> dict:
    return json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))


def test_values_and_derivatives_over_opacity(panels):
    value, slope, a = panels[0], panels[1], panels[0].x
    inner = (a > 0.0) & (a < 1.0)
    entropy = -a[inner] * np.log(a[inner]) - (1 - a[inner]) * np.log(1 - a[inner])
    assert np.allclose(value.lines["background separation"], np.minimum(a, 1 - a), atol=1e-12)
    assert np.allclose(value.lines["opacity entropy"][inner], entropy, atol=1e-9)
    assert np.allclose(value.lines["sparsity"], np.sqrt(a**2 + 0.01) - 0.1)
    assert np.allclose(value.lines["coverage"], np.maximum(0.4 - a, 0) + np.maximum(a - 0.9, 0))
    decided = slope.lines["background separation"]
    assert (decided[a < 0.5] == 1).all() and (decided[a > 0.5] == -1).all() and np.isnan(decided[a == 0.5]).all()
    assert np.allclose(slope.lines["opacity entropy"][inner], np.log(1 - a[inner]) - np.log(a[inner]), atol=1e-6)


def test_a_hidden_surface_costs_ray_entropy_alone(panels):
    panel, a = panels[2], panels[2].x
    apart = a * (1 - a) + (a**2 + (1 - a) ** 2) / (3 * INTERVALS)  # half a ray apart
    assert np.allclose(panel.lines["distortion"], apart / apart.max())
    share = a / (1 + a)
    bits = -np.where(share > 0, share * np.log2(share, where=share > 0, out=np.zeros_like(a)), 0) - (1 - share) * np.log2(1 - share)
    assert np.allclose(panel.lines["ray entropy"], bits / bits.max(), atol=1e-6)
    assert panel.lines["distortion"][-1] < 0.02 and panel.lines["depth variance"][-1] == 0 and panel.lines["ray entropy"][-1] == 1


def test_two_surfaces(panels):
    apart, along = panels[3], panels[4]
    d = apart.x[1:]
    linear = d / 2 + 1 / (6 * INTERVALS)
    assert np.allclose(apart.lines["distortion"][1:], linear / linear[-1])
    square = np.maximum(d**2 / 4 - (3 / INTERVALS) ** 2, 0)
    assert np.allclose(apart.lines["depth variance"][1:], square / square[-1])
    assert np.allclose(apart.lines["ray entropy"][1:], 1.0) and apart.lines["ray entropy"][0] == pytest.approx(0, abs=1e-9)
    # Between the two every weight costs the same, outside the slope is 2; all are above 0. Not so the variance's.
    pull, x = along.lines["distortion"], along.x
    between = (x > 0.27) & (x < 0.74)
    assert np.allclose(pull[between], 0.5) and np.allclose(np.diff(pull[x < 0.25]), -2 / INTERVALS) and pull.min() > 0
    assert along.lines["depth variance"][between].max() < 0 < along.lines["depth variance"][0]


def test_one_thick_surface(panels):
    panel, n = panels[5], panels[5].x
    assert np.allclose(panel.lines["distortion"], n / n[-1])  # n intervals filled evenly: n / (3 * 96)
    spread = np.maximum((n**2 - 1) / 12 - 9, 0)
    assert np.allclose(panel.lines["depth variance"], spread / spread[-1], atol=1e-9)
    assert panel.lines["ray entropy"][0] == pytest.approx(0, abs=1e-9) and (np.diff(panel.lines["ray entropy"]) > 0).all()


def test_the_figure_is_the_committed_one_in_form_and_repeatable(tmp_path, capsys):
    png = ray_losses_png()
    assert png == ray_losses_png()
    mine, shown = Image.open(io.BytesIO(png)), Image.open(ROOT / "docs" / "images" / "separation.png")
    assert mine.size == shown.size
    # Fonts may differ between installations, curves may not.
    apart = np.abs(np.asarray(mine.convert("L"), float) - np.asarray(shown.convert("L"), float))
    assert (apart > 64).mean() < 0.02
    colours = {tuple(c) for c in np.asarray(mine.convert("RGB")).reshape(-1, 3)[::3]}
    assert all(tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) in colours for c in COLOURS.values())
    assert main([str(tmp_path / "a.png")]) == 0 and (tmp_path / "a.png").read_bytes() == png
    assert main([]) == 2 and "usage" in capsys.readouterr().err


def test_the_costs_on_the_page_are_those_that_were_measured():
    shares = result("bench_heads_ballgan.json")["shares"]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) % \|$", PAGE, re.MULTILINE))
    named = {key.split("`")[1]: float(number) for key, number in rows.items() if "`" in key}
    priors = {name: share for name, share in shares.items() if name.startswith("prior ")}
    assert set(named) == {*priors, "segmenter"} and len(priors) == 8
    assert all(number == round(100 * shares[name], 1) for name, number in named.items())
    assert float(rows["all of these"]) == round(100 * sum(priors.values()), 1) < 5.0


def test_the_ratios_on_the_page_are_those_that_were_measured():
    measured = result("bench_distortion.json")
    shown = [float(number) for number in re.findall(r"^\| (?:the|reading)[^|]+ \| ([\d.]+) \|$", PAGE, re.MULTILINE)]
    ratios = measured["ratios"]
    assert shown == [float(f"{value:.3g}") if value > 100 else float(f"{value:.2g}") for value in ratios.values()]
    assert ratios["double sum to linear, time"] > 10 and ratios["double sum to linear, memory"] > 20
    assert (measured["samples"], measured["rays"], measured["intervals"]) == (4, 4096, 96)
    assert max(measured["largest_difference"].values()) < 1e-6
