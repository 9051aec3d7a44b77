"""Trees of drafts against plain decoding, chains, closed forms and fresh forwards."""

from dataclasses import dataclass, replace

import pytest
import torch

from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.loop import evaluate
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.trees import Tree
from harness.engine.shared.model import ForwardRequest, LanguageModel
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError
from harness.models.key_values import KeyValueStore
from harness.runs.trace import RoundTrace, Work
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.sample import KeyedSample
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import (
    PROMPTS,
    VOCABULARY,
    Oracle,
    continue_greedily,
    drafters,
    next_logits,
    random_causal,
    run,
    with_drafts,
)
from tests.engine.trees import Empty, Grown, packed

MODEL = random_causal()
ANSWERS = [continue_greedily(MODEL, prompt, 12) for prompt in PROMPTS]
TREES = {
    "oracle": Grown(ANSWERS, noise=False),
    "random": Grown(ANSWERS),
    "adversary": Grown(ANSWERS, right=False),
    "empty": Empty(),
}


def test_a_tree_knows_depths_and_paths() -> None:
    """Guards what a node sees, by hand: two branches, one forked, and padding."""
    tree = Tree.of(torch.tensor([[-1, 0, 0, -1, 3], [-1, -1, 0, 0, 0]]), torch.tensor([5, 3]))
    assert tree.depth_BK.tolist() == [[1, 2, 2, 1, 2], [1, 1, 2, 0, 0]]
    seen = [[[j for j in range(5) if tree.sees_BKK[b, i, j]] for i in range(5)] for b in range(2)]
    assert seen == [[[0], [0, 1], [0, 2], [3], [3, 4]], [[0], [1], [0, 2], [3], [4]]]


@pytest.mark.parametrize("parents", [[[1, -1]], [[0]], [[-2]]])
def test_a_tree_has_parents_before_children(parents: list) -> None:
    """Guards against a node that hangs on one behind it, on itself, or on nothing."""
    with pytest.raises(AssertionError, match="hangs on"):
        Tree.of(torch.tensor(parents), torch.tensor([len(parents[0])]))


def test_a_tree_is_cut_by_depth() -> None:
    """Guards room at the end of an answer: nodes too deep fall with all below them, parents move with the others."""
    made = packed([[(-1, 5), (0, 6), (1, 7), (-1, 8), (3, 9)], [(-1, 4)]]).clip(torch.tensor([1, 3]))
    assert (made.tokens_BK.tolist(), made.count_B.tolist()) == ([[5, 8], [4, 0]], [2, 1])
    assert made.parent_BK is not None and made.parent_BK[0].tolist() == [-1, -1]
    beside = packed([[(-1, 5), (0, 6), (-1, 7), (2, 8), (1, 9)]], beside=[3]).clip(torch.tensor([1]), torch.tensor([2]))
    assert (beside.tokens_BK.tolist(), beside.count_B.tolist()) == ([[5, 7, 8]], [1])
    assert beside.parent_BK is not None and beside.beside_B is not None
    assert (beside.parent_BK.tolist(), beside.beside_B.tolist()) == ([[-1, -1, 1]], [2])
    nothing = packed([[(-1, 5)]]).clip(torch.tensor([0]))
    assert nothing.parent_BK is None and nothing.tokens_BK.shape == (1, 0)


def test_of_branches_that_begin_alike_the_longest_stands() -> None:
    """Guards branches drafted apart: the first of equal siblings need not be the one that goes on."""

    class Alike:
        nodes = 5

        def propose(self, model: object, sequences: Sequences, limit_B: object, ledger: object) -> Proposal:
            start = int(sequences.length_B) - len(PROMPTS[1])
            one, two, three, *_ = ANSWERS[1][start:]
            return packed([[(-1, one), (0, (two + 1) % VOCABULARY), (-1, one), (2, two), (3, three)]])

    seen: list[int] = []
    method = with_drafts(Greedy(), Alike(), 3)
    run(MODEL, method, PROMPTS[1:2], 5, observers=[lambda completed: seen.append(int(completed.n_accepted_B))])
    assert seen == [0, 3]


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("name", TREES)
def test_a_tree_changes_no_token(name: str, rows: int) -> None:
    """Guards mask, positions, and keys of the path that stands, in rows whose trees differ in size."""
    made = run(MODEL, with_drafts(Greedy(), TREES[name], 20), PROMPTS[:rows])
    assert [one.tokens for one in made] == ANSWERS[:rows]


@pytest.mark.parametrize("name", TREES)
def test_a_stop_token_in_a_path_ends_the_answer(name: str) -> None:
    """Guards keys and tokens behind a stop token that a path holds."""
    stop = ANSWERS[2][5]
    expected = [a[: a.index(stop) + 1] if stop in a else a for a in ANSWERS]
    made = run(random_causal(stop_ids=(stop,)), with_drafts(Greedy(), TREES[name], 20), PROMPTS)
    assert [one.tokens for one in made] == expected


@pytest.mark.parametrize("name", ["oracle", "random"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_under_keyed_acceptance_a_sample_is_that_of_plain_sampling(name: str, temperature: float) -> None:
    """Guards the random number of a node: that of its position, whatever the branch."""
    acceptor = KeyedSample(temperature=temperature)
    plain = run(MODEL, AutoregressiveMethod(acceptor=acceptor), PROMPTS)
    answers = [one.tokens for one in plain]
    made = run(MODEL, with_drafts(acceptor, replace(TREES[name], answers=answers), 20), PROMPTS)
    assert [one.tokens for one in made] == answers
    assert max(max(one.decided_at) for one in made) < 11


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_row_does_not_depend_on_the_others(rows: int) -> None:
    """Guards wider trees of neighbours: tokens, rounds, counts, margins."""
    together, alone = [], []
    for parts, into in (([range(rows)], together), ([[row] for row in range(rows)], alone)):
        for part in parts:
            ledger = Ledger()
            drafter = replace(TREES["random"], answers=[ANSWERS[row] for row in part])
            method = with_drafts(Rejection(temperature=1.0), _Seeded(drafter), 20)
            made = run(MODEL, method, [PROMPTS[row] for row in part], seeds=[100 + r for r in part], ledger=ledger)
            counts = ledger.counts(range(len(part)))
            into += [(m.tokens, m.decided_at, m.tokens_generated, c) for m, c in zip(made, counts, strict=True)]
    assert together == alone


@dataclass(frozen=True)
class _Seeded:
    """Draft as another does for the sample of the row's seed, so that a row's trees are its own in any batch."""

    inner: Grown

    @property
    def nodes(self) -> int:
        return self.inner.nodes

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: torch.Tensor, ledger: Ledger) -> Proposal:
        drafter = replace(self.inner, answers={row: ANSWERS[row] for row in range(8)})
        return drafter.propose(model, replace(sequences, sample_B=sequences.seed_B - 100), limit_B, ledger)


@pytest.mark.parametrize("name", ["oracle", "random", "adversary"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_store_is_that_of_a_fresh_forward_after_each_round(name: str, temperature: float) -> None:
    """Guards the path moved into place: every layer's keys and values, and the logits that follow."""
    checked: list[int] = []

    def check(completed: Round) -> None:
        after = completed.after
        assert isinstance(after.store, KeyValueStore)
        for row, end in enumerate(after.computed_B.tolist()):
            fresh = MODEL.new_store(1, after.store.slots)
            places, tokens_BT = torch.arange(end)[None], after.tokens_BL[row : row + 1, :end]
            MODEL.forward(ForwardRequest(tokens_BT, positions_BT=places, kv=fresh, end=end))
            pairs = zip([*after.store.keys, *after.store.values], [*fresh.keys, *fresh.values], strict=True)
            for kept, again in pairs:
                torch.testing.assert_close(kept[row, :end], again[0, :end], rtol=0, atol=1e-10)
        if bool((after.length_B < after.limit_B).all()):
            logits_BV = evaluate(MODEL, after, Proposal.empty(after), Ledger()).logits_NV
            for row, length in enumerate(after.length_B.tolist()):
                fresh_V = next_logits(MODEL, after.tokens_BL[row, :length].tolist())
                torch.testing.assert_close(logits_BV[row], fresh_V, rtol=0, atol=1e-10)
        checked.append(int(completed.n_accepted_B.sum()))

    run(MODEL, with_drafts(Rejection(temperature=temperature), TREES[name], 20), PROMPTS, observers=[check])
    assert len(checked) >= 2 and (name == "adversary" or any(checked[1:]))


@dataclass(frozen=True)
class _AsTree:
    """Draft another's chain as a tree."""

    inner: object
    nodes: int = 12

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: torch.Tensor, ledger: Ledger) -> Proposal:
        chain = self.inner.propose(model, sequences, limit_B, ledger).clip(limit_B)  # type: ignore[attr-defined]
        parent_K = torch.arange(chain.tokens_BK.shape[1]) - 1
        return replace(chain, parent_BK=parent_K.expand_as(chain.tokens_BK))


@pytest.mark.parametrize("name", ["oracle", "half", "adversary"])
@pytest.mark.parametrize("acceptor", [Greedy(), KeyedSample(), Rejection(temperature=1.0)])
def test_a_chain_is_a_tree(name: str, acceptor: object) -> None:
    """Guards the two ways of the same proposal: answers, rounds, counts and margins are equal."""
    seen = []
    for wrapped in (drafters(ANSWERS)[name], _AsTree(drafters(ANSWERS)[name])):
        ledger = Ledger(traced=True)
        made = run(MODEL, with_drafts(acceptor, wrapped), PROMPTS, ledger=ledger)
        keys = [record.keys_B.tolist() for record in ledger.records]
        rows = [(one.tokens, one.decided_at, one.tokens_generated) for one in made]
        margins = torch.tensor([torch.inf if one.token_margin is None else one.token_margin for one in made])
        seen.append((rows, ledger.counts(range(8)), keys, margins))
    assert seen[0][:3] == seen[1][:3]
    torch.testing.assert_close(seen[0][3], seen[1][3], rtol=1e-9, atol=0)


def test_a_tree_costs_one_call_and_a_position_per_node() -> None:
    """Guards the counters: query positions, logits, the keys that nodes see, drafts; the padding of smaller trees."""

    @dataclass(frozen=True)
    class Once:
        nodes: int = 4

        def propose(self, model: object, sequences: Sequences, limit_B: object, ledger: object) -> Proposal:
            if int(sequences.length_B.sum()) > len(PROMPTS[0]) + len(PROMPTS[1]) + 2:
                return Proposal.empty(sequences)
            return packed([[(-1, 0), (0, 0), (-1, 1), (2, 1)], [(-1, 0)]], beside=[2, 0])

    ledger = Ledger()
    made = run(MODEL, with_drafts(Greedy(), Once(), 2), PROMPTS[:2], 4, ledger=ledger)
    prefill, verify, *_ = ledger.records
    assert (prefill.role, verify.role, verify.width) == (Role.PREFILL, Role.VERIFY, 5)
    assert (verify.query_B.tolist(), verify.head_B.tolist()) == ([5, 2], [5, 2])
    before = len(PROMPTS[0]) + 1
    keys = [(before + 2 * (before + 1) + 2 * (before + 2)) / 5, len(PROMPTS[1]) + 1.5]
    assert verify.keys_B.tolist() == pytest.approx(keys)
    assert ledger.padded([0, 1])[1] >= 3
    # Two drafts, and a token of the model in each round: what stands beside drafts is none.
    assert made[0].tokens_generated == 2 + sum(0 in record.sample_B.tolist() for record in ledger.records)


def test_the_trace_tells_of_the_path_that_stands() -> None:
    """Guards entropies read from a wrong branch, and the places of drafts that share them."""
    for drafter in (TREES["random"], Oracle(ANSWERS)):
        ledger = Ledger(traced=True)
        trace = RoundTrace(Work(ledger))
        run(MODEL, with_drafts(Greedy(), drafter), PROMPTS[:2], ledger=ledger, observers=[trace])
        assert {row["sample"] for row in trace.rows} == {0, 1}
        for row in trace.rows:
            sample, places, n = row["sample"], row["positions"], row["n_accepted"]
            assert isinstance(places, list) and isinstance(n, int) and isinstance(row["drafted"], list)
            for place, entropy in zip(places, row["entropy"], strict=True):  # type: ignore[arg-type]
                law_V = next_logits(MODEL, [*PROMPTS[sample], *ANSWERS[sample][:place]]).softmax(-1)  # type: ignore[index]
                assert entropy == pytest.approx(float(torch.special.entr(law_V).sum()), abs=1e-5)
            assert row["drafted"][:n] == places[:n] and len(row["drafted"]) == row["n_drafted"]


def test_a_tree_wider_than_its_budget_is_refused() -> None:
    """The message names key and value."""

    class Wide:
        nodes = 3

        def propose(self, model: object, sequences: Sequences, limit_B: object, ledger: object) -> Proposal:
            return packed([[(-1, 1), (0, 1), (1, 1), (-1, 2)]])

    with pytest.raises(ConfigError, match=r"Wide\.nodes=3: a tree of 4 tokens is wider than that; draft fewer"):
        run(MODEL, with_drafts(Greedy(), Wide()), PROMPTS[:1])


def test_a_model_whose_keys_stand_in_order_takes_no_tree() -> None:
    """Guards encoder-decoders and their kin: one line, not a wrong answer."""

    class InOrder:
        slots = 40

    class Ordered(type(MODEL)):  # type: ignore[misc]
        def new_store(self, rows: int, slots: int) -> object:
            return InOrder()

        def forward(self, request: object) -> torch.Tensor:
            return torch.zeros(1, self.spec.vocab_size)

    with pytest.raises(ConfigError, match=r"model=random: keeps its keys and values in order, and Grown drafts trees"):
        run(Ordered(MODEL.transformer, MODEL.spec), with_drafts(Greedy(), TREES["random"]), PROMPTS[:1])
