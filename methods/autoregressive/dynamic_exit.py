"""DEL: exit layer and draft length of every round, from what each layer would have drafted.

Paper: Entezari Zarch et al., arXiv:2504.05598; released code: hoenza/DEL, self_speculation/DEL.py.

Hidden states of every layer pass by while a round drafts and verifies. Read by the head once per round, they say what
each layer would have said (shadow tokens), and how sure it would have been. From shares of agreement a_l with the last
layer, decayed by w per round, follow tokens per layer (1 - a_l^(d + 1)) / (1 - a_l) / (d l + L); the best exit l and
length d are taken. Counted are the places up to the first at which the exit was wrong, and before the first choice the
last places of the prompt. The first round drafts one token behind layer 1.

| symbol | argument | default |
|---|---|---|
| w | w | 0.95 |
| gamma_max | gamma_max | 18: d is at most 17, a draft at most 18 |
| | dynamic_length | true: a draft stops behind a token less sure than tau; false: it has length d (DELE) |
| | prompt_window | 32 |
| tau | temperature | 0: greedy |

tau_l is the mean of how sure layer l was where it agreed and where it did not; while one of these has not been seen,
nothing stops a draft. With `dynamic_length` d chooses the exit only, as in the released code. At a temperature above 0
the last layer's token is its most probable one.
Invariants: temperature 0 equals greedy decoding; a round of g drafts loads g l + L layers, and its shadows are
(L - 1) (g + 1) positions of the head (`head_tokens`), which are no call. Nothing is shared between answers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.sequences import Sequences, first
from harness.engine.shared.largest import at_largest
from harness.engine.shared.model import ForwardRequest, LanguageModel, Part
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import surest
from harness.engine.shared.records import Charge, Ledger, Role
from harness.errors import FieldError, within
from methods.autoregressive.layer_skip import draft_to
from methods.autoregressive.sample import Law
from methods.autoregressive.self_draft import SelfDraft, sure

COUNTS = ("del.matched_BD", "del.missed_BD", "del.sure_matched_BD", "del.sure_missed_BD")
"""What is kept of each exit, [B, L - 1]: places at which it agreed with the last layer, or not, and how sure it was."""

EXIT, LENGTH = "del.exit_B", "del.length_B"
_PROMPT, _SHALLOW, _SEEN = "del.prompt_BTDC", "del.shallow_BTDC", "del.seen_BTDC"
_SAID, _VALID = "del.said_BT", "del.valid_BT"

_LOGITS = 2**25
"""The most logits that are read at once."""


_MOST = 4096
"""Lengths that are compared in every round, and places of a prompt whose states of all layers are kept."""


@policy("method/drafter", "del")
class DynamicExit:
    """Draft with as many of the target's layers, and as long, as has been worth most in this answer.

    `w` in (0, 1] is what a round leaves of earlier counts; `gamma_max` >= 1 the longest draft.
    """

    w: float = 0.95
    gamma_max: int = 18
    dynamic_length: bool = True
    prompt_window: int = 32
    temperature: float = 0.0
    of_draft: ClassVar[bool] = False
    # Verification goes on from what its drafts have passed.
    goes_with: ClassVar[Mapping[str, str]] = {"layers": "all"}

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)
        if not 0 < self.w <= 1:
            raise FieldError("w", self.w, "lie in (0, 1] (1 forgets nothing)")
        within(1, _MOST, gamma_max=self.gamma_max)
        # 0 learns nothing from prompts.
        within(0, _MOST, prompt_window=self.prompt_window)

    def fit_layers(self, layers: int) -> None:
        """Raise FieldError for a model whose only exit is its end."""
        if layers < 2:
            raise FieldError("gamma_max", self.gamma_max, "draft before the last layer, and the model has one layer")

    def taps(self, layers: int) -> frozenset[int]:
        """Return every depth: that of each exit, and the last, which says what prompts are followed by."""
        return frozenset(range(1, layers + 1))

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return tokens of the chosen exit, up to the chosen length or the first that is not sure."""
        memory, layers = sequences.memory, model.spec.layers
        for name in (EXIT, LENGTH):
            memory[name] = memory.get(name, torch.ones_like(limit_B))
        if _SEEN in memory:
            self._choose(model, sequences, ledger)
        exit_B, how = memory[EXIT], SelfDraft(temperature=self.temperature, taps=frozenset(range(1, layers)))
        chosen_B = torch.minimum(limit_B, memory[LENGTH])
        if COUNTS[0] not in memory or not self.dynamic_length:
            limit_B = chosen_B
        else:
            limit_B = torch.where(_fresh(sequences), chosen_B, limit_B.clamp(max=self.gamma_max))
            tau_BD = thresholds([memory[name] for name in COUNTS])
            how = replace(how, keep_going=sure(tau_BD.gather(1, exit_B[:, None] - 1)[:, 0]))
        drafted = draft_to(exit_B, how, model, sequences, limit_B, ledger)
        if _SHALLOW in memory:
            del memory[_SHALLOW]
        if drafted.states:
            memory[_SHALLOW] = _by_exit(drafted.states, layers)
        return drafted.proposal

    def update(self, completed: Round) -> None:
        """Keep the hidden states of a round until they are read, and what the last layer said there."""
        memory, before, layers = completed.after.memory, completed.before, max(completed.states)
        if completed.role is Role.PREFILL:
            if self.prompt_window:
                memory[_PROMPT] = self._of_prompt(completed, layers)
            return
        prediction, width = completed.prediction, completed.proposal.tokens_BK.shape[1] + 1
        seen_BTDC = _by_exit(completed.states, layers)
        if _SHALLOW in memory and completed.proposal.begun is not None:
            shallow_BTDC = memory[_SHALLOW][:, :width]
            depth_D = torch.arange(1, layers, device=shallow_BTDC.device)
            below_BD = depth_D <= completed.proposal.begun.layers_B[:, None]
            seen_BTDC = torch.where(below_BD[:, None, :, None], shallow_BTDC, seen_BTDC)
        said_BL = prediction.scatter(at_largest(prediction.logits_NV), -1)
        place_BT = before.length_B[:, None] + torch.arange(width, device=said_BL.device)
        memory[_SEEN] = seen_BTDC
        memory[_SAID] = said_BL.gather(1, place_BT.clamp(max=said_BL.shape[1] - 1))
        memory[_VALID] = first(completed.n_drafted_B + 1, width)

    def _of_prompt(self, completed: Round, layers: int) -> Tensor:
        """Return hidden states [B, T, L, C] of the last places of each prompt, the last place last."""
        length_B = completed.before.length_B
        width = self.prompt_window
        place_BT = (length_B[:, None] - width + torch.arange(width, device=length_B.device)).clamp(min=0)
        index = place_BT[..., None]
        states = [completed.states[depth] for depth in range(1, layers + 1)]
        return torch.stack([one.gather(1, index.expand(-1, -1, one.shape[2])) for one in states], 2)

    def _choose(self, model: LanguageModel, sequences: Sequences, ledger: Ledger) -> None:
        """Read what the last round has shown, and choose exit and length of the next; not of rows without a round."""
        memory, layers = sequences.memory, model.spec.layers
        seen_BTDC, said_BT, valid_BT = memory[_SEEN], memory[_SAID], memory[_VALID]
        del memory[_SEEN], memory[_SAID], memory[_VALID]
        agrees_BTD, sure_BTD = _shadows(model, seen_BTDC, said_BT, valid_BT, sequences, ledger)
        own_BT = agrees_BTD.gather(2, (memory[EXIT] - 1)[:, None, None].expand(-1, said_BT.shape[1], 1))[..., 0]
        wrong_BT = valid_BT & ~own_BT
        counted_BT = valid_BT & (wrong_BT.cumsum(1) - wrong_BT.long() == 0)
        new = _counted(agrees_BTD, sure_BTD, counted_BT)
        if COUNTS[0] in memory:
            new = [self.w * memory[name] + one for name, one in zip(COUNTS, new, strict=True)]
        fresh_B, second_B = _fresh(sequences), sequences.rounds_B == 2
        if self.prompt_window and bool(second_B.any()):
            prompt = self._prompt_counts(model, sequences, second_B, ledger)
            new = [one + other for one, other in zip(new, prompt, strict=True)]
        if _PROMPT in memory and not bool(fresh_B.any()):
            del memory[_PROMPT]
        exit_B, length_B = best(new[0], new[1], layers, self.gamma_max)
        memory |= dict(zip(COUNTS, new, strict=True))
        memory |= {EXIT: torch.where(fresh_B, 1, exit_B), LENGTH: torch.where(fresh_B, 1, length_B)}

    def _prompt_counts(
        self, model: LanguageModel, sequences: Sequences, mine_B: Tensor, ledger: Ledger
    ) -> list[Tensor]:
        states_BTDC = sequences.memory[_PROMPT]
        width = states_BTDC.shape[1]
        valid_BT = first(sequences.prompt_length_B.clamp(max=width), width).flip(1) & mine_B[:, None]
        last_BT, _ = _read(model, states_BTDC[:, :, -1], valid_BT, sequences, ledger)
        shadows = _shadows(model, states_BTDC[:, :, :-1], last_BT, valid_BT, sequences, ledger)
        return _counted(*shadows, valid_BT)


def _fresh(sequences: Sequences) -> Tensor:
    """Return the rows [B] that have computed their prompt and drafted nothing yet."""
    return sequences.rounds_B == 1


def _by_exit(states: Mapping[int, Tensor], layers: int) -> Tensor:
    """Return states [B, T, L - 1, C] behind each exit, 0 behind those that were not passed."""
    nothing_BTC = torch.zeros_like(next(iter(states.values())))
    return torch.stack([states.get(depth, nothing_BTC) for depth in range(1, layers)], 2)


def _shadows(
    model: LanguageModel,
    states_BTDC: Tensor,
    said_BT: Tensor,
    valid_BT: Tensor,
    sequences: Sequences,
    ledger: Ledger,
) -> tuple[Tensor, Tensor]:
    """Return whether each exit says what the last layer says, and how sure it is, [B, T, L - 1] each."""
    rows, width = valid_BT.shape
    # As many exits at once as there is room for their logits: the head of a large vocabulary is slow to come by.
    at_once = max(1, _LOGITS // (max(1, int(valid_BT.sum())) * model.spec.vocab_size))
    read = []
    for some_BTEC in states_BTDC.split(at_once, 2):
        valid_BX = valid_BT[..., None].expand(-1, -1, some_BTEC.shape[2]).flatten(1)
        said = _read(model, some_BTEC.flatten(1, 2), valid_BX, sequences, ledger)
        read.append([one_BX.view(rows, width, -1) for one_BX in said])
    tokens_BTD, sure_BTD = (torch.cat(one, 2) for one in zip(*read, strict=True))
    return tokens_BTD == said_BT[..., None], sure_BTD


def _read(
    model: LanguageModel, states_BTC: Tensor, valid_BT: Tensor, sequences: Sequences, ledger: Ledger
) -> tuple[Tensor, Tensor]:
    """Return the most probable token behind states, and its probability, [B, T] each; 0 where nothing is valid."""
    count_B, layers = valid_BT.sum(1), model.spec.layers
    nothing_BT = torch.zeros_like(valid_BT, dtype=torch.int64)
    request = ForwardRequest(
        nothing_BT,
        positions_BT=nothing_BT,
        select_N=valid_BT.flatten().nonzero()[:, 0],
        part=Part(first=layers, states_BTC=states_BTC),
    )
    none_B = torch.zeros_like(count_B)
    charge = Charge(role=Role.HEAD, sample_B=sequences.sample_B, query_B=none_B, keys_B=none_B, head_B=count_B)
    tokens_N, log_p_N, _ = surest(ledger.call(model, request, charge).float())
    index = valid_BT.nonzero(as_tuple=True)
    sure_BT = torch.zeros_like(nothing_BT, dtype=torch.float64)
    return nothing_BT.index_put(index, tokens_N), sure_BT.index_put(index, log_p_N.double().exp())


def _counted(agrees_BTD: Tensor, sure_BTD: Tensor, counted_BT: Tensor) -> list[Tensor]:
    """Return the sums of `COUNTS` over the places that count."""
    matched_BTD, missed_BTD = agrees_BTD & counted_BT[..., None], ~agrees_BTD & counted_BT[..., None]
    return [
        matched_BTD.double().sum(1),
        missed_BTD.double().sum(1),
        _sum(sure_BTD * matched_BTD),
        _sum(sure_BTD * missed_BTD),
    ]


def _sum(values_BTD: Tensor) -> Tensor:
    # One after the other, so that zeros beside a row, of which wider neighbours bring more, round nothing differently.
    return values_BTD.cumsum(1)[:, -1]


def thresholds(counts: list[Tensor]) -> Tensor:
    """Return tau of every exit, [B, L - 1]; not a number where it never agreed, or always."""
    matched, missed, sure_matched, sure_missed = counts
    return (sure_matched / matched + sure_missed / missed) / 2


def best(matched_BD: Tensor, missed_BD: Tensor, layers: int, gamma_max: int) -> tuple[Tensor, Tensor]:
    """Return exit and draft length with the most tokens per layer; of equals the first exit, then the shortest."""
    agreed_BD = matched_BD / (matched_BD + missed_BD)
    agreed_BD = torch.where(agreed_BD.isnan(), -torch.inf, agreed_BD)
    exit_D = torch.arange(1, layers, device=matched_BD.device)
    tokens_BD, worth = torch.ones_like(agreed_BD), []
    for length in range(gamma_max):
        worth.append(tokens_BD / (length * exit_D + layers))
        # An exit that was never seen has no length but 0.
        tokens_BD = torch.where(agreed_BD.isinf(), -torch.inf, 1 + agreed_BD * tokens_BD)
    at_B = torch.stack(worth, 2).flatten(1).argmax(1)
    return at_B // gamma_max + 1, at_B % gamma_max
