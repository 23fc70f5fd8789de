"""Meshes as files: glTF (.glb), .ply and .obj, with colours at the vertices and nothing else that viewers disagree on."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import PriorzooError, did_you_mean
from ..core.files import write_atomically
from .meshes import Mesh

_FLOAT, _UINT32 = 5126, 5125
_VERTEX_DATA, _INDICES = 34962, 34963


def save_mesh(mesh: Mesh, path: str | os.PathLike[str]) -> None:
    """Write a mesh by the path's ending, .glb, .ply or .obj, whole or not at all.

    Raises PriorzooError for another ending.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "corner.obj"
    >>> save_mesh(Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])), path)
    >>> path.read_text().splitlines()[1:]
    ['v 1 0 0', 'v 0 1 0', 'v 0 0 1', 'f 1 2 3']
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise PriorzooError(f"{path}: meshes are written as {', '.join(WRITERS)}{did_you_mean(suffix, WRITERS)}")
    data = WRITERS[suffix](mesh)
    with write_atomically(path) as beside:
        beside.write_bytes(data)


def glb_bytes(mesh: Mesh) -> bytes:
    """Return a binary glTF 2.0 file: positions, normals, colours and triangles, float32 and uint32.

    glTF's frame is ours: y up, the front looks to +z. Its colours are linear light, so ours (sRGB) are converted.
    """
    normals = mesh.vertex_normals().float()
    normals[normals.norm(dim=-1) < 0.5, 1] = 1.0  # glTF has unit normals only; these belong to faces without an area
    attributes = {"POSITION": _array(mesh.vertices), "NORMAL": _array(normals)}
    if mesh.colours is not None:
        attributes["COLOR_0"] = linear_from_srgb(_array(mesh.colours))
    views: list[dict[str, int]] = []
    accessors: list[dict[str, object]] = []
    body = b""
    for name, values in {**attributes, "indices": mesh.faces.cpu().numpy().astype("<u4").reshape(-1)}.items():
        views.append({
            "buffer": 0, "byteOffset": len(body), "byteLength": values.nbytes, "target": _INDICES if name == "indices" else _VERTEX_DATA,
        })  # fmt: skip
        accessors.append({
            "bufferView": len(views) - 1, "componentType": _UINT32 if name == "indices" else _FLOAT, "count": len(values),
            "type": "SCALAR" if name == "indices" else "VEC3",
        })  # fmt: skip
        body += values.tobytes()
    accessors[0] |= {"min": attributes["POSITION"].min(axis=0).tolist(), "max": attributes["POSITION"].max(axis=0).tolist()}
    primitive = {"attributes": {name: i for i, name in enumerate(attributes)}, "indices": len(attributes), "material": 0}
    head = {
        "asset": {"version": "2.0", "generator": "priorzoo"},
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}], "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}, "doubleSided": True}],
        "buffers": [{"byteLength": len(body)}], "bufferViews": views, "accessors": accessors,
    }  # fmt: skip
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(body)
    return b"".join([
        struct.pack("<4sII", b"glTF", 2, length), struct.pack("<I4s", len(text), b"JSON"), text,
        struct.pack("<I4s", len(body), b"BIN\0"), body,
    ])  # fmt: skip


def ply_bytes(mesh: Mesh) -> bytes:
    """Return a binary little-endian PLY file: float32 positions, 8-bit colours, triangles."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    header = ["ply", "format binary_little_endian 1.0", "comment priorzoo", f"element vertex {len(mesh.vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    if mesh.colours is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    vertices = np.empty(len(mesh.vertices), fields)
    for i, axis in enumerate("xyz"):
        vertices[axis] = _array(mesh.vertices)[:, i]
    if mesh.colours is not None:
        for i, name in enumerate(("red", "green", "blue")):
            vertices[name] = np.floor(_array(mesh.colours)[:, i] * 255.0 + 0.5)
    faces = np.empty(len(mesh), [("count", "u1"), ("corners", "<i4", (3,))])
    faces["count"], faces["corners"] = 3, mesh.faces.cpu().numpy()
    header += [f"element face {len(mesh)}", "property list uchar int vertex_indices", "end_header"]
    return "\n".join(header).encode() + b"\n" + vertices.tobytes() + faces.tobytes()


def obj_bytes(mesh: Mesh) -> bytes:
    """Return a Wavefront OBJ file; colours stand behind the positions, as most programs read them."""
    rows = _array(mesh.vertices)
    if mesh.colours is not None:
        rows = np.concatenate([rows, _array(mesh.colours)], axis=1)
    lines = ["# priorzoo"]
    lines += ["v " + " ".join(f"{number:.7g}" for number in row) for row in rows.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def linear_from_srgb(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear light of sRGB colours in [0,1] (IEC 61966-2-1).

    >>> linear_from_srgb(np.array([0.0, 0.5, 1.0], np.float32)).round(4).tolist()
    [0.0, 0.21400000154972076, 1.0]
    """
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4).astype("<f4")


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy().astype("<f4")
    return array


WRITERS: dict[str, Callable[[Mesh], bytes]] = {".glb": glb_bytes, ".ply": ply_bytes, ".obj": obj_bytes}
