"""LoPA: which branches there are, and which one goes on."""

import pytest

from harness.engine.canvas import Canvas
from harness.engine.diffusion import decode
from harness.engine.policies import DiffusionMethod
from harness.engine.records import Ledger
from harness.errors import ConfigError
from harness.runs.build import build_method
from harness.runs.config import compose
from tests.methods.closed_form import replay
from tests.methods.test_t2t_edit import MASK, Script
from tests.methods.trained import decode_task


class Branches(Script):
    """A script whose calls give one row of predictions per branch."""

    def forward(self, tokens_BT, *, select_N, **arguments):
        self.seen.append(tokens_BT.tolist())
        rows = self.calls.pop(0)
        self.calls.insert(0, [entry for row in rows for entry in row])
        return super().forward(tokens_BT, select_N=select_N, **arguments)

    def __init__(self, *calls) -> None:
        super().__init__(*calls)
        self.seen: list = []


def decoded(model: Branches, *overrides: str) -> tuple[list[int], list[int], int, int]:
    """Return tokens, steps, calls and rows of a response of three places without a prompt."""
    method = build_method(compose(["method=lopa", "gen_length=3", *overrides]))
    assert isinstance(method, DiffusionMethod)
    ledger = Ledger()
    (made,) = decode(model, method, Canvas.from_prompts([[]], gen_length=3, mask_id=MASK, pad_id=0, seeds=[0]), ledger)
    counts = ledger.counts([0])[0]
    return list(made.tokens), list(made.decided_at), counts.nfe, counts.nfe_total


FIRST = [[(1, 0.95), (2, 0.5), (3, 0.6)]]


def test_the_most_confident_branch_goes_on():
    """Guards the extra commit (the best open position), its step, and the score by what is still open."""
    base, branch = [(1, 0.9), (4, 0.6), (4, 0.6)], [(1, 0.9), (4, 0.95), (3, 0.9)]
    model = Branches(FIRST, [base, branch])
    assert decoded(model, "method.k=2") == ([1, 4, 3], [0, 1, 0], 2, 3)
    assert model.seen[1] == [[1, MASK, MASK], [1, MASK, 3]]


def test_the_base_branch_competes_and_wins_ties():
    """Guards against a branch that goes on for being there."""
    base, branch = [(1, 0.9), (4, 0.95), (2, 0.95)], [(1, 0.9), (4, 0.95), (3, 0.9)]
    assert decoded(Branches(FIRST, [base, branch]), "method.k=2")[:2] == ([1, 4, 2], [0, 1, 1])


def test_a_branch_leaves_something_open():
    """Guards the end of a window: with one position left there is nothing to look ahead to."""
    model = Branches([[(1, 0.95), (2, 0.95), (3, 0.6)]], [[(1, 0.9), (2, 0.9), (3, 0.6)]])
    assert decoded(model) == ([1, 2, 3], [0, 0, 1], 2, 2)


def test_one_branch_is_the_base_method():
    """Guards the wrapper, on a formula and on the trained model."""
    ours = replay("method=lopa", "method.k=1", "method.tau=0.7")
    theirs = replay("method=threshold", "method.threshold=0.7")
    assert (ours.ids, ours.calls, ours.steps) == (theirs.ids, theirs.calls, theirs.steps)
    trained, reference = (
        decode_task("list_shuffle", "method=lopa", "method.k=1"),
        decode_task("list_shuffle", "method=threshold"),
    )
    assert [one.tokens for one in trained.generations] == [one.tokens for one in reference.generations]


def test_branches_save_rounds_and_cost_rows():
    """Guards depth and total on the trained model, where every round commits one position more."""
    branched, alone = (
        decode_task("list_shuffle", method, "method.block_length=16") for method in ("method=lopa", "method=threshold")
    )
    for ours, theirs in zip(branched.counts, alone.counts, strict=True):
        assert ours.nfe <= theirs.nfe
        assert ours.nfe <= ours.nfe_total <= 3 * ours.nfe


@pytest.mark.parametrize("knob", ["k=0", "branch_topp=0"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=lopa", f"method.{knob}")
