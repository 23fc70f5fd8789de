"""Frames as a clip's file: .mp4 (H.264, needs the package av) or .gif, written while the frames are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import MissingPackageError, PriorzooError, did_you_mean
from ..core.files import write_atomically
from .sheets import BACKDROP, Picture

QUALITY = "18"  # H.264's constant rate factor: 0 is lossless, 23 its default, 18 is said to look lossless


def check_video(path: str | os.PathLike[str], fps: float) -> None:
    """Refuse, before anything is drawn, an ending that is not written, a rate, and an .mp4 without the package that writes it."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise PriorzooError(f"{path}: clips are written as {', '.join(WRITERS)}{did_you_mean(suffix, WRITERS)}")
    if not 1.0 <= fps <= 240.0:
        raise PriorzooError(f"--fps must be from 1 to 240, got {fps:g}")
    if suffix == ".mp4":
        _av()


def save_video(frames: Iterable[Picture], path: str | os.PathLike[str], fps: float = 30.0) -> None:
    """Write frames of one size by the path's ending, whole or not at all; no more than a few are held at a time (.mp4).

    A .gif's frames last whole hundredths of a second and take 256 colours; its frames are held as 8-bit indices until
    the end. Raises PriorzooError for the ending, the rate and no frames at all, MissingPackageError for .mp4 without av.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "clip.gif"
    >>> save_video([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)], path)
    >>> path.read_bytes()[:6]
    b'GIF89a'
    """
    check_video(path, fps)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise PriorzooError(f"{path}: a clip needs at least one frame")
    with write_atomically(path) as beside:
        WRITERS[Path(path).suffix.lower()](_of_one_size(first, frames), beside, fps)


def _of_one_size(first: Picture, rest: Iterator[Picture]) -> Iterator[Picture]:
    for frame in chain([first], rest):
        if frame.shape != first.shape:
            raise PriorzooError(f"frames of one clip are of one size: {list(first.shape[:2])} and {list(frame.shape[:2])}")
        yield frame


def _write_mp4(frames: Iterator[Picture], path: Path, fps: float) -> None:
    av = _av()
    with av.open(str(path), "w") as file:
        stream = None
        for frame in frames:
            frame = even_sides(frame)
            if stream is None:
                stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"  # the one form that every player takes; colours are halved in resolution
                stream.options = {"crf": QUALITY}
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                file.mux(packet)
        if stream is not None:
            for packet in stream.encode(None):
                file.mux(packet)


def _write_gif(frames: Iterator[Picture], path: Path, fps: float) -> None:
    from PIL import Image

    pages = (Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames)
    duration = max(2, round(100.0 / fps)) * 10  # viewers slow down what lasts less than 2 hundredths
    next(pages).save(path, format="GIF", save_all=True, append_images=pages, duration=duration, loop=0, disposal=1)


def even_sides(frame: Picture) -> Picture:
    """The frame with a line of backdrop below and on the right where a side is odd: H.264 halves the colours' resolution.

    >>> even_sides(np.zeros((3, 4, 3), np.uint8)).shape
    (4, 4, 3)
    """
    height, width = frame.shape[:2]
    if not height % 2 and not width % 2:
        return frame
    out = np.empty((height + height % 2, width + width % 2, 3), np.uint8)
    out[:] = BACKDROP
    out[:height, :width] = frame
    return out


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError(
            ".mp4 files are written by the package av: pip install 'priorzoo[video]' (or pip install av); a .gif needs nothing"
        ) from error
    return av


WRITERS: dict[str, Callable[[Iterator[Picture], Path, float], None]] = {".mp4": _write_mp4, ".gif": _write_gif}
