"""Which layers of a model a method runs, and on what: what policies say of it, and what a drafter hands over.

Shapes: B rows, T positions, C channels, M blended tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.model import Entering, Models, Part
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Role


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a drafter has computed of the target itself, of the positions that a call verifies.

    The first `layers_B` layers of each row (0: none) have passed them, from the last committed token to the last draft:
    keys and values are in the store of the sequences, and `states_BTC` came out.
    """

    layers_B: Tensor
    states_BTC: Tensor


@runtime_checkable
class TapsTarget(Protocol):
    """A drafter that looks at hidden states of the target, in `Round.states`, or an acceptor that `WritesOn` them."""

    def taps(self, layers: int) -> frozenset[int]:
        """Return the depths that it looks at, of a target of so many layers."""
        ...


@runtime_checkable
class TapsForDraft(Protocol):
    """A drafter that looks at those hidden states of the target, in `Round.states`, that its model reads."""

    def taps_for(self, models: Models) -> Sequence[int]:
        """Return the depths that it reads; raise ConfigError for a target that it cannot draft for."""
        ...


@runtime_checkable
class RunsParts(Protocol):
    """A policy that has a model run a part of its layers: the target, or with `of_draft` the one that drafts."""

    of_draft: ClassVar[bool]

    def fit_layers(self, layers: int) -> None:
        """Raise FieldError for what a model of so many layers cannot do."""
        ...


@runtime_checkable
class RoutesExperts(Protocol):
    """A policy that has a target's mixtures choose other experts than they would."""

    def fit_experts(self, experts: int) -> None:
        """Raise FieldError for what mixtures of so many experts (0: there are none) cannot do."""
        ...


class Feed(Protocol):
    """What the last committed token of each row is fed as, when a call has nothing else to compute.

    With `merges` true all tokens of a round share a slot (`segments`), and `blend` returns the last segment.
    """

    def blend(self, sequences: Sequences) -> Entering | None:
        """Return tokens to be blended, [B, 1, M]; None where every token is fed as what it is."""
        ...


@policy("method/feed", "tokens")
class Tokens:
    """Feed tokens as what they are."""

    def blend(self, sequences: Sequences) -> Entering | None:
        """Return None."""
        return None


class Layers(Protocol):
    """Which layers a call of the target runs."""

    def part(self, role: Role, layers: int) -> Part | None:
        """Return the part for a call, of a target of so many layers; None for all of it."""
        ...


@policy("method/layers", "all")
class AllLayers:
    """Run all of the target in every call."""

    def part(self, role: Role, layers: int) -> Part | None:
        """Return None."""
        return None
