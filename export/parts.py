"""Renderings taken apart: the foreground alone, the background alone, both together, and the transmittance between them."""

from __future__ import annotations

import torch

from ..backbones.base import Backbone, Sampling
from ..core.camera import Camera
from ..core.streams import fixed_streams
from . import page
from .buffer_pictures import needs_of, scene_pictures
from .sheets import Picture, png_bytes
from .subjects import Subjects

PARTS = {
    "image_raw": "together",
    "foreground": "foreground",
    "background": "background",
    "transmittance": "transmittance",
    "depth": "depth of the foreground",
}
"""What is drawn of each head, and its heading."""
_AT_ONCE = 4  # heads rendered together: bounds memory with dense samples
UNDECIDED = 0.1


@torch.no_grad()
def parts(
    backbone: Backbone,
    count: int,
    *,
    seed: int = 0,
    resolution: int | None = None,
    samples: int | None = None,
    conditioned: bool = False,
) -> list[tuple[dict[str, Picture], float]]:
    """Draw the PARTS of the first ``count`` frontal heads of ``seed``, and each one's share of undecided rays.

    Undecided is a ray whose transmittance T lies between 0.1 and 0.9. The heads are those of `portraits`, with its ``resolution``,
    ``samples`` and ``conditioned``; the volume rendering's own picture is shown, before super-resolution. Raises PriorzooError for a
    backbone without a background.
    """
    needs = needs_of(list(PARTS), backbone)
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    out: list[tuple[dict[str, Picture], float]] = []
    for first in range(0, count, _AT_ONCE):
        size = min(_AT_ONCE, count - first)
        streams = fixed_streams(seed, size, first=first, device=device)
        camera = Camera.looking_at_origin(torch.zeros(size), torch.zeros(size)).to(device)
        latents = backbone.prepare(backbone.draw(size, streams), camera.label() if conditioned else None)
        sampling = Sampling("deterministic", samples, samples)
        scene = backbone.render(latents, camera, needs, streams=streams, resolution=resolution, sampling=sampling)
        drawn = {what: scene_pictures(scene, what) for what in PARTS}
        t = scene.background_transmittance.flatten(1)
        shares = ((t > UNDECIDED) & (t < 1.0 - UNDECIDED)).float().mean(dim=1).tolist()
        out += [({what: pictures[i] for what, pictures in drawn.items()}, shares[i]) for i in range(size)]
    return out


def parts_section(subjects: Subjects, heads: int, resolution: int) -> str | None:
    """Return HTML: for each of the first ``heads`` latents a table with a row for each model that has a background; None without any."""
    drawn = {}
    for model in subjects.models:
        backbone = model.run.backbone(average=True)
        if backbone.background is not None:
            drawn[model.name] = parts(
                backbone, heads, seed=model.run.recipe.evaluation.seed, resolution=max(resolution, backbone.neural_resolution), samples=48,
                conditioned=model.run.recipe.objective.pose_swap is not None,
            )  # fmt: skip
    if not drawn:
        return None
    blocks = []
    for index in range(heads):
        rows = [(name, [png_bytes(picture) for picture in many[index][0].values()]) for name, many in drawn.items()]
        undecided = ", ".join(f"{name} {100 * many[index][1]:.1f} %" for name, many in drawn.items())
        blocks.append(f"<h3>Latent {index + 1}</h3>" + page.picture_table(("model", *PARTS.values()), rows))
        blocks.append(page.paragraph(f"Undecided rays: {undecided}.", soft=True))
    return page.paragraph(_NOTE, soft=True) + "".join(blocks)


_NOTE = (
    "Together = foreground + transmittance × background, as the volume rendering has it, before any super-resolution. The foreground "
    "stands before the grey of these sheets. Transmittance: the share of light that comes from behind, black 0, white 1. A grey ray is "
    "neither foreground nor background; undecided is the share of rays between 0.1 and 0.9 (an edge within a pixel is so, too). Depth is "
    "the foreground's alone: yellow near, blue far, nothing where less than half of the light is met."
)
