"""What drafters of chains share: how the next token of each row is drawn, and the proposal that all of them make.

Shapes: B rows, K drafted tokens, R rows that draft, V vocabulary, L positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.shared.largest import at_largest
from harness.engine.shared.sampling import invert
from methods.autoregressive.sample import Law


def always(drafted: Drafted) -> Tensor:
    """Stop no row."""
    return torch.ones_like(drafted.row_R, dtype=torch.bool)


def drawn(
    temperature: float, row_R: Tensor, logits_RV: Tensor, uniform_B: Tensor, sequences: Sequences, step: int
) -> tuple[Drafted, Tensor | None]:
    """Return the `step`-th tokens of the rows `row_R`, and the law that they were drawn from, [B, V] (None at 0)."""
    q_BV = None
    if temperature == 0:
        token_R = at_largest(logits_RV)
    else:
        q_RV = Law(temperature, 0, 1.0).probabilities(logits_RV)
        token_R = invert(q_RV, uniform_B[row_R])
        q_BV = q_RV.new_zeros(len(uniform_B), q_RV.shape[1]).index_copy(0, row_R, q_RV)
        logits_RV = logits_RV / temperature
    return Drafted(step=step, row_R=row_R, token_R=token_R, logits_RV=logits_RV, sequences=sequences), q_BV


def proposed(tokens_BL: Tensor, length_B: Tensor, count_B: Tensor, most: int, laws: Sequence[Tensor]) -> Proposal:
    """Return the `count_B` tokens of each row from `length_B` on as a proposal `most` wide, drawn from `laws`."""
    place_BK = (length_B[:, None] + torch.arange(most, device=length_B.device)).clamp(max=tokens_BL.shape[1] - 1)
    q_BKV = torch.stack([*laws], 1) if laws else None
    return Proposal(tokens_BK=tokens_BL.gather(1, place_BK), count_B=count_B, probabilities_BKV=q_BKV)
