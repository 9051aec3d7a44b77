"""Combs by hand, and SWIFT with one in the loop: answers, rows, laws and cost."""

from dataclasses import replace

import pytest
import torch

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, FieldError
from methods.autoregressive.comb import Comb
from methods.autoregressive.sample import KeyedSample
from methods.autoregressive.speculative import Rejection
from methods.autoregressive.swift import Swift
from tests.engine.causal import PROMPTS, run, with_drafts
from tests.methods.laws import TINY, TINY_PROMPT, law_of, likelihood
from tests.methods.self_drafts import answers, same_for_every_batch, stores_are_fresh, target
from tests.methods.test_swift import SEARCHING, skipping

RELEASED, SAMPLED = (3, 5, 8, 10), (1, 3, 5, 10)
FIXED = {"threshold": 0.0, "max_opt_iter": 0}


def sequences_of(rows: int) -> Sequences:
    """Return rows that have one token."""
    return Sequences.from_prompts(TINY, [[1]] * rows, gen_length=8, seeds=range(rows), first=0)


def sure_of(*probabilities: float, vocabulary: int = 12) -> torch.Tensor:
    """Return logits of rows that give token 3 a probability, and the others falling ones from the last token down."""
    rest = torch.arange(1.0, vocabulary).double()
    p_RV = torch.stack([(1 - p) * rest / rest.sum() for p in probabilities])
    own_R1 = torch.tensor(probabilities, dtype=torch.float64)[:, None]
    return torch.cat([p_RV[:, :3], own_R1, p_RV[:, 3:]], 1).log()


def grown(comb: Comb, logits_RV: torch.Tensor, rows: list[int], of: int) -> list[bool]:
    """Have a comb see token 3 drafted for some rows; return which may go on."""
    row_R, token_R = torch.tensor(rows), torch.full((len(rows),), 3)
    drafted = Drafted(step=1, row_R=row_R, token_R=token_R, logits_RV=logits_RV, sequences=sequences_of(of))
    return comb.grow(drafted).tolist()


def chain(tokens: list[list[int]]) -> Proposal:
    """Return a chain for each row."""
    width = max(map(len, tokens))
    filled = torch.tensor([[*row, *[0] * (width - len(row))] for row in tokens])
    return Proposal(tokens_BK=filled, count_B=torch.tensor([len(row) for row in tokens]))


def test_a_place_has_candidates_by_how_sure_its_token_is() -> None:
    """Guards the levels, and that the chain's token is the first."""
    comb, probabilities = Comb(candidates=RELEASED, nodes=99), (0.96, 0.94, 0.81, 0.79, 0.51, 0.49, 0.2)
    grown(comb, sure_of(*probabilities), [*range(7)], 7)
    made = comb.around(chain([[3]] * 7), sequences_of(7))
    assert made.count_B.tolist() == [3, 5, 5, 8, 8, 10, 10]
    assert made.tokens_BK[0, :3].tolist() == [3, 11, 10]
    assert made.tokens_BK[-1].tolist() == [3, 11, 10, 9, 8, 7, 6, 5, 4, 2]
    assert made.parent_BK is not None and bool((made.parent_BK[0, :3] == -1).all())


def test_a_level_is_not_reached_by_itself() -> None:
    """Guards the bound, by a probability that no machine rounds: two tokens are as likely, and all others cannot be."""
    comb, even_1V = Comb(candidates=RELEASED, nodes=99), torch.full((1, 12), -1e4, dtype=torch.float64)
    even_1V[:, [3, 11]] = 0.0
    grown(comb, even_1V, [0], 1)
    assert comb.around(chain([[3]]), sequences_of(1)).count_B.tolist() == [10]


def test_leaves_hang_where_the_chain_does() -> None:
    """Guards parents over places, rows of several lengths, and equal candidates, of which the lower id is first."""
    comb = Comb(candidates=(2, 3, 3, 3), nodes=99)
    even_2V = sure_of(0.99, 0.9)
    even_2V[:, [10, 11]] = even_2V[:, 10:11]
    assert grown(comb, even_2V, [0, 2], 3) == [True, True]
    assert grown(comb, sure_of(0.99), [2], 3) == [True]
    made = comb.around(chain([[3], [], [3, 3]]), sequences_of(3))
    assert made.count_B.tolist() == [2, 0, 5] and made.parent_BK is not None
    rows = [[*zip(p, t, strict=True)] for p, t in zip(made.parent_BK.tolist(), made.tokens_BK.tolist(), strict=True)]
    assert rows[0][:2] == [(-1, 3), (-1, 10)]
    assert rows[2] == [(-1, 3), (-1, 10), (-1, 11), (0, 3), (0, 11)]


def test_drafting_ends_where_another_place_may_not_fit() -> None:
    """Guards the budget: what has been taken, and as much as a place may have."""
    for nodes, goes_on in ((13, True), (12, False)):
        assert grown(Comb(candidates=RELEASED, nodes=nodes), sure_of(0.99), [0], 1) == [goes_on]
    made = run(target(), skipping(9, tree=RELEASED, tree_nodes=25, **FIXED), PROMPTS)
    assert [one.tokens for one in made] == answers()


def test_no_more_candidates_than_tokens_that_can_be() -> None:
    """Guards a small vocabulary, tokens without probability, and draws of all that there are."""
    logits_RV = torch.tensor([[-torch.inf, 0.0, -torch.inf, 9.0, 1.0]])
    comb = Comb(candidates=RELEASED, nodes=99)
    grown(comb, logits_RV, [0], 1)
    assert comb.around(chain([[3]]), sequences_of(1)).tokens_BK.tolist() == [[3, 4, 1]]
    drawn = replace(chain([[3]]), probabilities_BKV=logits_RV.softmax(-1)[:, None])
    assert sorted(comb.around(drawn, sequences_of(1)).tokens_BK[0].tolist()) == [1, 3, 4]


def test_draws_are_made_without_those_before_them() -> None:
    """Guards the law of the second candidate given the first, by counting, and that no two are the same."""
    rows, law_V = 4000, torch.tensor([0.5, 0.3, 0.15, 0.05]).double()
    comb, first_R = Comb(candidates=(2, 2, 2, 2), nodes=99), torch.zeros(rows, dtype=torch.int64)
    sequences = sequences_of(rows)
    logits_RV = law_V.log().expand(rows, -1)
    comb.grow(Drafted(step=1, row_R=torch.arange(rows), token_R=first_R, logits_RV=logits_RV, sequences=sequences))
    drafted = Proposal(tokens_BK=first_R[:, None], count_B=first_R + 1, probabilities_BKV=law_V.expand(rows, 1, -1))
    second = comb.around(drafted, sequences).tokens_BK[:, 1].bincount(minlength=4) / rows
    torch.testing.assert_close(second, torch.tensor([0, 0.6, 0.3, 0.1]), atol=0.03, rtol=0)


@pytest.mark.parametrize("knobs", [SEARCHING, FIXED, {"threshold": 0.3, "max_opt_iter": 0}], ids=str)
@pytest.mark.parametrize("tree", [RELEASED, (1, 2, 2, 3)])
def test_no_tree_changes_a_token(knobs: dict, tree: tuple[int, ...]) -> None:
    """Guards losslessness of trees, also while the set changes, whatever the batch."""
    assert same_for_every_batch(target(), skipping(4, tree=tree, **knobs)) == answers()


def test_a_tree_of_one_candidate_is_the_chain() -> None:
    """Guards the special case: the same rounds and counts, greedy and drawn."""
    for temperature in (0.0, 0.7):
        plain, comb = (skipping(4, temperature, r=0.5, tree=tree, **SEARCHING) for tree in ((), (1, 1, 1, 1)))
        seen = []
        for method in (plain, comb):
            ledger = Ledger()
            made = run(target(), method, PROMPTS, ledger=ledger)
            seen.append(([(one.tokens, one.decided_at) for one in made], ledger.counts(range(len(PROMPTS)))))
        assert seen[0] == seen[1]


def test_a_sample_does_not_depend_on_the_batch() -> None:
    """Guards random numbers of siblings."""
    assert same_for_every_batch(target(), skipping(3, 0.7, tree=SAMPLED, **SEARCHING)) != answers()


def test_drafts_stand_by_the_keyed_exact_match_too() -> None:
    """Guards trees under an acceptor that looks at no law: what plain sampling says."""
    acceptor = KeyedSample(temperature=0.7)
    method = with_drafts(acceptor, Swift(temperature=0.7, tree=RELEASED, **FIXED), 4)
    plain = same_for_every_batch(target(), AutoregressiveMethod(acceptor=acceptor))
    assert same_for_every_batch(target(), method) == plain


@pytest.mark.parametrize("tree", [SAMPLED, pytest.param(RELEASED, marks=pytest.mark.slow)])
def test_answers_have_the_law_of_the_target(tree: tuple[int, ...]) -> None:
    """Guards siblings without replacement, whose number hangs on the chain's token: the joint law of four tokens."""
    acceptor, rows, paths = Rejection(temperature=0.8), 8000, list[bool]()
    drafter = Swift(temperature=0.8, tree=tree, threshold=0.2, max_opt_iter=0, attention=(), r=0.0)
    model = TINY

    def watch(completed: Round) -> None:
        path_BD, tree = completed.verdict.path_BD, completed.proposal.tree
        if path_BD is not None and tree is not None:
            paths.append(bool((path_BD != torch.arange(path_BD.shape[1])).any()))

    made = run(
        model, with_drafts(acceptor, _Other(drafter), 3), [TINY_PROMPT] * rows, 4, seeds=range(rows), observers=[watch]
    )
    assert any(paths), "no sibling stood"
    assert likelihood(made, law_of(acceptor, 4)) > 1e-3


class _Other:
    """A comb around drafts whose laws are not the target's, as of a part of it: logits by half as large."""

    def __init__(self, drafter: Swift) -> None:
        self.drafter, self.nodes = drafter, drafter.nodes

    def propose(self, model: object, *arguments: object) -> Proposal:
        return self.drafter.propose(_Flat(model), *arguments)  # type: ignore[arg-type]


class _Flat:
    """A model whose logits are half as large."""

    def __init__(self, model: object) -> None:
        self.model = model

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def forward(self, request: object) -> torch.Tensor:
        return self.model.forward(request) / 2  # type: ignore[attr-defined]


def test_keys_and_values_behind_a_round_are_those_of_a_fresh_forward() -> None:
    """Guards slots of the path that holds, and of leaves, and tries over committed tokens."""
    assert stores_are_fresh(target(), skipping(r=0.3, tree=RELEASED, **SEARCHING)) > 3


def test_candidates_save_rounds() -> None:
    """Guards that leaves are tried at all: the same chains, fewer calls of the target."""
    calls = []
    for tree in ((), RELEASED):
        ledger = Ledger()
        run(target(), skipping(4, r=0.5, tree=tree, **FIXED), PROMPTS, 16, ledger=ledger)
        calls.append(sum(counts.nfe for counts in ledger.counts(range(len(PROMPTS)))))
    assert calls[1] < calls[0]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tree": (3, 5)}, r"tree=\[3, 5\]: must be empty, a chain, or numbers of at least 1, for tokens above 0.95"),
        ({"tree": (3, 5, 8, 0)}, r"tree=\[3, 5, 8, 0\]: must be empty, a chain"),
        ({"tree": RELEASED, "tree_nodes": 9}, r"tree=\[3, 5, 8, 10\]: must have at most 9 candidates, as many as"),
    ],
)
def test_a_tree_that_cannot_be_is_refused(knobs: dict, message: str) -> None:
    """Guards bad input, in one line."""
    with pytest.raises(FieldError, match=message):
        Swift(**knobs)


def test_a_tree_wider_than_its_budget_is_refused_before_a_model_loads() -> None:
    """Guards the option's way from a command."""
    asked = ["model=tiny_ar", "method=swift", "method.bayes_interval=0", "method.tree=[3,5,8,10]"]
    fit_decoding(compose(asked), build.Builder())
    with pytest.raises(ConfigError, match=r"^method\.tree=\[3,5,8,10\]: must have at most 4 candidates"):
        fit_decoding(compose([*asked, "method.tree_nodes=4"]), build.Builder())
