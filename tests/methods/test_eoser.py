"""EOSER against its golden trajectories and its limit."""

from dataclasses import replace
from math import log

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.places import Places
from methods.diffusion.eoser import EndRejection, Ramp
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.test_saber import NOTHING

GOLDEN = {
    (0.4, 16, 0): ("3 10 2 6 0 6 3 9 9 8 2 3 10 0 6 2", "2 7 14 1 8 12 5 9 10 11 6 3 4 13 0 15"),
    (0.01, 16, 0): ("3 10 2 6 0 6 3 9 9 8 2 3 10 0 6 2", "2 7 14 1 8 12 5 9 10 11 6 3 4 13 0 15"),
    (0.4, 8, 0): ("3 10 2 6 1 10 3 9 8 8 2 3 10 0 6 2", "1 6 7 0 5 5 3 4 3 2 6 1 2 4 0 7"),
    (0.01, 8, 0): ("3 10 2 6 1 10 3 9 8 8 9 3 10 0 6 2", "1 6 7 0 5 5 3 4 3 2 4 1 2 6 0 7"),
    (0.4, 16, 3): ("3 10 2 0 0 10 3 9 0 0 2 3 10 0 0 2", "9 11 13 10 5 14 2 6 7 15 3 0 1 4 8 12"),
    (0.01, 16, 3): ("3 10 2 0 0 10 3 9 0 0 2 3 10 0 0 2", "4 5 15 12 8 7 2 6 13 10 3 0 1 9 11 14"),
    (0.4, 8, 3): ("3 10 2 0 0 6 3 9 0 0 9 3 10 0 0 2", "2 6 7 5 3 7 0 4 5 4 1 0 1 2 3 6"),
    (0.01, 8, 3): ("3 10 2 0 0 10 3 9 0 0 9 3 10 0 0 2", "2 3 7 6 4 3 0 2 6 5 1 0 1 4 5 7"),
}


@pytest.mark.parametrize(("gamma_min", "steps", "bias"), GOLDEN)
def test_golden_trajectories(gamma_min: float, steps: int, bias: int):
    """Guards ids, calls, query tokens and commits, with and without a model that prefers to end."""
    made = replay("method=eoser", f"method.gamma_min={gamma_min}", f"method.steps={steps}", eos_bias=bias)
    assert (made.ids, made.steps) == GOLDEN[gamma_min, steps, bias]
    assert made.calls == steps
    assert made.counts.query_tokens == steps * 21


@pytest.mark.parametrize("knobs", ["", "steps=8", "steps=8 block_length=4"])
def test_full_belief_is_llada(knobs: str):
    """Guards the equivalence: gamma_min = gamma_max = 1 changes nothing."""
    same = [f"method.{knob}" for knob in knobs.split()]
    assert replay("method=eoser", "method.gamma_min=1", *same, eos_bias=3) == replay("method=llada", *same, eos_bias=3)


def gammas(steps: int, **kwargs) -> list[float]:
    """Return gamma at every step."""
    return EndRejection(steps=steps, gen_length=2**steps, **kwargs).gamma(torch.arange(steps)).tolist()


def test_gamma_rises_evenly():
    """Guards the published scalars, and that blocks do not restart it: the step is that of the response."""
    rising = gammas(64, gamma_min=0.4)
    assert [rising[0], rising[21], rising[63]] == pytest.approx([0.4, 0.6, 1.0])
    assert gammas(1, gamma_min=0.4) == [1.0]


def test_gamma_rises_with_the_decided_positions():
    """Guards the published scalars of the ascending form, which stays below gamma_max."""
    rising = gammas(8, gamma_min=0.01, ramp=Ramp.doubling)
    assert [rising[0], rising[7]] == pytest.approx([0.013867, 0.996133], abs=1e-6)


def test_sure_ends_keep_their_order():
    """Guards log p next to log gamma: both ends have p = 1 in float32, and the later one is surer."""
    canvas = Canvas.from_prompts([[]], gen_length=2, mask_id=MASK_ID, pad_id=0, seeds=[0])
    sure = replace(
        NOTHING, logits_NV=torch.tensor([[20.0, 0.0], [25.0, 0.0]]),
        places=Places.of(torch.zeros(2, dtype=torch.int64), torch.arange(2), (1, 2)),
    )  # fmt: skip
    first, second = EndRejection(steps=2, gen_length=2)(sure, canvas).score_BL[0].tolist()
    assert first < second < log(0.4)


def test_bad_factors_are_refused():
    """Guards the message: key, limit and value."""
    with pytest.raises(ValueError, match=r"gamma_min=2[.0]*: must lie in \[0, 1\]"):
        EndRejection(steps=None, gen_length=4, gamma_min=2)
    with pytest.raises(ValueError, match=r"gamma_max=0.1: must be at least gamma_min=0.4"):
        EndRejection(steps=None, gen_length=4, gamma_max=0.1)
