"""Exported meshes, and the three verbs that draw: whole files with a report, from every kind of source, and clean refusals."""

from __future__ import annotations

import json
import lzma
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from analytic import AnalyticSphere
from PIL import Image
from priorzoo.cli.main import main
from priorzoo.core.errors import PriorzooError
from priorzoo.export.mesh_export import MeshExport, export_mesh, mesh_targets, parse_cut
from priorzoo.export.mesh_picture import fitting_camera, mesh_picture
from priorzoo.export.sheets import BACKDROP
from priorzoo.export.sources import Source
from priorzoo.shapes.mesh_extraction import LEAST, MOST, extract_mesh
from priorzoo.shapes.mesh_levels import Level
from priorzoo.shapes.meshes import Mesh

ROOT = Path(__file__).resolve().parent.parent
HEADS = "heads_eg3d_base"


@pytest.fixture(scope="module")
def source() -> Source:
    """The analytic ball, 16 x 16."""
    return Source(AnalyticSphere())


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    """A small checkpoint that the published code has written."""
    path = tmp_path_factory.mktemp("official") / "official.pkl"
    path.write_bytes(lzma.decompress((ROOT / "tests" / "golden" / "official_pickle" / "official.pkl.xz").read_bytes()))
    return path


def test_an_official_checkpoint_is_a_source_with_its_own_camera(official, tmp_path):
    opened = Source.open(official)
    assert opened.radius == 2.7 and opened.backbone.options.plane_axes == "official"
    assert main(["import", str(official), str(tmp_path / "imported")]) == 0
    card = json.loads((tmp_path / "imported" / "card.json").read_text(encoding="utf-8"))
    again = Source.open(tmp_path / "imported")
    assert torch.equal(opened.latents([0], official=True)["ws"], again.latents([0], official=True)["ws"])
    # What the origin says of its camera is taken from there, and what is told is taken before that.
    card["origin"]["rendering_kwargs"]["avg_camera_radius"] = 2.6
    (tmp_path / "imported" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    assert Source.open(tmp_path / "imported").radius == 2.6
    assert Source.open(tmp_path / "imported", radius=2.8).radius == 2.8


def test_the_mesh_of_a_ball_is_where_its_picture_is(source):
    mesh = extract_mesh(source.backbone.field(source.latents([0])), resolution=64, level=Level("density", 50.0))
    radius = float(source.backbone.generator.radii(source.latents([0])["w"]).detach())
    assert float(mesh.vertices.norm(dim=-1).mean()) == pytest.approx(radius, abs=2e-3)
    eyes = mesh.vertices / mesh.vertices.norm(dim=-1, keepdim=True) @ torch.tensor([-0.4, 0.2, 1.0]) / math.sqrt(1.2) > 0.98
    assert eyes.sum() > 20 and torch.allclose(mesh.colours[eyes], torch.tensor([0.1, 0.2, 0.8]), atol=1e-5)


def test_an_export_writes_mesh_report_and_picture(source, tmp_path):
    done = export_mesh(source, 1, tmp_path / "a.glb", MeshExport(resolution=32, picture=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.glb", "a.json", "a.png"] == sorted(p.name for p in done.files)
    facts = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    loaded = trimesh.load(tmp_path / "a.glb", process=False, force="mesh")
    assert (facts["mesh"]["vertices"], facts["mesh"]["faces"]) == (len(loaded.vertices), len(loaded.faces))
    assert facts["mesh"]["watertight"] and facts["mesh"]["euler"] == 2 and facts["components_found"] == 1
    assert (facts["seed"], facts["resolution"], facts["level"], facts["extent"]) == (1, 32, "opacity:0.5", 0.5)
    assert facts["threshold"] == pytest.approx(math.log(2) * 20) and facts["values"][1] == pytest.approx(100.0)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (2 * 322 - 2, 3 * 322 - 2, 3)
    # The ball fills the first picture, lit from the upper left; its face looks out of it in the row below.
    assert picture[160, 4].tolist() == list(BACKDROP) and picture[100, 110].mean() > picture[220, 220].mean() > 40
    assert np.abs(picture[322 + 215, 160] - np.array([0.9, 0.6, 0.4]) * 255).max() < 3


def test_a_mesh_that_is_inside_out_is_drawn_dark(source):
    mesh = extract_mesh(source.backbone.field(source.latents([0])), resolution=24)
    turned = Mesh(mesh.vertices, mesh.faces.flip(1))
    right, wrong = (mesh_picture(m, size=32, yaws=(0.0,))[:32].mean() for m in (mesh, turned))
    assert right > wrong + 30
    with pytest.raises(PriorzooError, match="without faces"):
        mesh_picture(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))


def test_the_camera_of_a_picture_holds_the_whole_mesh():
    generator = torch.Generator().manual_seed(0)
    for scale in (0.01, 1.0, 50.0):
        points = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=-1) * scale + torch.tensor([3.0, 1.0, -2.0])
        mesh = Mesh(points, torch.tensor([[0, 1, 2]]))
        places, depth = fitting_camera(mesh, 0.8).project(points[None])
        assert 0.0 < places.min() < 0.12 and 0.88 < places.max() < 1.0 and depth.min() > 0


def test_files_of_meshes(tmp_path):
    assert mesh_targets(tmp_path / "x.ply", [3], None) == ([tmp_path / "x.ply"], "ply")
    assert mesh_targets(tmp_path, [0, 1], "obj") == ([tmp_path / "seed0000.obj", tmp_path / "seed0001.obj"], "obj")
    for out, seeds, form, said in (
        ("x.ply", [1, 2], None, "one file for 2 seeds"), ("x.ply", [1], "glb", "contradict each other"),
        ("x.glbb", [1], None, r"\.glbb is not written, did you mean 'glb'"),
    ):  # fmt: skip
        with pytest.raises(PriorzooError, match=said):
            mesh_targets(Path(out), seeds, form)
    with pytest.raises(PriorzooError, match="did you mean 'glb'"):
        MeshExport("glbs")
    with pytest.raises(PriorzooError, match="do not apply"):
        MeshExport("mrc", picture=True)


def test_the_command_line_makes_all_three_from_shipped_heads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["mesh", HEADS, "--seeds", "0-1", "--truncation", "0.7", "--resolution", "40", "--largest-component", "--out", "m"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"m/seed0001\.glb\n  \d+ vertices, \d+ faces, 1 component, watertight, .* \(the largest of \d+ components\)", out)
    for seed in (0, 1):
        loaded = trimesh.load(f"m/seed000{seed}.glb", process=False, force="mesh")
        assert len(loaded.split(only_watertight=False)) == 1 and loaded.is_watertight
        assert loaded.extents[1] > 0.4 and 0.02 < loaded.volume < 0.2  # a head and its shoulders in a cube of side 0.8
    words = ["--seeds", "0-1", "--yaw", "-0.3,0.3", "--what", "image,normals", "--resolution", "16", "--samples", "8"]
    assert main(["sample", HEADS, *words, "--out", "s.png"]) == 0
    assert np.asarray(Image.open("s.png")).shape == (2 * 66 - 2, 4 * 66 - 2, 3)
    assert main(["sample", HEADS, "--seeds", "3,5", "--separate", "--resolution", "16", "--out", "each"]) == 0
    assert sorted(p.name for p in Path("each").iterdir()) == ["seed0003.png", "seed0005.png"]
    words = ["--seeds", "0", "--frames", "3", "--resolution", "16", "--samples", "8"]
    assert main(["video", HEADS, *words, "--out", "v.gif"]) == 0
    assert Image.open("v.gif").n_frames == 3
    assert sorted(p.name for p in Path().iterdir()) == ["each", "m", "s.png", "v.gif"]


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["sample", "--seeds", "0", "--samples", "4", "--out", "a.png"], "a.png"),
        (["sample", "--seeds", "0-1", "--samples", "4", "--separate", "--out", "d"], "d/seed0001.png"),
        (["video", "--seeds", "0", "--frames", "2", "--samples", "4", "--out", "a.gif"], "a.gif"),
        (["mesh", "--resolution", "16", "--out", "a.glb"], "a.glb"),
        (["mesh", "--resolution", "16", "--out", "a.glb"], "a.json"),
        (["mesh", "--resolution", "16", "--picture", "--out", "a.glb"], "a.png"),
    ],
)
def test_a_file_that_exists_is_replaced_only_when_told(words, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("precious")
    assert main([words[0], HEADS, *words[1:]]) == 2
    assert f"error: {file}: exists already; --force replaces it" in capsys.readouterr().err
    assert Path(file).read_text() == "precious" and len(list(Path(file).parent.iterdir())) == 1
    assert main([words[0], HEADS, *words[1:], "--force"]) == 0
    assert Path(file).read_bytes() != b"precious"


def test_the_published_cut_is_a_whole_number_of_voxels_of_any_grid():
    """int(30 N / 256) of N voxels at every face: 0.117 is one less on some grids."""
    for points in range(4, 1025):
        assert int(parse_cut("published") * points) == 30 * points // 256
    assert int(parse_cut("0.117") * 256) == 29


def test_the_command_line_takes_an_official_pickle(official, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(official), "--seeds", "0", "--official-latents", "--what", "image,image_raw,depth", "--samples", "4"]) == 0
    assert np.asarray(Image.open("samples.png")).shape[1] > np.asarray(Image.open("samples.png")).shape[0]
    assert main(["mesh", str(official), "--format", "mrc", "--resolution", "12", "--out", "m", "--level", "raw:10"]) == 0
    assert main(["mesh", HEADS, "--resolution", "32", "--cut", "published", "--out", "cut.glb"]) == 0
    assert json.loads(Path("cut.json").read_text(encoding="utf-8"))["cut"] == 30 / 256
    facts = json.loads(Path("m/seed0000.json").read_text(encoding="utf-8"))
    assert facts["level"] == "raw:10" and Path("m/seed0000.mrc").stat().st_size == 1024 + 4 * 12**3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["mesh", HEADS, "--level", "density:1e6", "--resolution", "16"],
            "nothing crosses the level density:1e+06: the field's",
        ),
        (["mesh", HEADS, "--cut", "publised"], "expected a share from 0 to below 0.5, or published, did you mean 'published'"),
        (["mesh", HEADS, "--cut", "0.5"], "expected a share from 0"),
        (["mesh", HEADS, "--cut", "nan"], "expected a share from 0"),
        (["mesh", "heads_eg3d_bas"], "did you mean 'heads_eg3d_base'?"),
        (["mesh", HEADS, "--out", "a.stl"], ".stl is not written"),
        (["sample", HEADS, "--grid", "1x2", "--seeds", "0-3"], "--grid 1x2 has 2 places for 4 seeds"),
        (["sample", HEADS, "--grid", "4"], "expected rows x columns"),
        (["sample", HEADS, "--what", "normal"], "did you mean 'normals'?"),
        (["sample", HEADS, "--yaw", "left"], "--yaw 'left': expected numbers"),
        (["sample", HEADS, "--pitch", "nan"], "--pitch 'nan': the numbers must be finite"),
        (["sample", HEADS, "--out", "a.jpg"], "is written as .png"),
        (["sample", HEADS, "--device", "tpu"], "--device must be cpu or cuda"),
        (["sample", HEADS, "--device", "cpu:x"], "--device must be cpu, cuda or cuda:N"),
        (["sample", HEADS, "--depth-range", "3,2"], "expected the nearest and the farthest depth"),
        (["sample", HEADS, "--out", "/proc/x/b.png"], "/proc/x/b.png: cannot be written: "),
        (["video", HEADS, "--out", "/dev/null/a.gif"], "/dev/null is a file, not a folder"),
        (["mesh", HEADS, "--out", "/dev/null/meshes"], "/dev/null is a file, not a folder"),
        (["video", HEADS, "--out", "a.avi"], "clips are written as .mp4, .gif"),
        (["video", HEADS, "--fps", "0"], "--fps must be from 1 to 240, got 0"),
        (["video", HEADS, "--sway", "0.3"], "expected yaw and pitch"),
        (["video", HEADS, "--kind", "interpolation", "--seeds", "1"], "two seeds or more, got 1"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["mesh", HEADS, "--resolution", "2"], LEAST), (["mesh", HEADS, "--resolution", "1025"], MOST),
        (["mesh", HEADS, "--chunk", "0"], 1), (["video", HEADS, "--frames", "0"], 1),
        (["data", "heads", "a.zip", "--workers", "0"], 1), (["data", "pack", "a", "b", "a.zip", "--workers", "-3"], 1),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(words, limit, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert words[-2] in error and re.search(rf"\b{limit}\b", error) and list(tmp_path.iterdir()) == []


def test_help_of_the_three_imports_no_torch(capsys):
    code = (
        "import sys; from priorzoo.cli.main import main\n"
        "for verb in ('sample', 'video', 'mesh'): assert main([verb, '--help']) == 0\n"
        "assert not {'torch', 'numpy', 'av', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_python_example_of_the_document_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "howto" / "meshes_and_videos.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(example, "meshes_and_videos.md", "exec"), {})
    assert trimesh.load("head.glb", process=False, force="mesh").is_watertight
