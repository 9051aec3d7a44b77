"""What a round came to, for the ledger: counts stay on the device until somebody asks for them.

Shapes: B rows, K drafted tokens, D depths of a path.
"""

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Drafter, Round
from harness.engine.autoregressive.method import EmptyDrafter
from harness.engine.autoregressive.sequences import first
from harness.engine.autoregressive.trees import ANCHOR
from harness.engine.shared.drafts import RoundRecord
from harness.engine.shared.records import Ledger


def note_round(ledger: Ledger, drafter: Drafter, completed: Round) -> None:
    """Have the ledger keep what came of the drafts of a round; of a drafter that never drafts there is nothing."""
    if isinstance(drafter, EmptyDrafter):
        return
    before = completed.before
    began_B = before.length_B > before.prompt_length_B
    ledger.rounds.append(
        RoundRecord(
            sample_B=torch.where(began_B, before.sample_B, -1),
            drafted_B=completed.n_drafted_B,
            tried_B=_tried(completed),
            accepted_B=completed.n_accepted_B,
            tree=completed.proposal.parent_BK is not None,
        )
    )


def _tried(completed: Round) -> Tensor:
    """Return how many places of drafts the target came to, one behind those that stand where a draft was there."""
    proposal, path_BD, accepted_B = completed.proposal, completed.verdict.path_BD, completed.n_accepted_B
    if proposal.parent_BK is None or path_BD is None:
        return torch.minimum(accepted_B + 1, proposal.count_B)
    last_B = path_BD.gather(1, (accepted_B[:, None] - 1).clamp(min=0)).squeeze(1)
    end_B = torch.where(accepted_B > 0, last_B, ANCHOR)
    drafts_BK = first(proposal.count_B, proposal.parent_BK.shape[1])
    return accepted_B + ((proposal.parent_BK == end_B[:, None]) & drafts_BK).any(1)
