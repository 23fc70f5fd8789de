"""Where rays are sampled: stratified distances, and importance distances from a first pass's weights.

Random numbers are arguments; nothing here draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def stratified_distances(near: float | Tensor, far: float | Tensor, count: int, jitter: Tensor, *, disparity: bool = False) -> Tensor:
    """Distances [B,R,count] that grow along each ray, one per stratum.

    t_i = near + (far - near) (i + u_i) / (count - 1): EG3D's rule, which moves samples *forward only*, so the last one lies in
    [far, far + step). With ``disparity`` the same rule acts on 1/t: s_i = (i + u_i) / (count - 1), t = 1 / ((1-s)/near + s/far).

    Args: near, far in world units, numbers or [B,R,1]; jitter u [B,R,count] in [0,1) (0.5 throughout: no randomness).

    >>> stratified_distances(1.0, 3.0, 3, torch.zeros(1, 1, 3)).flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    steps = max(count - 1, 1)
    share = torch.linspace(0.0, 1.0, count, dtype=jitter.dtype, device=jitter.device) if count > 1 else jitter.new_zeros(1)
    if disparity:
        share = share + jitter / steps
        return 1.0 / ((1.0 - share) / near + share / far)
    if isinstance(near, Tensor) or isinstance(far, Tensor):
        span = torch.as_tensor(far - near)
        return near + share * span + jitter * (span / steps)
    return torch.add(near + share * (far - near), jitter, alpha=(far - near) / steps)


@torch.no_grad()
def importance_distances(distances: Tensor, weights: Tensor, u: Tensor, *, corrected: bool = False) -> Tensor:
    """Distances [B,R,K] drawn where a first pass saw weight, in the order of ``u``; no gradient.

    The weights are widened (maximum over neighbours, then mean), 0.01 is added, and u is sent through the inverse of the
    piecewise linear cumulative distribution (NeRF, section 5.2; EG3D's code). As published the bins are the midpoints and
    interior weight j is spread over [mid_{j-1}, mid_j]: half an interval too near, and the last midpoint is never used.
    ``corrected`` spreads every weight over its own interval [t_j, t_{j+1}].

    Args: distances [B,R,S] sorted; weights [B,R,S-1] of the intervals between them; u [B,R,K] in [0,1].

    >>> t = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    >>> w = torch.tensor([[[0.0, 1.0, 0.0]]])
    >>> drawn = importance_distances(t, w, torch.tensor([[[0.5]]]), corrected=True)
    >>> round(drawn.item(), 4)
    1.5
    """
    smooth = smoothed_weights(weights)
    if corrected:
        return inverse_cdf(distances, smooth, u)
    middles = 0.5 * (distances[..., 1:] + distances[..., :-1])
    return inverse_cdf(middles[..., :-1], smooth[..., 1:-1], u)


def smoothed_weights(weights: Tensor) -> Tensor:
    """Mean of the two neighbouring maxima, plus 0.01: (max(w_{i-1}, w_i) + max(w_i, w_{i+1})) / 2 + 0.01, [B,R,S-1].

    >>> smoothed_weights(torch.tensor([[[0.0, 1.0, 0.0]]])).flatten().tolist()
    [0.5099999904632568, 1.0099999904632568, 0.5099999904632568]
    """
    higher = torch.maximum(weights[..., 1:], weights[..., :-1])
    before = torch.cat([weights[..., :1], higher], dim=-1)
    after = torch.cat([higher, weights[..., -1:]], dim=-1)
    return (before + after).mul_(0.5).add_(0.01)


def inverse_cdf(bins: Tensor, weights: Tensor, u: Tensor, *, right: bool = True) -> Tensor:
    """Send u [B,R,K] through the inverse cumulative distribution of ``weights`` [B,R,N] over ``bins`` [B,R,N+1].

    1e-5 is added to every weight. ``right``: a u that equals a value of the distribution belongs to the bin above it.

    >>> inverse_cdf(torch.tensor([[[0.0, 1.0]]]), torch.ones(1, 1, 1), torch.tensor([[[0.25]]])).item()
    0.25
    """
    weights = weights + 1e-5
    cdf = F.pad((weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))
    above = torch.searchsorted(cdf, u.contiguous(), right=right)
    below = (above - 1).clamp_(min=0)
    above = above.clamp_(max=weights.shape[-1])
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    bin_below, bin_above = bins.gather(-1, below), bins.gather(-1, above)
    width = cdf_above - cdf_below
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    return bin_below + (u - cdf_below) / width * (bin_above - bin_below)


@torch.no_grad()
def merged_order(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the union of two sets of distances [B,R,S1], [B,R,S2]: distances [B,R,S1+S2] and their places in the union.

    >>> merged_order(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[2.0]]]))[1].flatten().tolist()
    [0, 2, 1]
    """
    union = torch.cat([first, second], dim=-1)
    if union.device.type != "cpu":
        return union.sort(dim=-1)
    # Many short rows: numpy's vectorised sort is about five times as fast as torch's there.
    order = torch.from_numpy(union.numpy().argsort(axis=-1))
    return union.gather(-1, order), order
