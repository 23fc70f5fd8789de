"""Our meshes as PyTorch3D's ``Meshes`` and back, with their vertex colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.camera_pytorch3d import pytorch3d
from ..core.errors import PriorzooError
from .meshes import Mesh


def to_pytorch3d(meshes: Mesh | Sequence[Mesh]) -> Any:
    """Return PyTorch3D's ``Meshes`` of one mesh or a batch, colours as ``TexturesVertex``; gradients pass.

    World units and axes stay as they are; with `Camera.to_pytorch3d` they project alike. Raises PriorzooError for an empty
    batch or one in which only some have colours, MissingPackageError without PyTorch3D.
    """
    batch = [meshes] if isinstance(meshes, Mesh) else list(meshes)
    coloured = [mesh.colours for mesh in batch if mesh.colours is not None]
    if not batch or len(coloured) not in (0, len(batch)):
        raise PriorzooError(f"meshes: a batch has colours throughout or not at all; {len(coloured)} of {len(batch)} have")
    textures = pytorch3d("renderer.mesh.textures").TexturesVertex(coloured) if coloured else None
    made = pytorch3d("structures").Meshes
    return made(verts=[mesh.vertices for mesh in batch], faces=[mesh.faces for mesh in batch], textures=textures)


def from_pytorch3d(meshes: Any) -> list[Mesh]:
    """Return the meshes of PyTorch3D's ``Meshes``; vertex colours are kept, other textures are refused.

    Raises PriorzooError for a texture that is not per vertex and in three colours.
    """
    vertices, faces = meshes.verts_list(), meshes.faces_list()
    colours: list[Any] = [None] * len(vertices)
    if meshes.textures is not None:
        if not hasattr(meshes.textures, "verts_features_list"):
            raise PriorzooError(f"meshes: {type(meshes.textures).__name__} is not read; vertex colours (TexturesVertex) are")
        colours = meshes.textures.verts_features_list()
        if any(c.shape[-1] != 3 for c in colours):
            raise PriorzooError(f"meshes: vertices have {colours[0].shape[-1]} features; three colours are read")
    return [Mesh(v, f.long(), c) for v, f, c in zip(vertices, faces, colours, strict=True)]
