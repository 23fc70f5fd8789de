"""The mapping network: latent and conditioning camera to the style vector w."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import FullyConnected, normalise_second_moment


class MappingNetwork(nn.Module):
    """w = fc_n(...fc_0([norm(z), norm(embed(c))])), each fc with leaky ReLU and a learning rate multiplier.

    A latent or a label dimension of 0 leaves that half out. ``track_average`` keeps the running mean ``w_avg`` that
    truncation pulls towards (the generator's mapping has it, the discriminator's has not).
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        *,
        layers: int = 2,
        lr_multiplier: float = 0.01,
        track_average: bool = True,
        average_decay: float = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.layers, self.average_decay = z_dim, c_dim, layers, average_decay
        self.tracks_average = track_average
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        in_features = z_dim + (w_dim if c_dim else 0)
        for index in range(layers):
            layer = FullyConnected(in_features if index == 0 else w_dim, w_dim, activation=True, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{index}", layer)
        if track_average:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None, *, update_average: bool = False) -> Tensor:
        """Map z [B,z_dim] and c [B,c_dim] to w [B,w_dim].

        A label of zeros is not skipped: it still passes through the embedding's bias and the normalisation.
        """
        number = next(self.parameters()).dtype
        parts = []
        if self.z_dim and z is not None:
            parts.append(normalise_second_moment(z.to(number)))
        if self.c_dim and c is not None:
            parts.append(normalise_second_moment(self.embed(c.to(number))))
        x = torch.cat(parts, dim=1)
        for index in range(self.layers):
            x = self.get_submodule(f"fc{index}")(x)
        if update_average and self.tracks_average:
            self.update_average(x)
        return x

    @torch.no_grad()
    def update_average(self, w: Tensor) -> None:
        """Move ``w_avg`` towards the batch's mean: 0.998 old + 0.002 new."""
        mean = w.detach().to(self.w_avg.dtype).mean(dim=0)
        self.w_avg.copy_(mean.lerp(self.w_avg, self.average_decay))


def truncate(w: Tensor, average: Tensor, psi: float, count: int, cutoff: int | None = None) -> Tensor:
    """Repeat w [B,D] to the ``count`` layers [B,count,D] and pull the first ``cutoff`` (all) towards ``average`` by
    ``psi``.

    >>> truncate(torch.ones(1, 1), torch.zeros(1), 0.5, count=3, cutoff=1).flatten().tolist()
    [0.5, 1.0, 1.0]
    """
    ws = w[:, None].expand(-1, count, -1)
    if psi == 1.0:
        return ws
    short = average.lerp(w, psi)[:, None].expand(-1, count, -1)
    if cutoff is None or cutoff >= count:
        return short
    return torch.cat([short[:, :cutoff], ws[:, cutoff:]], dim=1)
