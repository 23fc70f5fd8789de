"""Images and cameras of any known format become a data set in EG3D's format."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.camera import EG3D_FOCAL, EG3D_RADIUS, Camera
from ..core.errors import DataError
from ..core.options import check_choice
from .archive import Archive
from .camera_files.formats import read_cameras
from .camera_files.frame import CameraFrame, packed_intrinsics
from .camera_files.matching import match_cameras
from .check import label_problems
from .eg3d_format import LABELS_FILE, add_entry, check_out, encode_png, image_name, labels_json, new_zip
from .picture import ALPHA, PICTURE_SUFFIXES, crop_box, open_picture, square_pixels
from .world import on_sphere, world_of

PACK_VERSION = 1
AIMS = ("origin", "any")
OPENCV = "labels need camera-to-world matrices of OpenCV axes (x right, y down, z forward) and the object at the origin"


@dataclass(frozen=True)
class PackOptions:
    """Everything but the files that decides the bytes of a packed data set.

    cameras_format: "auto" or one of camera_files.formats.FORMATS. crop: "none", "centre" or the side in pixels of a square about the
    middle. resolution: pixels a side, a power of two; None: that of the images. alpha: what stands behind transparent pixels.
    unmatched: "refuse", or "skip" images without a camera and cameras without an image. orient, normalise, centre, scale, radius
    (world units): see world.world_of and world.on_sphere. focal: image widths, for "deep3d" alone. aim: "origin" refuses cameras
    that do not see the origin.
    """

    cameras_format: str = "auto"
    crop: str | int = "none"
    resolution: int | None = None
    alpha: str = "refuse"
    unmatched: str = "refuse"
    orient: str = "keep"
    normalise: str = "none"
    centre: tuple[float, float, float] | None = None
    scale: float | None = None
    radius: float = EG3D_RADIUS
    focal: float = EG3D_FOCAL
    aim: str = "origin"

    def __post_init__(self) -> None:
        for name, allowed in (("alpha", ALPHA), ("unmatched", ("refuse", "skip")), ("aim", AIMS)):
            check_choice("data pack", name, getattr(self, name), allowed)
        if not (self.crop in ("none", "centre") or (isinstance(self.crop, int) and self.crop >= 1)):
            raise DataError(f"data pack: crop must be none, centre or a number of pixels, got {self.crop!r}")
        if self.resolution is not None and not _power_of_two(self.resolution):
            raise DataError(f"data pack: resolution must be a power of two from 4, got {self.resolution}")
        if not 0 < self.focal < float("inf"):
            raise DataError(f"data pack: focal must be positive and finite, got {self.focal}")


@dataclass(frozen=True)
class PackReport:
    """What `pack` did: how many images, their side in pixels, the cameras' format, what was left out or enlarged, the world's map."""

    images: int
    resolution: int
    cameras_format: str
    left_out: int
    enlarged: int
    world: dict[str, Any]


def _power_of_two(side: int) -> bool:
    return side >= 4 and side & (side - 1) == 0


def _aim_problem(frame: CameraFrame, matrix: np.ndarray, intrinsics: np.ndarray) -> str | None:
    """Why the origin is not in the picture, or None: with q = -R^T p it lies at K q, divided by the image's size."""
    local = -matrix[:3, :3].T @ matrix[:3, 3]
    where = f"{frame.where} ({frame.name})"
    if np.linalg.norm(local) < 1e-9:
        return f"{where}: the camera stands in the origin, where the object is; {OPENCV}"
    if local[2] <= 0:
        return (
            f"{where}: the origin lies behind the camera; {OPENCV}: is the axes' convention another (--cameras-format), or does the"
            " object stand elsewhere (--normalise sphere, --centre)? --aim any packs it nevertheless"
        )
    u, v = (intrinsics @ local)[:2] / local[2]
    if not (0 <= u <= 1 and 0 <= v <= 1):
        return (
            f"{where}: the origin falls outside the picture, at {u:.2f}, {v:.2f} of its width and height; {OPENCV}:"
            " --normalise sphere or --centre X,Y,Z moves it there, --aim any packs it nevertheless"
        )
    return None


def _require_sound(frames: list[CameraFrame], poses: np.ndarray, intrinsics: np.ndarray) -> None:
    """Refuse what is no camera: numbers that are not finite, rotations that are none, impossible focal lengths."""
    finite = np.isfinite(poses).all((1, 2)) & np.isfinite(intrinsics).all((1, 2))
    if not finite.all():
        bad = frames[int(np.argmin(finite))]
        raise DataError(f"{bad.where} ({bad.name}): the camera holds a number that is not finite")
    names = [f"{frame.where} ({frame.name})" for frame in frames]
    problems = label_problems(names, Camera(torch.from_numpy(poses), torch.from_numpy(intrinsics)))
    if problems:
        raise DataError(problems[0])


class _Pictures:
    """The images of a folder or zip, with the square that is kept of each."""

    def __init__(self, path: Path, crop: str | int) -> None:
        self.archive, self.crop = Archive(path), crop
        self.names = [name for name in self.archive.names() if name.lower().endswith(PICTURE_SUFFIXES)]
        if not self.names:
            raise DataError(f"{path}: holds no image (looked for {', '.join(PICTURE_SUFFIXES)})")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"{path}: entry {twice[0]!r} stands twice in the zip")

    def where(self, name: str) -> str:
        return f"{self.archive.path}: {name!r}"

    def header(self, name: str) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """Size of a picture and what is kept of it, from its header."""
        with self.archive.stream(name) as file:
            size = open_picture(self.where(name), file).size
        return size, crop_box(self.where(name), size, self.crop)

    def pixels(self, name: str, box: tuple[int, int, int, int], resolution: int, alpha: str) -> np.ndarray:
        with self.archive.stream(name) as file:
            return square_pixels(self.where(name), open_picture(self.where(name), file), box, resolution, alpha)


def _encoded(
    pictures: _Pictures, boxes: dict[str, tuple[int, int, int, int]], resolution: int, alpha: str, workers: int
) -> Iterator[bytes]:
    """PNGs in order; at most a few per worker wait to be written. Pillow's own work lets threads run side by side."""

    def encoded(name: str) -> bytes:
        return encode_png(pictures.pixels(name, boxes[name], resolution, alpha))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[bytes]] = deque()
        try:
            for name in boxes:
                waiting.append(pool.submit(encoded, name))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _resolution(pictures: _Pictures, boxes: dict[str, tuple[int, int, int, int]], wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    sides = {name: box[2] - box[0] for name, box in boxes.items()}
    first = next(iter(sides.values()))
    other = next((name for name, side in sides.items() if side != first), None)
    if other is not None:
        raise DataError(
            f"{pictures.where(other)}: is {sides[other]} pixels a side, the first image {first}; --resolution makes them one size"
        )
    if not _power_of_two(first):
        raise DataError(f"{pictures.archive.path}: images are {first} pixels a side, no power of two: give --resolution, e.g. 512")
    return first


def pack(
    images: str | Path, cameras: str | Path, out: str | Path, options: PackOptions | None = None, *,
    force: bool = False, workers: int = 1, progress: Callable[[int, int], None] | None = None,
) -> PackReport:  # fmt: skip
    """Write a data set in EG3D's format, whole or not at all; same input and options, same bytes.

    Every camera is checked before the first image is decoded. Images are named 00000/img00000000.png in the order of their
    old names, which dataset.json keeps under "priorzoo" with the options and the map to the labels' world.

    Args:
        images: folder or zip of png, jpg, webp.
        cameras: see camera_files.formats.read_cameras.
        out: OUT.zip.
        force: replace `out`.
        workers: threads; the bytes do not depend on it.
        progress: called with (images done, images in all).

    Raises:
        DataError: naming the file and the frame; an `out` that is one of the inputs.
        OutputError: an `out` that exists or cannot be written.
    """
    options, out = options or PackOptions(), Path(out)
    check_out(out, force, ".zip", images, cameras)
    pictures = _Pictures(Path(images), options.crop)
    form, frames = read_cameras(cameras, options.cameras_format, radius=options.radius, focal=options.focal)
    matched = match_cameras(str(cameras), frames, pictures.names, skip=options.unmatched == "skip")
    names, kept = list(matched), list(matched.values())
    headers = {name: pictures.header(name) for name in names}
    boxes = {name: box for name, (_, box) in headers.items()}
    resolution = _resolution(pictures, boxes, options.resolution)
    intrinsics = np.stack([packed_intrinsics(matched[name], *headers[name]) for name in names])
    poses = np.stack([frame.cam2world for frame in kept])
    _require_sound(kept, poses, intrinsics)
    world = world_of(
        poses, orient=options.orient, normalise=options.normalise, radius=options.radius, centre=options.centre, scale=options.scale
    )
    poses = on_sphere(world.place(poses), options.normalise, options.radius)
    if options.aim == "origin":
        problems = (_aim_problem(frame, pose, k) for frame, pose, k in zip(kept, poses, intrinsics, strict=True))
        problem = next((p for p in problems if p), None)
        if problem:
            raise DataError(problem)
    labels = np.concatenate([poses.reshape(-1, 16), intrinsics.reshape(-1, 9)], axis=1)
    about = _about(form, resolution, options, world.to_plain(), names)
    packed = [image_name(index) for index in range(len(names))]
    with new_zip(out) as archive:
        for index, png in enumerate(_encoded(pictures, boxes, resolution, options.alpha, workers)):
            add_entry(archive, packed[index], png)
            if progress is not None:
                progress(index + 1, len(names))
        add_entry(archive, LABELS_FILE, labels_json(packed, labels, about))
    enlarged = sum(box[2] - box[0] < resolution for box in boxes.values())
    return PackReport(len(names), resolution, form, len(pictures.names) - len(names), enlarged, world.to_plain())


def _about(form: str, resolution: int, options: PackOptions, world: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What dataset.json keeps of how the set was made; no path and no time, so that same content gives same bytes."""
    return {
        "version": PACK_VERSION, "cameras_format": form, "crop": options.crop, "resolution": resolution, "alpha": options.alpha,
        "orient": options.orient, "normalise": options.normalise, "radius": options.radius, "world": world, "sources": names,
    }  # fmt: skip
