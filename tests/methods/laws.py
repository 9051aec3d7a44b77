"""The law of a target's answers by enumeration, and how far decoded ones are from it."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import torch
from scipy.stats import chisquare

from harness.engine.shared.generation import Generation
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import next_logits, random_causal

TINY = random_causal(vocabulary=5)
TINY_PROMPT = [3, 1]


@cache
def law_of(acceptor: Rejection, length: int) -> dict[tuple[int, ...], float]:
    """Return the probability of every answer, by full forwards of the target alone."""
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for start, p in law.items():
            p_V = _probabilities(next_logits(TINY, [*TINY_PROMPT, *start]), acceptor)
            longer |= {(*start, token): p * p_V[token] for token in range(5)}
        law = longer
    return law


def _probabilities(logits_V: torch.Tensor, acceptor: Rejection) -> list[float]:
    p_V = (logits_V / acceptor.temperature).softmax(-1)
    if acceptor.top_k:
        p_V = p_V.where(p_V >= p_V.topk(acceptor.top_k).values[-1], 0)
    return (p_V / p_V.sum()).tolist()


def likelihood(made: Sequence[Generation], law: dict[tuple[int, ...], float]) -> float:
    """Return the p-value of answers under their law, rare ones taken together; 0 for one that cannot be."""
    rows, seen = len(made), Counter(one.tokens for one in made)
    if any(not law[answer] for answer in seen):
        return 0.0
    usual = [answer for answer, p in law.items() if p * rows >= 5]
    assert len(usual) > 30, "hardly anything is looked at"
    observed = [*(seen[answer] for answer in usual), rows - sum(seen[answer] for answer in usual)]
    expected = [*(rows * law[answer] for answer in usual), rows - sum(rows * law[answer] for answer in usual)]
    keep = slice(None) if expected[-1] >= 5 else slice(-1)
    total = sum(observed[keep]) / sum(expected[keep])
    return float(chisquare(observed[keep], [total * one for one in expected[keep]]).pvalue)
