"""The processes of a run: started once, refused together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..core.errors import PriorzooError
from ..core.recipe.schema import Training


def launch(plan: Training) -> Any:
    """Start Lightning Fabric for the recipe's devices; under ``fabric run`` or torchrun the processes exist already."""
    from lightning_fabric import Fabric

    accelerator = plan.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    several = plan.devices * plan.nodes > 1
    fabric = Fabric(
        accelerator=accelerator, devices=plan.devices, num_nodes=plan.nodes, precision=plan.precision,
        strategy="ddp" if several else "auto",
    )  # fmt: skip
    if not os.environ.get("LT_CLI_USED"):
        fabric.launch()
    return fabric


def first_process_says(fabric: Any, work: Callable[[], str | None]) -> str | None:
    """Run ``work`` on the first process and return its answer on all; an error there is raised on all, so that none waits for ever."""
    answer: tuple[str | None, Exception | None] = (None, None)
    if fabric.is_global_zero:
        try:
            answer = (work(), None)
        except PriorzooError as error:
            answer = (None, error)
    if fabric.world_size > 1:
        answer = fabric.broadcast(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


@contextmanager
def together(fabric: Any) -> Iterator[None]:
    """Part the processes in good order at the end, also after an error: gloo aborts a process that exits while still connected."""
    try:
        yield
    finally:
        if fabric.world_size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
