"""LayerSkip's self-speculation: the first layers draft, the others verify, and nothing is computed twice.

Paper: Elhoushi et al., arXiv:2404.16710, section 4.3; released code: facebookresearch/LayerSkip, self_speculation.

A token is drafted by the final norm and the head behind layer E. Its keys and values in layers 1 to E, and its hidden
state behind E, are those of the whole model, so that verification runs layers E + 1 to L on what was drafted, in one
call, and overwrites nothing. The last draft of a round passes layers 1 to E too, as verification begins behind them.

| symbol | argument | default |
|---|---|---|
| E | exit | 1; with E = L every draft stands |
| num_speculations | draft_length.length | 3 (released sweep: 1 to 6) |
| tau | temperature | 0: greedy (released code: 0.6 with top_p 0.95) |

Deviations from the released code: a draft that falls leaves max(p - q, 0) to draw from, divided by its sum alone (there
the sum has 1e-6 added). Without a model that was trained to be read early, few drafts stand.
Invariants: temperature 0 equals greedy decoding for any E and any model; a round of g drafts loads g E + L layers:
`nfe_draft` has g + 1 calls of E layers, `nfe` one of L - E.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.layers import Begun
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import KeepGoing
from harness.engine.shared.model import LanguageModel, Part
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from methods.autoregressive.chains import always
from methods.autoregressive.sample import Law
from methods.autoregressive.self_draft import SelfDraft, SelfDrafted, draft


@policy("method/drafter", "early_exit")
class EarlyExit:
    """Draft with the first `exit` layers of the target, drawn at `temperature` (0: the most probable token)."""

    exit: int = 1
    temperature: float = 0.0
    of_draft: ClassVar[bool] = False
    # Verification goes on from what its drafts have passed.
    goes_with: ClassVar[Mapping[str, str]] = {"layers": "all"}
    from_text: ClassVar[bool] = True
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)
        if self.exit < 1:
            raise FieldError("exit", self.exit, "be at least 1, the first layer")

    def fit_layers(self, layers: int) -> None:
        """Raise FieldError for an exit behind the last layer."""
        if self.exit > layers:
            raise FieldError("exit", self.exit, f"be from 1 to {layers}, the layers of the model")

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return `limit_B` tokens per row, fewer where one of them ends the answer, and how far they have come."""
        return self.propose_while(model, sequences, limit_B, ledger, always)

    def propose_while(
        self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger, keep_going: KeepGoing
    ) -> Proposal:
        """Return at most `limit_B` tokens per row, as many as `keep_going` says, and how far they have come."""
        how = SelfDraft(temperature=self.temperature, keep_going=keep_going)
        return draft_to(torch.full_like(limit_B, self.exit), how, model, sequences, limit_B, ledger).proposal


def draft_to(
    exit_B: Tensor, how: SelfDraft, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger
) -> SelfDrafted:
    """Return drafts of each row's first `exit_B` layers, for verification to go on from.

    `how` says the rest of it. Rows of different exits take a call each.
    """
    exits = exit_B.unique().tolist()
    groups = [(Part(end=one), exit_B == one) for one in exits]
    how = replace(how, groups=groups, complete=True, taps=how.taps | {*exits})
    drafted = draft(how, model, sequences, limit_B, ledger)
    if not drafted.states:
        return drafted
    states_BTC = torch.zeros_like(next(iter(drafted.states.values())))
    for one in drafted.states.keys() & {*exits}:
        states_BTC = torch.where((exit_B == one)[:, None, None], drafted.states[one], states_BTC)
    begun = Begun(layers_B=torch.where(drafted.proposal.count_B > 0, exit_B, 0), states_BTC=states_BTC)
    return replace(drafted, proposal=replace(drafted.proposal, begun=begun))
