"""Every lossless drafter where a prompt has several rows, in one call or a call each: what it says of each is the same.

At temperature 0 all rows of a sample say what greedy decoding does.
"""

from functools import cache

import pytest

from harness.engine.shared.generation import Generation
from harness.engine.shared.records import Counts, Ledger
from tests.engine.causal import run
from tests.methods.lossless import METHODS, loaded, parted
from tests.methods.trained import prompts_of

PROMPTS = [
    *prompts_of("list_sort", "model=tiny_ar", samples=2),
    *prompts_of("list_repeat_list", "model=tiny_ar", samples=2),
]
ROWS, LENGTH = 3, 16


@cache
def forked(name: str, *, synchronous: bool) -> tuple[list[Generation], list[Counts]]:
    """Return what a method says with three rows per prompt, all of which are waited for, and what it counts."""
    words = f"method/branching=samples method.branching.N={ROWS} method.branching.k=0"
    words += f" method.branching.synchronous={str(synchronous).lower()}"
    ledger = Ledger()
    made = run(*loaded((*METHODS[name], *words.split()), "float64"), PROMPTS, ledger=ledger, gen_length=LENGTH)
    return made, ledger.counts(range(len(PROMPTS)))


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_every_row_says_what_greedy_decoding_does(name: str, synchronous: bool):
    """Guards states and trees of rows that fork, and of calls that compute some of the rows only."""
    model, greedy = loaded((*METHODS[name][:1], "method=ar_greedy"), "float64")
    plain = run(model, greedy, PROMPTS, gen_length=LENGTH)
    made, _ = forked(name, synchronous=synchronous)
    for number in range(ROWS):
        rows = [[one, *one.others][number] for one in made]
        assert not parted(model, PROMPTS, plain, rows), (number, plain, rows)


@pytest.mark.parametrize("name", METHODS)
def test_calls_of_their_own_are_the_same_work(name: str):
    """Guards drafts that have passed some layers already, which no call computes again."""
    (_, together), (_, apart) = (forked(name, synchronous=synchronous) for synchronous in (True, False))
    for one, other in zip(together, apart, strict=True):
        work = [(each.query_tokens, each.layer_tokens, each.head_tokens) for each in (one, other)]
        assert work[0] == work[1]
