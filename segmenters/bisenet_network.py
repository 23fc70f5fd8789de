"""BiSeNet with a ResNet-18 context path, under the tensor names of the public face-parsing weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (64, 128, 256, 512)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU; the padding keeps the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions (He et al. 2016, fig. 5 left), with a 1x1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) without its classifier: features at 1/8, 1/16 and 1/32 of the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, WIDTHS[0], 7, 2), nn.BatchNorm2d(WIDTHS[0])
        inputs = (WIDTHS[0], *WIDTHS[:3])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(i, o, 1 if i == o else 2), BasicBlock(o, o, 1)) for i, o in zip(inputs, WIDTHS, strict=True)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """f = CBR(x), times sigmoid(BN(W mean(f))) per channel (Yu et al. 2018, section 3.2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, outputs, 3)
        self.conv_atten, self.bn_atten = _conv(outputs, outputs, 1), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x)
        return found * self.bn_atten(self.conv_atten(_mean(found))).sigmoid()


class ContextPath(nn.Module):
    """ResNet-18 and the way back up from its global mean: features at 1/8 as they are, and refined ones at 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(WIDTHS[2], 128)
        self.arm32 = AttentionRefinement(WIDTHS[3], 128)
        self.conv_head32 = ConvBNReLU(128, 128, 3)
        self.conv_head16 = ConvBNReLU(128, 128, 3)
        self.conv_avg = ConvBNReLU(WIDTHS[3], 128, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, thirtysecond = self.resnet(image)
        # The global mean is one pixel: adding it is the same as resizing it to the map first.
        low = self.arm32(thirtysecond) + self.conv_avg(_mean(thirtysecond))
        refined16 = self.conv_head32(functional.interpolate(low, size=sixteenth.shape[2:], mode="nearest"))
        middle = self.arm16(sixteenth) + refined16
        refined8 = self.conv_head16(functional.interpolate(middle, size=eighth.shape[2:], mode="nearest"))
        return eighth, refined8, refined16


class FeatureFusion(nn.Module):
    """f = CBR(concat of both), plus f times a per-channel gate made of its mean (Yu et al. 2018, section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(256, 256, 1)
        self.conv1, self.conv2 = _conv(256, 64, 1), _conv(64, 256, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        found = self.convblk(torch.cat([detail, context], dim=1))
        gate = self.conv2(functional.relu(self.conv1(_mean(found)))).sigmoid()
        return found * gate + found


class Head(nn.Module):
    """Features to logits at the features' own size."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, middle, 3)
        self.conv_out = _conv(middle, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """Normalised image [B,3,H,W] to logits [B,K,h,w] at an eighth of its size; ``upsampled`` brings them to its own.

    BiSeNet (Yu et al. 2018) as the public face parser has it: the 1/8 features of the ResNet stand for the spatial path. 13.3
    million parameters. It runs in evaluation mode only: its attention normalises maps of one pixel.

    ``classes``: K.

    >>> network = BiSeNet().eval()
    >>> network(torch.zeros(1, 3, 64, 72)).shape
    torch.Size([1, 19, 8, 9])
    """

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Head(256, 256, classes)
        self.conv_out16 = Head(128, 64, classes)
        self.conv_out32 = Head(128, 64, classes)

    def forward(self, image: Tensor) -> Tensor:
        eighth, refined8, _ = self.cp(image)
        return self.conv_out(self.ffm(eighth, refined8))

    def all_heads(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the main head and of the two that only training uses, each [B,K,H,W]."""
        eighth, refined8, refined16 = self.cp(image)
        coarse = self.conv_out(self.ffm(eighth, refined8)), self.conv_out16(refined8), self.conv_out32(refined16)
        main, aux16, aux32 = (upsampled(logits, (image.shape[2], image.shape[3])) for logits in coarse)
        return main, aux16, aux32


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B,K,h,w] at the image's ``size`` (H, W), bilinear, corner pixels on corner pixels.

    >>> upsampled(torch.tensor([[[[0.0, 1.0]]]]), (1, 3))
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=True)


@torch.no_grad()
def without_normalisation(network: BiSeNet) -> BiSeNet:
    """Return the same function with the scale and shift of each batch normalisation in the convolution before it.

    >>> network, image = BiSeNet().eval(), torch.rand(1, 3, 32, 32)
    >>> torch.allclose(network(image), without_normalisation(network)(image), atol=1e-4)
    True
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            # conv1 with bn1, conv with bn, conv_atten with bn_atten; in a shortcut 0 with 1
            pair = "1" if name == "0" else name.replace("conv", "bn")
            norm = getattr(module, pair, None)
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(child, norm))
                setattr(module, pair, nn.Identity())
    return network
