"""The place of HAMburger in the loop: segments of several tokens that share one slot, written by parts nobody trained.

A micro decoder writes the tokens of a segment behind the first from hidden states of the call, a head ends it, and an
embedder merges it into one position for the next call. Nothing is verified.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Round, Verdict
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.segments import SAVED, Segment, last_segment
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import NORMED, ForwardRequest, LanguageModel, Part, Taps
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Asked, Ledger, Role
from harness.errors import ConfigError
from harness.models.closed_form import ClosedForm, ClosedFormModel
from harness.models.embedded import EmbeddedModel
from harness.models.key_values import KeyValueStore
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.prompt_lookup import PromptLookup
from tests.engine.causal import PROMPTS, random_causal, run
from tests.methods.self_drafts import LAYERS, answers, same_for_every_batch, target, weights

WIDTH, MOST, DEPTHS, MICRO_LAYERS, LENGTH = 16, 4, (2, 4, 6, NORMED), 2, 12
FEATURES = len(DEPTHS)


def micro() -> EmbeddedModel:
    """Return a micro decoder, which shares embedding and head with the target."""
    made = random_causal(layers=MICRO_LAYERS, seed=7)
    shared = {k: v for k, v in target().transformer.state_dict().items() if k.startswith(("embedding.", "head."))}
    made.transformer.load_state_dict(shared, strict=False)
    return EmbeddedModel(made.transformer, replace(made.spec, name="micro"))


MICRO = micro()


def embedded(tokens: Tensor) -> Tensor:
    """Return embeddings of tokens."""
    return target().transformer.embedding(tokens)


def ends(x_BC: Tensor, confidence: float) -> Tensor:
    """Say by the stop head, of three layers, whether the token read from these states is its segment's last."""
    for seed in (1, 2):
        x_BC = F.silu(x_BC @ weights(WIDTH, WIDTH, seed=seed))
    return 1 - (4 * x_BC @ weights(WIDTH, seed=3)).sigmoid() < confidence


def merge(embedded_BMC: Tensor, count_B: Tensor) -> Tensor:
    """Return the mean of a segment and what a query of it finds in tokens and their places; one token as it is."""
    there_BM = torch.arange(embedded_BMC.shape[1]) < count_B[:, None]
    mean_BC = (embedded_BMC * there_BM[..., None]).sum(1) / count_B[:, None]
    place_MC = weights(MOST, WIDTH // 2, seed=4)[: embedded_BMC.shape[1]]
    kept_BMC = torch.cat([embedded_BMC, place_MC.expand(len(count_B), -1, -1)], 2)
    keys_BMC, values_BMC = (kept_BMC @ weights(WIDTH + WIDTH // 2, WIDTH, seed=seed) for seed in (5, 6))
    score_BM = (keys_BMC * (mean_BC @ weights(WIDTH, WIDTH, seed=7))[:, None]).sum(2).masked_fill(~there_BM, -torch.inf)
    found_BC = (score_BM.softmax(1)[..., None] * values_BMC).sum(1)
    return torch.where(count_B[:, None] == 1, embedded_BMC[:, 0], mean_BC + found_BC @ weights(WIDTH, WIDTH, seed=8))


@dataclass(frozen=True)
class Merged:
    """Feeds the last segment as one position."""

    merges: ClassVar[bool] = True
    of_draft: ClassVar[bool] = False

    def fit_layers(self, layers: int) -> None:
        pass

    def blend(self, sequences: Sequences) -> Segment | None:
        return last_segment(sequences, merge)


@dataclass(frozen=True)
class MicroSteps:
    """Writes up to four tokens for a call: the target's, and those of the micro decoder, until the head ends them."""

    confidence: float
    judges_drafts: ClassVar[bool] = False

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        return Greedy()(prediction, proposal, sequences)

    def taps(self, layers: int) -> frozenset[int]:
        return frozenset(DEPTHS)

    def write(
        self,
        model: LanguageModel,
        prediction: Prediction,
        states: Mapping[int, Tensor],
        sequences: Sequences,
        ledger: Ledger,
    ) -> Verdict:
        token_B, state_BC = prediction.logits_NV.argmax(-1), states[NORMED]
        tokens_BT, count_B = token_B[:, None], torch.ones_like(token_B)
        room_B = (sequences.limit_B - sequences.length_B).clamp(max=MOST)
        fed_BTC = torch.cat([torch.stack([states[depth] for depth in DEPTHS], 1), embedded(token_B)[:, None]], 1)
        store, computed_B = MICRO.new_store(len(token_B), FEATURES + MOST), torch.zeros_like(token_B)
        open_B = ~ends(state_BC, self.confidence) & (count_B < room_B) & ~is_stop(token_B, model.spec.stop_ids)
        while bool(open_B.any()):
            busy_R, taps = open_B.nonzero().squeeze(1), Taps({NORMED})
            end_B = torch.where(open_B, FEATURES + count_B, computed_B)
            window = Window(
                tokens_BL=torch.zeros(len(token_B), FEATURES + MOST, dtype=torch.int64), start_B=computed_B,
                end_B=end_B, read_B=end_B - 1, store=store, busy_R=busy_R, part=Part(states_BTC=fed_BTC, taps=taps),
            )  # fmt: skip
            said = ask(MICRO, window, sequences, ledger, "micro")
            token_B = token_B.index_copy(0, busy_R, said.logits_NV.argmax(-1))
            tokens_BT = torch.cat([tokens_BT, token_B[:, None]], 1)
            last_B = (end_B - computed_B - 1).clamp(min=0)
            state_BC = taps.states[NORMED][torch.arange(len(last_B)), last_B]
            computed_B, count_B, fed_BTC = end_B, count_B + open_B, embedded(token_B)[:, None]
            open_B = open_B & ~ends(state_BC, self.confidence) & (count_B < room_B)
            open_B = open_B & ~is_stop(token_B, model.spec.stop_ids)
        further = Proposal(tokens_BK=tokens_BT[:, 1:], count_B=count_B - 1)
        return Verdict(accepted_B=0 * count_B, token_B=tokens_BT[:, 0], further=further, generated_B=count_B)


def smashing(confidence: float) -> AutoregressiveMethod:
    """Return HAMburger with random parts."""
    return AutoregressiveMethod(acceptor=MicroSteps(confidence), feed=Merged())


@torch.inference_mode()
def plainly(prompt: Sequence[int], confidence: float, length: int = LENGTH) -> tuple[list[int], list[int]]:
    """Return tokens and lengths of segments by full forwards without keys and values, token by token."""
    x_TC, places, tokens, lengths = embedded(torch.tensor(prompt)), [*range(len(prompt))], list[int](), list[int]()
    while len(tokens) < length:
        taps = Taps(DEPTHS)
        request = ForwardRequest(
            torch.zeros(1, len(places), dtype=torch.int64), positions_BT=torch.tensor([places]),
            part=Part(states_BTC=x_TC[None], taps=taps),
        )  # fmt: skip
        segment = [int(target().forward(request)[0, -1].argmax())]
        features_FC = torch.stack([taps.states[depth][0, -1] for depth in DEPTHS])
        state_C = features_FC[-1]
        while not bool(ends(state_C[None], confidence)) and len(segment) < min(MOST, length - len(tokens)):
            fed_TC, seen = torch.cat([features_FC, embedded(torch.tensor(segment))]), Taps({NORMED})
            nothing_BT = torch.zeros(1, len(fed_TC), dtype=torch.int64)
            logits = MICRO.forward(ForwardRequest(nothing_BT, part=Part(states_BTC=fed_TC[None], taps=seen)))
            state_C = seen.states[NORMED][0, -1]
            segment.append(int(logits[0, -1].argmax()))
        tokens, lengths = [*tokens, *segment], [*lengths, len(segment)]
        merged_C = merge(embedded(torch.tensor([segment])), torch.tensor([len(segment)]))
        x_TC, places = torch.cat([x_TC, merged_C]), [*places, len(prompt) + len(tokens) - 1]
    return tokens, lengths


def test_segments_of_one_token_are_greedy_decoding() -> None:
    """Guards a segment's place against being one off: alone in its segment, a token is what it always is."""
    assert same_for_every_batch(target(), smashing(1.0)) == answers()


@pytest.mark.parametrize("confidence", [0.0, 0.4, 0.45, 0.5])
def test_segments_are_those_of_a_plain_reading(confidence: float) -> None:
    """Guards shared slots, the place of the last token, the micro decoder's input, and rows of other lengths."""
    made = same_for_every_batch(target(), smashing(confidence))
    plain = [plainly(prompt, confidence) for prompt in PROMPTS]
    assert made == [tuple(tokens) for tokens, _ in plain] != answers()
    lengths = {length for _, of_prompt in plain for length in of_prompt}
    assert lengths == {MOST} if confidence == 0 else len(lengths) > 2


def test_calls_and_slots_are_those_of_segments() -> None:
    """Guards what is saved and what that costs: a call and a slot for each segment, micro steps for other tokens."""
    ledger = Ledger()

    def look(completed: Round) -> None:
        after = completed.after
        taken_B = after.computed_B - after.memory[SAVED]
        assert taken_B.tolist() == (after.prompt_length_B + after.rounds_B - 1).tolist()

    run(target(), smashing(0.5), PROMPTS, LENGTH, ledger=ledger, observers=[look])
    samples = range(len(PROMPTS))
    for prompt, work, loads, asked in zip(
        PROMPTS, ledger.counts(samples), ledger.loads(samples), ledger.asked(samples), strict=True
    ):
        _, lengths = plainly(prompt, 0.5)
        assert (work.nfe, work.nfe_prefill) == (len(lengths), 1)
        steps, begun = LENGTH - len(lengths), sum(length > 1 for length in lengths)
        written = asked.get("micro", Asked())
        assert (written.calls, written.layer_loads) == (steps, MICRO_LAYERS * steps)
        assert written.query_tokens == steps + FEATURES * begun
        assert work.query_tokens == len(prompt) + len(lengths) - 1 + written.query_tokens
        assert loads.layer_loads == LAYERS * len(lengths) + written.layer_loads
        assert work.nfe_total == len(lengths) + steps and work.head_tokens == len(lengths) + steps


def test_slots_behind_segments_stay_empty() -> None:
    """Guards keys and values: of a row alone, every slot is written once, and none for each token."""
    stores = list[tuple[int, Tensor]]()

    def look(completed: Round) -> None:
        store = completed.after.store
        assert isinstance(store, KeyValueStore)
        stores.append((len(stores), store.keys[0][0].abs().sum((1, 2)).clone()))

    run(target(), smashing(0.5), PROMPTS[2:3], LENGTH, observers=[look])
    _, lengths = plainly(PROMPTS[2], 0.5)
    assert len(stores) == len(lengths) < LENGTH
    for number, written_S in stores:
        assert bool((written_S > 0)[: len(PROMPTS[2]) + number].all())
        assert not bool(written_S[len(PROMPTS[2]) + number :].any())


def test_keys_are_seen_by_calls_as_they_are_counted() -> None:
    """Guards the keys of a call's record: the prompt's, and one for each segment up to the present one."""
    ledger = Ledger()
    run(target(), smashing(0.5), PROMPTS[2:3], LENGTH, ledger=ledger)
    told = [float(record.keys_B) for record in ledger.records if record.role is Role.TARGET]
    assert told == [len(PROMPTS[2]) + number for number in range(1, len(told) + 1)]


def test_a_stop_token_ends_its_segment() -> None:
    """Guards the trap of the released code, whose answers go on behind an end inside a segment."""
    plain = [plainly(prompt, 0.0)[0] for prompt in PROMPTS]
    stop = plain[1][5]
    assert plain[1].index(stop) == 5 and 5 % MOST != MOST - 1
    ledger = Ledger()
    made = run(target(stop=stop), smashing(0.0), PROMPTS[1:2], LENGTH, ledger=ledger)
    assert made[0].tokens == tuple(plain[1][:6])
    assert ledger.asked([0])[0]["micro"].calls == MOST - 1 + 5 % MOST


def test_rows_begin_as_others_end() -> None:
    """Guards slots of rows that join others: each has its own number of them."""
    ledger, together = Ledger(), Ledger()
    all_of_them = run(target(), smashing(0.5), PROMPTS, ledger=together)
    made = run(target(), smashing(0.5), PROMPTS, ledger=ledger, begins=lambda going_on, width: max(0, 3 - going_on))
    assert [one.tokens for one in made] == [one.tokens for one in all_of_them]
    samples = range(len(PROMPTS))
    assert ledger.counts(samples) == together.counts(samples) and ledger.asked(samples) == together.asked(samples)


def test_what_does_not_go_with_segments_is_refused() -> None:
    """Guards drafts behind a segment, and models that take nothing in place of tokens."""
    with pytest.raises(ConfigError, match="feed=Merged: tokens that share a slot are neither drafted, forked nor"):
        AutoregressiveMethod(acceptor=Greedy(), drafter=PromptLookup(), feed=Merged())
    with pytest.raises(ConfigError, match="drafter=PromptLookup: this method decides one token after another"):
        AutoregressiveMethod(acceptor=MicroSteps(0.5), drafter=PromptLookup())
    law = ClosedFormModel(ClosedForm(vocab_size=19, mask_id=18, eos_id=0, a1=4, f1=1.3, a2=0, f2=0, f3=0))
    causal = replace(law.spec, kind=target().spec.kind)
    law.spec = causal
    with pytest.raises(ConfigError, match="model=closed_form: runs all of its layers or none, and the feed has it run"):
        run(law, smashing(0.5), PROMPTS[:1])
