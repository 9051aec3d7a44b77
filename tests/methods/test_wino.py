"""WINO: caps and limits, and that a shadow says what the model would say without the token."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ForwardRequest
from harness.errors import ConfigError
from harness.models import random as random_models
from methods.diffusion.wino import ShadowBlock, WideIn
from tests.caches.decoding import run
from tests.engine.asking import asked
from tests.methods.closed_form import chosen, replay
from tests.methods.trained import decode_task


def test_a_step_closes_at_most_its_cap():
    """Guards the clamped share of the masks, and `more than`."""
    sure = [0.99 - 0.001 * place for place in range(30)]
    assert chosen(WideIn(), sure) == list(range(20))
    assert chosen(WideIn(), sure[:10]) == list(range(7))
    assert chosen(WideIn(), sure[:6]) == list(range(5))
    assert chosen(WideIn(tau1=0.9), [0.9, 0.95, 0.8]) == [1]


def test_a_shadow_is_the_model_without_the_token():
    """Guards mask and positions against a forward with that token masked (float64, ragged rows).

    One shadow, as several see each other as further masks; one layer, as in deeper ones the others have seen the token.
    """
    loaded = random_models.load(name="r", kind="masked_diffusion", seed=3, layers=1, dtype=torch.float64).model
    assert loaded.spec.mask_id is not None
    canvas = Canvas.from_prompts(
        [[2, 30, 76, 4], [2, 31, 4]], gen_length=6, mask_id=loaded.spec.mask_id, pad_id=0, seeds=[0, 0]
    )
    canvas.open_window(torch.ones(2, dtype=torch.bool), canvas.response_BL & (canvas.place_BL < 4))
    canvas.commit((canvas.place_BL == 1) | (canvas.place_BL == 2), torch.full_like(canvas.tokens_BL, 40))
    canvas.window_BL = canvas.place_BL == 1
    row_B, position_B = canvas.window_BL.nonzero(as_tuple=True)
    tokens_BL = canvas.tokens_BL.masked_fill(canvas.window_BL, loaded.spec.mask_id)
    for row, logits_V in enumerate(ShadowBlock().evaluate(asked(loaded, canvas, row_B, position_B))):
        alone_TV = loaded.forward(ForwardRequest(tokens_BL[row : row + 1, : int(canvas.length_B[row])]))[0]
        torch.testing.assert_close(logits_V, alone_TV[position_B[row]], atol=1e-11, rtol=0)


def test_nothing_is_taken_back_without_a_bound():
    """Guards `tau2=0`, and that the shadow is counted: every call computes the block a second time."""
    made = decode_task("list_shuffle", "method=wino", "method.tau2=0", "method.tau1=0.5")
    assert {one.remasked for one in made.generations} == {0}
    for counts in made.counts:
        assert counts.query_tokens == counts.nfe * (16 + 16 + 16)


def test_wrong_commits_are_taken_back_on_the_trained_model():
    """Guards the point of the method: dependent positions that were closed together are found and opened again."""
    made = decode_task("list_shuffle", "method=wino", "method.tau1=0.3", samples=12)
    assert sum(one.remasked for one in made.generations) > 0


def test_without_a_bound_a_growing_canvas_is_as_without_shadows():
    """Guards shadows of a window that masks are inserted in."""
    growing = ("method/finish=canvas_growth", "method.finish.low=0.6", "method.finish.grow=4", "method.finish.Lmax=24")
    growing += ("method.finish.W=4", "method.finish.eos_init=0", "method.finish.eos_grow=2", "method.block_length=8")
    shadowed = run("method=wino", "method.tau2=0", *growing)
    plain = run("method=wino", "method/reviser=never", "method/cache=none", *growing)
    assert shadowed.decided == plain.decided
    assert {len(one.tokens) for one in plain.generations} == {24}


def test_another_cache_is_refused():
    """Guards against tokens that are verified by predictions which have seen them."""
    with pytest.raises(ConfigError, match="use method/cache=shadow_block"):
        replay("method=wino", "method/cache=none")


@pytest.mark.parametrize("knob", ["tau1=-1", "tau2=-1", "cap_least=21", "cap_share=0"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=wino", f"method.{knob}")
