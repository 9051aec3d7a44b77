"""An autoregressive method, and the parts that draft nothing.

Shapes: B rows.
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from harness.engine.autoregressive.asking import Asks
from harness.engine.autoregressive.branching import Branching, NeverRevise, Revision, Single
from harness.engine.autoregressive.drafting import (
    Acceptor,
    Drafter,
    DraftLength,
    DraftsStepwise,
    Proposal,
    ShowsStates,
    StopsDrafting,
)
from harness.engine.autoregressive.layers import AllLayers, Feed, Layers, Tokens
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.twins import WeighsTwins
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import REGISTRY, policy
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, FieldError


@policy("method/drafter", "empty")
class EmptyDrafter:
    """Draft nothing: plain decoding, one token per call."""

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return no drafts."""
        return Proposal.empty(sequences)


@policy("method/draft_length", "fixed")
class FixedLength:
    """Draft up to `length` tokens in every round (default: K of Chen et al., arXiv:2302.01318)."""

    length: int = 4

    def __post_init__(self) -> None:
        if self.length < 0:
            raise FieldError("length", self.length, "be at least 0, which drafts nothing")

    def limit(self, sequences: Sequences) -> Tensor:
        """Return `length` for every row."""
        return torch.full_like(sequences.length_B, self.length)


@dataclass(frozen=True, kw_only=True)
class AutoregressiveMethod:
    """An autoregressive method: a choice of policies. The defaults draft nothing."""

    acceptor: Acceptor
    drafter: Drafter = field(default_factory=EmptyDrafter)
    draft_length: DraftLength = field(default_factory=FixedLength)
    branching: Branching = field(default_factory=Single)
    layers: Layers = field(default_factory=AllLayers)
    feed: Feed = field(default_factory=Tokens)
    revision: Revision = field(default_factory=NeverRevise)

    def __post_init__(self) -> None:
        self._refuse_alone()
        takes = self.branching.drafts and getattr(self.acceptor, "judges_drafts", True)
        if not takes and not isinstance(self.drafter, EmptyDrafter):
            raise ConfigError(
                f"drafter={type(self.drafter).__name__}: this method decides one token after another; use drafter=empty"
            )
        asks = isinstance(self.acceptor, Asks | WeighsTwins)
        if asks and not self.branching.synchronous:
            raise ConfigError(
                f"branching={type(self.branching).__name__}: synchronous=false has every row make calls of its own, "
                f"and {type(self.acceptor).__name__} asks for all rows in one; use synchronous=true"
            )
        alone = isinstance(self.drafter, EmptyDrafter) and isinstance(self.branching, Single)
        if getattr(self.feed, "merges", False) and not (alone and isinstance(self.revision, NeverRevise)):
            raise ConfigError(
                f"feed={type(self.feed).__name__}: tokens that share a slot are neither drafted, forked nor taken back"
            )
        if isinstance(self.acceptor, WeighsTwins) and self.acceptor.twins and not isinstance(self.feed, Tokens):
            raise ConfigError(
                f"feed={type(self.feed).__name__}: {type(self.acceptor).__name__} has each row computed twice in one "
                "call, which is fed tokens; use method/feed=tokens"
            )
        if isinstance(self.draft_length, StopsDrafting) and not isinstance(self.drafter, DraftsStepwise):
            raise ConfigError(
                f"draft_length={type(self.draft_length).__name__}: decides behind every token, and "
                f"{type(self.drafter).__name__} does not draft one by one; use method/draft_length=fixed"
            )
        if getattr(self.draft_length, "reads_states", False) and not isinstance(self.drafter, ShowsStates):
            raise ConfigError(
                f"draft_length={type(self.draft_length).__name__}: reads hidden states of the drafter, and "
                f"{type(self.drafter).__name__} shows none; use method/drafter=model"
            )

    def _refuse_alone(self) -> None:
        """Raise ConfigError for a policy without those of other slots that it works with: `goes_with`, by names."""
        for slot in fields(self):
            part = getattr(self, slot.name)
            for other, told in getattr(part, "goes_with", {}).items():
                names = (told,) if isinstance(told, str) else told
                if type(getattr(self, other)) not in [REGISTRY.get((f"method/{other}", name)) for name in names]:
                    raise ConfigError(
                        f"{slot.name}={type(part).__name__}: works with method/{other}={' or '.join(names)} alone, and "
                        f"not with {type(getattr(self, other)).__name__}; choose that, or another {slot.name}"
                    )
