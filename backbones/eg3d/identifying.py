"""Telling other GANs' pickles from EG3D's, by the names of their classes and attributes, so that they are refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...core.pickles import Record
from .importing_ballgan import has_sphere

PANOHEAD = "a PanoHead checkpoint (tri-grids and a background network)"
STYLEGAN2 = "a StyleGAN2 checkpoint (an image generator without planes)"
STYLEGAN3 = "a StyleGAN3 checkpoint (an image generator without planes)"
TENSORFLOW = "a TensorFlow StyleGAN checkpoint"


def name_of_family(classes: Iterable[str], refused: str | None, records: Mapping[str, Record] | None = None) -> str | None:
    """Return which other GAN a pickle comes from, or None.

    ``classes`` are those that carry their source text, ``refused`` the reason of a refused name, ``records`` generator and
    discriminator where the file could be read.

    >>> name_of_family(["SynthesisInput", "Generator"], None)
    'a StyleGAN3 checkpoint (an image generator without planes)'
    >>> name_of_family(["FullyConnectedLayer", "TriPlaneGenerator"], None) is None
    True
    """
    found = set(classes)
    if refused is not None and "dnnlib.tflib" in refused:
        return TENSORFLOW
    if "SynthesisInput" in found:
        return STYLEGAN3
    if any(name.startswith("MaskDualDiscriminator") for name in found):
        return PANOHEAD
    if records is None:
        return None
    generator = records["generator"]
    settings = [generator.get(k) for k in ("_init_kwargs", "rendering_kwargs")]
    if generator.get("triplane_depth") is not None or any(isinstance(s, dict) and "triplane_depth" in s for s in settings):
        return PANOHEAD
    if generator.class_name == "TriPlaneGenerator" or has_sphere(generator):
        return None
    modules = generator.get("_modules", {})
    if generator.class_name == "Generator" and isinstance(modules, dict) and {"mapping", "synthesis"} <= set(modules):
        return STYLEGAN2
    return f"a checkpoint of a {generator.class_name[:60]}"
