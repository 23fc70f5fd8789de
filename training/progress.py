"""A progress bar with throughput and remaining time; silent when nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any


class Progress:
    """A bar over images on a terminal, nothing elsewhere.

    >>> with Progress("demo", total=4, done=0, shown=False) as bar:
    ...     bar.update(4)
    """

    def __init__(self, title: str, total: int, done: int = 0, *, shown: bool = True, unit: str = "images") -> None:
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self.shown = shown and sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                console=Console(stderr=True),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, rate="")
        return self

    def update(self, done: int) -> None:
        """Move the bar to ``done``."""
        if self._bar is not None:
            speed = self._bar.tasks[0].speed
            rate = f"{speed:.1f} {self.unit}/s" if speed else ""
            self._bar.update(self._task, completed=min(done, self.total), rate=rate)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def part_bars(title: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Give a function of (part, done, total) that shows one bar for each part in turn: on a terminal, and nothing elsewhere.

    A part that is done leaves the terminal to others, and may begin anew.

    >>> with part_bars("demo") as report:
    ...     report("images", 4, 4)
    """
    with ExitStack() as shown:
        bars: dict[str, Progress] = {}

        def report(part: str, done: int, total: int) -> None:
            if part not in bars:
                shown.close()  # a terminal shows one bar at a time
                bars.clear()
                bars[part] = shown.enter_context(Progress(f"{title}: {part}" if title else part, total))
            bars[part].update(done)
            if done >= total:
                shown.close()
                bars.clear()

        yield report
