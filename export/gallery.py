"""The report's pictures: models side by side for the same latents, and what each makes of held-out heads whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.camera import Camera
from ..core.classes import CLASS_IDS
from ..core.registry import SEGMENTERS
from ..core.scene import Rays, Scene
from ..metrics.geometry import eroded
from ..rendering.rays import rays_from_camera
from ..rendering.smoothness import smoothness_map
from . import page
from .curves import Profile, depth_profile_png, eye_row
from .portraits import VIEWS, Heat, Portrait, portraits
from .sheets import Picture, heat_ceiling, heat_pictures, image_pictures, normal_pictures, png_bytes, shaded_pictures
from .subjects import Subjects

REGIONS = ("skin", "left_eye", "right_eye")
SOLID = 0.8
_VIEW_NAMES = tuple(f"surface, yaw {yaw:+.1f}".replace("-", "−").replace("+0.0", "0") for yaw in VIEWS)
HEADINGS = ("model", "image", "normals", *_VIEW_NAMES, "SSR")


def gallery(subjects: Subjects, heads: int, resolution: int) -> str:
    """Return HTML: for each of the first ``heads`` latents one table of pictures, a row for each model."""
    heat = smoothness_heat(subjects)
    drawn: dict[str, list[Portrait]] = {}
    for model in subjects.models:
        backbone = model.run.backbone(average=True)
        # Super-resolution is bound to the volume rendering's own size; without it the picture may be rendered finer.
        finer = backbone.image_resolution == backbone.neural_resolution
        drawn[model.name] = portraits(
            backbone, heads, seed=model.run.recipe.evaluation.seed, heat=heat, samples=48,
            resolution=max(resolution, backbone.neural_resolution) if finer else None,
            conditioned=model.run.recipe.objective.pose_swap is not None,
        )  # fmt: skip
    ceiling = heat_ceiling([portrait.heat for many in drawn.values() for portrait in many])
    blocks = []
    for index in range(heads):
        rows = [(name, _pictures(many[index], ceiling)) for name, many in drawn.items()]
        blocks.append(f"<h3>Latent {index + 1}</h3>" + page.picture_table(HEADINGS, rows))
    return page.paragraph(_gallery_note(ceiling), soft=True) + "".join(blocks)


def _gallery_note(ceiling: float) -> str:
    return (
        "Every row of a block is the same latent, rendered densely without jitter from the same cameras; nothing was picked. "
        "Normals: red to the right, green up, blue towards the camera. Surfaces: white, lit from above left, from three views in radians. "
        "SSR: squared depth differences to the 8 neighbours, in pixel widths, on skin and eyes away from their borders; dark is "
        f"smooth, the brightest yellow {ceiling:.2g} px² or more, one scale for all. "
        "Dark eyes and skin are not better by themselves: see (c)."
    )


def _pictures(portrait: Portrait, ceiling: float) -> list[bytes]:
    front = portrait.surfaces[VIEWS.index(0.0)]
    heat = heat_pictures(portrait.heat[None], ceiling, [front])[0]
    return [png_bytes(p) for p in (portrait.image, portrait.normals, *portrait.surfaces, heat)]


def smoothness_heat(subjects: Subjects) -> Heat:
    """Return what maps a scene to SR in squared pixel widths on skin and eyes; on the whole surface without a segmenter."""
    spec = next((m.run.recipe.segmenter for m in subjects.models if m.run.recipe.segmenter is not None), None)
    segmenter = None if spec is None else SEGMENTERS.create(spec.name, **spec.options).eval()

    def heat(scene: Scene) -> Tensor:
        size = (scene.depth.shape[2], scene.depth.shape[3])
        mask = scene.opacity > SOLID
        if segmenter is not None:
            segmentation = segmenter.segment(scene.image)
            mask = mask & segmentation.mask([r for r in REGIONS if r in segmentation.names], size)
        assert scene.camera is not None
        pitch = scene.camera.pixel_pitch(size[1]).view(-1, 1, 1, 1)
        # A pixel's window of 3 x 3 must lie inside: the jump at a border is no roughness.
        return torch.where(eroded(mask, 3), smoothness_map(scene.depth) / pitch**2, 0.0)

    return heat


def reconstructions(subjects: Subjects) -> str:
    """Return HTML: the inverted held-out head of each model beside its truth, and depth along a line through an eye."""
    inverted = {m.name: m.result.inverted for m in subjects.models if m.result is not None and m.result.inverted}
    if not inverted:
        return page.paragraph(
            "No held-out head was inverted here (the data have no truth, or nothing was measured), so there is no true profile to show."
        )
    truth = next(iter(inverted.values()))
    chosen = _best_head(truth["labels"], truth["camera"])
    if chosen is None:
        return page.paragraph("None of the inverted held-out heads shows an eye.")
    head, row = chosen
    camera = Camera.from_label(torch.from_numpy(truth["camera"][head : head + 1]))
    true_depth = truth["true_depth"][head]
    pictures = [("truth", _true_pictures(truth, head, camera, row))]
    profiles = [Profile("true head", np.where(np.isfinite(true_depth[0, row]), true_depth[0, row], np.nan))]
    for model in subjects.models:
        if model.name in inverted:
            mine = inverted[model.name]
            pictures.append((model.name, _own_pictures(mine, head, camera, row)))
            # The start is left out where there is a control: three lines are readable, five are not.
            if not model.is_start or subjects.control is None:
                line = np.where(mine["opacity"][head, 0, row] > SOLID, mine["depth"][head, 0, row], np.nan)
                profiles.append(Profile(model.name, line, subjects.colours[model.name]))
    eyes = _eyes(truth["labels"][head])[row]
    plot = depth_profile_png(profiles, eyes, pitch=float(camera.pixel_pitch(len(eyes))[0]))
    caption = (
        "Held-out head, never trained on, inverted from its image alone; depth along the marked row of pixels, through an eye. "
        "Each line is shifted, not scaled, to the true head's mean. One head is an illustration; (a) in the tables has all of them."
    )
    names = ", ".join(profile.name for profile in profiles)
    table = page.picture_table(("", "image", "normals", "surface"), [(n, [png_bytes(p) for p in ps]) for n, ps in pictures])
    return table + page.figure(plot, f"depth through an eye: {names}", caption)


def _best_head(labels: NDArray[Any], cameras: NDArray[Any]) -> tuple[int, int] | None:
    """The most frontal head that shows an eye, and the row through it: chosen by the truth alone."""
    angles = Camera.from_label(torch.from_numpy(cameras)).view_angle.tolist()
    for head in sorted(range(len(labels)), key=lambda i: angles[i]):
        row = eye_row(_eyes(labels[head]))
        if row is not None:
            return head, row
    return None


def _eyes(labels: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isin(labels, [CLASS_IDS["left_eye"], CLASS_IDS["right_eye"]])


def _true_pictures(truth: Mapping[str, NDArray[Any]], head: int, camera: Camera, row: int) -> list[Picture]:
    depth = torch.from_numpy(truth["true_depth"][head : head + 1])
    hit = torch.isfinite(depth)
    return _views(torch.from_numpy(truth["true_image"][head : head + 1]), depth, hit.float(), camera, row)


def _own_pictures(mine: Mapping[str, NDArray[Any]], head: int, camera: Camera, row: int) -> list[Picture]:
    image, depth, opacity = (torch.from_numpy(mine[key][head : head + 1]) for key in ("image", "depth", "opacity"))
    return _views(image, depth, opacity, camera, row)


def _views(image: Tensor, depth: Tensor, opacity: Tensor, camera: Camera, row: int) -> list[Picture]:
    """Image with the row marked, normals and surface; truth and reconstruction alike from their depth maps."""
    height, width = depth.shape[2:]
    origins, directions = rays_from_camera(camera, height, width)
    far = 2 * camera.position.norm(dim=-1).max()
    scene = Scene(camera, depth=depth.clamp_max(float(far)), opacity=opacity, rays=Rays(origins, directions, height, width))
    picture = image_pictures(image)[0].copy()
    picture[int((row + 0.5) * len(picture) / height), ::2] = (220, 40, 40)
    shaded: Sequence[Picture] = shaded_pictures(scene.normals, opacity, camera)
    return [picture, normal_pictures(scene.normals, opacity, camera)[0], shaded[0]]
