"""Speculative decoding: a small model drafts token by token, the target scores all drafts in one call.

Papers: Leviathan et al., arXiv:2211.17192, Algorithm 1; Chen et al., arXiv:2302.01318, Algorithm 2.

A draft d drawn from q stands with probability min(1, p(d) / q(d)), p being what the target draws from; the first that
falls is replaced by a draw from max(p - q, 0), normalised, and behind the last one comes a draw from p. At temperature
0 both models take their most probable token, and a draft stands if they agree. Either way the answers have the law of
the target alone, whatever the draft is.

| symbol | argument | default |
|---|---|---|
| K (gamma) | draft_length.length | 4 (Chen et al., section 3) |
| tau | temperature | 0: greedy |
| k, p | top_k, top_p | 0 and 1.0: all tokens; the draft draws from all |

`method/draft_length` says how K comes about: `fixed`, `heuristic` or `confidence` (`draft_lengths`).

Every number that is drawn is keyed by the row's seed, the length at which its round began, and the place of the draft:
rounds begin at different lengths, so none is used twice, and rows do not depend on each other. The draft keeps the keys
and values of what was accepted, so that a draft costs it one position. The last draft of a round is not fed, as nobody
asks what follows it: if it stood, the next round feeds it together with the token behind. Nothing is drafted behind a
stop token.

Invariants: temperature 0 equals greedy decoding; with the target as its own draft everything stands, so that
`nfe` = 1 + ceil((`tokens_out` - 1) / (K + 1)), of which `nfe_prefill` = 1; `nfe_draft` is the number of drafts.
"""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences, first, is_stop
from harness.engine.autoregressive.stopping import KeepGoing
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import NORMED, LanguageModel, ModelKind, Models, Part, Store, Taps
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction, leading
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger, Role
from harness.engine.shared.sampling import invert
from methods.autoregressive.chains import always, drawn, proposed
from methods.autoregressive.sample import Law
from methods.autoregressive.tree_rejection import down_tree, residual

STORE, COMPUTED = "draft", "draft.computed_B"
"""What the drafter keeps between rounds: the draft's keys and values, and the end of the positions that it was fed."""


@policy("method/drafter", "model")
class ModelDrafter:
    """Draft with another causal model, token by token, drawn at `temperature` (0: its most probable token)."""

    temperature: float = 0.0
    asks: ClassVar[frozenset[ModelKind]] = frozenset({ModelKind.CAUSAL})
    from_text: ClassVar[bool] = True
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return `limit_B` tokens per row, fewer where one of them ends the answer."""
        return self.propose_while(model, sequences, limit_B, ledger, always)

    def propose_while(
        self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger, keep_going: KeepGoing
    ) -> Proposal:
        """Return at most `limit_B` tokens per row, as many as `keep_going` says."""
        return draft_with(model, sequences, limit_B, ledger, temperature=self.temperature, keep_going=keep_going)

    def propose_shown(
        self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger, keep_going: KeepGoing
    ) -> Proposal:
        """Return the same, with the draft's hidden states for `keep_going`."""
        given = {"temperature": self.temperature, "keep_going": keep_going}
        return draft_with(model, sequences, limit_B, ledger, **given, states=True)


def draft_with(
    model: LanguageModel,
    sequences: Sequences,
    limit_B: Tensor,
    ledger: Ledger,
    *,
    temperature: float,
    keep_going: KeepGoing,
    part: Part | None = None,
    calibrate: bool = False,
    states: bool = False,
) -> Proposal:
    """Return at most `limit_B` tokens per row of the model that drafts, as many as `keep_going` says.

    What it lacks of the text passes all of it; drafts behind the first pass its `part` (None: all). With `calibrate`
    what a part has left of them is computed anew in the next round, by all of it. `keep_going` is shown hidden `states`
    if asked for.
    """
    assert isinstance(model, Models), "there is no model that drafts"
    if not bool((limit_B > 0).any()):
        return Proposal.empty(sequences)
    store, computed_B = _kept(model.draft, sequences)
    tokens_BL, length_B, count_B = sequences.tokens_BL.clone(), sequences.length_B, torch.zeros_like(limit_B)
    most, uniform_BK = int(limit_B.max()), uniforms(sequences.seed_B, length_B, "draft", int(limit_B.max()))
    busy_R, laws, exact_B = (limit_B > 0).nonzero().squeeze(1), [], None
    while len(busy_R):
        end_B = computed_B.index_copy(0, busy_R, (length_B + count_B)[busy_R])
        ran, taps = None if exact_B is None else part, Taps({NORMED})
        window = Window(
            # What only the target has is fed as the draft's last token: what follows may be a poor draft.
            tokens_BL=tokens_BL.clamp(max=model.draft.spec.vocab_size - 1),
            start_B=computed_B,
            end_B=end_B,
            read_B=end_B - 1,
            store=store,
            busy_R=busy_R,
            part=replace(ran or Part(), taps=taps) if states else ran,
        )
        asked = ask(model.draft, window, sequences, ledger, Role.DRAFT)
        logits_RV, step = over(model.spec.vocab_size, asked.logits_NV), int(count_B.max()) + 1
        drafted, q_BV = drawn(temperature, busy_R, logits_RV, uniform_BK[:, step - 1], sequences, step)
        if states:
            drafted = replace(drafted, state_RC=taps.states[NORMED][busy_R, (end_B - computed_B)[busy_R] - 1])
        laws += [] if q_BV is None else [q_BV]
        tokens_BL[busy_R, end_B[busy_R]] = drafted.token_R
        exact_B = end_B if exact_B is None else exact_B
        computed_B, count_B = end_B, count_B.index_add(0, busy_R, torch.ones_like(busy_R))
        goes_on_R = (count_B < limit_B)[busy_R] & ~is_stop(drafted.token_R, model.spec.stop_ids)
        busy_R = busy_R[goes_on_R & keep_going(drafted)]
    kept_B = exact_B if calibrate and exact_B is not None else computed_B
    sequences.stores[STORE], sequences.memory[COMPUTED] = store, kept_B
    return proposed(tokens_BL, length_B, count_B, most, laws)


def _kept(draft: LanguageModel, sequences: Sequences) -> tuple[Store, Tensor]:
    """Return the draft's keys and values, and up to which position they are those of committed tokens.

    All that was fed in the last round and stood is before the last committed token, which is not fed yet.
    """
    store = sequences.stores.get(STORE)
    if store is None:
        return draft.new_store(*sequences.tokens_BL.shape), torch.zeros_like(sequences.length_B)
    return store, torch.minimum(sequences.memory[COMPUTED], sequences.length_B - 1)


def over(vocabulary: int, logits_RV: Tensor) -> Tensor:
    """Return logits over the target's vocabulary: what only one of the two has is padding, which is never drafted."""
    lacking = vocabulary - logits_RV.shape[-1]
    return F.pad(logits_RV, (0, lacking), value=-torch.inf) if lacking > 0 else logits_RV[:, :vocabulary]


@policy("method/acceptor", "rejection")
class Rejection:
    """Accept a draft with probability min(1, p / q); `temperature`, `top_k` and `top_p` make p, as in `keyed_sample`.

    At temperature 0, drafts that equal the most probable token.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        Law(self.temperature, self.top_k, self.top_p)

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return the drafts that stand before the first that falls, and the token drawn in its place or behind all."""
        if self.temperature == 0:
            tokens_N, gap_N = leading(prediction.logits_NV)
            return Verdict.exact_match(prediction, tokens_N, proposal, sequences, gap_N)
        p_NV = Law(self.temperature, self.top_k, self.top_p).probabilities(prediction.logits_NV)
        if proposal.tree is not None:
            return down_tree(p_NV, proposal, sequences)
        row_N, width = prediction.row_N, proposal.tokens_BK.shape[1]
        place_N = prediction.position_N - sequences.length_B[row_N]
        drafted_N = place_N < proposal.count_B[row_N]
        q_NV = _drafted_from(proposal, row_N, place_N, drafted_N, p_NV)
        token_N1 = F.pad(proposal.tokens_BK, (0, 1))[row_N, place_N][:, None]
        uniform_N = uniforms(sequences.seed_B, sequences.length_B, "accept", width + 1)[row_N, place_N]
        stands_N = drafted_N & (uniform_N * q_NV.gather(1, token_N1)[:, 0] < p_NV.gather(1, token_N1)[:, 0])
        stands_BT = torch.zeros_like(F.pad(proposal.tokens_BK, (0, 1)), dtype=torch.bool)
        stands_BT[row_N, place_N] = stands_N
        accepted_B = (stands_BT[:, :width] & first(proposal.count_B, width)).long().cumprod(1).sum(1)
        # One entry of each row, rows in ascending order: the first that falls, or the one behind all.
        last_B = (place_N == accepted_B[row_N]).nonzero().squeeze(1)
        uniform_B = uniforms(sequences.seed_B, sequences.length_B, "replace", 1).squeeze(1)
        return Verdict(accepted_B=accepted_B, token_B=invert(residual(p_NV[last_B], q_NV[last_B]), uniform_B))


def _drafted_from(proposal: Proposal, row_N: Tensor, place_N: Tensor, drafted_N: Tensor, p_NV: Tensor) -> Tensor:
    """Return the law of the draft at each entry, one-hot without one, 0 behind the drafts."""
    if proposal.probabilities_BKV is not None:
        return F.pad(proposal.probabilities_BKV, (0, 0, 0, 1))[row_N, place_N] * drafted_N[:, None]
    token_N1 = F.pad(proposal.tokens_BK, (0, 1))[row_N, place_N][:, None]
    return torch.zeros_like(p_NV).scatter(1, token_N1, drafted_N[:, None].to(p_NV))
