"""A request to stop (SIGTERM: a scheduler's preemption, ``kill``): the step is finished and a checkpoint written first."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from .processes import anywhere


class StopRequest:
    """Inside this context SIGTERM is noted instead of obeyed; ``asked`` tells all processes alike whether any of them was asked."""

    def __init__(self, fabric: Any) -> None:
        self.fabric, self.noted = fabric, False
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python lets nobody listen
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True

    def asked(self) -> bool:
        """Return whether any process was asked to stop; every process must ask at the same place."""
        return anywhere(self.fabric, self.noted)[0]
