"""Writing safetensors tensor by tensor, straight from a mapped file: the library's writer holds two more copies of everything.

Format: the header's length as 64 bits, a JSON header {name: {dtype, shape, data_offsets}} padded to 8 bytes, then the numbers without
gaps (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core.pickles import StoredTensor

NAMES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "b1": "BOOL"}


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write tensors, the widest numbers first, as the library orders them (that keeps them aligned)."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].storage.itemsize, item[0]))
    header, offset = {}, 0
    for name, tensor in ordered:
        end = offset + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype[1:]], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in ordered:
            file.write(np.ascontiguousarray(tensor.view()).data if tensor.shape else tensor.array().tobytes())
