"""Backbone: generator, discriminator, latent and camera laws of one GAN family; it knows nothing of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.camera import Camera
from ..core.errors import PriorzooError
from ..core.scene import Field, Scene
from ..core.streams import Streams


@dataclass
class Latents:
    """What a backbone draws and maps: named tensors [B,...], opaque to everybody else, indexable and interpolable.

    >>> a, b = Latents({"z": torch.zeros(1, 2)}), Latents({"z": torch.ones(1, 2)})
    >>> a.lerp(b, 0.5)["z"].tolist()
    [[0.5, 0.5]]
    """

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, key: str | slice | Tensor | list[int]) -> Any:
        if isinstance(key, str):
            return self.tensors[key]
        return Latents({name: tensor[key] for name, tensor in self.tensors.items()})

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def lerp(self, other: Latents, share: float) -> Latents:
        """Interpolate linearly: ``share`` 0 is this, 1 is the other."""
        return Latents({name: torch.lerp(t, other.tensors[name], share) for name, t in self.tensors.items()})

    def to(self, *args: Any, **kwargs: Any) -> Latents:
        """Move to a device or dtype, as ``Tensor.to``."""
        return Latents({name: tensor.to(*args, **kwargs) for name, tensor in self.tensors.items()})


@dataclass
class Sampling:
    """How rays are sampled: ``mode`` 'random' (training) or 'deterministic' (evaluation); counts None = the backbone's
    own.
    """

    mode: str = "random"
    coarse: int | None = None
    fine: int | None = None


@dataclass(frozen=True)
class Progress:
    """How far a training is: ``images`` and optimiser ``steps`` so far, and those of them at which its present stage began."""

    images: int = 0
    steps: int = 0
    stage_images: int = 0
    stage_steps: int = 0


@dataclass(frozen=True)
class Execution:
    """How a backbone computes; what it computes stays the same up to rounding.

    ``memory_format`` of the networks' feature maps: ``auto`` (the fastest on the device), ``contiguous`` or ``channels_last``.
    ``checkpoint_rendering``: the backward computes the volume rendering's inner values again instead of keeping them. ``compile``: those
    networks that are differentiated once run under ``torch.compile``.
    """

    memory_format: str = "auto"
    checkpoint_rendering: bool = False
    compile: bool = False


class Backbone(nn.Module):
    """Base of every backbone.

    ``self.generator`` and ``self.discriminator`` are its two parts (a discriminator may be None where nothing trains).
    Class methods answer without building: a recipe is refused before anything is built.
    """

    registry_name: ClassVar[str] = ""
    takes_background: ClassVar[bool] = False  # whether ``__init__`` and ``provides`` know the keyword ``background``: {name, options}
    generator: nn.Module
    discriminator: nn.Module | None

    @classmethod
    def provides(cls, **options: Any) -> frozenset[str]:
        """Return the Scene buffers that it can render with these options."""
        raise NotImplementedError(f"{cls.__name__} must say what it provides")

    @property
    def image_resolution(self) -> int:
        """Side of ``image`` in pixels."""
        raise NotImplementedError

    @property
    def neural_resolution(self) -> int:
        """Side of the volume rendering in pixels, unless ``render`` is told another."""
        raise NotImplementedError

    @property
    def background(self) -> nn.Module | None:
        """What stands behind the foreground, if anything; with it the backbone renders ``foreground_raw`` and ``background_raw``."""
        return None

    def set_execution(self, how: Execution) -> None:
        """Compute as ``how`` says from now on; called once the parameters are on their device.

        The default lays out the weights, and refuses by a PriorzooError what only a backbone itself can do.
        """
        for name in ("checkpoint_rendering", "compile"):
            if getattr(how, name):
                raise PriorzooError(f"training.{name}: backbone {self.registry_name or type(self).__name__} cannot do it; set it to false")
        lay_out_weights(self, how.memory_format)

    def from_other(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Return the tensors of a run with the backbone ``name`` as this one's, exactly; None (the default) where they cannot be."""
        return None

    def draw(self, n: int, streams: Streams) -> Latents:
        """Draw ``n`` latents from the backbone's law: consumer ``latents``."""
        raise NotImplementedError

    def draw_cameras(self, n: int, streams: Streams) -> Camera:
        """Draw ``n`` cameras from the backbone's law: consumer ``cameras``. Raises PriorzooError where it has none."""
        raise PriorzooError(
            f"backbone {self.registry_name or type(self).__name__} has no camera law: labels are needed, a data set with a camera for "
            "every image"
        )

    def set_progress(self, progress: Progress) -> None:
        """Adopt what depends on how far a training is (a fade-in, noise that dies away); nothing by default.

        Training says so before each step; a backbone that was never told renders and judges as at the end.
        """
        return

    def prepare(self, latents: Latents, condition: Tensor | None, *, truncation: float = 1.0, update_averages: bool = False) -> Latents:
        """Map latents, once per step: ``condition`` is the conditioning label [B,25], ``truncation`` psi in [0,1].

        ``update_averages`` moves the running average of w that truncation pulls towards.
        """
        raise NotImplementedError

    def materialise(self, latents: Latents, streams: Streams) -> Latents:
        """Do once what several renders and queries of these prepared latents share (EG3D: planes, with their noise).

        Without it two renders of one sample may be two shapes. The default shares nothing.
        """
        return latents

    def render(
        self,
        latents: Latents,
        camera: Camera,
        needs: frozenset[str],
        *,
        streams: Streams,
        resolution: int | None = None,
        sampling: Sampling | None = None,
    ) -> Scene:
        """Render prepared latents: a Scene with the rendered buffers of ``needs`` and what costs nothing beside them.

        Random numbers come from ``streams`` (consumers ``jitter``, ``importance``, ``noise``). ``resolution`` is that
        of the volume rendering.
        """
        raise NotImplementedError

    def field(self, latents: Latents) -> Field:
        """Return the shape of prepared latents as a function of world points."""
        raise NotImplementedError

    def critic_input(self, source: Scene | Tensor, resolution: int | None = None) -> dict[str, Tensor]:
        """Return what the discriminator sees of a rendered scene, or of real images [B,3,H,W] in [-1,1].

        ``resolution`` is the neural resolution that real images are reduced to where the critic compares raw images
        too.
        """
        raise NotImplementedError

    def critic_needs(self) -> frozenset[str]:
        """Return the Scene buffers that ``critic_input`` reads."""
        return frozenset({"image"})

    def criticise(self, critic_input: Mapping[str, Tensor], condition: Tensor | None) -> Tensor:
        """Return the discriminator's logits [B]; large is real."""
        raise NotImplementedError

    def inspect(self, critic_input: Mapping[str, Tensor], condition: Tensor | None) -> dict[str, Tensor]:
        """Return all that the discriminator tells of images: ``logits`` [B] and, where it does, ``latent`` [B,L] and ``pose`` [B,2]."""
        return {"logits": self.criticise(critic_input, condition)}


def lay_out_weights(module: nn.Module, memory_format: str) -> None:
    """Put a module's convolution weights into the memory order ``contiguous`` or ``channels_last``; ``auto`` leaves them."""
    if memory_format != "auto":
        order = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        module.to(memory_format=order)  # type: ignore[call-overload]
