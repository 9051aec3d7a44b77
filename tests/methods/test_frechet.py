"""The Fréchet profile on the published row, and its relation to the factor rule."""

from dataclasses import dataclass, replace

import pytest

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.prediction import Candidates, Prediction
from methods.diffusion.fast_dllm import Factor
from methods.diffusion.frechet import Frechet
from methods.diffusion.llada import Confidence
from tests.caches.decoding import decode_with, models
from tests.methods.closed_form import PROFILE, chosen, replay
from tests.methods.trained import decode_task

EXPECTED = {0.5: [0, 2, 5, 8, 11], 0.25: [0, 1, 2, 5, 8, 11], 0.0: [0, 1, 2, 5, 7, 8, 11]}


@pytest.mark.parametrize("delta", EXPECTED)
def test_the_profile_row(delta: float):
    """Guards the gap: sum of confidences, less n - 1, less the doubt about the last."""
    assert chosen(Frechet(delta=delta), PROFILE) == EXPECTED[delta]


@pytest.mark.parametrize("delta", [0.0, 0.25, 0.45])
@pytest.mark.parametrize("doubt", [0.3, 0.11, 0.04])
def test_equal_confidences_are_the_factor_rule(delta: float, doubt: float):
    """Guards the published equivalence; the factor rule takes the first position for free, here the loop does."""
    row = [1 - doubt] * 12
    assert (chosen(Frechet(delta=delta), row) or [0]) == chosen(Factor(factor=1 - delta), row)


@dataclass(frozen=True)
class EquallySure:
    """Predict as ever, and say the same of every position."""

    confidence: float

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        made = Confidence()(prediction, canvas)
        same_BL = made.confidence_BL.isfinite() * self.confidence
        return replace(made, score_BL=same_BL, confidence_BL=same_BL)


@pytest.mark.parametrize(("delta", "doubt", "calls"), [(0.25, 0.11, 4), (0.0, 0.3, 8), (0.25, 0.5, 16)])
def test_equal_confidences_are_the_factor_rule_on_models(delta: float, doubt: float, calls: int):
    """Guards the same equivalence in decodings, on random and trained weights."""
    frechet = build_method(compose(["method=frechet", "gen_length=16", f"method.delta={delta}"]))
    assert isinstance(frechet, DiffusionMethod)
    mine = replace(frechet, scorer=EquallySure(1 - doubt))
    for model, prompts in models():
        made, expected = (
            decode_with(method, model, prompts[:2])
            for method in (mine, replace(mine, selector=Factor(factor=1 - delta)))
        )
        assert made.decided == expected.decided
        assert {counts.nfe for counts in made.counts} == {calls}


def test_the_gap_must_exceed_delta():
    """Guards > against >=, in numbers that are exact: two positions at 3/4 have the gap 1/4."""
    assert chosen(Frechet(delta=0.25), [0.75, 0.75]) == [0]
    assert chosen(Frechet(delta=0.249), [0.75, 0.75]) == [0, 1]


def test_a_bound_that_nothing_exceeds_is_one_position_per_step():
    """Guards delta = 1 on the closed-form model, and on the trained one."""
    slow, reference = replay("method=frechet", "method.delta=1"), replay("method=llada")
    assert (slow.ids, slow.calls, slow.steps) == (reference.ids, reference.calls, reference.steps)
    trained = decode_task("list_shuffle", "method=frechet", "method.delta=1").generations
    assert [m.tokens for m in trained] == [m.tokens for m in decode_task("list_shuffle", "method=llada").generations]


def test_no_bound_is_one_call_per_block():
    """Guards negative bounds, which are legal."""
    assert replay("method=frechet", "method.delta=-17", "method.block_length=4").calls == 4
