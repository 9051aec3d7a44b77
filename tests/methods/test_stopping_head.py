"""The place of SpecDec++ in the loop: a head that nobody trained stops drafts by the hidden states of their model."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.autoregressive.drafting import Drafter, DraftLength, Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.shared.model import ForwardRequest, LanguageModel, Models, Part, Taps
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from harness.models.closed_form import ClosedForm, ClosedFormModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.speculative import ModelDrafter
from tests.engine.causal import PROMPTS, alike, run
from tests.methods.self_drafts import LAYERS, answers, same_for_every_batch, target, weights

WIDTH = 16
DRAFT = alike(target())
MODELS = Models(target(), DRAFT)
LAW = ClosedFormModel(ClosedForm(vocab_size=19, mask_id=18, eos_id=0, a1=4, f1=1.3, a2=0, f2=0, f3=0))


@dataclass(frozen=True)
class StoppingHead:
    """SpecDec++: a head says of each draft but the newest whether it will stand; drafting stops where one falls.

    It is a residual network on the draft's hidden state of the token, three times the same block, as the authors' code
    has it. `shown` are the states that it was given, with their rows and steps.
    """

    threshold: float = 0.6
    least: int = 2
    most: int = 5
    shown: list[Drafted] = field(default_factory=list)
    of_draft: ClassVar[bool] = True
    reads_states: ClassVar[bool] = True

    def fit_layers(self, layers: int) -> None:
        pass

    def limit(self, sequences: Sequences) -> Tensor:
        return torch.full_like(sequences.length_B, self.most)

    def update(self, completed: Round) -> None:
        pass

    def keep_going(self, drafted: Drafted) -> Tensor:
        memory, row_R, x_RC = drafted.sequences.memory, drafted.row_R, drafted.state_RC
        assert x_RC is not None
        self.shown.append(drafted)
        stands_B = memory.get(
            "specdec.stands_B", torch.ones_like(drafted.sequences.length_B, dtype=torch.float64)
        ).clone()
        if drafted.step == 1:
            # The state is that of the last committed token, of which nobody asks.
            stands_B[row_R] = 1.0
        else:
            for _ in range(3):
                x_RC = x_RC + F.silu(x_RC @ weights(WIDTH, WIDTH))
            stands_B[row_R] *= (x_RC @ weights(WIDTH, 2)).softmax(-1)[:, 1]
        memory["specdec.stands_B"] = stands_B
        return (drafted.step < self.least) | (1 - stands_B[row_R] <= self.threshold)


@dataclass(frozen=True)
class Twin:
    """Drafts as long as given by sample and round, for a head's without the head."""

    counts: dict[tuple[int, int], int]

    def limit(self, sequences: Sequences) -> Tensor:
        rows = zip(sequences.sample_B.tolist(), sequences.rounds_B.tolist(), strict=True)
        return torch.tensor([self.counts[row] for row in rows])

    def update(self, completed: Round) -> None:
        pass


def drafting(length: DraftLength) -> AutoregressiveMethod:
    """Return speculative decoding with such drafts."""
    return AutoregressiveMethod(acceptor=Greedy(), drafter=ModelDrafter(), draft_length=length)


def rounds(length: DraftLength) -> tuple[list[Round], Ledger]:
    """Return all rounds of the prompts."""
    seen, ledger = list[Round](), Ledger()
    run(MODELS, drafting(length), PROMPTS, observers=[seen.append], ledger=ledger)
    return seen, ledger


def counted(seen: list[Round]) -> dict[tuple[int, int], int]:
    """Return how many tokens were drafted, by sample and number of the round."""
    return {
        (sample, number): count
        for one in seen
        for sample, number, count in zip(
            *(x.tolist() for x in (one.before.sample_B, one.before.rounds_B, one.n_drafted_B)), strict=True
        )
    }


def test_an_untrained_head_changes_no_answer() -> None:
    """Guards the answers of greedy decoding, rows alone and together, and drafts that end at different places."""
    assert same_for_every_batch(MODELS, drafting(StoppingHead())) == answers()
    seen, _ = rounds(StoppingHead())
    assert len({count for one in seen[1:] for count in one.n_drafted_B.tolist()}) > 2
    assert any(int(one.n_accepted_B.sum()) for one in seen)


def test_a_head_is_shown_the_draft_s_states() -> None:
    """Guards SpecDec++'s input: the state behind the final norm of the token before, by a forward of the draft."""
    head = StoppingHead()
    seen, ledger = rounds(head)
    drafted = {
        (sample, rounds): row
        for one in seen
        for row, (sample, rounds) in enumerate(
            zip(one.before.sample_B.tolist(), one.before.rounds_B.tolist(), strict=True)
        )
    }
    checked = 0
    for shown in head.shown:
        at = shown.sequences
        for number, row in enumerate(shown.row_R.tolist()):
            one = seen[int(at.rounds_B[row])]
            place = drafted[int(at.sample_B[row]), int(at.rounds_B[row])]
            drafts = one.proposal.tokens_BK[place, : shown.step - 1].tolist()
            tokens = [*at.tokens_BL[row, : int(at.length_B[row])].tolist(), *drafts]
            taps = Taps({LAYERS})
            DRAFT.forward(ForwardRequest(torch.tensor([tokens]), part=Part(taps=taps)))
            assert shown.state_RC is not None
            fresh_C = DRAFT.transformer.norm(taps.states[LAYERS])[0, -1]
            torch.testing.assert_close(shown.state_RC[number], fresh_C, rtol=0, atol=1e-9)
            checked += 1
    assert checked == sum(one.nfe_draft for one in ledger.counts(range(len(PROMPTS))))


def test_states_cost_nothing_more() -> None:
    """Guards calls and positions: those of drafts of the same lengths that nobody looks into."""
    seen, ledger = rounds(StoppingHead())
    counts = counted(seen)
    _, blind = rounds(Twin(counts))
    samples = range(len(PROMPTS))
    assert ledger.counts(samples) == blind.counts(samples) and ledger.loads(samples) == blind.loads(samples)
    assert sum(one.nfe_draft for one in ledger.counts(samples)) == sum(counts.values()) > 30


@pytest.mark.parametrize(
    ("drafter", "model", "said"),
    [
        (PromptLookup(), target(), "StoppingHead: decides behind every token, and PromptLookup does not draft one by"),
        (EarlyExit(exit=3), target(), "StoppingHead: reads hidden states of the drafter, and EarlyExit shows none"),
        (
            ModelDrafter(),
            Models(target(), LAW),
            "model=closed_form: runs all of its layers or none, and the draft_length has",
        ),
    ],
)
def test_a_head_without_states_is_refused(drafter: Drafter, model: LanguageModel, said: str) -> None:
    """Guards a line that names the parts, in place of a head that reads nothing."""
    with pytest.raises(ConfigError, match=said):
        run(model, AutoregressiveMethod(acceptor=Greedy(), drafter=drafter, draft_length=StoppingHead()), PROMPTS[:1])
