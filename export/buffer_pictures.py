"""Any picture of a rendered scene by its name: images, depth, normals, shaded surface, opacity, foreground and background apart."""

from __future__ import annotations

import numpy as np
import torch

from ..backbones.base import Backbone
from ..core.errors import PriorzooError, did_you_mean
from ..core.scene import Scene
from .sheets import BACKDROP, Picture, image_pictures, normal_pictures, shaded_pictures
from .sources import parse_numbers

_SURFACE = frozenset({"depth", "opacity", "rays"})
NEEDS = {
    "image": frozenset({"image"}),
    "image_raw": frozenset({"image_raw"}),
    "depth": _SURFACE | {"field"},
    "normals": _SURFACE,
    "shading": _SURFACE,
    "opacity": frozenset({"opacity"}),
    "foreground": frozenset({"foreground_raw", "background_transmittance"}),
    "background": frozenset({"background_raw"}),
    "transmittance": frozenset({"background_transmittance"}),
}
"""What can be drawn, and the buffers that it takes."""
APART = ("foreground", "background")
"""Pictures that only a model with a background has."""

DepthRange = tuple[float, float]


def parse_what(text: str) -> list[str]:
    """Read names of pictures with commas between them; raises PriorzooError with the nearest name.

    >>> parse_what("image,depth")
    ['image', 'depth']
    """
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in NEEDS:
            raise PriorzooError(f"--what {name!r} is unknown{did_you_mean(name, NEEDS)}; there are {', '.join(NEEDS)}")
    return names


def parse_depth_range(text: str | None) -> DepthRange | None:
    """Read two depths in world units.

    >>> parse_depth_range("2.4,2.9")
    (2.4, 2.9)
    """
    if text is None:
        return None
    numbers = parse_numbers(text, "--depth-range")
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise PriorzooError(f"--depth-range {text!r}: expected the nearest and the farthest depth, such as 2.4,2.9")
    return numbers[0], numbers[1]


def needs_of(names: list[str], backbone: Backbone | None = None) -> frozenset[str]:
    """The buffers that a scene must be rendered with to draw these; raises PriorzooError for what ``backbone`` cannot show."""
    for name in names:
        if name in APART and backbone is not None and backbone.background is None:
            possible = ", ".join(other for other in NEEDS if other not in APART)
            raise PriorzooError(f"--what {name}: this model has no background to be told apart from its foreground; it can show {possible}")
    return frozenset().union(*(NEEDS[name] for name in names))


def scene_pictures(scene: Scene, what: str, depth_range: DepthRange | None = None) -> list[Picture]:
    """Draw one buffer of a scene: one picture a sample, at the buffer's own resolution.

    ``depth_range`` is the nearest and the farthest depth of the colours, in world units; None takes the distances at
    which a camera meets and leaves the ball in the field's cube, the same for every scene of one model and distance.
    """
    if scene.camera is None:
        raise PriorzooError("pictures are drawn of a scene with a camera")
    if what in ("image", "image_raw"):
        return image_pictures(scene[what])
    if what == "foreground":  # the buffer is black where nothing is, and hair may be black too
        behind = torch.tensor(BACKDROP).to(scene.foreground_raw).view(1, 3, 1, 1) / 255.0
        return image_pictures(scene.foreground_raw + scene.background_transmittance * behind * 2.0)
    if what == "background":
        return image_pictures(scene.background_raw)
    if what == "transmittance":
        return image_pictures(scene.background_transmittance.expand(-1, 3, -1, -1) * 2.0 - 1.0)
    if what == "normals":
        return normal_pictures(scene.normals, scene.opacity, scene.camera)
    if what == "shading":
        return shaded_pictures(scene.normals, scene.opacity, scene.camera)
    if what == "opacity":
        return image_pictures(scene.opacity.expand(-1, 3, -1, -1) * 2.0 - 1.0)
    if what != "depth":
        raise PriorzooError(f"{what!r} cannot be drawn{did_you_mean(what, NEEDS)}; there are {', '.join(NEEDS)}")
    if depth_range is None:
        distance, extent = float(scene.camera.position.norm(dim=-1).mean()), scene.field.extent
        depth_range = (max(0.0, distance - extent), distance + extent)
    return depth_pictures(scene.depth, scene.opacity, depth_range)


def depth_pictures(depth: torch.Tensor, opacity: torch.Tensor, depth_range: DepthRange) -> list[Picture]:
    """Colour depth [B,1,h,w] from yellow, near, to dark blue, far; where less than half of the light is met, the backdrop.

    >>> depth_pictures(torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1), (2.0, 3.0))[0].tolist()
    [[[253, 231, 36]]]
    """
    import matplotlib

    near, far = depth_range
    if not near < far:
        raise PriorzooError(f"the depth range runs from near to far, got {near:g} to {far:g}")
    share = ((far - depth.detach().float()) / (far - near)).clamp(0.0, 1.0).nan_to_num().cpu().numpy()[:, 0]
    coloured = matplotlib.colormaps["viridis"](share)[..., :3] * 255.0
    covered = (opacity.detach().float() >= 0.5).cpu().numpy()[:, 0, ..., None]
    return list(np.where(covered, coloured, np.array(BACKDROP)).astype(np.uint8))


def resized(picture: Picture, side: int) -> Picture:
    """The picture at another side, pixel by pixel: nothing is interpolated."""
    from PIL import Image

    if picture.shape[:2] == (side, side):
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST))
