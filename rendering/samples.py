"""Volume rendering with an opacity at every sample (NeRF's rule, as pi-GAN has it), and the sampling that goes with it.

Random numbers are arguments; nothing here draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import PriorzooError
from .compositing import Intervals
from .sampling import inverse_cdf

ACTIVATIONS = ("relu", "softplus")
INFINITE = 1e10
"""How far the last sample of a ray reaches, where nothing ends it."""


def jittered_distances(near: float, far: float, count: int, jitter: Tensor) -> Tensor:
    """Distances [B,R,count] from near to far inclusive, each moved by up to half a step: t_i + (u_i - 1/2) (t_1 - t_0).

    Not stratified inside the bounds: the first and the last may leave them by half a step (pi-GAN's code).

    Args: near, far; count >= 2; jitter u [B,R,count] in [0,1) (0.5 throughout: no randomness).

    >>> jittered_distances(1.0, 3.0, 3, torch.tensor([[[0.5, 0.5, 1.0]]])).flatten().tolist()
    [1.0, 2.0, 3.5]
    """
    steps = torch.linspace(near, far, count, dtype=jitter.dtype, device=jitter.device)
    return steps + (jitter - 0.5) * (steps[1] - steps[0])


@torch.no_grad()
def resampled_distances(distances: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Distances [B,R,K] drawn where a first pass saw weight (NeRF, section 5.2, as pi-GAN's code has it); no gradient.

    The bins lie between the middles of neighbouring samples; inner sample j has the weight w_j + 1e-5. Where u equals a value of the
    cumulative distribution it belongs to the bin below.

    Args: distances, weights [B,R,S] of S >= 3 sorted samples; u [B,R,K] in [0,1].

    >>> t, w = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0.0, 1.0, 0.0]]])
    >>> resampled_distances(t, w, torch.tensor([[[0.0, 0.5, 1.0]]])).flatten().tolist()
    [0.5, 1.0, 1.5]
    """
    middles = 0.5 * (distances[..., 1:] + distances[..., :-1])
    return inverse_cdf(middles, weights[..., 1:-1] + 1e-5, u, right=False)


def density_of(raw: Tensor, activation: str) -> Tensor:
    """Density of raw network output, ``relu`` or ``softplus`` of it; raises PriorzooError for another activation."""
    if activation not in ACTIVATIONS:
        raise PriorzooError(f"density: activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    return F.relu(raw) if activation == "relu" else F.softplus(raw)


def march_samples(density: Tensor, distances: Tensor, far: float | Tensor, *, infinite: bool = True, last_back: bool = False) -> Intervals:
    """Weights of sorted samples, each of which stands for the interval up to the next.

    alpha_i = 1 - exp(-density_i (t_{i+1} - t_i)); w_i = alpha_i prod_{j<i} (1 - alpha_j) (pi-GAN, section 3.2). The last interval's
    length is 1e10 with ``infinite`` (the published rule), else it ends at ``far``; as an edge it ends there in any case. ``last_back``
    gives the last sample what is left, w += 1 - sum w, which is to make it opaque; ``background_transmittance`` is what was left before.
    The published code adds 1e-10 to each factor of the product; as the exponential of a sum it needs no guard. `published_weights` is the
    readable form.

    Args: density [B,R,S] >= 0; distances [B,R,S], sorted; far: a number or [B,R,1].

    >>> march = march_samples(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 1.5]]]), 2.0)
    >>> [round(v, 4) for v in march.weights.flatten().tolist()], march.edges.flatten().tolist()     # 1 - exp(-1)
    ([0.6321, 0.0], [1.0, 1.5, 2.0])
    """
    last = distances[..., -1:]
    end = torch.maximum(last, torch.as_tensor(far).to(last).expand_as(last))
    edges = torch.cat([distances, end], dim=-1)
    length = torch.full_like(last, INFINITE) if infinite else end - last
    inner = density[..., :-1] * (distances[..., 1:] - distances[..., :-1])
    thickness = torch.cat([inner, density[..., -1:] * length], dim=-1)
    before = torch.exp(-F.pad(inner.cumsum(dim=-1), (1, 0)))
    alpha = -torch.expm1(-thickness)
    through = before[..., -1] * torch.exp(-thickness[..., -1])
    if last_back:
        alpha = torch.cat([alpha[..., :-1], torch.ones_like(last)], dim=-1)
    weights = alpha * before
    return Intervals(weights, alpha, distances, edges, weights.sum(dim=-1), through)


def published_weights(density: Tensor, distances: Tensor, *, last_back: bool = False) -> tuple[Tensor, Tensor]:
    """Weights [B,R,S] of `march_samples` and their sum [B,R] before ``last_back``, as they are published: a running product with 1e-10.

    The guard moves the samples that `resampled_distances` draws by up to a millionth.

    >>> weights, total = published_weights(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 1.5]]]))
    >>> round(total.item(), 4)
    0.6321
    """
    delta = torch.cat([distances.diff(dim=-1), torch.full_like(distances[..., :1], INFINITE)], dim=-1)
    alpha = 1 - torch.exp(-delta * density)
    factors = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], dim=-1)
    weights = alpha * factors.cumprod(dim=-1)[..., :-1]
    total = weights.sum(dim=-1)
    if last_back:
        weights = torch.cat([weights[..., :-1], weights[..., -1:] + 1 - total[..., None]], dim=-1)
    return weights, total


def march_occupancies(raw: Tensor, distances: Tensor, far: float | Tensor, *, last_back: bool = False) -> Intervals:
    """Weights of sorted samples of an occupancy field: alpha_i = sigmoid(raw_i), whatever the distances (GOF, Xu et al. 2021, eq. 4).

    w_i = alpha_i prod_{j<i} (1 - alpha_j), with ln(1 - sigmoid(raw)) = -softplus(raw). ``last_back`` gives the last sample what is left,
    w += 1 - sum w; ``background_transmittance`` is what was left before. As an edge the last interval ends at ``far``.

    Args: raw logits [B,R,S]; distances [B,R,S], sorted; far: a number or [B,R,1].

    >>> march_occupancies(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 1.5]]]), 2.0).weights.flatten().tolist()
    [0.5, 0.25]
    """
    last = distances[..., -1:]
    edges = torch.cat([distances, torch.maximum(last, torch.as_tensor(far).to(last).expand_as(last))], dim=-1)
    reached = F.softplus(raw).cumsum(dim=-1)
    before = torch.exp(-F.pad(reached[..., :-1], (1, 0)))
    alpha = raw.sigmoid()
    if last_back:
        alpha = torch.cat([alpha[..., :-1], torch.ones_like(last)], dim=-1)
    weights = alpha * before
    return Intervals(weights, alpha, distances, edges, weights.sum(dim=-1), torch.exp(-reached[..., -1]))


def published_occupancy_weights(raw: Tensor) -> Tensor:
    """Weights [B,R,S] of `march_occupancies` as they are published: a running product with 1e-10, as in `published_weights`.

    >>> published_occupancy_weights(torch.zeros(1, 1, 2)).flatten().tolist()
    [0.5, 0.25]
    """
    alpha = raw.sigmoid()
    factors = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], dim=-1)
    return alpha * factors.cumprod(dim=-1)[..., :-1]
