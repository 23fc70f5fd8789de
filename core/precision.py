"""Number types by the names that recipes give them, and the rounding of products: one meaning for training and measuring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What networks run in under autocast; ``32-true`` and ``64-true`` have none."""


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Inside, CUDA may or may not round the factors of float32 products to 10 bits (TF32); outside, it does as before.

    >>> before = torch.backends.cudnn.allow_tf32
    >>> with tf32(not before):
    ...     torch.backends.cudnn.allow_tf32 == before, torch.backends.cuda.matmul.allow_tf32 == before
    (False, False)
    >>> torch.backends.cudnn.allow_tf32 == before
    True
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
