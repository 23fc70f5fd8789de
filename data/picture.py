"""One photograph made a square RGB picture: what is refused, what is cut, how it is resized."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..core.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ALPHA = ("refuse", "white", "black")
_ORIENTATION = 0x0112  # the EXIF tag
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def open_picture(where: str, file: IO[bytes]) -> Image.Image:
    """Open a picture, reading no more than its header.

    Raises:
        DataError: no picture, 16 bits, CMYK, several frames, or an EXIF tag that turns it (cameras may mean either way).
    """
    try:
        picture = Image.open(file)
        turned = Image.Image.getexif(picture).get(_ORIENTATION, 1)  # a PNG's own method would decode the picture first
    except _UNREADABLE as error:
        raise DataError(f"{where}: is not a readable image ({error})") from error
    if picture.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise DataError(f"{where}: has mode {picture.mode}; 8 bits in grey or RGB, with or without alpha, are allowed: convert it first")
    if getattr(picture, "n_frames", 1) > 1:
        raise DataError(f"{where}: is an animation of {getattr(picture, 'n_frames', 1)} frames")
    if turned not in (0, 1):
        raise DataError(f"{where}: carries EXIF orientation {turned}; store it upright, so that camera and pixels mean the same")
    return picture


def crop_box(where: str, size: tuple[int, int], crop: str | int) -> tuple[int, int, int, int]:
    """The square (left, top, right, bottom) in pixels that is kept of a picture of (width, height) pixels.

    Args:
        crop: "none", "centre" (the largest square about the middle), or the side in pixels of a square about the middle.

    Raises:
        DataError: a picture that is not square with "none"; a crop larger than the picture.

    >>> crop_box("", (400, 301), "centre")
    (49, 0, 350, 301)
    """
    width, height = size
    if crop == "none":
        if width != height:
            raise DataError(f"{where}: is {width} x {height} pixels; images must be square: --crop centre cuts the sides off")
        return 0, 0, width, height
    side = min(width, height) if crop == "centre" else int(crop)
    if side > min(width, height):
        raise DataError(f"{where}: is {width} x {height} pixels, smaller than the crop of {side}")
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def square_pixels(where: str, picture: Image.Image, box: tuple[int, int, int, int], resolution: int, alpha: str) -> np.ndarray:
    """Cut, resize (LANCZOS, antialiased) and flatten: uint8 [resolution, resolution, 3]. Grey is repeated into three channels.

    Args:
        alpha: "white" or "black": what stands behind transparent pixels; "refuse": transparency is an error.

    Raises:
        DataError: damaged data; transparency.
    """
    try:
        picture.load()
    except _UNREADABLE as error:
        raise DataError(f"{where}: is damaged ({error})") from error
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        if layered.getchannel("A").getextrema()[0] == 255:
            picture = layered.convert("RGB")
        elif alpha == "refuse":
            raise DataError(f"{where}: has transparent pixels: choose what is behind them with --alpha white or --alpha black")
        else:
            picture = Image.alpha_composite(Image.new("RGBA", layered.size, alpha), layered).convert("RGB")
    picture = picture.convert("RGB").crop(box)
    if picture.size != (resolution, resolution):
        picture = picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(picture)
