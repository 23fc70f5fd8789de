"""Work on many items shared out to processes: every process does its part, the first gets all in the items' order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core.errors import PriorzooError, RunError

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

    What an item gives must not depend on who does it. An error of one process is raised on all, so that none waits for ever;
    one that is no PriorzooError (out of memory, a fault of the program) as it is where it happened and as RunError elsewhere.

    >>> shared_out(ALONE, [1, 2, 3], lambda item: item * item)
    [1, 4, 9]
    """
    made: list[Made] = []
    failed: PriorzooError | None = None
    unforeseen: Exception | None = None
    try:
        made = [work(item) for item in items[processes.rank :: processes.count]]
    except Exception as error:
        if processes.count == 1:
            raise
        if isinstance(error, PriorzooError):
            failed = error
        else:  # may be of a class that other processes cannot read
            failed, unforeseen = RunError(f"process {processes.rank} failed: {error!r}"), error
    outcomes = processes.gather(([] if failed else made, failed))
    failures = [error for _, error in outcomes if error is not None] if outcomes is not None else []
    first_failure = processes.broadcast(failures[0] if failures else None)
    if unforeseen is not None:
        raise unforeseen
    if first_failure is not None:
        raise first_failure
    if outcomes is None:
        return None
    parts = [part for part, _ in outcomes]
    return [parts[index % processes.count][index // processes.count] for index in range(len(items))]
