"""Leaky ReLU and clamp in place, with a backward pass that needs nothing but their result."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAK = 0.2


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, clamp: float | None) -> Tensor:
        ctx.mark_dirty(x)
        F.leaky_relu_(x, LEAK)
        if clamp is not None:
            x.clamp_(-clamp, clamp)
        ctx.save_for_backward(x)
        ctx.clamp = clamp
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Signs and bounds can be read off the result; it is a constant here, for the slope has no derivative.
        result = ctx.saved_tensors[0].detach()
        gradient = torch.ops.aten.leaky_relu_backward(gradient, result, LEAK, True)
        if ctx.clamp is None:
            return gradient, None
        if torch.is_grad_enabled():
            return torch.ops.aten.hardtanh_backward(gradient, result, -ctx.clamp, ctx.clamp), None
        return torch.ops.aten.hardtanh_backward.grad_input(gradient, result, -ctx.clamp, ctx.clamp, grad_input=gradient), None


def activate_(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2, then the clamp to [-clamp, clamp], in ``x``'s own memory; as often differentiable as asked.

    Written as two operations, each keeps a map for its backward pass. ``x`` must be a result that no other backward pass needs: of a
    convolution or a sum, not a leaf.

    >>> activate_(torch.tensor([-100.0, -1.0, 3.0, 30.0]), clamp=10.0).tolist()
    [-10.0, -0.20000000298023224, 3.0, 10.0]
    """
    if torch.compiler.is_compiling():  # a compiler fuses the two by itself
        return activate_reference(x, clamp)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Activation.apply(x, clamp)  # type: ignore[no-untyped-call]
    F.leaky_relu_(x, LEAK)
    return x if clamp is None else x.clamp_(-clamp, clamp)


def activate_reference(x: Tensor, clamp: float | None = None) -> Tensor:
    """`activate_` as it reads."""
    y = F.leaky_relu(x, LEAK)
    return y if clamp is None else y.clamp(-clamp, clamp)
