"""Line plots as PNG files: what a training logged, and depth profiles along a line of pixels."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#666666")
"""Colours of rows, in order; after Okabe and Ito, so that colour-blind readers can tell them apart."""
TRUE_COLOUR = "#111111"


def panel_keys(records: Mapping[str, Sequence[Mapping[str, Any]]], most: int = 8) -> list[str]:
    """Return the logged quantities worth a panel, at most ``most``: raw values of priors, diagnostics, losses.

    Weighted values, counts and speeds are left to ``metrics.jsonl`` and tensorboard.

    >>> panel_keys({"run": [{"images": 0, "G/adversarial": 1.0, "prior/skin/raw": 2.0, "prior/skin/pixels": 9.0}]})
    ['prior/skin/raw', 'G/adversarial']
    """
    keys = {key for rows in records.values() for row in rows for key, value in row.items() if _is_number(value)}
    hidden = ("images", "step", "seconds", "D/sign_fake")
    kept = [k for k in keys if k not in hidden and not k.endswith(("/weighted", "/pixels", "/samples", "per_second"))]

    def rank(key: str) -> tuple[int, str]:
        if key.startswith("prior/"):
            return 0, key
        return (2 if key.startswith("G/") else 3 if key.startswith("D/") else 1), key

    return sorted(kept, key=rank)[:most]


def curves_png(
    records: Mapping[str, Sequence[Mapping[str, Any]]], colours: Mapping[str, str] | None = None, *, width: int = 4
) -> bytes | None:
    """Plot the logged quantities of several runs, one panel each over the images seen; None when nothing was logged.

    ``records``: per run, the lines of its ``metrics.jsonl``. ``colours`` per run; otherwise they follow the order.
    """
    keys = panel_keys(records)
    if not keys:
        return None
    paint = colours or dict(zip(records, cycle(LINE_COLOURS), strict=False))
    columns = min(width, len(keys))
    rows = -(-len(keys) // columns)
    figure, panels = empty_panels(rows, columns, (3.1 * columns, 2.3 * rows))
    for panel, key in zip(panels, keys, strict=False):
        positive = True
        for name, rows_of_run in records.items():
            points = [(r["images"], r[key]) for r in rows_of_run if _is_number(r.get(key)) and _is_number(r.get("images"))]
            if points:
                x, y = zip(*points, strict=True)
                positive &= min(y) > 0 and max(y) > 20 * min(y)
                panel.plot(x, y, color=paint[name], linewidth=1.3, marker="." if len(x) < 3 else "")
        panel.set_title(key.removeprefix("prior/").removesuffix("/raw") + (" (prior)" if key.startswith("prior/") else ""))
        panel.set_yscale("log" if positive else "linear")
    for panel in panels[len(keys) :]:
        panel.axis("off")
    for panel in panels[max(0, len(keys) - columns) : len(keys)]:
        panel.set_xlabel("images seen")
    handles = [_line(paint[name]) for name in records]
    # A plotted name is text: a dollar sign in it does not begin a formula.
    figure.legend(handles, [n.replace("$", r"\$") for n in records], loc="outside upper left", ncols=min(4, len(records)))
    return plot_bytes(figure)


@dataclass(frozen=True)
class Profile:
    """One line of a depth profile: ``depth`` [n] along the rays in world units, NaN where there is no surface."""

    name: str
    depth: NDArray[np.floating[Any]]
    colour: str = TRUE_COLOUR


def depth_profile_png(profiles: Sequence[Profile], eyes: NDArray[np.bool_], *, pitch: float) -> bytes:
    """Plot depths along one row of pixels, nearer to the camera higher up, with the eye's columns shaded.

    Each line is shifted, not scaled, to the mean of the first (the true head) over the columns where both have a
    surface: the plot compares forms. ``eyes`` [n]: columns that show an eye. ``pitch``: width of a pixel at the head in
    world units.
    """
    figure, (panel,) = empty_panels(1, 1, (6.4, 3.3))
    x = (np.arange(len(eyes)) - (len(eyes) - 1) / 2) * pitch
    reference = profiles[0].depth
    level = float(np.nanmean(reference)) if np.isfinite(reference).any() else 0.0
    for start, stop in _spans(eyes):
        panel.axvspan(x[start] - pitch / 2, x[stop] + pitch / 2, color="#4a7bd0", alpha=0.14, linewidth=0)
    for profile in profiles:
        both = np.isfinite(profile.depth) & np.isfinite(reference)
        shift = float((profile.depth[both] - reference[both]).mean()) if both.any() else 0.0
        true = profile is profiles[0]
        panel.plot(x, level + shift - profile.depth, color=profile.colour, linewidth=2.4 if true else 1.5,
                   linestyle="--" if true else "-", label=profile.name.replace("$", r"\$"))  # fmt: skip
    panel.set_xlabel("across the face (world units); shaded: the eye")
    panel.set_ylabel("towards the camera (world units)")
    panel.set_aspect("equal", adjustable="datalim")
    panel.legend(frameon=False, loc="lower center", fontsize=8)
    return plot_bytes(figure)


def eye_row(eyes: NDArray[np.bool_]) -> int | None:
    """Return the row of an eye mask [h,w] with most eye pixels (the middle one of equals), None where no eye is seen.

    >>> eye_row(np.array([[0, 0], [1, 1], [0, 1]], dtype=bool))
    1
    """
    counts = eyes.sum(axis=1)
    if not counts.any():
        return None
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _spans(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def empty_panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """Return a figure of ``size`` in inches and its ``rows`` x ``columns`` panels, row by row, in the style of all plots here."""
    # Figure without pyplot: no display, no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.tick_params(labelsize=8)
        panel.title.set_fontsize(9)
        panel.xaxis.label.set_size(9)
        panel.yaxis.label.set_size(9)
    return figure, panels


def _line(colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=2)


def plot_bytes(figure: Any) -> bytes:
    """Return the figure as a PNG file: the same bytes for the same figure."""
    buffer = io.BytesIO()
    # No "Software" entry: the same plot is the same bytes under every matplotlib of one rendering.
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
