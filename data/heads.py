"""The procedural heads data set: images in EG3D's format, their truth beside it, a pure function of a seed.

`OUT.zip` holds the training images exactly as EG3D's own tool writes them (uncompressed PNG in a stored zip,
`00000/img00000000.png`, `dataset.json` with 25 numbers per image); `OUT.held_out.zip` the same for identities that the
training images never show; `OUT.truth.zip` what is true of both (see truth.py).
"""

from __future__ import annotations

import io
import json
import multiprocessing
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.camera import Camera
from ..core.errors import DataError
from ..core.files import write_atomically
from ..core.output_paths import require_free
from ..shapes.head_parameters import COLOURS, SCALARS, HeadParameters, sample_heads
from ..shapes.head_render import BACKGROUNDS, HeadImages, render_heads
from .eg3d_format import add_entry, encode_png, image_name, labels_json
from .truth import TRUTH_VERSION, encode_truth

# Number of the first held-out head, beyond all training heads: the held-out heads do not depend on `images`.
FIRST_HELD_OUT = 1_000_000_000
CHUNK = 8  # images rendered together; fixed, so that the bytes do not depend on the number of workers
WIDE_YAW = 1.0  # radians
NARROW_YAW, PITCH = 0.3, 0.155  # standard deviations in radians, EG3D's pose law for faces
_CAMERA = 1  # second word of the cameras' seeds, apart from the heads' own


@dataclass(frozen=True)
class HeadsPlan:
    """Everything that decides the bytes of a heads data set.

    images: training images; resolution: pixels a side; wide_yaw: share of images with yaw uniform in +-1 rad (the
    others N(0, 0.3)), pitch N(0, 0.155); images_per_identity: cameras per head; held_out: number of held-out identities
    (the first image of each is never a wide yaw, so that its whole face is seen); supersample: see render_heads.
    The bytes are the same for any number of workers; another CPU or torch version may round some pixels differently.
    """

    images: int
    resolution: int = 64
    seed: int = 0
    background: str = "plain"
    accessories: bool = False
    wide_yaw: float = 0.5
    images_per_identity: int = 2
    held_out: int = 64
    supersample: int = 2

    def __post_init__(self) -> None:
        checks = [
            (self.images >= 1, "images", "at least 1", self.images),
            (
                self.resolution >= 4 and self.resolution & (self.resolution - 1) == 0,
                "resolution",
                "a power of two from 4 (EG3D's format asks for it)",
                self.resolution,
            ),
            (self.seed >= 0, "seed", "0 or more", self.seed),
            (self.background in BACKGROUNDS, "background", f"one of {', '.join(BACKGROUNDS)}", self.background),
            (0 <= self.wide_yaw <= 1, "wide_yaw", "a share in 0...1", self.wide_yaw),
            (self.images_per_identity >= 1, "images_per_identity", "at least 1", self.images_per_identity),
            (self.held_out >= 0, "held_out", "0 or more identities", self.held_out),
            (self.supersample >= 1, "supersample", "at least 1", self.supersample),
        ]
        for good, name, allowed, got in checks:
            if not good:
                raise DataError(f"heads data set: {name} must be {allowed}, got {got!r}")

    @property
    def total(self) -> int:
        """Images of both splits together."""
        return self.images + self.held_out * self.images_per_identity

    def head_of(self, image: int) -> int:
        """Number of the head that an image shows."""
        if image < self.images:
            return image // self.images_per_identity
        return FIRST_HELD_OUT + (image - self.images) // self.images_per_identity

    def heads(self) -> list[int]:
        """Numbers of all heads, in the order of their images; this is the order of the truth file's parameter table."""
        return list(dict.fromkeys(self.head_of(image) for image in range(self.total)))

    def angles_of(self, image: int) -> tuple[float, float]:
        """Yaw and pitch of an image's camera, radians: a function of the seed, the head and the camera's place."""
        first = self.images if image >= self.images else 0
        place = (image - first) % self.images_per_identity
        rng = np.random.default_rng([self.seed, self.head_of(image), _CAMERA, place])
        wide, uniform, normal, pitch = rng.random(), rng.uniform(-WIDE_YAW, WIDE_YAW), rng.normal(), rng.normal()
        whole_face = image >= self.images and place == 0
        return (uniform if wide < self.wide_yaw and not whole_face else NARROW_YAW * normal), PITCH * pitch


@dataclass(frozen=True)
class HeadsFiles:
    """Where the three files of a heads data set lie."""

    images: Path
    held_out: Path
    truth: Path

    @classmethod
    def of(cls, out: str | Path) -> HeadsFiles:
        """The names that belong to OUT.zip.

        >>> HeadsFiles.of("a/heads.zip").truth.name
        'heads.truth.zip'
        """
        path = Path(out)
        if path.suffix != ".zip":
            raise DataError(f"{path}: a heads data set is written to a file whose name ends in .zip")
        return cls(path, path.with_suffix(".held_out.zip"), path.with_suffix(".truth.zip"))


def plan_camera(plan: HeadsPlan, images: range) -> Camera:
    """The float32 cameras of a range of images."""
    angles = torch.tensor([plan.angles_of(i) for i in images], dtype=torch.float64)
    return Camera.looking_at_origin(angles[:, 0], angles[:, 1]).to(torch.float32)


def plan_heads(plan: HeadsPlan, images: range) -> HeadParameters:
    """The heads that a range of images shows, one per image."""
    drawn = [sample_heads(1, plan.seed, plan.accessories, first=plan.head_of(i)) for i in images]
    return HeadParameters({k: torch.cat([d.values[k] for d in drawn]) for k in (*SCALARS, *COLOURS)})


def render_images(plan: HeadsPlan, images: range) -> HeadImages:
    """Render a range of a plan's images with one thread (more threads would split the arithmetic differently)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return render_heads(plan_heads(plan, images), plan_camera(plan, images), plan.resolution, plan.background, plan.supersample)
    finally:
        torch.set_num_threads(threads)


def _encoded_chunk(plan: HeadsPlan, start: int, stop: int) -> list[tuple[bytes, bytes]]:
    """PNG and truth bytes of the images start ... stop - 1."""
    made = render_images(plan, range(start, stop))
    pixels = (made.rgb * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [(encode_png(pixels[i]), encode_truth(made.depth[i], made.normals[i], made.labels[i])) for i in range(stop - start)]


def _encoded(plan: HeadsPlan, workers: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """Chunks in order; at most a few per worker wait to be written."""
    spans = [(start, min(start + CHUNK, plan.total)) for start in range(0, plan.total, CHUNK)]
    if workers <= 1 or len(spans) == 1:
        for span in spans:
            yield _encoded_chunk(plan, *span)
        return
    # spawn: a forked copy of a process that has used torch's threads can hang
    with ProcessPoolExecutor(min(workers, len(spans)), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[list[tuple[bytes, bytes]]]] = deque()
        try:
            for span in spans:
                waiting.append(pool.submit(_encoded_chunk, plan, *span))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _truth_json(plan: HeadsPlan, names: list[str], labels: np.ndarray) -> bytes:
    place = {head: row for row, head in enumerate(plan.heads())}
    records = []
    for index, name in enumerate(names):
        yaw, pitch = plan.angles_of(index)
        records.append(
            {
                "name": name,
                "split": "train" if index < plan.images else "held_out",
                "head": plan.head_of(index),
                "row": place[plan.head_of(index)],
                "yaw": yaw,
                "pitch": pitch,
                "camera": [float(v) for v in labels[index]],
            }
        )
    return json.dumps({"version": TRUTH_VERSION, "kind": "procedural heads", "plan": asdict(plan), "images": records}).encode()


def _parameter_table(plan: HeadsPlan) -> bytes:
    buffer = io.BytesIO()
    heads = [sample_heads(1, plan.seed, plan.accessories, first=head) for head in plan.heads()]
    np.savez_compressed(buffer, **{k: torch.cat([h.values[k] for h in heads]).numpy() for k in (*SCALARS, *COLOURS)})  # type: ignore[arg-type]
    return buffer.getvalue()


def write_heads(
    out: str | Path,
    images: int,
    resolution: int = 64,
    seed: int = 0,
    background: str = "plain",
    accessories: bool = False,
    wide_yaw: float = 0.5,
    images_per_identity: int = 2,
    held_out: int = 64,
    supersample: int = 2,
    workers: int = 1,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> HeadsFiles:
    """Render a heads data set and write its files, whole or not at all.

    The options but the last three are HeadsPlan's and decide every byte; `workers` processes share the work (each with
    one thread), `progress(done, total)` is called as images are written.

    Raises:
        DataError: an option out of range, a name without .zip.
        OutputError: a file that exists (unless `force`) or cannot be written.

    >>> import tempfile
    >>> files = write_heads(tempfile.mkdtemp() + "/heads.zip", images=2, resolution=16, held_out=1)
    >>> sorted(zipfile.ZipFile(files.images).namelist())
    ['00000/img00000000.png', '00000/img00000001.png', 'dataset.json']
    """
    files = HeadsFiles.of(out)
    plan = HeadsPlan(images, resolution, seed, background, accessories, wide_yaw, images_per_identity, held_out, supersample)
    require_free((files.images, files.held_out, files.truth), force)
    names = [image_name(i) for i in range(plan.total)]
    labels = plan_camera(plan, range(plan.total)).label().numpy()
    with ExitStack() as stack:
        # The images file is entered first, hence renamed last: where it lies, its companions lie too.
        archives = {}
        for key, path in (("train", files.images), ("held_out", files.held_out), ("truth", files.truth)):
            if key != "held_out" or plan.held_out:
                beside = stack.enter_context(write_atomically(path))
                archives[key] = stack.enter_context(zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED))
        done = 0
        for chunk in _encoded(plan, workers):
            for png, truth in chunk:
                add_entry(archives["train" if done < plan.images else "held_out"], names[done], png)
                add_entry(archives["truth"], names[done].removesuffix(".png") + ".npz", truth)
                done += 1
            if progress is not None:
                progress(done, plan.total)
        add_entry(archives["train"], "dataset.json", labels_json(names[: plan.images], labels[: plan.images]))
        if plan.held_out:
            add_entry(archives["held_out"], "dataset.json", labels_json(names[plan.images :], labels[plan.images :]))
        add_entry(archives["truth"], "parameters.npz", _parameter_table(plan))
        add_entry(archives["truth"], "truth.json", _truth_json(plan, names, labels))
    return files
