"""What is known of drafts: lengths, places and their acceptance, loads of target and draft, whatever the batch."""

import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.drafts import Drafting, Drafts, RoundRecord, add_rounds
from harness.engine.shared.model import Models
from harness.engine.shared.records import Ledger
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.sample import KeyedSample
from methods.autoregressive.speculative import ModelDrafter
from tests.engine.causal import PROMPTS, VOCABULARY, Oracle, alike, continue_greedily, random_causal, run, with_drafts
from tests.engine.trees import Grown, packed

MODEL = random_causal()
ANSWERS = [continue_greedily(MODEL, prompt, 12) for prompt in PROMPTS]


def drafting(method: AutoregressiveMethod, rows: int = 8, *, model=MODEL, length: int = 12) -> list[Drafting | None]:
    """Return what came of the drafts of the first prompts, decoded together."""
    ledger = Ledger()
    run(model, method, PROMPTS[:rows], length, ledger=ledger)
    return ledger.drafting(range(rows))


def test_rounds_are_summed_place_by_place() -> None:
    """Guards the definitions, by hand: sample 4 drafts 3, 2, 0 and keeps 1, 2, 0; a row of -1 reads its prompt."""
    drafts: dict[int, Drafts] = {}
    told = [([4, -1], [3, 0], [2, 0], [1, 0]), ([4, 7], [2, 1], [2, 1], [2, 0]), ([4], [0], [0], [0])]
    for sample, drafted, tried, accepted in told:
        counts = dict(sample_B=sample, drafted_B=drafted, tried_B=tried, accepted_B=accepted)
        tensors = {name: torch.tensor(values) for name, values in counts.items()}
        add_rounds(drafts, [RoundRecord(**tensors, tree=False)])
    assert drafts.keys() == {4, 7}
    assert drafts[4].drafting(query_tokens=6, layer_loads=2.5) == Drafting(
        rounds=3, draft_tokens=5, accepted_draft_tokens=3, accept_lens=[2, 3, 1], tried_at=[2, 2], accepted_at=[2, 1],
        acceptance_rate=0.6, query_tokens_draft=6, layer_loads_draft=2.5,
    )  # fmt: skip
    assert drafts[7].drafting(query_tokens=0, layer_loads=0).acceptance_rate == 0.0
    assert Drafts().drafting(query_tokens=0, layer_loads=0).acceptance_rate is None


def test_a_chain_ends_at_its_first_wrong_draft() -> None:
    """Guards acceptance by place: drafts behind one that falls are not tried, and the last round drafts what fits."""
    (found,) = drafting(with_drafts(Greedy(), Oracle(ANSWERS, wrong_every=3), 4), rows=1)
    # Places 3, 6, 9 of the answer are drafted wrong; the prompt's call gives place 0, and 12 are asked for.
    assert found == Drafting(
        rounds=4, draft_tokens=13, accepted_draft_tokens=7, accept_lens=[3, 3, 3, 2], tried_at=[4, 3, 3],
        accepted_at=[4, 3, 0], acceptance_rate=7 / 13, query_tokens_draft=0, layer_loads_draft=0.0,
    )  # fmt: skip


def test_counts_are_those_before_the_answer_is_cut() -> None:
    """Guards lengths against answers that end inside a draft."""
    stop = ANSWERS[0][2]
    ledger, model = Ledger(), random_causal(stop_ids=(stop,))
    made = run(model, with_drafts(Greedy(), Oracle(ANSWERS), 6), PROMPTS[:1], ledger=ledger)
    end = ANSWERS[0].index(stop) + 1
    (found,) = ledger.drafting([0])
    assert found is not None and len(made[0].tokens) == end
    assert (found.accept_lens, found.draft_tokens) == ([7], 6) and end < 8


def test_a_method_that_drafts_nothing_has_no_drafts() -> None:
    """Guards against zeros that look like drafts that fell; a drafter without luck has them."""
    assert drafting(AutoregressiveMethod(acceptor=Greedy())) == [None] * 8
    assert drafting(AutoregressiveMethod(acceptor=KeyedSample(temperature=1.0))) == [None] * 8
    (found,) = drafting(with_drafts(Greedy(), Oracle(ANSWERS), 0), rows=1)
    assert found is not None and found.accept_lens == [1] * 11
    assert (found.draft_tokens, found.acceptance_rate, found.tried_at) == (0, None, [])


def test_places_of_trees_are_depths() -> None:
    """Guards trees: a place is tried where a child hangs on what stands, and nodes are no steps."""

    class Comb:
        nodes = 5

        def propose(self, model: object, sequences: object, limit_B: object, ledger: object) -> object:
            start = int(sequences.length_B) - len(PROMPTS[1])  # type: ignore[attr-defined]
            one, two, *_ = ANSWERS[1][start:]
            wrong = [(one + 1) % VOCABULARY, (two + 1) % VOCABULARY]
            return packed([[(-1, wrong[0]), (-1, one), (0, two), (1, wrong[1]), (3, two)]])

    ledger = Ledger()
    run(MODEL, with_drafts(Greedy(), Comb(), 3), PROMPTS[1:2], 5, ledger=ledger)  # type: ignore[arg-type]
    (found,) = ledger.drafting([0])
    assert found is not None
    # The first round keeps one of depth 1 and tries one of depth 2, the last one has room for depth 1 alone.
    assert (found.accept_lens, found.tried_at, found.accepted_at) == ([2, 2], [2, 1], [2, 0])
    assert (found.draft_tokens, found.acceptance_rate) == (7, None)


def test_the_batch_changes_nothing() -> None:
    """Guards counts of a row against drafts, trees and ends of its neighbours."""
    models = Models(MODEL, alike(MODEL))
    for model, method in (
        (MODEL, with_drafts(Greedy(), Oracle(ANSWERS, wrong_every=3), 5)),
        (MODEL, with_drafts(Greedy(), Grown(ANSWERS), 20)),
        (MODEL, with_drafts(Greedy(), EarlyExit(exit=1), 3)),
        (models, with_drafts(Greedy(), ModelDrafter(), 3)),
    ):
        together = drafting(method, model=model)
        assert drafting(method, 3, model=model) == together[:3] and drafting(method, 1, model=model) == together[:1]


def test_loads_of_target_and_draft_are_apart() -> None:
    """Guards loads against the number of positions, and parts of a model against the price of the whole."""
    ledger, models = Ledger(), Models(MODEL, alike(random_causal(layers=3)))
    run(models, with_drafts(Greedy(), ModelDrafter(), 3), PROMPTS[:2], 9, ledger=ledger)
    told = (ledger.counts([0, 1]), ledger.loads([0, 1]), ledger.drafting([0, 1]))
    for counts, loads, found in zip(*told, strict=True):
        assert found is not None and counts.nfe == found.rounds + 1
        assert found.layer_loads_draft == 3 * counts.nfe_draft > 0
        assert loads.critical_depth == loads.layer_loads == 2 * counts.nfe + found.layer_loads_draft
        # The target computes the prompt, and in each round the drafts and the last token before them.
        own = counts.prefill_tokens + found.draft_tokens + found.rounds
        assert counts.query_tokens == own + found.query_tokens_draft
