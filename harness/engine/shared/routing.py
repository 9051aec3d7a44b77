"""Which experts of a mixture are used, where that is not its own choice.

Shapes: B rows, T positions, L layers, N positions of all rows, E experts, the best first, K experts of a position.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Experts that a mixture uses: those of the `ranks` among the best, from 0.

    Without ranks the fewest of the best that are together more probable than `mass`, as many as a position needs; or
    the one on which each of `uniform_BTL` falls, numbers in [0, 1) for every position and layer; or, with nothing, its
    own choice. Weights add up to 1 where those of the mixture's own choice do; that of a drawn expert is 1.
    """

    ranks: tuple[int, ...] = ()
    mass: float | None = None
    uniform_BTL: Tensor | None = None

    def looks_at(self, experts: int) -> int:
        """Return how many of the best experts it chooses among, of so many."""
        return max(self.ranks, default=experts - 1) + 1

    def at(self, layer: int) -> "Routing":
        """Return the routing of one layer's mixture."""
        if self.uniform_BTL is None:
            return self
        return replace(self, uniform_BTL=self.uniform_BTL[:, :, layer, None])

    def among(self, weights_NE: Tensor, active: int) -> tuple[Tensor, Tensor]:
        """Return weights and ranks, [N, K] each, of the experts used in one layer; no expert is one of weight 0.

        `active` is how many the mixture uses by its own choice.
        """
        experts, rows = weights_NE.shape[1], len(weights_NE)
        if self.uniform_BTL is not None:
            ranks_N1 = (self.uniform_BTL.flatten()[:, None] * experts).long().clamp(max=experts - 1)
            return weights_NE.new_ones(rows, 1), ranks_N1
        if self.mass is None:
            ranks_K = torch.tensor(self.ranks or range(active), device=weights_NE.device)
            return weights_NE[:, ranks_K], ranks_K.expand(rows, -1)
        before_NE = (weights_NE.cumsum(1) - weights_NE) / weights_NE.sum(1, keepdim=True)
        kept_NE = before_NE <= self.mass
        most = int(kept_NE.sum(1).max())
        ranks_K = torch.arange(most, device=weights_NE.device)
        return (weights_NE * kept_NE)[:, :most], ranks_K.expand(rows, -1)


@dataclass(frozen=True, kw_only=True)
class Twins:
    """The routing of rows, `width` positions each, every second of which is the twin of the one before it."""

    own: Routing
    twin: Routing
    width: int

    def looks_at(self, experts: int) -> int:
        """Return how many of the best experts it chooses among, of so many."""
        return max(self.own.looks_at(experts), self.twin.looks_at(experts))

    def at(self, layer: int) -> "Twins":
        """Return the routing of one layer's mixture."""
        return replace(self, own=self.own.at(layer), twin=self.twin.at(layer))

    def among(self, weights_NE: Tensor, active: int) -> tuple[Tensor, Tensor]:
        """Return what `Routing.among` does, of each row by its own routing."""
        weights_B2TE = weights_NE.unflatten(0, (-1, 2, self.width))
        sides = [one.among(weights_B2TE[:, n].flatten(0, 1), active) for n, one in enumerate((self.own, self.twin))]
        widest = max(weights.shape[1] for weights, _ in sides)

        def together(parts: Iterable[Tensor]) -> Tensor:
            padded = [F.pad(part, (0, widest - part.shape[1])).unflatten(0, (-1, self.width)) for part in parts]
            return torch.stack(padded, 1).flatten(0, 2)

        return together(weights for weights, _ in sides), together(ranks for _, ranks in sides)
