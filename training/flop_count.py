"""Counting the FLOPs of a piece of program."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of products and convolutions inside, backward passes of any order included; a multiply-add counts two.

    The formulas are torch's own. Its FlopCounterMode also follows modules, which gradients of gradients do not survive.

    >>> import torch
    >>> with FlopCount() as count:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> count.total
    48
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out
