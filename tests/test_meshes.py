"""Meshes of fields whose surface is known: place, orientation, counts, colours, files, and what is refused."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import trimesh
from priorzoo.core.camera import Camera
from priorzoo.core.errors import NonFiniteError, PriorzooError
from priorzoo.core.scene import FieldSample
from priorzoo.shapes.mesh_extraction import PUBLISHED_CUT, colour_mesh, extract_mesh, sample_volume, surface_of
from priorzoo.shapes.mesh_files import linear_from_srgb, save_mesh
from priorzoo.shapes.mesh_levels import Level
from priorzoo.shapes.mesh_rasteriser import rasterise
from priorzoo.shapes.mesh_topology import component_labels, enclosed_volume, largest_component, measure_mesh
from priorzoo.shapes.meshes import Mesh
from priorzoo.shapes.volume_files import HEADER, mrc_bytes, save_volume
from torch import Tensor


@dataclass
class Solid:
    """A field made from a signed distance, negative inside: of kind ``sdf``, or a density or occupancy around it."""

    distance: Callable[[Tensor], Tensor]
    kind: str = "sdf"
    extent: float = 1.0
    coloured: bool = True
    queried: int = 0

    def __call__(self, points: Tensor) -> FieldSample:
        self.queried = max(self.queried, points.shape[1])
        d = self.distance(points)
        value = {"sdf": d, "density": 100.0 * (-d / 0.02).sigmoid(), "occupancy": (-d / 0.02).sigmoid()}[self.kind]
        return FieldSample(-d / 0.02, value, points.clone() if self.coloured else None)


def ball(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Callable[[Tensor], Tensor]:
    return lambda points: (points - torch.tensor(centre)).norm(dim=-1) - radius


def torus(large: float, small: float) -> Callable[[Tensor], Tensor]:
    """About the y axis."""
    return lambda p: torch.stack([p[..., [0, 2]].norm(dim=-1) - large, p[..., 1]], dim=-1).norm(dim=-1) - small


def two_balls(points: Tensor) -> Tensor:
    return torch.minimum(ball(0.3, (-0.5, 0.0, 0.0))(points), ball(0.2, (0.5, 0.1, 0.0))(points))


TETRAHEDRON = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))


def test_a_ball_has_its_volume_area_and_place_and_its_normals_point_outwards():
    mesh = extract_mesh(Solid(ball(0.5, (0.1, -0.2, 0.05))), resolution=60)
    report = measure_mesh(mesh)
    assert (report.components, report.euler, report.watertight, report.holes) == (1, 2, True, 0)
    # An inscribed polyhedron is smaller, by the order of the squared spacing.
    assert report.volume == pytest.approx(4 / 3 * math.pi * 0.125, rel=5e-3) and report.volume < 4 / 3 * math.pi * 0.125
    assert report.area == pytest.approx(math.pi, rel=5e-3)
    outwards = mesh.vertices - torch.tensor([0.1, -0.2, 0.05])
    assert outwards.norm(dim=-1).sub(0.5).abs().max() < 1e-3
    assert (mesh.vertex_normals() * outwards).sum(dim=-1).min() > 0.98 * 0.5


@pytest.mark.parametrize("kind", ["sdf", "density", "occupancy"])
def test_a_torus_has_a_handle_whatever_the_kind_of_field(kind):
    level = {"sdf": None, "density": Level("density", 50.0), "occupancy": None}[kind]
    report = measure_mesh(extract_mesh(Solid(torus(0.5, 0.2), kind), resolution=60, level=level))
    assert (report.components, report.euler, report.watertight) == (1, 0, True)
    assert report.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.04, rel=1e-2)
    assert report.area == pytest.approx(4 * math.pi**2 * 0.5 * 0.2, rel=1e-2)


def test_axes_are_not_mixed_up():
    # A box of three different lengths, off the origin.
    middle, half = torch.tensor([0.2, -0.1, 0.3]), torch.tensor([0.5, 0.3, 0.15])
    mesh = extract_mesh(Solid(lambda p: ((p - middle).abs() - half).amax(dim=-1)), resolution=50)
    assert torch.allclose(mesh.vertices.amin(dim=0), middle - half, atol=0.02)
    assert torch.allclose(mesh.vertices.amax(dim=0), middle + half, atol=0.02)


def test_levels_mean_what_they_say():
    field = Solid(ball(0.5), "density", extent=0.8)
    # 1 - exp(-density * side / 20) = o at density q(d) = 100 sigmoid(-d / 0.02); raw is -d / 0.02.
    for level, density in (
        (None, math.log(2.0) * 20 / 1.6), (Level("opacity", 0.8), math.log(5.0) * 20 / 1.6), (Level("density", 30.0), 30.0),
        (Level("raw", 1.5), 100.0 / (1.0 + math.exp(-1.5))),
    ):  # fmt: skip
        radius = 0.5 + 0.02 * math.log(100.0 / density - 1.0)
        mesh = extract_mesh(field, resolution=100, level=level)
        # Linear interpolation of a sigmoid that is as wide as the spacing: a tenth of a spacing off.
        assert float(mesh.vertices.norm(dim=-1).mean()) == pytest.approx(radius, abs=2e-3), level


def test_the_default_does_not_depend_on_the_grid_or_the_unit():
    assert Level("opacity", 0.5).threshold("density", 0.5) == pytest.approx(math.log(2.0) * 20)
    small, large = Level("opacity", 0.5).threshold("density", 0.4), Level("opacity", 0.5).threshold("density", 4.0)
    assert small == pytest.approx(10 * large)
    assert str(Level.default("sdf")) == "distance:0" and str(Level.default("occupancy")) == "opacity:0.5"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("20", "density", "expected quantity:number, such as opacity:0.5"),
        ("opacty:0.5", "density", "did you mean 'opacity'?"),
        ("density:x", "density", "'x' is not a number"),
        ("density:-1", "density", "a density level is above 0"),
        ("density:nan", "density", "must be finite"),
        ("opacity:1.5", "density", "between 0 and 1"),
        ("raw:-2000", "density", "stands for emptiness"),
        ("density:3", "occupancy", "a level of opacity or raw"),
        ("distance:0", "density", "a level of opacity or density or raw"),
        ("opacity:0.5", "mist", "a field's kind is one of density, occupancy, sdf"),
    ],
)
def test_levels_that_make_no_sense_are_refused(text, kind, said):
    with pytest.raises(PriorzooError, match=said.replace("?", r"\?")):
        Level.parse(text).threshold(kind, 0.5)


def test_chunks_do_not_matter_and_bound_what_is_queried():
    whole, parts = Solid(two_balls), Solid(two_balls)
    seen: list[tuple[int, int]] = []
    a = sample_volume(whole, resolution=24, chunk=24**3)
    b = sample_volume(parts, resolution=24, chunk=1000, progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(a.values, b.values)
    assert (whole.queried, parts.queried) == (24**3, 1000)
    assert seen[0] == (1000, 13824) and seen[-1] == (13824, 13824) and len(seen) == 14
    coloured = colour_mesh(surface_of(b), parts, chunk=77)
    assert torch.equal(coloured.colours, colour_mesh(surface_of(a), whole).colours)


def test_vertices_take_the_fields_colour_there():
    mesh = extract_mesh(Solid(ball(0.9)), resolution=20)
    # The field's colour at x is x itself, nominal [-1,1].
    assert torch.equal(mesh.colours, (mesh.vertices + 1.0) / 2.0)
    assert extract_mesh(Solid(ball(0.5), coloured=False), resolution=20).colours is None


def test_colours_out_of_range_are_clamped():
    field = Solid(ball(0.5))
    mesh = colour_mesh(Mesh(torch.eye(3) * 3.0, torch.tensor([[0, 1, 2]])), field)
    assert mesh.colours.tolist() == [[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]]


def test_components_are_counted_and_the_largest_is_kept():
    mesh = extract_mesh(Solid(two_balls), resolution=50)
    assert measure_mesh(mesh).components == 2 and measure_mesh(mesh).euler == 4
    labels = component_labels(mesh)
    assert set(labels.tolist()) == {0, 1} and (labels == 0).sum() > (labels == 1).sum()
    kept = largest_component(mesh)
    report = measure_mesh(kept)
    assert (report.components, report.euler, report.watertight) == (1, 2, True)
    assert report.volume == pytest.approx(4 / 3 * math.pi * 0.027, rel=2e-2)
    assert float(kept.vertices[:, 0].max()) < 0 and len(kept.colours) == len(kept.vertices) < len(mesh.vertices)
    assert torch.equal(kept.colours, (kept.vertices + 1.0) / 2.0)


def test_what_reaches_the_border_is_capped_there_or_left_open():
    field = Solid(ball(0.5, (0.0, -1.0, 0.0)))  # half a ball stands on the cube's floor
    capped = measure_mesh(extract_mesh(field, resolution=40))
    assert capped.watertight and capped.euler == 2
    assert capped.volume == pytest.approx(2 / 3 * math.pi * 0.125, rel=2e-2)
    mesh = extract_mesh(field, resolution=40, closed=False)
    left = measure_mesh(mesh)
    assert (left.watertight, left.volume, left.holes, left.euler, left.components) == (False, None, 1, 1, 1)
    assert left.boundary_edges > 20 and "1 holes" in left.line()
    assert float(extract_mesh(field, resolution=40).vertices.min()) == -1.0


def test_a_cube_that_is_full_is_capped_on_all_sides():
    report = measure_mesh(extract_mesh(Solid(ball(5.0)), resolution=12))
    assert (report.euler, report.watertight) == (2, True)
    assert report.volume == pytest.approx(8.0, rel=1e-5) and report.area == pytest.approx(24.0, rel=1e-5)


def test_the_published_cut_empties_30_of_256_voxels_at_every_face():
    volume = sample_volume(Solid(ball(5.0), extent=0.5), resolution=64)
    mesh = surface_of(volume, closed=False, cut=PUBLISHED_CUT)
    report = measure_mesh(mesh)
    assert report.watertight and report.euler == 2
    # 7 of 64 points are emptied; the surface lies between the last empty and the first full one.
    reach = 0.5 - 7 * volume.spacing
    assert reach <= float(mesh.vertices.max()) <= reach + volume.spacing
    with pytest.raises(PriorzooError, match=r"from 0 to 0\.5, got 0\.5"):
        surface_of(volume, cut=0.5)


def test_where_nothing_crosses_the_level_the_range_is_said():
    field = Solid(ball(0.5), "density")
    with pytest.raises(PriorzooError, match=r"nothing crosses the level density:500: the field's values are between .* and 100$"):
        extract_mesh(field, resolution=21, level=Level("density", 500.0))
    with pytest.raises(PriorzooError, match="nothing crosses the level distance:0"):
        extract_mesh(Solid(ball(9.0)), resolution=8, closed=False)
    with pytest.raises(PriorzooError, match=r"level opacity:0\.99999, which is 115\.1"):
        extract_mesh(field, resolution=8, level=Level("opacity", 0.99999))


def test_a_field_that_is_not_finite_or_of_many_samples_is_refused():
    with pytest.raises(NonFiniteError, match="64 of 64 values"):
        sample_volume(Solid(lambda p: p[..., 0] * math.nan), resolution=4)
    with pytest.raises(PriorzooError, match="a field of one sample is extracted, this one holds 2"):
        sample_volume(Solid(lambda p: ball(0.5)(p.expand(2, -1, -1))), resolution=4)
    with pytest.raises(PriorzooError, match="from 4 to 1024 points a side, got 2000"):
        sample_volume(Solid(ball(0.5)), resolution=2000)
    with pytest.raises(PriorzooError, match="at least one point, got 0"):
        sample_volume(Solid(ball(0.5)), resolution=4, chunk=0)


def test_a_mesh_that_does_not_fit_together_is_refused():
    with pytest.raises(PriorzooError, match=r"faces point to vertices 0 \.\. 3, there are 3"):
        Mesh(torch.eye(3), torch.tensor([[0, 1, 3]]))
    with pytest.raises(PriorzooError, match=r"vertices have shape \[n,3\], got \[3, 2\]"):
        Mesh(torch.zeros(3, 2), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(PriorzooError, match="faces are int64"):
        Mesh(torch.eye(3), torch.zeros(1, 3, dtype=torch.int32))
    with pytest.raises(PriorzooError, match="2 colours for 3 vertices"):
        Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.zeros(2, 3))


def test_reports_of_meshes_by_hand():
    assert enclosed_volume(TETRAHEDRON) == pytest.approx(1 / 6)
    assert measure_mesh(TETRAHEDRON).area == pytest.approx(1.5 + math.sqrt(3) / 2)
    open_one = measure_mesh(TETRAHEDRON.with_faces(torch.tensor([True, True, True, False])))
    assert (open_one.holes, open_one.boundary_edges, open_one.euler, open_one.volume) == (1, 3, 1, None)
    three_at_an_edge = Mesh(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    assert measure_mesh(three_at_an_edge).edges_not_manifold == 1 and not measure_mesh(three_at_an_edge).watertight
    empty = measure_mesh(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
    assert (empty.components, empty.watertight, empty.euler, empty.area) == (0, False, 0, 0.0)
    corner_only = Mesh(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert measure_mesh(corner_only).components == 1  # they share a vertex


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_another_program_reads_what_is_written(tmp_path, suffix):
    mesh = extract_mesh(Solid(ball(0.6, (0.1, 0.2, 0.0))), resolution=20)
    save_mesh(mesh, tmp_path / f"ball{suffix}")
    loaded = trimesh.load(tmp_path / f"ball{suffix}", process=False, force="mesh", skip_materials=True)
    assert len(loaded.vertices) == len(mesh.vertices) and np.array_equal(loaded.faces, mesh.faces.numpy())
    assert np.abs(loaded.vertices - mesh.vertices.numpy()).max() <= (0 if suffix != ".obj" else 1e-6)
    assert loaded.is_watertight and loaded.volume == pytest.approx(measure_mesh(mesh).volume, rel=1e-4)
    expected = linear_from_srgb(mesh.colours.numpy()) if suffix == ".glb" else mesh.colours.numpy()
    assert np.abs(loaded.visual.vertex_colors[:, :3] - expected * 255.0).max() <= 1.0


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_a_mesh_without_colours_is_written_too(tmp_path, suffix):
    save_mesh(TETRAHEDRON, tmp_path / f"t{suffix}")
    loaded = trimesh.load(tmp_path / f"t{suffix}", process=False, force="mesh", skip_materials=True)
    assert loaded.volume == pytest.approx(1 / 6) and len(loaded.faces) == 4


def test_a_glb_keeps_the_rules_of_gltf(tmp_path):
    # A face without an area: its corners have no normal of their own.
    flat = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), torch.tensor([[0, 1, 2]]), torch.full((3, 3), 0.5))
    save_mesh(flat, tmp_path / "flat.glb")
    data = (tmp_path / "flat.glb").read_bytes()
    magic, version, length, head_length, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON") and head_length % 4 == 0
    head = json.loads(data[20 : 20 + head_length])
    body = data[28 + head_length :]
    assert head["buffers"] == [{"byteLength": len(body)}]
    assert (head["accessors"][0]["min"], head["accessors"][0]["max"]) == ([0.0, 0.0, 0.0], [2.0, 0.0, 0.0])
    view = head["bufferViews"][head["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    normals = np.frombuffer(body, "<f4", 9, view["byteOffset"]).reshape(3, 3)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0)


def test_other_endings_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(PriorzooError, match=r"written as \.glb, \.ply, \.obj, did you mean '\.glb'\?"):
        save_mesh(TETRAHEDRON, tmp_path / "a.gltb")
    assert list(tmp_path.iterdir()) == []


def test_an_mrc_says_where_its_values_lie(tmp_path):
    volume = sample_volume(Solid(ball(0.5, (0.2, 0.1, -0.1)), extent=0.8), resolution=17)
    save_volume(volume, tmp_path / "v.mrc")
    data = (tmp_path / "v.mrc").read_bytes()
    assert data == mrc_bytes(volume) and len(data) == HEADER + 4 * 17**3
    assert struct.unpack("<4i", data[:16]) == (17, 17, 17, 2)
    assert struct.unpack("<3f", data[40:52]) == pytest.approx([0.1 * 17] * 3)  # the cell: 17 spacings
    assert struct.unpack("<3i", data[64:76]) == (1, 2, 3)
    low, high, mean = struct.unpack("<3f", data[76:88])
    assert (low, high) == pytest.approx((volume.values.min(), volume.values.max())) and mean == pytest.approx(
        volume.values.mean(), rel=1e-5
    )
    assert struct.unpack("<3f", data[196:208]) == pytest.approx([-0.8] * 3)
    assert data[208:212] == b"MAP " and data[212:214] == b"DD" and struct.unpack("<i", data[108:112]) == (20140,)
    assert struct.unpack("<f", data[216:220])[0] == pytest.approx(volume.values.std(), rel=1e-5)
    values = np.frombuffer(data, "<f4", offset=HEADER).reshape(17, 17, 17)
    z, y, x = np.unravel_index(values.argmax(), values.shape)  # x is fastest
    assert [x, y, z] == [10, 9, 7]


def test_the_z_buffer_sees_a_ball_where_it_is():
    mesh = extract_mesh(Solid(ball(0.3, (0.1, 0.05, 0.0))), resolution=80)
    camera = Camera.looking_at_origin(torch.tensor([0.4]), torch.tensor([0.2]))
    seen = rasterise(mesh, camera, 48)
    from priorzoo.rendering.rays import rays_from_camera

    origins, directions = rays_from_camera(camera, 48, 48)
    to_centre = torch.tensor([0.1, 0.05, 0.0]) - origins[0]
    along = (to_centre * directions[0]).sum(dim=-1)
    square = 0.09 - (to_centre.square().sum(dim=-1) - along**2)
    hit = (square > 2e-3).view(48, 48)
    assert hit.sum() > 300 and bool(seen.covered[hit].all()) and not bool(seen.covered[(square < -2e-3).view(48, 48)].any())
    points = origins[0] + directions[0] * (along - square.clamp_min(0).sqrt())[:, None]
    assert (seen.interpolated(mesh.vertices).view(-1, 3) - points)[hit.view(-1)].norm(dim=-1).max() < 5e-3
    assert torch.allclose(seen.shares.sum(dim=-1), seen.covered.double())


def test_the_z_buffer_takes_the_nearest_of_large_and_small_faces_and_none_behind():
    def square(z: float, half: float) -> Tensor:
        return torch.tensor([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])

    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    layers = [square(0.0, 1.0), square(0.3, 0.1), square(-0.3, 0.5), square(5.0, 1.0)]  # the last one is behind the camera
    mesh = Mesh(torch.cat(layers), torch.cat([faces + 4 * i for i in range(4)]))
    seen = rasterise(mesh, Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)), 64)
    layer = seen.face // 2
    assert layer[32, 32] == 1 and layer[2, 2] == 0 and set(layer.unique().tolist()) == {0, 1}
    # 0.2 wide at distance 2.4: 0.2 * 4.2647 / 2.4 of 64 pixels.
    assert math.sqrt(int((layer == 1).sum())) == pytest.approx(0.2 * 4.2647 / 2.4 * 64, abs=1.0)
    with pytest.raises(PriorzooError, match="one camera at a time, got 2"):
        rasterise(mesh, Camera.looking_at_origin(torch.zeros(2), torch.zeros(2)), 8)
