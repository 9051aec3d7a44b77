"""The feed-forward part of a layer: SwiGLU, alone or as a mixture of experts.

Shapes: N positions, C channels, E experts, K experts of a position, G groups of experts, I inner channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.engine.shared.routing import Routing, Twins
from harness.errors import ConfigError


class Router(Enum):
    """How scores become weights: softmax over all experts, or a sigmoid per expert with a bias for the choice."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Shape and routing of a mixture: `active` of `count` experts of `width` inner channels per position.

    Layers in `dense_layers` have the plain feed-forward part. `shared_width` is that of an expert that every position
    uses (0: none). The choice is among the best `groups_kept` of `groups` groups, a group being worth its two best
    experts. `normalised` weights sum to 1 before they are multiplied by `scale`.
    """

    count: int
    active: int
    width: int
    router: Router
    normalised: bool
    scale: float = 1.0
    shared_width: int = 0
    groups: int = 1
    groups_kept: int = 1
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count % self.groups or not 1 <= self.groups_kept <= self.groups:
            raise ConfigError(f"{self.count} experts do not fall into {self.groups} groups, {self.groups_kept} kept")
        within = self.count // self.groups * self.groups_kept
        if not 1 <= self.active <= within:
            raise ConfigError(f"active experts must be from 1 to {within}, got {self.active}")


class FeedForward(nn.Module):
    """SwiGLU with gate and up projection in one matrix."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map width to width."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class MixtureOfExperts(nn.Module):
    """Every position through its own few experts, and through the shared one.

    The bias of the choice stays float32 whatever the model is converted to: rounded, it would choose others.
    """

    def __init__(self, width: int, experts: Experts) -> None:
        super().__init__()
        self.experts = experts
        self.router = nn.Linear(width, experts.count, bias=False)
        biased = experts.router is Router.SIGMOID
        self.selection_bias = nn.Parameter(torch.zeros(experts.count)) if biased else None
        self.gate_up = nn.Parameter(torch.empty(experts.count, 2 * experts.width, width))
        self.down = nn.Parameter(torch.empty(experts.count, width, experts.width))
        self.shared = FeedForward(width, experts.shared_width) if experts.shared_width else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MixtureOfExperts":
        super()._apply(fn, recurse)
        if self.selection_bias is not None and self.selection_bias.dtype in (torch.float16, torch.bfloat16):
            self.selection_bias.data = self.selection_bias.data.float()
        return self

    def forward(self, x: Tensor, routing: Routing | Twins | None = None) -> Tensor:
        """Map width to width, by the experts that are active, or by those of a `routing`."""
        flat_NC = x.flatten(0, -2)
        weights_NK, chosen_NK = self.route(flat_NC, routing)
        mixed_NC = self._mix(flat_NC, weights_NK.to(x.dtype), chosen_NK)
        if self.shared is not None:
            mixed_NC = mixed_NC + self.shared(flat_NC)
        return mixed_NC.view_as(x)

    def route(self, x_NC: Tensor, routing: Routing | Twins | None = None) -> tuple[Tensor, Tensor]:
        """Return weights and numbers of the experts of every position, [N, K] each.

        Where a position has fewer than another, the number of experts stands for none.
        """
        e = self.experts
        if e.router is Router.SOFTMAX:
            logits_NE = self.router(x_NC)
            scores_NE = logits_NE.softmax(-1, dtype=torch.promote_types(logits_NE.dtype, torch.float32))
            choice_NE = scores_NE
        else:
            assert self.selection_bias is not None
            high = torch.promote_types(x_NC.dtype, torch.float32)
            scores_NE = F.linear(x_NC.to(high), self.router.weight.to(high)).sigmoid()
            choice_NE = scores_NE + self.selection_bias
        if e.groups > 1:
            grouped_NGE = choice_NE.unflatten(-1, (e.groups, -1))
            worth_NG = grouped_NGE.topk(min(2, grouped_NGE.shape[-1]), -1).values.sum(-1)
            kept_NK = worth_NG.topk(e.groups_kept, -1).indices
            dropped_NG = torch.ones_like(worth_NG, dtype=torch.bool).scatter(-1, kept_NK, False)
            choice_NE = grouped_NGE.masked_fill(dropped_NG[..., None], -torch.inf).flatten(-2)
        chosen_NK = choice_NE.topk(e.active if routing is None else routing.looks_at(e.count), -1).indices
        weights_NK = scores_NE.gather(-1, chosen_NK)
        if routing is not None:
            weights_NK, ranks_NK = routing.among(weights_NK, e.active)
            chosen_NK = chosen_NK.gather(-1, ranks_NK).masked_fill(weights_NK == 0, e.count)
        if e.normalised:
            weights_NK = weights_NK / (weights_NK.sum(-1, keepdim=True) + 1e-20)
        return weights_NK * e.scale, chosen_NK

    def _mix(self, x_NC: Tensor, weights_NK: Tensor, chosen_NK: Tensor) -> Tensor:
        """Run each expert once, on its positions together; nothing is added in an order that could change."""
        K = chosen_NK.shape[1]
        order = chosen_NK.flatten().argsort(stable=True)
        counts = chosen_NK.flatten().bincount(minlength=self.experts.count).tolist()
        out_MC = x_NC.new_empty(order.shape[0], x_NC.shape[1])
        for expert, places in enumerate(order.split(counts)):
            if not len(places):
                continue
            if expert == self.experts.count:
                out_MC[places] = 0
                continue
            gate, up = F.linear(x_NC[places // K], self.gate_up[expert]).chunk(2, -1)
            out_MC[places] = F.linear(F.silu(gate) * up, self.down[expert])
        return (out_MC.unflatten(0, (-1, K)) * weights_NK[..., None]).sum(1)
