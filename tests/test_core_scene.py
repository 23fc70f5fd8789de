"""The scene: buffers by name, derived buffers, makers, segmentation, needs."""

from __future__ import annotations

import copy

import pytest
import torch
from analytic import PROVIDES, sphere_scene
from priorzoo.core.classes import CLASS_COLOURS, CLASS_IDS, CLASS_NAMES, MIRROR_PAIRS
from priorzoo.core.errors import MissingBufferError, PriorzooError
from priorzoo.core.scene import BUFFERS, DERIVED, Scene, Segmentation, rendered_needs, second_view_needs
from priorzoo.rendering.normals import normals_from_depth, points_from_depth
from torch.testing import assert_close


def test_buffers_by_attribute_and_by_name() -> None:
    depth = torch.ones(1, 1, 2, 2)
    scene = Scene(None, depth=depth, opacity=None)
    assert scene.depth is depth and scene["depth"] is depth
    assert "depth" in scene and "opacity" not in scene
    scene["opacity"] = depth
    assert scene.opacity is depth and set(scene.buffers) == {"depth", "opacity"}


def test_missing_buffer_names_what_there_is() -> None:
    with pytest.raises(MissingBufferError, match=r"without 'opacity'; it has: depth.*needs of whoever reads it"):
        _ = Scene(None, depth=torch.ones(1)).opacity
    with pytest.raises(MissingBufferError, match=r"it has: nothing"):
        _ = Scene(None)["depth"]


def test_makers_run_once_and_only_when_asked() -> None:
    calls = []

    def maker(scene: Scene) -> str:
        calls.append(scene)
        return "made"

    scene = Scene(None, makers={"segmentation": maker})
    assert "segmentation" in scene and not calls and "segmentation" not in scene.buffers
    assert scene.segmentation == scene["segmentation"] == "made"
    assert calls == [scene]
    scene.set_maker("estimated_depth", lambda s: s.segmentation + "!")
    assert scene.estimated_depth == "made!"


def test_second_view_by_prefix() -> None:
    scene = Scene(None, other_view=Scene(None, depth="far"))
    assert scene["other_view.depth"] == scene.other_view.depth == "far"
    with pytest.raises(MissingBufferError, match=r"'opacity'"):
        _ = scene["other_view.opacity"]


def test_derived_geometry_is_that_of_the_depth_map() -> None:
    scene, _ = sphere_scene(PROVIDES - {"normals", "background_transmittance"}, double=True)
    rays = scene.rays
    assert_close(scene.points, points_from_depth(scene.depth, rays.origins, rays.directions))
    assert_close(scene.depth_normals, normals_from_depth(scene.depth, rays.origins, rays.directions))
    assert_close(scene.background_transmittance, 1.0 - scene.opacity)
    facing = (scene.normals[:, 2:] > 0.5) & (scene.opacity > 0.999)
    cosine = (scene.depth_normals * scene.normals).sum(dim=1, keepdim=True)
    assert float(cosine[facing].detach().min()) > 0.99


def test_sample_normals_point_away_from_the_centre() -> None:
    scene, _ = sphere_scene({"distances"}, double=True, size=8)
    rays = scene.rays
    points = rays.origins[:, :, None] + rays.directions[:, :, None] * scene.distances[..., None]
    assert scene.sample_normals.shape == points.shape
    assert_close(scene.sample_normals, torch.nn.functional.normalize(points, dim=-1))


def test_scenes_copy() -> None:
    # __getattr__ must not answer for what copying looks for.
    scene = copy.copy(Scene(None, depth=torch.ones(1)))
    assert scene.depth.item() == 1.0


def segmentation() -> Segmentation:
    """4 x 4 labels: background, with a skin column at 2 and one left eye in it."""
    ids = torch.zeros(1, 4, 4, dtype=torch.int64)
    ids[0, :, 2], ids[0, 1, 2] = 1, 2
    hot = torch.nn.functional.one_hot(ids, 3).movedim(-1, 1).float()
    return Segmentation(hot, ("background", "skin", "left_eye"))


def test_labels_and_masks() -> None:
    s = segmentation()
    assert s.labels()[0, :, 2].tolist() == [1, 2, 1, 1]
    assert s.mask("skin").sum().item() == 3
    union = s.mask(["skin", "left_eye"])
    assert union.shape == (1, 1, 4, 4) and union.dtype == torch.bool and union.sum().item() == 4


def test_resized_labels_are_arg_max_first_then_nearest() -> None:
    # Two weak classes side by side: a blurred arg-max would invent the third.
    p = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.4, 0.5]]).T[None, :, None].repeat(1, 1, 2, 1)
    assert Segmentation(p, ("a", "b", "c")).labels((1, 1)).item() in (0, 2)
    # nearest-exact takes the pixel whose centre is nearest: of 4 columns halved, 1 and 3.
    ids = torch.arange(4).view(1, 1, 4).repeat(1, 4, 1)
    s = Segmentation(torch.nn.functional.one_hot(ids, 4).movedim(-1, 1).float(), ("a", "b", "c", "d"))
    assert s.labels((2, 2))[0].tolist() == [[1, 3], [1, 3]]
    assert s.labels((4, 8))[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_unknown_class_names_the_nearest() -> None:
    with pytest.raises(PriorzooError, match=r"'left_eyes' is unknown.*did you mean 'left_eye'.*it knows: background"):
        segmentation().mask(["skin", "left_eyes"])


def test_needs_are_replaced_by_what_must_be_rendered() -> None:
    assert rendered_needs({"depth"}) == {"depth"}
    assert rendered_needs({"points", "segmentation"}) == {"depth", "rays", "image"}
    assert rendered_needs({"segmentation"}, made={"segmentation": {"image_raw"}}) == {"image_raw"}
    assert rendered_needs({"other_view.points"}) == frozenset()
    assert second_view_needs({"other_view.points", "depth"}) == {"points"}
    assert all(sources <= BUFFERS.keys() for sources in DERIVED.values())
    assert not BUFFERS.keys() & DERIVED.keys()


def test_classes_are_the_nineteen_in_order() -> None:
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(CLASS_COLOURS) == 19
    assert [CLASS_IDS[n] for n in ("background", "skin", "left_eye", "right_eye", "hair", "cloth")] == [0, 1, 4, 5, 13, 18]
    for left, right in MIRROR_PAIRS:
        assert CLASS_NAMES[left].replace("left", "right") == CLASS_NAMES[right]


def test_the_first_of_equally_probable_classes_is_the_label() -> None:
    even = Segmentation(torch.full((1, 3, 4, 4), 1 / 3), ("a", "b", "c"))
    assert not even.labels().any()
    draw = torch.randint(0, 3, (2, 5, 8, 8), generator=torch.Generator().manual_seed(0)) / 3  # many ties
    assert torch.equal(Segmentation(draw, tuple("abcde")).labels(), draw.argmax(dim=1))
