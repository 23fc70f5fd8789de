"""The most memory that a piece of work held: of the process on a CPU, of the device on CUDA."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _REFERENCES, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs"), "5"


def forget_peak(device: torch.device) -> None:
    """Begin anew: what was held before no longer counts (where the system allows it: Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        _REFERENCES.write_text(_FORGET, encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Return the peak in bytes since ``forget_peak``: resident memory of this process, or what torch reserved on the device.

    >>> peak_memory(torch.device("cpu")) > 2**20
    True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
