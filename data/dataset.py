"""Reader of the EG3D data set format: square PNGs and `dataset.json` (25 numbers each) in a zip or a folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..core.errors import DataError
from .archive import Archive
from .camera_files.eg3d_labels import HOW_TO_LABEL, label_numbers, parse_labels
from .eg3d_format import LABELS_FILE

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
KEEP_BYTES = 1 << 30  # data sets of at most this many decoded bytes stay in memory
DECODE_ALL_PIXELS = 2_000_000_000  # validate() decodes every image up to here, and a sample beyond
DECODE_SAMPLE = 2000


class Dataset:
    """Images and camera labels by index; safe to share between processes.

    `about` is what `priorzoo data pack` wrote down of how the set was made, empty for other sets.
    Items are (image uint8 [3, H, W], label float32 [25]) in the order of the sorted names, as EG3D's loader gives them.

    Args:
        path: zip file or folder.
        resolution: pixels a side wanted, a divisor of the stored size (pixels are averaged); None: as stored.

    Raises:
        DataError: naming the entry, when the data set cannot be read (see validate for what is found when).

    >>> import tempfile; from .heads import write_heads
    >>> files = write_heads(tempfile.mkdtemp() + "/heads.zip", images=2, resolution=16, held_out=0)
    >>> image, label = Dataset(files.images)[0]
    >>> image.shape, label.shape
    (torch.Size([3, 16, 16]), torch.Size([25]))
    """

    def __init__(self, path: str | Path, resolution: int | None = None) -> None:
        self.path = Path(path)
        self._archive = Archive(self.path)
        self.names = [n for n in self._archive.names() if n.lower().endswith(IMAGE_SUFFIXES)]
        if not self.names:
            raise DataError(f"{self.path}: holds no image (looked for {', '.join(IMAGE_SUFFIXES)})")
        self.about: dict[str, Any] = {}
        self.labels = self._read_labels()
        self.stored_resolution = self._decode(self.names[0]).shape[1]
        self.resolution = self.stored_resolution if resolution is None else resolution
        if self.resolution < 1 or self.stored_resolution % self.resolution:
            raise DataError(f"{self.path}: images are {self.stored_resolution} pixels a side; {self.resolution} is no divisor")
        keep = len(self.names) * 3 * self.resolution**2 <= KEEP_BYTES
        self._kept: dict[int, Tensor] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.image(index), self.labels[index]

    def image(self, index: int) -> Tensor:
        """One image, uint8 [3, H, W]."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        image = self._decode(self.names[index], expected=self.stored_resolution)
        if self.resolution != self.stored_resolution:
            k = self.stored_resolution // self.resolution
            image = (torch.nn.functional.avg_pool2d(image[None].float(), k)[0] + 0.5).to(torch.uint8)
        if self._kept is not None:
            self._kept[index] = image
        return image

    def file_bytes(self, name: str) -> bytes:
        """The encoded image file of one name."""
        return self._archive.read(name)

    def fingerprint(self) -> str:
        """16 hex digits that change with the labels, any image's file, or the resolution; nothing is decoded."""
        digest = hashlib.sha256(f"{self.resolution}".encode())
        for name in (LABELS_FILE, *self.names):
            digest.update(f"\0{name}\0{self._archive.checksum(name)}".encode())
        return digest.hexdigest()[:16]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, 3, H, W] and labels float32 [B, 25]."""
        return torch.stack([self.image(int(i)) for i in indices]), self.labels[[int(i) for i in indices]]

    def validate(self) -> None:
        """Read the images and check what a training step would stumble over.

        Every image is decoded (beyond 2e9 pixels in all: 2000 images spread evenly, and every header): whole, square,
        of one size. Labels have been checked when the data set was opened: one per image, 25 finite numbers.

        Raises:
            DataError: naming the first bad entry.
        """
        everything = len(self) * self.stored_resolution**2 <= DECODE_ALL_PIXELS
        step = 1 if everything else max(1, len(self) // DECODE_SAMPLE)
        for index, name in enumerate(self.names):
            if index % step == 0:
                self._decode(name, expected=self.stored_resolution)
            else:
                self._check_size(name, self._open(name, self._archive.read(name)).size, self.stored_resolution)

    def _read_labels(self) -> Tensor:
        if LABELS_FILE not in self._archive.names():
            raise DataError(f"{self.path}: holds no dataset.json, the file of camera labels: {HOW_TO_LABEL}")
        where = f"{self.path}: {LABELS_FILE}"
        pairs, self.about = parse_labels(where, self._archive.read(LABELS_FILE))
        by_name = dict(pairs)
        labels = []
        for name in self.names:
            if name not in by_name:
                raise DataError(f"{where}: image {name!r} has no label; every image needs a camera (25 numbers): {HOW_TO_LABEL}")
            labels.append(label_numbers(where, name, by_name[name]).astype(np.float32))
        return torch.from_numpy(np.stack(labels))

    def _open(self, name: str, data: bytes) -> Image.Image:
        try:
            return Image.open(io.BytesIO(data))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{self.path}: {name!r} is not a readable image ({error})") from error

    def _check_size(self, name: str, size: tuple[int, int], expected: int | None) -> None:
        width, height = size
        if width != height:
            raise DataError(f"{self.path}: {name!r} is {width} x {height} pixels; images must be square")
        if expected is not None and width != expected:
            raise DataError(f"{self.path}: {name!r} is {width} pixels a side, the first image {expected}; all must be of one size")

    def _decode(self, name: str, expected: int | None = None) -> Tensor:
        picture = self._open(name, self._archive.read(name))
        self._check_size(name, picture.size, expected)
        if picture.mode not in ("RGB", "L"):
            raise DataError(f"{self.path}: {name!r} has mode {picture.mode}; allowed are 8-bit RGB and 8-bit grey")
        try:
            pixels = np.array(picture.convert("RGB"))  # grey is repeated into three channels
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise DataError(f"{self.path}: {name!r} is damaged ({error})") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
