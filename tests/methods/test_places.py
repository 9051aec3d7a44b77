"""The places in the loop of methods that need trained parts, each tried with a part that was never trained.

Lossless ones have to keep the answers of greedy decoding whatever their part says: Medusa's heads, Kangaroo's adapter,
Hidden Transfer's maps; SpecDec++'s head is in `test_stopping_head`. Lossy ones have to equal it at an end of their
knob: LUD, Arbitrage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Round, Verdict
from harness.engine.autoregressive.layers import Begun
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import LanguageModel, Models, Part, Taps
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger, Role
from harness.models.closed_form import ClosedForm, ClosedFormModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.speculative import ModelDrafter
from tests.engine.causal import PROMPTS, VOCABULARY, alike, run
from tests.methods.self_drafts import LAYERS, answers, same_for_every_batch, target, weights

WIDTH, K = 16, 3
LAW = ClosedFormModel(ClosedForm(vocab_size=19, mask_id=18, eos_id=0, a1=4, f1=1.3, a2=0, f2=0, f3=0))


@dataclass(frozen=True)
class Heads:
    """Medusa: heads on the last state of the target draft a tree, the two best tokens of each behind one another."""

    nodes: int = 6

    def taps(self, layers: int) -> frozenset[int]:
        return frozenset({layers})

    def update(self, completed: Round) -> None:
        before, verdict = completed.before, completed.verdict
        last_B = before.length_B - before.computed_B - 1
        if verdict.path_BD is not None:
            at_B1 = (verdict.accepted_B - 1).clamp(min=0)[:, None]
            node_B = verdict.path_BD.gather(1, at_B1)[:, 0]
            last_B = torch.where(verdict.accepted_B > 0, last_B + 1 + node_B, last_B)
        states_BTC = completed.states[LAYERS]
        completed.after.memory["medusa.state_BC"] = states_BTC[torch.arange(len(last_B)), last_B]

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        state_BC = sequences.memory["medusa.state_BC"]
        best = [(state_BC @ weights(WIDTH, VOCABULARY, seed=k)).topk(2).indices.tolist() for k in range(2)]
        rows = [
            [(-1, a), (-1, b), *((parent, token) for parent in (0, 1) for token in (c, d))]
            for (a, b), (c, d) in zip(*best, strict=True)
        ]
        return Proposal.of_trees(rows, [0] * len(rows), sequences.tokens_BL.device)


@dataclass(frozen=True)
class Pseudo:
    """Hidden Transfer: states of coming positions, mapped from a middle state of the last token, pass what is left."""

    layer: int = 5
    of_draft: ClassVar[bool] = False

    def fit_layers(self, layers: int) -> None:
        assert self.layer < layers

    def taps(self, layers: int) -> frozenset[int]:
        return frozenset({self.layer})

    def update(self, completed: Round) -> None:
        last_B = completed.before.length_B - completed.before.computed_B - 1 + completed.verdict.accepted_B
        completed.after.memory["transfer.state_BC"] = completed.states[self.layer][torch.arange(len(last_B)), last_B]

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        count_B = limit_B.clamp(max=K)
        busy_R = (count_B > 0).nonzero().squeeze(1)
        if not len(busy_R):
            return Proposal.empty(sequences)
        state_BC, start_B = sequences.memory["transfer.state_BC"], sequences.length_B - 1
        pseudo_BTC = torch.stack([state_BC @ weights(WIDTH, WIDTH, seed=j) for j in range(int(count_B.max()))], 1)
        part = Part(first=self.layer, states_BTC=pseudo_BTC)
        window = Window(
            tokens_BL=sequences.tokens_BL, start_B=start_B, end_B=start_B + count_B, read_B=start_B,
            store=sequences.store, busy_R=busy_R, part=part,
        )  # fmt: skip
        said = ask(model, window, sequences, ledger, Role.DRAFT)
        tokens_BK = torch.zeros(len(count_B), int(count_B.max()), dtype=torch.int64)
        tokens_BK[said.row_N, said.position_N - sequences.length_B[said.row_N]] = said.logits_NV.argmax(-1)
        return Proposal(tokens_BK=tokens_BK, count_B=count_B)


@dataclass(frozen=True)
class Adapter:
    """Kangaroo: the first layers, an adapter and the target's head draft; verification goes on from the exit."""

    exit: int = 3
    eta: float = 0.2
    of_draft: ClassVar[bool] = False

    def fit_layers(self, layers: int) -> None:
        assert self.exit < layers

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        tokens_BL, count_B = sequences.tokens_BL.clone(), torch.zeros_like(limit_B)
        states, busy_B = [], limit_B > 0
        while bool(busy_B.any()):
            end_B = sequences.length_B + count_B
            taps = Taps({self.exit})
            window = Window(
                tokens_BL=tokens_BL, start_B=end_B - busy_B.long(), end_B=end_B, read_B=end_B,
                store=sequences.store, busy_R=busy_B.nonzero().squeeze(1), part=Part(end=self.exit, taps=taps),
            )  # fmt: skip
            ask(model, window, sequences, ledger, Role.DRAFT)
            state_B1C = taps.states[self.exit]
            states.append(torch.where(busy_B[:, None, None], state_B1C, 0.0))
            drafts_B = busy_B & (count_B < limit_B)
            if not bool(drafts_B.any()):
                break
            adapted_B1C = state_B1C + state_B1C @ weights(WIDTH, WIDTH)
            busy_R = drafts_B.nonzero().squeeze(1)
            head = replace(
                window, start_B=end_B - drafts_B.long(), read_B=end_B - 1, busy_R=busy_R,
                part=Part(first=LAYERS, states_BTC=adapted_B1C),
            )  # fmt: skip
            said = ask(model, head, sequences, ledger, Role.HEAD).logits_NV.softmax(-1).max(-1)
            tokens_BL[busy_R, end_B[busy_R]] = said.indices
            count_B = count_B.index_add(0, busy_R, torch.ones_like(busy_R))
            # A draft that is unsure is kept, and its shallow states are needed: it is fed, and is the last.
            limit_R = torch.where(said.values < self.eta, count_B[busy_R], limit_B[busy_R])
            limit_B = limit_B.index_copy(0, busy_R, limit_R)
            busy_B = drafts_B
        width = int(count_B.max()) if len(count_B) else 0
        places_BK = (sequences.length_B[:, None] + torch.arange(width)).clamp(max=tokens_BL.shape[1] - 1)
        begun = Begun(layers_B=(count_B > 0) * self.exit, states_BTC=torch.cat(states, 1)) if states else None
        return Proposal(tokens_BK=tokens_BL.gather(1, places_BK), count_B=count_B, begun=begun)


@dataclass(frozen=True)
class Placeholders:
    """LUD: placeholders behind the text, in whose places the model says what comes next."""

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        tokens_BK = torch.full((sequences.num_rows, K), VOCABULARY - 1)
        return Proposal(tokens_BK=tokens_BK, count_B=limit_B.clamp(max=K))


@dataclass(frozen=True)
class Sure:
    """LUD: what is said in the places stands as long as it is sure; the first always."""

    beta: float

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        best, width = prediction.logits_NV.softmax(-1).max(-1), K + 1
        place_N = prediction.position_N - sequences.length_B[prediction.row_N]
        tokens_BT, sure_BT = (
            torch.zeros(sequences.num_rows, width, dtype=torch.int64),
            torch.zeros(sequences.num_rows, width),
        )
        tokens_BT[prediction.row_N, place_N] = best.indices
        sure_BT[prediction.row_N, place_N] = best.values.float()
        more_B = (sure_BT[:, 1:] > self.beta).long().cumprod(1).sum(1)
        sequences.memory["lud.known_B"] = sequences.length_B
        further = Proposal(tokens_BK=tokens_BT[:, 1:], count_B=torch.minimum(more_B, proposal.count_B))
        nothing_B = torch.zeros_like(more_B)
        return Verdict(accepted_B=nothing_B, token_B=tokens_BT[:, 0], further=further, generated_B=further.count_B + 1)


@dataclass(frozen=True)
class ReadAgain:
    """LUD: placeholders have left keys and values in the places of tokens, which the next call computes."""

    def __call__(self, sequences: Sequences, stop_ids: tuple[int, ...]) -> Sequences:
        return replace(sequences, computed_B=sequences.memory["lud.known_B"])


@dataclass(frozen=True)
class Router:
    """Arbitrage: a step of the draft stands as it is, or the target writes in its place; `share` says how often."""

    share: float

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        own = Greedy()(prediction, proposal, sequences)
        drawn_B = (sequences.seed_B * 7919 + sequences.length_B * 104729) % 1000 / 1000
        takes_B = drawn_B < self.share
        last_BL = prediction.scatter(prediction.logits_NV.argmax(-1), -1)
        behind_B = last_BL.gather(1, (sequences.length_B + proposal.count_B)[:, None])[:, 0]
        first_B = last_BL.gather(1, sequences.length_B[:, None])[:, 0]
        accepted_B = torch.where(takes_B, proposal.count_B, 0)
        return replace(own, accepted_B=accepted_B, token_B=torch.where(takes_B, behind_B, first_B), token_gap_BT=None)


@dataclass(frozen=True)
class UntilDelimiter:
    """Arbitrage: a step ends with a delimiter."""

    def limit(self, sequences: Sequences) -> Tensor:
        return torch.full_like(sequences.length_B, 5)

    def update(self, completed: Round) -> None:
        pass

    def keep_going(self, drafted: Drafted) -> Tensor:
        return drafted.token_R % 3 != 0


LOSSLESS = {
    "medusa": AutoregressiveMethod(acceptor=Greedy(), drafter=Heads()),
    "hidden_transfer": AutoregressiveMethod(acceptor=Greedy(), drafter=Pseudo()),
    "kangaroo": AutoregressiveMethod(acceptor=Greedy(), drafter=Adapter()),
}


def rounds(name: str, method: AutoregressiveMethod) -> tuple[list[Round], Ledger]:
    """Return all rounds of the prompts."""
    seen, ledger = list[Round](), Ledger()
    run(target(), method, PROMPTS, observers=[seen.append], ledger=ledger)
    return seen, ledger


@pytest.mark.parametrize("name", LOSSLESS)
def test_an_untrained_part_changes_no_answer(name: str) -> None:
    """Guards the place of every part: greedy answers, rows alone and together, and drafts that were really made."""
    assert same_for_every_batch(target(), LOSSLESS[name]) == answers()
    seen, _ = rounds(name, LOSSLESS[name])
    assert sum(int(one.n_drafted_B.sum()) for one in seen) > 30


def test_parts_cost_what_they_run() -> None:
    """Guards the layers of a draft: what is left of the target for pseudo states, its first layers for an adapter."""
    for name, expected in (("hidden_transfer", LAYERS - 5), ("kangaroo", 3)):
        _, ledger = rounds(name, LOSSLESS[name])
        assert {record.layers for record in ledger.records if record.role is Role.DRAFT} == {expected}
    verified = [record.layers for record in ledger.records if record.role is Role.VERIFY]
    assert verified and set(verified) <= {LAYERS - 3, LAYERS}


def spans(beta: float) -> AutoregressiveMethod:
    """Return lexical unit decoding."""
    return AutoregressiveMethod(acceptor=Sure(beta), drafter=Placeholders(), revision=ReadAgain())


def test_spans_that_are_never_sure_are_greedy_decoding() -> None:
    """Guards LUD's place: keys of placeholders are written over, also where several tokens of a call stand."""
    assert same_for_every_batch(target(), spans(2.0)) == answers()
    for beta in (0.0, 0.1):
        made = same_for_every_batch(target(), spans(beta))
        assert made != answers() and all(len(one) == 12 for one in made)
    ledger = Ledger()
    run(target(), spans(0.0), PROMPTS[1:2], 9, ledger=ledger)
    # A prompt of three tokens gives one; then each call reads the last span, and fills up to K places.
    assert [int(record.query_B.sum()) for record in ledger.records] == [3, 1 + K, 1 + K + K]


def routed(share: float) -> AutoregressiveMethod:
    """Return the choice between a draft's step and the target's."""
    return AutoregressiveMethod(acceptor=Router(share), drafter=ModelDrafter(), draft_length=UntilDelimiter())


def tokens_of(models: Models, method: AutoregressiveMethod) -> Sequence[tuple[int, ...]]:
    """Return what is answered."""
    return same_for_every_batch(models, method)


def test_a_router_is_the_target_or_the_draft_at_its_ends() -> None:
    """Guards Arbitrage's place: a step that stands unseen, or the target's own token in its place."""
    other = alike(target(), noise=1.0)
    assert tokens_of(Models(target(), other), routed(0.0)) == answers()
    assert tokens_of(Models(target(), target()), routed(1.0)) == answers()
    mixed = tokens_of(Models(target(), other), routed(0.5))
    assert mixed != answers() and mixed != tokens_of(Models(target(), other), routed(1.0))
