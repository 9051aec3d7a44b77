"""CCD as released: a buffer of runners-up, and what two steps agree on."""

import pytest
import torch

from harness.errors import ConfigError
from methods.diffusion.ccd_code import Buffered
from tests.methods.closed_form import candidates, replay
from tests.methods.trained import decode_task


def walk(selector: Buffered, *steps: tuple[list[float], list[int]]) -> list[list[int]]:
    """Return what a selector closes in steps of scores and tokens, with as many positions as the first."""
    _, open_BL, canvas = candidates(steps[0][0])
    closed = []
    for scores, tokens in steps:
        made, _, _ = candidates(scores)
        made.tokens_BL.copy_(torch.tensor([tokens]))
        commit_BL = selector(made, open_BL, None, canvas)
        open_BL = open_BL & ~commit_BL
        canvas.tick(torch.tensor([True]))
        closed.append(commit_BL[0].nonzero().squeeze(1).tolist())
    return closed


def test_two_steps_that_agree_close_together():
    """Guards the buffer: without `seek` the best of what agrees, with it all, and a changed token does not agree."""
    scores, tokens = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], [1, 2, 3, 4, 5, 6, 7, 8]
    steps = [(scores, tokens)] * 3
    plain, seek = (Buffered(steps=None, gen_length=8, warm=1, seek=flag) for flag in (False, True))
    assert walk(plain, *steps) == [[0], [1], [2]]
    assert walk(seek, *steps) == [[0], [1, 2], [3, 4, 5]]
    assert walk(seek, (scores, tokens), (scores, [1, 2, 9, 4, 5, 6, 7, 8])) == [[0], [1]]


def test_a_position_that_has_just_come_up_is_taken():
    """Guards the difference to the paper, whose rule would hold it back."""
    first, second = [0.9, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1], [0.0, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1, 0.99]
    assert walk(Buffered(steps=None, gen_length=8, warm=1, seek=True), (first, [0] * 8), (second, [0] * 8)) == [
        [0],
        [7],
    ]


def test_the_buffer_warms_up():
    """Guards the first `warm` steps, which close the best and nothing else."""
    step = ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], [0] * 8)
    assert [len(closed) for closed in walk(Buffered(steps=None, gen_length=8, warm=3, seek=True), *[step] * 3)] == [
        1
    ] * 3


def test_without_a_buffer_it_is_one_position_per_step():
    """Guards `expand_ratio=0` against Dream's order by entropy, on a formula and on the trained model."""
    made = replay("method=ccd_code", "method.expand_ratio=0")
    best = replay("method=eb", "method.gamma=0", "method.block_length=16")
    assert (made.ids, made.calls, made.steps) == (best.ids, best.calls, best.steps)
    whole = decode_task("list_shuffle", "method=ccd_code", "method.expand_ratio=0")
    assert all(counts.nfe == 16 for counts in whole.counts)


def test_seeking_needs_fewer_calls_on_the_trained_model():
    """Guards the gain that CCD-DS is for, on a task whose positions do not depend on each other."""
    made = decode_task("list_reverse", "method=ccd_code", "method.seek=true", "method.warm=2")
    assert all(counts.nfe < 16 for counts in made.counts)


@pytest.mark.parametrize("knob", ["steps=17", "steps=0", "expand_ratio=-1", "warm=0"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=ccd_code", f"method.{knob}")
