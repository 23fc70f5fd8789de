"""pi-GAN: a FiLM-SIREN field, hierarchical volume rendering, progressive discriminators and camera laws."""

from .backbone import PiGAN
from .options import PiGANOptions

__all__ = ["PiGAN", "PiGANOptions"]
