"""EG3D: tri-planes, volume rendering, super-resolution and a dual discriminator."""

from .backbone import EG3D
from .ballgan import BallGAN
from .options import EG3DOptions

__all__ = ["EG3D", "BallGAN", "EG3DOptions"]
