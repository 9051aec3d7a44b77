"""EasySpec: the model that drafts has the attention of several layers read the same states, so that devices share it.

Paper: Wu et al., arXiv:2502.02493; no released code could be read, only summaries of the mechanism.

All layers of the draft but the first and the last are run N at a time: the attention parts of a group read what stands
in front of the group, and could be computed at the same time on several devices; their results, and the feed-forward
parts, follow one another. What such a call leaves of keys and values is inexact, so that the next round computes the
tokens that stood, and the one behind them, anew by the plain draft, in the call that gives the first draft (bonus
calibration).

| symbol | argument | default |
|---|---|---|
| N | N | 4 |
| K | draft_length.length | 4 |
| | calibrate | true |
| tau | temperature | 0: greedy |

This is an emulation on one device: it costs what the plain draft costs and accepts less, and nothing here claims a
speed. `critical_depth` says how many layers follow one another: a draft behind the first waits for
(2 + ceil((L_d - 2) / N) + L_d) / 2 of them, attention and feed-forward parts being halves. Chains only.
Invariants: temperature 0 equals greedy decoding; N = 1 is `speculative`; a round of g drafts loads g times the layers
of the draft, and those of the target.
"""

from typing import ClassVar

from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import KeepGoing
from harness.engine.shared.model import LanguageModel, ModelKind, Part
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from methods.autoregressive.chains import always
from methods.autoregressive.sample import Law
from methods.autoregressive.speculative import draft_with


@policy("method/drafter", "layers_abreast")
class LayersAbreast:
    """Draft with another causal model, `N` of whose inner layers have their attention read the same states."""

    N: int = 4
    calibrate: bool = True
    temperature: float = 0.0
    asks: ClassVar[frozenset[ModelKind]] = frozenset({ModelKind.CAUSAL})
    of_draft: ClassVar[bool] = True
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)
        if self.N < 1:
            raise FieldError("N", self.N, "be at least 1, which is the plain draft")

    @property
    def from_text(self) -> bool:
        """Say whether nothing is left of inexact drafts of earlier rounds."""
        return self.calibrate or self.N == 1

    def fit_layers(self, layers: int) -> None:
        """Take any model: one without inner layers is run as it is."""

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return `limit_B` tokens per row, fewer where one of them ends the answer."""
        return self.propose_while(model, sequences, limit_B, ledger, always)

    def propose_while(
        self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger, keep_going: KeepGoing
    ) -> Proposal:
        """Return at most `limit_B` tokens per row, as many as `keep_going` says."""
        return draft_with(
            model,
            sequences,
            limit_B,
            ledger,
            temperature=self.temperature,
            keep_going=keep_going,
            part=Part(abreast=self.N),
            calibrate=self.calibrate and self.N > 1,
        )
