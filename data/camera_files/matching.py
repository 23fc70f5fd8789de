"""Which camera belongs to which image, by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from ...core.errors import DataError, did_you_mean
from .frame import CameraFrame

COMPARED = 500  # names among which the nearest is looked for; it takes a second for ten thousand
SKIP = "--unmatched skip leaves them out"


def _parts(name: str) -> tuple[str, ...]:
    """Folders and stem; the suffix of an image is no part of its name: cameras often name another format, or none."""
    path = PurePosixPath(name.replace("\\", "/"))
    known = path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".exr", ".mat")
    return tuple(part for part in (path.with_suffix("") if known else path).parts if part not in (".", "/"))


def _same_end(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shared = min(len(a), len(b))
    return a[-shared:] == b[-shared:]


def match_cameras(path: str, frames: Sequence[CameraFrame], images: Sequence[str], *, skip: bool = False) -> dict[str, CameraFrame]:
    """The frame of every image, in the order of `images`.

    The whole name decides; else names without suffix, where one may lack leading folders of the other ("images/0001.jpg" is
    0001.png).

    Args:
        path: of the camera file, for messages.
        skip: leave out images without a camera and cameras without an image, instead of refusing them.

    Raises:
        DataError: an image without a camera, a camera without an image, two for one.
    """
    exact = set(images)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_stem[_parts(image)[-1]].append(image)
    found: dict[str, CameraFrame] = {}
    left: list[CameraFrame] = []
    for frame in frames:
        parts = _parts(frame.name)
        plain = frame.name.removeprefix("./")
        near = [plain] if plain in exact else [i for i in by_stem.get(parts[-1] if parts else "", []) if _same_end(parts, _parts(i))]
        if len(near) > 1:
            raise DataError(f"{frame.where}: {frame.name!r} may be the camera of {near[0]!r} or of {near[1]!r}")
        if not near:
            left.append(frame)
        elif near[0] in found:
            other = found[near[0]]
            raise DataError(
                f"{frame.where}: {frame.name!r} is a second camera of image {near[0]!r}; the first is {other.name!r}, {other.where}"
            )
        else:
            found[near[0]] = frame
    bare = [image for image in images if image not in found]
    if bare and not skip:
        close = did_you_mean(bare[0], [frame.name for frame in left[:COMPARED]])
        raise DataError(f"{path}: no camera for {len(bare)} of {len(images)} images, the first is {bare[0]!r}{close} ({SKIP})")
    if left and not skip:
        close = did_you_mean(left[0].name, bare[:COMPARED])
        raise DataError(
            f"{left[0].where}: no image for {len(left)} of {len(frames)} cameras, the first is {left[0].name!r}{close} ({SKIP})"
        )
    if not found:
        raise DataError(
            f"{path}: none of its {len(frames)} cameras belongs to one of the {len(images)} images, e.g. {frames[0].name!r}, {images[0]!r}"
        )
    return {image: found[image] for image in images if image in found}
