"""The generators whose weights come with the package: what ``init`` and every verb that takes a run may name."""

from __future__ import annotations

import json
from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent.parent.parent / "weights"


def shipped_generators(folder: Path = WEIGHTS) -> list[str]:
    """Return the sorted names of the shipped weights whose card describes a ``backbone``; the others segment or estimate.

    >>> "unet_heads" in shipped_generators()
    False
    """
    return sorted(card.parent.name for card in folder.glob("*/card.json") if "backbone" in json.loads(card.read_text(encoding="utf-8")))
