"""Options of how many processes share a training, and what they change in a recipe."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Devices: TypeAlias = Annotated[int | None, typer.Option("--devices", min=1, show_default="the recipe's", help="Devices of a machine.")]
Nodes: TypeAlias = Annotated[int | None, typer.Option("--nodes", min=1, show_default="the recipe's", help="Machines.")]


def process_changes(devices: int | None, nodes: int | None = None) -> tuple[str, ...]:
    """Return the overrides that --devices and --nodes stand for, none for what was not given.

    >>> process_changes(8), process_changes(None, 2)
    (('training.devices=8',), ('training.nodes=2',))
    """
    counts = {"devices": devices, "nodes": nodes}
    return tuple(f"training.{name}={count}" for name, count in counts.items() if count is not None)
