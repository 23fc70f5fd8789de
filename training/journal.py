"""What a run writes down while it trains: ``metrics.jsonl``, tensorboard, and warnings about terms that see nothing."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.files import write_text_atomically
from .terms import Term

METRICS = "metrics.jsonl"


class Journal:
    """Sums terms over a logging interval and writes one line for each; its pending sums are part of a checkpoint."""

    def __init__(self, folder: Path, batch: int, enabled: bool = True) -> None:
        self.folder, self.batch, self.enabled = folder, batch, enabled
        self.sums: dict[str, float] = {}
        self._board: Any = None
        self._purge = 0  # tensorboard hides what a killed run wrote from here on

    def add(self, term: Term, total: float) -> None:
        """Add one micro-batch's term: raw and weighted value, and for priors pixels and samples seen."""
        raw = float(term.value.detach().sum() if term.count is None else (term.value.detach() * term.count).sum())
        raw = raw / total if total else 0.0
        self._plus(f"{term.name}/sum", raw)
        if term.name.startswith("prior/"):
            self._plus(f"{term.name}/weighted_sum", raw * term.weight)
            if term.pixels is not None:
                self._plus(f"{term.name}/pixel_sum", float(term.pixels.sum()))
                self._plus(f"{term.name}/sample_sum", float((term.pixels > 0).sum()))
        self._plus(f"{term.name}/times", len(term.value) / self.batch)

    def _plus(self, key: str, number: float) -> None:
        self.sums[key] = self.sums.get(key, 0.0) + number

    def line(self, images: int, step: int, extra: Mapping[str, float]) -> dict[str, Any]:
        """Return the interval's means as one record, warn of terms that saw no pixel, and begin a new interval."""
        record: dict[str, Any] = {"images": images, "step": step}
        for name in sorted({k.rsplit("/", 1)[0] for k in self.sums if k.endswith("/times")}):
            times = self.sums[f"{name}/times"]
            if not name.startswith("prior/"):
                record[name] = self.sums[f"{name}/sum"] / times
                continue
            record[f"{name}/raw"] = self.sums[f"{name}/sum"] / times
            record[f"{name}/weighted"] = self.sums[f"{name}/weighted_sum"] / times
            if f"{name}/pixel_sum" in self.sums:
                pixels = self.sums[f"{name}/pixel_sum"]
                record[f"{name}/pixels"] = pixels / (times * self.batch)
                record[f"{name}/samples"] = self.sums[f"{name}/sample_sum"] / times
                if pixels == 0:
                    warnings.warn(
                        f"prior {name.removeprefix('prior/')!r} saw no pixel in the {round(times * self.batch)} images before "
                        f"image {images}: its region may be absent, eroded away or gated out",
                        stacklevel=2,
                    )
        record.update(extra)
        self.sums = {}
        return record

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record to ``metrics.jsonl`` and to tensorboard."""
        if not self.enabled:
            return
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        board = self._tensorboard()
        if board is not None:
            for key, value in record.items():
                if isinstance(value, (int, float)) and key not in ("images", "step"):
                    board.add_scalar(key, value, record["images"])

    def _tensorboard(self) -> Any:
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # an optional part: metrics.jsonl has everything
                self._board = False
            else:
                self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge)
        return self._board or None

    def rewind(self, images: int) -> None:
        """Drop the lines after ``images``, which a killed run wrote beyond its last checkpoint."""
        self._purge = images + 1
        path = self.folder / METRICS
        if not self.enabled or not path.exists():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _images_of(line) <= images]
        write_text_atomically(path, "".join(line + "\n" for line in kept))

    def close(self) -> None:
        """Flush tensorboard."""
        if self._board:
            self._board.close()


def _images_of(line: str) -> float:
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError):  # a line cut short by a kill
        return float("inf")


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a run's ``metrics.jsonl``, oldest first; none when the file is absent."""
    path = Path(folder) / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if _images_of(line) < float("inf")]
