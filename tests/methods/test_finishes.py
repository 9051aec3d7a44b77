"""What an end token does to the rest of a response."""

from functools import cache

import pytest
import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction
from harness.runs.decode_batch import Decoded
from methods.diffusion.finishes import BlockEos, PredictEos, PrefixEos
from tests.methods.test_saber import NOTHING
from tests.methods.trained import decode_task

END, TURN, MASK = 3, 4, 9


def after_step(tokens: list[int], window: range, **options) -> Canvas:
    """Return a canvas of one row in its step 5, that has just closed `tokens` (MASK: still undecided)."""
    canvas = Canvas.from_prompts(
        [[END, 1]], gen_length=len(tokens), mask_id=MASK, pad_id=0, stop_ids=(END, TURN), seeds=[0], **options
    )
    closed_BL = torch.tensor([[False, False, *(token != MASK for token in tokens)]])
    every_B = torch.tensor([True])
    canvas.tick(every_B, 5)
    canvas.open_window(every_B, (canvas.place_BL >= window.start) & (canvas.place_BL < window.stop))
    canvas.commit(closed_BL, torch.tensor([[0, 0, *tokens]]))
    canvas.tick(every_B)
    return canvas


def finished(rule, canvas: Canvas) -> list[int]:
    """Apply a rule and return the response."""
    rule(canvas, ~canvas.open_BL.any(1))
    return canvas.tokens_BL[0, 2:].tolist()


@pytest.mark.parametrize("end", [END, TURN])
def test_block_eos_ends_the_row_behind_a_complete_block(end: int):
    """Guards the rest of the block, which stays as it is, and every kind of end token, which the first one follows."""
    canvas = after_step([7, end, 7, MASK, MASK], window=range(0, 3))
    assert finished(BlockEos(), canvas) == [7, end, 7, END, END]
    assert not canvas.undecided_BL.any()
    assert canvas.decided_at_BL[0, 2:].tolist() == [5] * 5
    assert canvas.generated_B.tolist() == [3]


@pytest.mark.parametrize(
    ("tokens", "why"),
    [([7, END, MASK, MASK, MASK], "the block is not complete"), ([7, 7, 7, MASK, MASK], "it holds no end token")],
)
def test_block_eos_waits(tokens: list[int], why: str):
    """Guards masks in front of an end token, and end tokens of the prompt against being taken for an answer's."""
    assert finished(BlockEos(), after_step(tokens, window=range(0, 3))) == tokens, why


def test_block_eos_leaves_what_is_before_the_window():
    """Guards windows that are not opened from left to right."""
    assert finished(BlockEos(), after_step([MASK, END, MASK], window=range(1, 2))) == [MASK, END, END]


def test_prefix_eos_fills_what_is_behind_at_once():
    """Guards the masks before the end token, which are still decoded, and later tokens, which mean nothing now."""
    canvas = after_step([7, MASK, END, 7, MASK], window=range(0, 5))
    assert finished(PrefixEos(), canvas) == [7, MASK, END, END, END]
    assert canvas.decided_at_BL[0, 2:].tolist() == [5, -1, 5, 5, 5]
    assert canvas.open_BL[0].nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("rule", [BlockEos(), PrefixEos()])
def test_given_tokens_stay(rule):
    """Guards constraints behind an end token."""
    canvas = after_step([7, END, MASK, MASK, MASK], window=range(0, 2), constraints=[{3: 8}])
    assert finished(rule, canvas) == [7, END, END, 8, END]


def test_a_rule_that_is_off_decodes_fully():
    """Guards `early_stop=false` of the methods that have it as a knob."""
    tokens = [7, END, MASK]
    assert finished(BlockEos(enabled=False), after_step(tokens, window=range(0, 2))) == tokens


@cache
def sorted_lists(finish: str) -> Decoded:
    """Sort lists with the trained model on a canvas that is far longer than they are."""
    knobs = ["gen_length=32", "method=threshold", "method.block_length=8"]
    return decode_task("list_sort", *knobs, f"method/finish={finish}")


@pytest.mark.parametrize("finish", ["block_eos", "prefix_eos"])
def test_padding_costs_no_calls(finish: str):
    """Guards the purpose: what is behind the end is neither decoded nor counted as generated."""
    short, full = sorted_lists(finish), sorted_lists("full")
    for one, counts, full_counts in zip(short.generations, short.counts, full.counts, strict=True):
        assert set(one.tokens[one.tokens.index(END) :]) == {END}
        assert counts.nfe < full_counts.nfe
        assert one.tokens_generated < len(one.tokens)


def test_block_eos_does_not_change_answers():
    """Guards everything up to the end: that block was decoded before the rule looked at it."""
    for one, other in zip(sorted_lists("block_eos").generations, sorted_lists("full").generations, strict=True):
        end = one.tokens.index(END)
        assert one.tokens[: end + 1] == other.tokens[: end + 1]


def test_a_method_takes_any_finish_rule():
    """Guards the option: it is a matter of a method's config, not of its code."""
    method = build_method(compose(["method=threshold", "method/finish=block_eos"]))
    assert isinstance(method, DiffusionMethod)
    assert method.finish == BlockEos()


def test_a_predicted_end_cuts_the_response_on_the_trained_model():
    """Guards the cut behind the surest end, before a commit; later calls are shorter."""
    made = decode_task("list_copy", "method=llada", "method/finish=predict_eos", "task.lengths=[4]", samples=3)
    for one, counts in zip(made.generations, made.counts, strict=True):
        assert 5 <= len(one.tokens) < 16
        assert len(one.tokens) <= counts.nfe < 16
        assert counts.query_tokens < counts.nfe * 32


def look(canvas: Canvas, ends: dict[int, float], *, ahead: bool = True) -> None:
    """Show the rule a prediction of an end token at some places of the response, by its logit; all others have 0."""
    logits_NV = torch.zeros(len(ends), 10)
    logits_NV[range(len(ends)), END] = torch.tensor(list(ends.values()))
    position_N = torch.tensor(list(ends)) + 2
    prediction = Prediction(
        logits_NV=logits_NV, places=Places.of(torch.zeros_like(position_N), position_N, (1, 6)), spec=NOTHING.spec
    )
    nothing_BL = torch.zeros(1, 6)
    PredictEos(ahead=ahead).before_commit(
        canvas, prediction, Candidates(tokens_BL=nothing_BL, score_BL=nothing_BL, confidence_BL=nothing_BL)
    )


def test_the_surest_end_may_be_one_that_a_call_leaves_out():
    """Guards what was last said of a position against a less sure end among those that a call does predict."""
    canvas = after_step([MASK] * 4, window=range(4))
    for ends in ({2: 3.0, 3: 5.0}, {1: 4.0}):
        look(canvas, ends)
        assert canvas.length_B.tolist() == [6]


def test_of_sure_ends_the_surest_counts():
    """Guards ends whose probability rounds to 1 in float32."""
    canvas = after_step([MASK] * 4, window=range(4))
    look(canvas, {0: 25.0, 2: 28.0, 3: 26.0})
    assert canvas.length_B.tolist() == [5]


def test_ends_behind_the_window_count_only_if_it_looks_ahead():
    """Guards the form for caches and shifted models, in which nothing behind the open block is looked at."""
    for ahead, length in ((True, 6), (False, 4)):
        canvas = after_step([MASK] * 4, window=range(2))
        look(canvas, {1: 3.0, 3: 5.0}, ahead=ahead)
        assert canvas.length_B.tolist() == [length]


def test_an_unsure_end_cuts_nothing():
    """Guards the bound, which no probability exceeds."""
    made = decode_task(
        "list_copy", "method=llada", "method/finish=predict_eos", "method.finish.confidence=1.1", samples=2
    )
    assert [len(one.tokens) for one in made.generations] == [16, 16]
