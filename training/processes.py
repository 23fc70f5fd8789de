"""The processes of a run: started once, refused together, summed over.

Lightning Fabric starts them (``training.devices``) or finds them started: by torchrun, by SLURM's srun, by ``fabric run``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from ..core.errors import PriorzooError, RunError
from ..core.recipe.schema import Training

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one measures and draws pictures alone."""

BUCKET = 2**24
"""Numbers that are summed over the processes at once."""


@dataclass(frozen=True)
class World:
    """``devices`` processes on each of ``nodes`` machines; ``starter`` is who starts them: ``priorzoo``, ``torchrun`` or ``srun``."""

    devices: int
    nodes: int
    starter: str

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes


def world_of(plan: Training, environment: Mapping[str, str] = os.environ) -> World:
    """Return the processes of a run: what torchrun or srun has started, else what the recipe asks for.

    A recipe that says nothing (one device, one node) takes what has been started. Raises RunError where both speak and differ, and for
    srun's ``--ntasks`` without ``--ntasks-per-node``, from which nobody learns how many processes share a machine.

    >>> from priorzoo.core.recipe.schema import Training
    >>> world_of(Training(images=1), {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"})
    World(devices=8, nodes=2, starter='torchrun')
    """
    asked = World(plan.devices, plan.nodes, "priorzoo")
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        found = World(local, int(environment["WORLD_SIZE"]) // local, "torchrun")
    elif "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        tasks = int(environment["SLURM_NTASKS"])
        if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
            raise RunError(f"srun: {tasks} tasks, and not how many a node has: give --ntasks-per-node with --nodes instead of --ntasks")
        local = int(environment.get("SLURM_NTASKS_PER_NODE", "1"))
        found = World(local, tasks // local, "srun")
    else:
        return asked
    if asked.size > 1 and (asked.devices, asked.nodes) != (found.devices, found.nodes):
        raise RunError(
            f"{found.starter} has started {found.nodes} x {found.devices} processes (nodes x devices), the recipe asks for "
            f"{asked.nodes} x {asked.devices}: change training.nodes and training.devices, or how {found.starter} is called"
        )
    return found


def launch(plan: Training) -> Any:
    """Start Lightning Fabric for the recipe's devices, or join the processes that exist already; raises RunError.

    Precision is not Fabric's here (see ``precision.py``).
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    world = world_of(plan)
    if plan.batch % world.size:
        raise RunError(f"training.batch: {plan.batch} does not divide among {world.size} processes ({world.nodes} nodes x {world.devices})")
    accelerator = _accelerator(plan, world)
    fabric = Fabric(
        accelerator=accelerator, devices=world.devices, num_nodes=world.nodes,
        strategy=DDPStrategy(timeout=PATIENCE) if world.size > 1 else "auto",
    )  # fmt: skip
    if not os.environ.get("LT_CLI_USED"):
        fabric.launch()
    return fabric


def _accelerator(plan: Training, world: World) -> str:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if plan.accelerator == "cpu" or (plan.accelerator == "auto" and not there):
        return "cpu"
    if not there:
        raise RunError(f"training.accelerator: cuda: torch {torch.__version__} finds no CUDA device here; `cpu` and `auto` work")
    if world.devices > there:
        raise RunError(f"training.devices: {world.devices} asked for, {there} CUDA devices are here")
    return "cuda"


def is_first() -> bool:
    """Whether this is the run's first process, also after the processes have parted."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def first_process_says(fabric: Any, work: Callable[[], str | None]) -> str | None:
    """Run ``work`` on the first process and return its answer on all; an error there is raised on all, so that none waits for ever."""
    answer: tuple[str | None, Exception | None] = (None, None)
    if fabric.is_global_zero:
        try:
            answer = (work(), None)
        except PriorzooError as error:
            answer = (None, error)
        except Exception as error:
            if fabric.world_size > 1:
                fabric.broadcast((None, RunError(f"the first process failed: {error!r}")))
            raise
    if fabric.world_size > 1:
        answer = fabric.broadcast(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def sum_tensors(fabric: Any, tensors: Sequence[Tensor]) -> None:
    """Replace each tensor, in place, by its sum over the processes; a few large reductions instead of many small ones."""
    waiting: list[Tensor] = []
    for tensor in tensors:
        if waiting and (sum(t.numel() for t in waiting) + tensor.numel() > BUCKET or waiting[0].dtype != tensor.dtype):
            _sum_bucket(fabric, waiting)
            waiting = []
        waiting.append(tensor)
    if waiting:
        _sum_bucket(fabric, waiting)


def _sum_bucket(fabric: Any, tensors: Sequence[Tensor]) -> None:
    flat = fabric.all_reduce(torch.cat([t.reshape(-1) for t in tensors]), reduce_op="sum")
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def sum_numbers(fabric: Any, numbers: Mapping[str, float]) -> dict[str, float]:
    """Sum named numbers over the processes; a name that some process does not have counts as 0 there."""
    if fabric.world_size == 1:
        return dict(numbers)
    everybody: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everybody, dict(numbers))
    out: dict[str, float] = {}
    for one in everybody:
        for name, number in one.items():
            out[name] = out.get(name, 0.0) + number
    return out


def anywhere(fabric: Any, *here: bool) -> tuple[bool, ...]:
    """Return for each of these conditions whether it holds on any process."""
    if fabric.world_size == 1:
        return here
    counts = fabric.all_reduce(torch.tensor([float(condition) for condition in here], device=fabric.device), reduce_op="sum")
    return tuple(count > 0 for count in counts.tolist())


@contextmanager
def together(fabric: Any) -> Iterator[None]:
    """Part the processes in good order at the end, also after an error: gloo aborts a process that exits while still connected.

    What one process meets when another has gone becomes a RunError.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size > 1 and _is_lost_connection(error):
            raise RunError(f"process {fabric.global_rank}: another process of this run has stopped; its own message says why") from error
        raise
    finally:
        if fabric.world_size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, torch.distributed.DistError) or "gloo" in text or "Connection closed by peer" in text
