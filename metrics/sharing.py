"""Work on many items shared out to processes: every process does its part, the first gets all in the items' order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core.errors import PriorzooError

Item = TypeVar("Item")
Made = TypeVar("Made")


class Processes:
    """One process, alone. Several are a subclass in training/measuring.py, over Lightning Fabric.

    ``rank`` is this process's number, ``count`` how many there are.
    """

    rank: int = 0
    count: int = 1

    def gather(self, value: Any) -> list[Any] | None:
        """Every process's value in the order of ranks, on the first process; None on the others."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on all."""
        return value


ALONE = Processes()


def shared_out(processes: Processes, items: Sequence[Item], work: Callable[[Item], Made]) -> list[Made] | None:
    """Do ``work`` on every item, item i on process i modulo their count; the first process gets all in order, others None.

    What an item gives must not depend on who does it. A PriorzooError of one process is raised on all, so that none waits
    for ever.

    >>> shared_out(ALONE, [1, 2, 3], lambda item: item * item)
    [1, 4, 9]
    """
    made: list[Made] = []
    failed: PriorzooError | None = None
    try:
        made = [work(item) for item in items[processes.rank :: processes.count]]
    except PriorzooError as error:
        if processes.count == 1:
            raise
        failed = error
    outcomes = processes.gather((made, failed))
    failures = [error for _, error in outcomes if error is not None] if outcomes is not None else []
    first_failure = processes.broadcast(failures[0] if failures else None)
    if first_failure is not None:
        raise first_failure
    if outcomes is None:
        return None
    parts = [part for part, _ in outcomes]
    return [parts[index % processes.count][index // processes.count] for index in range(len(items))]
