"""The `bisenet` segmenter: the public face parser, from its own weight file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from ..core.classes import CLASS_NAMES
from ..core.errors import CheckpointError, PriorzooError
from ..core.registry import register_segmenter
from ..core.scene import Segmentation
from .base import Segmenter
from .bisenet_network import BiSeNet, upsampled, without_normalisation
from .network import check_tensors

# Our names in the order of the file's outputs, which is not CelebAMask-HQ's.
FILE_CLASSES = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "eyeglasses", "left_ear", "right_ear", "earring",
    "nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images in [0,1], per channel
WHENCE = "the file is 79999_iter.pth of the GitHub repository zllrunning/face-parsing.PyTorch, linked in its README; download it once"


def normalised(image: Tensor) -> Tensor:
    """Image [B,3,H,W], nominal [-1,1], as the network wants it: ((x + 1) / 2 - mean) / deviation of ImageNet's channels.

    >>> normalised(torch.full((1, 3, 1, 1), -0.03))[0, 0].item()
    0.0
    """
    mean, deviation = (image.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return ((image.clamp(-1.0, 1.0) + 1.0) * 0.5 - mean) / deviation


def check_weights(path: Path | None) -> Path:
    """Return the path of a weight file that is there; raises CheckpointError that says where to get one."""
    if path is None:
        raise CheckpointError(f"bisenet: the option weights names no file; {WHENCE} and give its path")
    if not path.is_file():
        raise CheckpointError(f"bisenet: weights {path} is {'a folder' if path.is_dir() else 'no file'}; {WHENCE}")
    return path


def load_bisenet(path: Path) -> BiSeNet:
    """Read the public weight file (a state dict written by torch.save, 191 tensors): the network, frozen.

    Raises CheckpointError naming the file and what does not fit: no such file, no file of torch.save, objects other than tensors
    (nothing in it is executed), missing or unexpected names, other shapes or kinds of number, values that are not finite.
    """
    check_weights(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise CheckpointError(f"{path}: cannot be read as weights of BiSeNet: {type(error).__name__}: {reason}; {WHENCE}") from error
    if not isinstance(stored, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in stored.items()):
        got = f"a dict of {', '.join(map(str, list(stored)[:5])) or 'nothing'}" if isinstance(stored, dict) else type(stored).__name__
        raise CheckpointError(f"{path}: holds {got}, expected a dict of tensors by name (a state dict); {WHENCE}")
    with torch.device("meta"):  # no memory, no draw of initial weights
        network = BiSeNet(len(FILE_CLASSES))
    own = network.state_dict()
    check_tensors(str(path), own, stored)
    for name, value in stored.items():
        if value.is_floating_point() != own[name].is_floating_point():
            raise CheckpointError(f"{path}: {name} is of type {value.dtype}, expected {own[name].dtype}")
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: {name} has values that are not finite: the file is damaged")
    network.load_state_dict({name: value.to(own[name].dtype) for name, value in stored.items()}, assign=True)
    return network.eval().requires_grad_(False)


@register_segmenter("bisenet")
class BiSeNetSegmenter(Segmenter):
    """Parses photographs of faces into the classes of ``core.classes`` by the public BiSeNet; frozen. Its weights are not shipped.

    BiSeNet (Yu et al. 2018) trained on CelebAMask-HQ, in the GitHub repository zllrunning/face-parsing.PyTorch. That training
    mirrored images without swapping left and right, so **left and right eyes, brows and ears are not told apart**: name both
    in a region. "skin" is the face's without brows, eyes, nose, lips, ears and neck.

    ``weights``: its file 79999_iter.pth. ``reads``: the buffer it looks at. ``size``: the height in pixels at which the network
    sees an image; 512 is what it was trained for, None takes every image as it is. Raises CheckpointError when the file is
    absent or does not fit.

    >>> BiSeNetSegmenter.class_names()[:2]
    ('background', 'skin')
    """

    def __init__(
        self,
        weights: Path | None = None,
        reads: Literal["image", "image_raw"] = "image",
        size: Annotated[int, Ge(32)] | None = 512,
    ) -> None:
        super().__init__()
        self.names = CLASS_NAMES
        self.size = size
        network = without_normalisation(load_bisenet(check_weights(None if weights is None else Path(weights))))
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._order = [FILE_CLASSES.index(name) for name in CLASS_NAMES]

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise CheckpointError when ``weights`` names no file."""
        weights = options.get("weights")
        check_weights(None if weights is None else Path(weights))

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Return the buffer it reads: the option ``reads``."""
        return frozenset({options.get("reads", "image")})

    @classmethod
    def class_names(cls, **options: Any) -> tuple[str, ...]:
        """Return the names of ``core.classes``."""
        return CLASS_NAMES

    @torch.no_grad()
    def segment(self, image: Tensor) -> Segmentation:
        """Return probabilities [B,19,H,W], float32 (the network's own numbers), detached; ``image`` [B,3,H,W], nominal [-1,1], of any size.

        An image of another height than ``size`` is resampled to it and the probabilities back (both bilinear; antialiased where
        that is down). Raises PriorzooError for another shape.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise PriorzooError(f"bisenet: an image has shape [B,3,H,W], got {list(image.shape)}")
        height, width = image.shape[2:]
        seen = (height, width) if self.size is None else (self.size, max(1, round(width * self.size / height)))
        with torch.autocast(image.device.type, enabled=False):
            resized = _resized(image.detach().to(next(self.parameters()).dtype).clamp(-1.0, 1.0), seen)
            logits = self.network(normalised(resized).contiguous(memory_format=torch.channels_last))
            logits = logits[:, self._order].contiguous()
            probabilities = upsampled(logits, seen).softmax(dim=1)
            return Segmentation(_resized(probabilities, (height, width)).contiguous(), CLASS_NAMES)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, antialiased down; pixel areas on pixel areas, as the Python imaging library does it."""
    if tuple(image.shape[2:]) == size:
        return image
    return functional.interpolate(image, size=size, mode="bilinear", antialias=size[0] < image.shape[2], align_corners=False)
