"""Volumes as .mrc files (MRC2014), which ChimeraX and others show at any level without extracting anything."""

from __future__ import annotations

import os
import struct

import numpy as np

from ..core.files import write_atomically
from .mesh_extraction import Volume

HEADER = 1024


def mrc_bytes(volume: Volume) -> bytes:
    """Return the volume as an MRC2014 file: float32, x fastest, so columns, rows and sections are x, y and z.

    The unit of length, nominally an Angstrom, is the world unit; the origin is the cube's corner. EG3D's files hold the
    same numbers with their axes in another order and the first one turned round. Format: Cheng et al. 2015, J. Struct.
    Biol. 192, and ccpem.ac.uk/mrc_format.
    """
    size, side = len(volume.values), volume.spacing * len(volume.values)
    data = np.ascontiguousarray(volume.values.transpose(2, 1, 0), dtype="<f4")
    label = f"priorzoo: {volume.level.quantity}, surface at {volume.threshold:.6g}".encode("ascii")[:80]
    header = struct.pack("<10i", size, size, size, 2, 0, 0, 0, size, size, size)
    header += struct.pack("<6f", side, side, side, 90.0, 90.0, 90.0)
    header += struct.pack("<3i", 1, 2, 3)
    header += struct.pack("<3f", float(data.min()), float(data.max()), float(data.mean(dtype=np.float64)))
    header += struct.pack("<2i", 1, 0)  # a volume of space group 1, no extended header
    header += bytes(12) + struct.pack("<i", 20140) + bytes(84)  # words 25-27, the format's version, words 29-49
    header += struct.pack("<3f", *(-volume.extent,) * 3)
    header += b"MAP " + bytes((0x44, 0x44, 0, 0)) + struct.pack("<f", float(data.std(dtype=np.float64)))
    header += struct.pack("<i", 1) + label.ljust(80) + bytes(9 * 80)
    assert len(header) == HEADER
    return header + data.tobytes()


def save_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write the volume as .mrc, whole or not at all."""
    data = mrc_bytes(volume)
    with write_atomically(path) as beside:
        beside.write_bytes(data)
