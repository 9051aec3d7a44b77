"""DEER: a masked-diffusion model drafts a block in one call, the autoregressive target verifies it.

Paper: Cheng et al., arXiv:2512.15176v1; no code was there to read.

Behind the text stand K masks, and one call of the diffusion model takes all of them at once. Each has its own law given
the text alone, so that a wrong draft does not mislead those behind it. The target scores the block in one call; a draft
d from q stands with probability min(1, p(d) / q(d)), at temperature 0 if the target agrees.

| symbol | argument | default |
|---|---|---|
| k | K | 32 (the largest of the paper's sweep) |
| tau | temperature | 0: greedy; the drafts are drawn at it too |

Deviations: verification stops at the first draft that falls, where Algorithm 1 goes on in the block, which would need
the target again on the corrected text. The paper's models are trained to see a separator behind the masks, which ours
are not given. The drafter sees both ways and keeps nothing: every call computes the whole text. Nothing is drafted
behind a stop token, but the call has computed it.

Invariants: temperature 0 equals greedy decoding; `nfe_draft` is at most one for each call of the target behind the
prefill, and computes the text with the masks: n + min(K, room) positions.
"""

from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences, first, is_stop
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.shared.largest import at_largest
from harness.engine.shared.model import LanguageModel, ModelKind, Models, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import require_numbers
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger, Role
from harness.engine.shared.sampling import invert
from methods.autoregressive.sample import Law
from methods.autoregressive.speculative import over


@policy("method/drafter", "diffusion")
class DiffusionDrafter:
    """Draft a block with a masked-diffusion model in one call, drawn at `temperature` (0: its most probable tokens)."""

    temperature: float = 0.0
    asks: ClassVar[frozenset[ModelKind]] = frozenset({ModelKind.MASKED_DIFFUSION})
    from_text: ClassVar[bool] = True
    nested: ClassVar[bool] = False  # masks see each other

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return `limit_B` tokens per row, fewer where one of them ends the answer."""
        assert isinstance(model, Models), "there is no model that drafts"
        busy_R, most = (limit_B > 0).nonzero().squeeze(1), int(limit_B.max())
        if not len(busy_R):
            return Proposal.empty(sequences)
        canvas = _masked(model.draft.spec, sequences, busy_R, limit_B)
        row_N, position_N = canvas.undecided_BL.nonzero(as_tuple=True)
        logits_NV = over(model.spec.vocab_size, _asked(model.draft, canvas, row_N, position_N, ledger))
        place_N = position_N - canvas.prompt_length_B[row_N]
        uniform_BK, laws = uniforms(sequences.seed_B, sequences.length_B, "draft", most), None
        if self.temperature == 0:
            token_N = at_largest(logits_NV)
        else:
            q_NV = Law(self.temperature, 0, 1.0).probabilities(logits_NV)
            token_N = invert(q_NV, uniform_BK[busy_R[row_N], place_N])
            laws = q_NV.new_zeros(len(limit_B), most, q_NV.shape[1])
            laws = laws.index_put((busy_R[row_N], place_N), q_NV)
        tokens_BK = torch.zeros(len(limit_B), most, dtype=torch.int64, device=limit_B.device)
        tokens_BK = tokens_BK.index_put((busy_R[row_N], place_N), token_N)
        stops_BK = is_stop(tokens_BK, model.spec.stop_ids)
        before_stop_BK = (stops_BK.cumsum(1) - stops_BK.long()) == 0
        count_B = (before_stop_BK & first(limit_B, most)).sum(1)
        return Proposal(tokens_BK=tokens_BK, count_B=count_B, probabilities_BKV=laws)


def _masked(spec: ModelSpec, sequences: Sequences, busy_R: Tensor, limit_B: Tensor) -> Canvas:
    """Lay out the text of some rows with as many masks behind each as there may be drafts."""
    assert spec.mask_id is not None
    length_R, limit_R = sequences.length_B[busy_R], limit_B[busy_R]
    # What only the target has is shown as the last token that both have.
    tokens = sequences.tokens_BL[busy_R].clamp(max=spec.vocab_size - 1).tolist()
    canvas = Canvas.from_prompts(
        [row[:length] for row, length in zip(tokens, length_R.tolist(), strict=True)],
        gen_length=int(limit_R.max()),
        mask_id=spec.mask_id,
        pad_id=spec.pad_id,
        stop_ids=spec.stop_ids,
        seeds=sequences.seed_B[busy_R].tolist(),
        device=busy_R.device,
    )
    canvas.sample_B, canvas.length_B = sequences.sample_B[busy_R], length_R + limit_R
    canvas.undecided_BL = canvas.undecided_BL & first(canvas.length_B, canvas.tokens_BL.shape[1])
    return canvas


def _asked(draft: LanguageModel, canvas: Canvas, row_N: Tensor, position_N: Tensor, ledger: Ledger) -> Tensor:
    """Return the draft's logits [N, V] of the masks, that of the mask itself left out; one call."""
    places = Places.of(row_N, position_N, (canvas.num_rows, canvas.tokens_BL.shape[1]))
    request = EvaluationRequest(ledger=ledger, model=draft, canvas=canvas, places=places, role=Role.DRAFT)
    logits_NV = request.forward_whole()
    require_numbers(logits_NV, canvas.sample_B[row_N], draft.spec.name)
    mask_1 = torch.tensor([draft.spec.mask_id], device=logits_NV.device)
    return logits_NV.index_fill(1, mask_1, -torch.inf)
