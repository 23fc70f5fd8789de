"""Pictures that show a wrong camera convention at a glance: images with the world's axes drawn in, and where the cameras stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.camera import Camera
from ..core.files import write_atomically
from .check import field_of_view, view_angles
from .dataset import Dataset

AXES = (("x", "#e6194b"), ("y", "#2ca02c"), ("z", "#1f5fff"))
AXIS_LENGTH = 0.3  # world units: from the middle of a head to beyond its nose
SHOWN_CAMERAS = 300  # arrows in a plan; more would cover each other
ARROW_LENGTH = 0.5  # world units


def sheet_indices(count: int, places: int) -> list[int]:
    """Up to `places` indices spread evenly over `count`.

    >>> sheet_indices(10, 4)
    [0, 2, 5, 7]
    """
    places = min(count, places)
    return [place * count // places for place in range(places)]


def samples_sheet(data: Dataset, columns: int = 12, rows: int = 6, tile: int = 128) -> np.ndarray:
    """Samples spread evenly over the data set, uint8 [rows * tile, columns * tile, 3]; empty places are white."""
    shown = sheet_indices(len(data), columns * rows)
    sheet = np.full((rows * tile, columns * tile, 3), 255, dtype=np.uint8)
    for place, index in enumerate(shown):
        sized = torch.nn.functional.interpolate(
            data.image(index)[None].float(), size=(tile, tile), mode="nearest-exact" if data.resolution <= tile else "area"
        )
        row, column = divmod(place, columns)
        sheet[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = sized[0].round().byte().permute(1, 2, 0).numpy()
    last = -(-len(shown) // columns)
    return sheet[: last * tile]


def axes_in_picture(camera: Camera, length: float = AXIS_LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the origin and the ends of the world's x, y, z axes fall: [B,4,2] in units of the image size, and their depth [B,4].

    >>> places, _ = axes_in_picture(Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)), length=0.27)
    >>> [[round(v, 3) for v in place] for place in places[0].tolist()][:3]
    [[0.5, 0.5], [0.926, 0.5], [0.5, 0.074]]
    """
    points = torch.cat([torch.zeros(1, 3), length * torch.eye(3)]).to(camera.cam2world)
    return camera.project(points.expand(len(camera), -1, -1))


def sheet_with_axes(data: Dataset, columns: int = 8, rows: int = 6, tile: int = 128) -> np.ndarray:
    """A contact sheet with the world's axes drawn from the origin into every picture: x red, y green, z blue."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(samples_sheet(data, columns, rows, tile))
    shown = sheet_indices(len(data), columns * rows)
    places, depth = axes_in_picture(Camera.from_label(data.labels[shown]))
    for place in range(len(shown)):
        row, column = divmod(place, columns)
        small = Image.new("RGBA", (tile, tile))
        pen = ImageDraw.Draw(small)
        if bool((depth[place] > 0).all()):
            corners = [tuple(v) for v in (places[place] * tile).tolist()]
            for axis in sorted(range(3), key=lambda a: -float(depth[place, a + 1])):  # the far axis first
                pen.line([corners[0], corners[axis + 1]], fill=AXES[axis][1], width=2)
        else:
            pen.text((4, 4), "axes behind", fill=AXES[0][1])
        picture.paste(small, (column * tile, row * tile), small)
    return np.asarray(picture)


def _plan(panel: Any, camera: Camera, across: int, up: int, title: str) -> None:
    """Cameras and the cube of side 1 about the origin, seen along the third axis."""
    few = slice(None, None, max(1, len(camera) // SHOWN_CAMERAS))
    position, forward = camera.position[few].numpy(), camera.forward_axis[few].numpy()
    start, step = position[:, [across, up]], ARROW_LENGTH * forward[:, [across, up]]
    panel.quiver(*start.T, *step.T, width=0.004, angles="xy", scale_units="xy", scale=1, color="#444444")
    panel.plot(*np.concatenate([start, start + step, [[0.8, 0.0], [0.0, 0.8]]]).T, linestyle="none")  # what must be inside the panel
    panel.plot([-0.5, 0.5, 0.5, -0.5, -0.5], [-0.5, -0.5, 0.5, 0.5, -0.5], color="#bbbbbb", linewidth=1)
    for axis in (across, up):
        end = [0.8 * (axis == across), 0.8 * (axis == up)]
        panel.annotate("", end, [0, 0], arrowprops={"arrowstyle": "->", "color": AXES[axis][1], "linewidth": 2})
    panel.set(xlabel=AXES[across][0], ylabel=AXES[up][0], title=title)
    panel.set_aspect("equal", adjustable="datalim")


def write_preview(data: Dataset, path: str | Path) -> None:
    """Write one PNG: samples with the world's axes, the cameras from above and from the side, and how they are spread."""
    from matplotlib.figure import Figure  # a Figure of its own touches no global backend

    camera = Camera.from_label(data.labels)
    sheet = sheet_with_axes(data)
    yaw, pitch = (v.rad2deg().numpy() for v in view_angles(camera))
    figure = Figure(figsize=(17, 8.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [["sheet", "sheet", "above", "side"], ["sheet", "sheet", "yaw", "pitch"], ["sheet", "sheet", "radius", "view"]],
        width_ratios=[2, 2, 1.6, 1.6], height_ratios=[2, 1, 1],
    )  # fmt: skip
    panels["sheet"].imshow(sheet)
    panels["sheet"].set_axis_off()
    panels["sheet"].set_title("x red: right of a frontal picture, y green: up, z blue: out of the front")
    _plan(panels["above"], camera, 0, 2, "from above: the front looks to +z")
    _plan(panels["side"], camera, 2, 1, "from the side")
    radius, view = camera.position.norm(dim=-1).numpy(), field_of_view(camera).rad2deg().numpy()
    for name, values, label in (
        ("yaw", yaw, "yaw (degrees)"), ("pitch", pitch, "pitch (degrees)"), ("radius", radius, "distance from the origin"),
        ("view", view, "horizontal field of view (degrees)"),
    ):  # fmt: skip
        # A single value has a width of its own, or its bar would span the float's rounding.
        spread = max(float(values.max() - values.min()), 0.1)
        middle = float(values.max() + values.min()) / 2
        panels[name].hist(values, bins=41, range=(middle - spread / 2, middle + spread / 2), color="#4c78a8")
        panels[name].set(xlabel=label, ylabel="images")
    with write_atomically(path) as beside:
        figure.savefig(beside, dpi=100, format="png")


def write_samples_sheet(data: Dataset, path: str | Path) -> None:
    """Write samples of the data set as a PNG."""
    from PIL import Image

    with write_atomically(path) as beside:
        Image.fromarray(samples_sheet(data)).save(beside, format="png")


def write_camera_plot(data: Dataset, path: str | Path) -> None:
    """Write a PNG that shows where the cameras stand: yaw against pitch, and the plan seen from above."""
    from matplotlib.figure import Figure

    camera = Camera.from_label(data.labels)
    yaw, pitch = (v.rad2deg().numpy() for v in view_angles(camera))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    angles, above, spread = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    angles.scatter(yaw, pitch, s=4, alpha=0.4, linewidths=0)
    angles.set(xlabel="yaw (degrees)", ylabel="pitch (degrees)", title=f"{len(data)} cameras")
    _plan(above, camera, 0, 2, "from above: the front looks to +z")
    spread.hist(yaw, bins=40)
    spread.set(xlabel="yaw (degrees)", ylabel="images", title="yaw")
    with write_atomically(path) as beside:
        figure.savefig(beside, dpi=110, format="png")
