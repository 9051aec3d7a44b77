"""Rejection down a tree: the law of the target by each way of drawing siblings, under any tree."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.prediction import Prediction
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import run, with_drafts
from tests.engine.trees import Drawn, Siblings
from tests.methods.laws import TINY, TINY_PROMPT, law_of, likelihood

ROWS = 8_000
SHAPES = {
    "siblings": (-1, -1, -1),
    "fork": (-1, 0, -1, 0, 2, 2),
    "mixed": (-1, -1, 0, 2, 1, 2, 1),
}
LAWS_VV = torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).mul(1.5).softmax(1)


@pytest.mark.parametrize("rule", Siblings)
@pytest.mark.parametrize(
    ("shape", "top_k"),
    [("mixed", 0), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("siblings", 0), ("fork", 3)))],
)
def test_answers_have_the_law_of_the_target(rule: Siblings, shape: str, top_k: int) -> None:
    """Guards the three sibling rules: joint law of four tokens over several rounds against its enumeration."""
    acceptor, stand = Rejection(temperature=1.0, top_k=top_k), list[int]()
    method = with_drafts(acceptor, Drawn(LAWS_VV, SHAPES[shape], rule))
    made = run(
        TINY, method, [TINY_PROMPT] * ROWS, 4, seeds=range(ROWS),
        observers=[lambda completed: stand.append(int(completed.n_accepted_B.sum()))],
    )  # fmt: skip
    assert ROWS / 20 < sum(stand) < 3 * ROWS
    assert likelihood(made, law_of(acceptor, 4)) > 1e-3


@pytest.mark.parametrize(("drawn", "told"), [pair for pair in product(Siblings, repeat=2) if pair[0] is not pair[1]])
def test_the_law_would_show_a_rule_that_is_not_that_of_the_draws(drawn: Siblings, told: Siblings) -> None:
    """Guards the test above against being too weak: each rule with the draws of another has another law.

    Not the rule of certain siblings, which asks nothing of how they came about.
    """

    class Told(Drawn):
        def propose(self, *arguments: object) -> Proposal:
            made = super().propose(*arguments)  # type: ignore[arg-type]
            law_BKV = self.laws_VV.mean(0).expand(*made.tokens_BK.shape, -1)
            certain = told is Siblings.CERTAIN
            q_BKV = None if certain else made.probabilities_BKV if made.probabilities_BKV is not None else law_BKV
            return replace(made, probabilities_BKV=q_BKV, independent=told is Siblings.INDEPENDENT)

    acceptor = Rejection(temperature=1.0)
    method = with_drafts(acceptor, Told(LAWS_VV, SHAPES["siblings"], drawn))
    made = run(TINY, method, [TINY_PROMPT] * ROWS, 4, seeds=range(ROWS))
    exact = told is Siblings.CERTAIN
    assert (likelihood(made, law_of(acceptor, 4)) > 1e-3) == exact


def test_a_sibling_that_always_stands_is_told() -> None:
    """Guards the test of laws once more: the first child taken without a look has another law."""

    class Gullible(Rejection):
        def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
            said = super().__call__(prediction, proposal, sequences)
            if proposal.tree is None:
                return said
            return replace(said, accepted_B=torch.ones_like(said.accepted_B), path_BD=said.path_BD * 0)  # type: ignore[operator]

    acceptor = Gullible(temperature=1.0)
    method = with_drafts(acceptor, Drawn(LAWS_VV, SHAPES["siblings"], Siblings.INDEPENDENT))
    made = run(TINY, method, [TINY_PROMPT] * ROWS, 4, seeds=range(ROWS))
    assert likelihood(made, law_of(acceptor, 4)) < 1e-6
