"""What a policy needs of what stands beside it, and what it gives: two values, which each policy has or leaves out.

Shapes: B rows, L positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ModelKind


class Leaves(Enum):
    """Which of the positions that are read a cache may give no logits of."""

    nothing = "nothing"
    open = "open"
    behind = "behind"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a policy needs; the default is what every policy is given.

    | field | |
    |---|---|
    | `positions` | returns the positions [B, L] whose logits it reads beside open ones; None: no others now |
    | `every_call` | it needs these from every call; False: it keeps what was last said of a position |
    | `attention` | it reads the mean attention of a prediction |
    | `kinds` | kinds of models that it is right for; None: all |
    | `beside`, `without` | by slot, options of which one must, or none may, be chosen there |
    | `known_order` | what closes next is known before the model is called |
    | `shared`, `any_draft` | a cache that gives this |
    | `across_rows` | what it decides of a row follows from the others, of which none may begin later |
    """

    positions: Callable[[Canvas], Tensor | None] | None = None
    every_call: bool = True
    attention: bool = False
    kinds: frozenset[ModelKind] | None = None
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known_order: bool = False
    shared: bool = False
    any_draft: bool = False
    across_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class Gives:
    """What a policy gives, so that others may build on it and the loop leaves things out; the default is nothing.

    | field | who | |
    |---|---|---|
    | `waits` | window, finish | changes nothing until a window is complete, positions move or it says it is `due` |
    | `cuts` | window | what lies behind it may be left out of a call |
    | `decides` | selector | chooses an open position wherever there is one and the quota is not 0 |
    | `decides_if_read` | selector | the same where all open positions were read |
    | `steady` | scorer | candidates depend on the prediction alone, and nothing is left in the canvas |
    | `known_order` | scorer | what closes next depends on no prediction |
    | `guidance` | cache | computes rows that are not the canvas's |
    | `attention` | cache | computes the attention of whole canvases |
    | `drafts` | cache | predicts of every draft of a window what its step would get |
    | `any_draft` | cache | predicts what no cache does, so that drafts may leave the window |
    | `shared` | cache | what it keeps is the present window's, and serves all drafts of that |
    | `leaves` | cache | what `narrow` may take from the positions that are read |
    """

    waits: bool = False
    cuts: bool = False
    decides: bool = False
    decides_if_read: bool = False
    steady: bool = False
    known_order: bool = False
    guidance: bool = False
    attention: bool = False
    drafts: bool = False
    any_draft: bool = False
    shared: bool = False
    leaves: Leaves = Leaves.nothing


_NEEDS, _GIVES = Needs(), Gives()


def needs_of(part: object) -> Needs:
    """Return what a policy says that it needs."""
    return getattr(part, "needs", _NEEDS)


def gives_of(part: object) -> Gives:
    """Return what a policy says that it gives."""
    return getattr(part, "gives", _GIVES)
