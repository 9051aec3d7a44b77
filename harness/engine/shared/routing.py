"""Which experts of a mixture are used, where that is not its own choice.

Shapes: B rows, T positions, L layers, N positions of all rows, E experts, the best first, K experts of a position.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Experts that a mixture uses in place of its own choice: those of the `ranks` among the best, from 0.

    Without ranks the fewest of the best that are together more probable than `mass`, as many as a position needs; or
    the one on which each of `uniform_BTL` falls, numbers in [0, 1) for every position and layer. Weights add up to 1
    where those of the mixture's own choice do; that of a drawn expert is 1.
    """

    ranks: tuple[int, ...] = ()
    mass: float | None = None
    uniform_BTL: Tensor | None = None

    def at(self, layer: int) -> "Routing":
        """Return the routing of one layer's mixture."""
        if self.uniform_BTL is None:
            return self
        return replace(self, uniform_BTL=self.uniform_BTL[:, :, layer, None])

    def among(self, weights_NE: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and ranks, [N, K] each, of the experts used in one layer; no expert is one of weight 0."""
        experts = weights_NE.shape[1]
        if self.ranks:
            ranks_K = torch.tensor(self.ranks, device=weights_NE.device)
            return weights_NE[:, ranks_K], ranks_K.expand(len(weights_NE), -1)
        if self.uniform_BTL is not None:
            ranks_N1 = (self.uniform_BTL.flatten()[:, None] * experts).long().clamp(max=experts - 1)
            return weights_NE.new_ones(len(weights_NE), 1), ranks_N1
        assert self.mass is not None, "a routing names ranks, a mass or numbers"
        before_NE = (weights_NE.cumsum(1) - weights_NE) / weights_NE.sum(1, keepdim=True)
        kept_NE = before_NE <= self.mass
        most = int(kept_NE.sum(1).max())
        ranks_K = torch.arange(most, device=weights_NE.device)
        return (weights_NE * kept_NE)[:, :most], ranks_K.expand(len(weights_NE), -1)
