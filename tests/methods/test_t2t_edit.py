"""Token editing: what is edited, and how long a complete block is looked at again."""

import pytest
import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from tests.methods.closed_form import replay
from tests.methods.trained import decode_task

MASK = 5


class Script:
    """A model over six tokens that predicts, call after call, what it is told: (token, probability) per place."""

    def __init__(self, *calls: list[tuple[int, float]]) -> None:
        self.calls = list(calls)
        self.spec = ModelSpec(
            name="script", kind=ModelKind.MASKED_DIFFUSION, vocab_size=6, max_length=64, layers=1, stop_ids=(0,),
            pad_id=0, mask_id=MASK,
        )  # fmt: skip
        self.device = torch.device("cpu")

    def new_store(self, rows: int, slots: int):
        raise TypeError("nothing to store")

    def forward(self, request: ForwardRequest) -> torch.Tensor:
        call, tokens_BT = self.calls.pop(0), request.tokens_BT
        p_TV = torch.full((tokens_BT.shape[1], 6), 0.0, dtype=torch.float64)
        for place, (token, p) in enumerate(call * (tokens_BT.shape[1] // len(call))):
            p_TV[place] = (1 - p) / 4
            p_TV[place, token], p_TV[place, MASK] = p, 0
        return p_TV.log()[request.select_N]


def decoded(model: Script, *overrides: str) -> tuple[list[int], int, int]:
    """Return tokens, calls and generated tokens of a response of two places without a prompt."""
    method = build_method(compose(["method=t2t_edit", "gen_length=2", *overrides]))
    assert isinstance(method, DiffusionMethod)
    ledger = Ledger()
    (made,) = decode(model, method, Canvas.from_prompts([[]], gen_length=2, mask_id=MASK, pad_id=0, seeds=[0]), ledger)
    return list(made.tokens), ledger.counts([0])[0].nfe, made.tokens_generated


def test_a_decided_token_is_replaced_and_the_block_looked_at_until_nothing_changes():
    """Guards edits beside commits, edit-only steps, and that one of them always follows the last commit."""
    first, second = [(1, 0.97), (2, 0.5)], [(3, 0.95), (2, 0.96)]
    assert decoded(Script(first, second, [(3, 0.9), (4, 0.95)], [(3, 0.9), (4, 0.9)])) == ([3, 4], 4, 4)


def test_edit_only_steps_are_limited():
    """Guards against two tokens that replace each other for ever."""
    calls = [[(1, 0.97), (2, 0.97)], *[[(3, 0.95), (2, 0.9)], [(1, 0.95), (2, 0.9)]] * 3]
    assert decoded(Script(*calls), "method.post=3")[:2] == ([3, 2], 4)
    assert decoded(Script(*calls), "method.post=0")[:2] == ([1, 2], 1)


def test_an_unsure_edit_is_none():
    """Guards `more than` of the edit threshold."""
    assert decoded(Script([(1, 0.97), (2, 0.97)], [(3, 0.89), (4, 0.85)]))[:2] == ([1, 2], 2)


def test_without_edits_it_is_the_threshold_decoder():
    """Guards the rest of the method, on a formula and on the trained model."""
    ours, theirs = (
        replay("method=t2t_edit", "method.tau=0.7", "method.tau_edit=1"),
        replay("method=threshold", "method.threshold=0.7"),
    )
    assert (ours.ids, ours.calls, ours.steps) == (theirs.ids, theirs.calls, theirs.steps)
    trained = decode_task("list_shuffle", "method=t2t_edit", "method.tau=0.9", "method.tau_edit=1")
    reference = decode_task("list_shuffle", "method=threshold")
    assert [made.tokens for made in trained.generations] == [made.tokens for made in reference.generations]


def test_small_blocks_may_be_looked_at_for_long():
    """Guards the budget of calls, which is for progress: two blocks of one place, 16 looks at each, all edits."""
    calls = [[(1 + call % 2, 0.97), (3 + call % 2, 0.97)] for call in range(34)]
    assert decoded(Script(*calls), "method.block_length=1") == ([1, 4], 34, 34)


def test_a_repeated_token_is_penalised():
    """Guards the penalty, which is for the token one before, once it is there, and not for the first position."""
    call = [(1, 0.97), (1, 0.97)]
    assert decoded(Script(call, call), "method.tau_edit=0.2")[:2] == ([1, 1], 2)
    assert decoded(Script(call, call, call), "method.tau_edit=0.2", "method.penalty=10")[:2] == ([1, 0], 3)


@pytest.mark.parametrize(("across", "expected"), [("false", [1, 1]), ("true", [1, 0])])
def test_the_penalty_looks_across_a_border_only_if_asked(across: str, expected: list[int]):
    """Guards SGLang's form, which shows the penalty one block: its first position follows no token."""
    knobs = ("method.block_length=1", "method.penalty=10", f"method.penalty_across={across}")
    call = [(1, 0.97)]
    assert decoded(Script(*[call] * 4), "method.tau_edit=0.2", *knobs)[0] == expected


@pytest.mark.parametrize("knob", ["tau_edit=-1", "post=-1", "penalty=-1"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=t2t_edit", f"method.{knob}")
