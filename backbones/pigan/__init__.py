"""pi-GAN: a FiLM-SIREN field, hierarchical volume rendering, progressive discriminators and camera laws; GOF on the same field."""

from .backbone import PiGAN
from .gof import GOF, GOFOptions
from .options import PiGANOptions

__all__ = ["GOF", "GOFOptions", "PiGAN", "PiGANOptions"]
