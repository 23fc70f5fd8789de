"""What packing refuses: each for its own, asserted reason, naming file and frame, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from camera_file_writers import LABEL, folder, labels, picture, save
from PIL import Image, PngImagePlugin
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, PriorzooError
from priorzoo.data.pack import PackOptions, pack


def relabel(position: int, value: float) -> Callable[[list[Any]], list[Any]]:
    def change(pairs: list[Any]) -> list[Any]:
        pairs[1][1][position] = value
        return pairs

    return change


def left_handed(pairs: list[Any]) -> list[Any]:
    for row in range(3):
        pairs[1][1][4 * row] *= -1
    return pairs


def opengl_axes(pairs: list[Any]) -> list[Any]:
    for row in range(3):
        pairs[1][1][4 * row + 1] *= -1
        pairs[1][1][4 * row + 2] *= -1
    return pairs


def aside(pairs: list[Any]) -> list[Any]:
    pairs[1][1][3] += 1.5
    return pairs


def at_origin(pairs: list[Any]) -> list[Any]:
    for position in (3, 7, 11):
        pairs[1][1][position] = 0.0
    return pairs


def beside_each_other(pairs: list[Any]) -> list[Any]:
    return [[name, [*LABEL[:3], index, *LABEL[4:]]] for index, (name, _) in enumerate(pairs)]


def all_round(pairs: list[Any]) -> list[Any]:
    yaw = torch.arange(3) * 2 * torch.pi / 3
    return [[name, label] for (name, _), label in zip(pairs, Camera.looking_at_origin(yaw, yaw * 0).label().tolist(), strict=True)]


def turned(tmp: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp / "in" / "1.jpg", picture(seed=1), exif=exif)
    (tmp / "in" / "1.png").unlink()


def sixteen_bits(tmp: Path) -> None:
    save(tmp / "in" / "1.png", picture(channels=1).astype(np.uint16) * 257)


def transparent(tmp: Path) -> None:
    save(tmp / "in" / "1.png", np.dstack([picture(), picture(channels=1)]))


def animated(tmp: Path) -> None:
    frames = [Image.fromarray(picture(seed=i)) for i in range(2)]
    info = PngImagePlugin.PngInfo()
    frames[0].save(tmp / "in" / "1.png", save_all=True, append_images=frames[1:], pnginfo=info)


def cmyk(tmp: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp / "in" / "1.jpg")
    (tmp / "in" / "1.png").unlink()


def wide(tmp: Path) -> None:
    save(tmp / "in" / "1.png", picture(12, 8))


def larger(tmp: Path) -> None:
    save(tmp / "in" / "1.png", picture(16, 16))


def cut_short(tmp: Path) -> None:
    (tmp / "in" / "1.png").write_bytes((tmp / "in" / "1.png").read_bytes()[:120])


def no_picture(tmp: Path) -> None:
    (tmp / "in" / "1.png").write_bytes(b"hello")


def none_at_all(tmp: Path) -> None:
    for file in (tmp / "in").iterdir():
        file.unlink()


def extra_image(tmp: Path) -> None:
    save(tmp / "in" / "3.png", picture())


Change = Callable[[list[Any]], list[Any]]
REFUSED: dict[str, tuple[Callable[[Path], None] | None, Change, dict[str, Any], str]] = {
    "missing camera": (extra_image, list, {}, r"c\.json: no camera for 1 of 4 images, the first is '3\.png'"),
    "extra camera": (None, lambda p: [*p, ["9.png", p[0][1]]], {}, r"c\.json, label 4: no image for 1 of 4 cameras, the first is '9\.png'"),
    "one name twice": (None, lambda p: [*p, p[1]], {}, r"label 4: '1\.png' is a second camera of image '1\.png'"),
    "nan": (None, relabel(3, float("nan")), {}, r"the label of '1\.png' holds a number that is not finite"),
    "left-handed": (None, left_handed, {}, r"label 2 \(1\.png\): rotation mirrors space: its determinant is -1"),
    "sheared": (None, relabel(0, 0.2), {}, r"label 2 \(1\.png\): rotation columns are not orthonormal"),
    "last row": (None, relabel(12, 0.1), {}, r"label 2 \(1\.png\): last row of cam2world"),
    "focal in pixels": (None, relabel(16, 2183.0), {}, r"label 2 \(1\.png\): focal length 2.18e\+03 is too long"),
    "focal negative": (None, relabel(20, -4.0), {}, r"label 2 \(1\.png\): focal length -4 is not positive"),
    "opengl axes": (None, opengl_axes, {}, r"label 2 \(1\.png\): the origin lies behind the camera; labels need camera-to-world"),
    "object aside": (None, aside, {}, r"label 2 \(1\.png\): the origin falls outside the picture, at -?\d+\.\d+, .*--normalise sphere"),
    "camera at the origin": (None, at_origin, {}, r"label 2 \(1\.png\): the camera stands in the origin"),
    "not square": (wide, list, {}, r"in: '1\.png': is 12 x 8 pixels; images must be square: --crop centre"),
    "crop too large": (None, list, {"crop": 9}, r"'0\.png': is 8 x 8 pixels, smaller than the crop of 9"),
    "another size": (larger, list, {}, r"'1\.png': is 16 pixels a side, the first image 8; --resolution"),
    "no power of two": (None, list, {"crop": 6}, r"images are 6 pixels a side, no power of two"),
    "16 bits": (sixteen_bits, list, {}, r"'1\.png': has mode I;16; 8 bits"),
    "transparent": (transparent, list, {}, r"'1\.png': has transparent pixels: choose .*--alpha white"),
    "animated": (animated, list, {}, r"'1\.png': is an animation of 2 frames"),
    "cmyk": (cmyk, list, {}, r"'1\.jpg': has mode CMYK"),
    "exif": (turned, list, {}, r"'1\.jpg': carries EXIF orientation 6; store it upright"),
    "cut short": (cut_short, list, {}, r"'1\.png': is damaged"),
    "no picture": (no_picture, list, {}, r"'1\.png': is not a readable image"),
    "zero images": (none_at_all, list, {}, r"in: holds no image \(looked for \.png, \.jpg, \.jpeg, \.webp\)"),
    "parallel axes": (None, beside_each_other, {"normalise": "sphere"}, "are parallel and meet nowhere"),
    "no front": (None, all_round, {"orient": "cameras"}, "the cameras stand all round"),
    "scale": (None, list, {"scale": -1.0}, "scale and radius must be positive and finite, got -1.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    spoil, change, options, message = REFUSED[name]
    images, cameras = folder(tmp_path / "in"), labels(tmp_path / "c.json", change=change)
    if spoil is not None:
        spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        pack(images, cameras, tmp_path / "out.zip", PackOptions(**options))
    assert {p.name for p in tmp_path.iterdir()} == {"in", "c.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop": "center"}, "crop must be none, centre or a number of pixels, got 'center'"), ({"crop": 0}, "crop must be"),
     ({"resolution": 500}, "resolution must be a power of two from 4, got 500"),
     ({"alpha": "grey"}, "alpha must be one of refuse, white, black"),
     ({"unmatched": "drop"}, "unmatched must be one of refuse, skip"), ({"aim": "orgin"}, "did you mean 'origin'"),
     ({"focal": 0.0}, "focal must be positive"),
     ({"orient": "up"}, "orient must be one of"), ({"normalise": "sphre"}, "did you mean 'sphere'"),
     ({"centre": (0.0, float("nan"), 0.0)}, "three finite numbers")],
)  # fmt: skip
def test_options_out_of_range_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    images, cameras = folder(tmp_path / "in"), labels(tmp_path / "c.json")
    with pytest.raises(PriorzooError, match=message):
        pack(images, cameras, tmp_path / "out.zip", PackOptions(**options))
    assert not (tmp_path / "out.zip").exists()
