"""The small U-Net behind the `unet` segmenter and the `heads` estimator."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import CheckpointError, PriorzooError
from ..core.files import write_atomically

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
WIDTHS = (16, 32, 64, 96)


class Block(nn.Module):
    """3x3 convolution, batch normalisation while training, ReLU. ``stride`` 2 halves the image."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, normalise: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not normalise)
        self.normalisation: nn.Module = nn.BatchNorm2d(outputs) if normalise else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.normalisation(self.convolution(x)))


class SmallUNet(nn.Module):
    """Image [B,3,H,W] in [-1,1] to maps [B,K,H,W]; H and W are multiples of 2^(levels - 1).

    A U-Net (Ronneberger, Fischer, Brox 2015) in which skips are added instead of concatenated and the way up has one
    convolution per level: about 0.25 million parameters, few milliseconds for an image of 64 x 64 on one CPU core.

    ``outputs``: K. ``normalise``: with batch normalisation, for training; without, its scales and shifts are in the
    convolutions (see ``folded``), which is what weight files hold.

    >>> SmallUNet(19)(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 19, 16, 16])
    """

    def __init__(self, outputs: int, *, widths: tuple[int, ...] = WIDTHS, normalise: bool = False) -> None:
        super().__init__()
        self.outputs, self.widths = outputs, widths
        pairs = list(pairwise(widths))
        self.stem = nn.Sequential(Block(3, widths[0], normalise=normalise), Block(widths[0], widths[0], normalise=normalise))
        self.down = nn.ModuleList(
            nn.Sequential(Block(a, b, stride=2, normalise=normalise), Block(b, b, normalise=normalise)) for a, b in pairs
        )
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(Block(a, a, normalise=normalise) for a, _ in pairs)
        self.out = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), reversed(skips), strict=True):
            x = functional.interpolate(narrow(x), size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = up(x + skip)
        return self.out(x)


def _unfilled(outputs: int, widths: tuple[int, ...]) -> SmallUNet:
    # no memory and, above all, no draw of initial weights from the global generator
    with torch.device("meta"):
        return SmallUNet(outputs, widths=widths)


def channels_last(network: SmallUNet) -> SmallUNet:
    """Lay the weights out so that few channels at many pixels run fastest on a CPU."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@torch.no_grad()
def folded(network: SmallUNet) -> SmallUNet:
    """Return the same function without batch normalisation: its running scale and shift go into the convolutions.

    For y = g (w*x - m) / s + b the convolution becomes (g/s) w with bias b - g m / s.

    >>> network = SmallUNet(2, normalise=True).eval()
    >>> image = torch.rand(1, 3, 16, 16)
    >>> torch.allclose(network(image), folded(network)(image), atol=1e-5)
    True
    """
    plain = _unfilled(network.outputs, network.widths)
    state = {k: v for k, v in network.state_dict().items() if ".normalisation." not in k}
    for name, block in network.named_modules():
        if isinstance(block, Block) and isinstance(block.normalisation, nn.BatchNorm2d):
            norm = block.normalisation
            assert norm.running_mean is not None and norm.running_var is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            state[f"{name}.convolution.weight"] = block.convolution.weight * gain[:, None, None, None]
            state[f"{name}.convolution.bias"] = norm.bias - gain * norm.running_mean
    plain.load_state_dict(state, assign=True)
    return plain.eval()


def save_network(path: str | Path, network: SmallUNet, *, resolution: int, outputs: tuple[str, ...]) -> None:
    """Write a folded network as float16 safetensors, whole or not at all.

    The file's header names the maps it makes (``outputs``), the image side it was trained at and the widths of its
    levels, so that the file alone is enough to build the network again.
    """
    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    header = {
        "outputs": ",".join(outputs),
        "resolution": str(resolution),
        "widths": ",".join(str(width) for width in network.widths),
    }
    with write_atomically(path) as beside:
        save_file(tensors, beside, metadata=header)


def load_network(path: str | Path, outputs: tuple[str, ...]) -> tuple[SmallUNet, int]:
    """Read a file of ``save_network``: the frozen network (float32, channels last) and the image side it was made for.

    Raises CheckpointError naming the file and what does not fit: no safetensors, another kind of network, other maps,
    missing or unexpected tensors, other shapes.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        widths = tuple(int(width) for width in header["widths"].split(","))
        resolution, made = int(header["resolution"]), tuple(header["outputs"].split(","))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its header lacks {error}; expected a file written by `priorzoo train-segmenter`") from error
    if made != outputs:
        odd = next((a for a in made if a not in outputs), ", ".join(made))
        raise CheckpointError(f"{path}: makes {len(made)} maps ({odd!r}, ...), expected {len(outputs)}: {', '.join(outputs)}")
    network = _unfilled(len(outputs), widths)
    check_tensors(str(path), network.state_dict(), tensors)
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return channels_last(network.eval().requires_grad_(False)), resolution


def check_tensors(where: str, own: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless the stored tensors are those of the network, by name and shape; ``where`` names the file."""
    missing = [name for name in own if name not in stored]
    unexpected = [name for name in stored if name not in own]
    shapes = [
        f"{name}: file {list(stored[name].shape)}, network {list(own[name].shape)}"
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    ]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes)):
        if names:
            raise CheckpointError(f"{where}: the weights do not fit the network; {what}: {'; '.join(names[:5])}")


@torch.no_grad()
def run_network(network: SmallUNet, image: Tensor, resolution: int) -> Tensor:
    """Maps [B,K,h,w] of an image [B,3,H,W] (nominal [-1,1]) seen at the network's own scale, in the network's numbers (float32), detached.

    Sizes of features are what a small network learns by, so the image is resampled until its height is ``resolution``
    (its width to the nearest multiple of 8); an image of that size is taken as it is.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise PriorzooError(f"an image has shape [B,3,H,W], got {list(image.shape)}")
    height, width = image.shape[2:]
    step = 2 ** (len(network.widths) - 1)
    size = (resolution, max(step, round(width * resolution / height / step) * step))
    with torch.autocast(image.device.type, enabled=False):
        seen = image.detach().to(next(network.parameters()).dtype).clamp(-1.0, 1.0)
        if (height, width) != size:
            seen = functional.interpolate(seen, size=size, mode="bilinear", antialias=height > size[0], align_corners=False)
        return network(seen.contiguous(memory_format=torch.channels_last))
