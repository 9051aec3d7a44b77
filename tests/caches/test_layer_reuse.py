"""Layer reuse: lower layers of key calls, and three ways to go on from them."""

import pytest
import torch

from harness.engine.canvas import Canvas
from harness.engine.generation import DecodeError
from harness.engine.records import Ledger
from methods.caches.layer_reuse import LayerReuse, Mode
from tests.caches.decoding import LENGTH, PARALLEL, PROMPTS, STEPWISE, method_of, random_model, run, same_decoding

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
WHOLE, N = P + G, 3
CACHE = "method/cache=layer_reuse"


@pytest.mark.parametrize("mode", ["recompute", "delta", "plain"])
def test_key_calls_alone_are_no_cache(mode: str):
    """Guards the lower layers, and what goes from them into the upper ones."""
    assert same_decoding(CACHE, "method.cache.every=1", f"method.cache.mode={mode}", method=PARALLEL)
    assert same_decoding(CACHE, "method.cache.q=1", f"method.cache.mode={mode}", method=PARALLEL)


def test_plain_returns_the_logits_of_the_key_call():
    """Guards the control: with nothing injected the upper layers have nothing new to say, bit for bit."""
    model, ledger, cache = random_model(), Ledger(), LayerReuse(every=3, mode=Mode.plain)
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(PROMPTS[:2], gen_length=8, mask_id=model.spec.mask_id, pad_id=0, seeds=[0, 0])
    reads_N = canvas.undecided_BL.nonzero(as_tuple=True)
    made = []
    for place in range(4):
        made.append(cache.evaluate(ledger, model, canvas, *reads_N))
        canvas.commit(canvas.place_BL == place, torch.full_like(canvas.tokens_BL, 40))
    assert torch.equal(made[2], made[1])
    assert not torch.equal(made[1], made[0]) and not torch.equal(made[3], made[1])


def test_modes_differ():
    """Guards against a delta or a recomputation that injects nothing."""
    plain, delta, recompute = (
        run(*STEPWISE, CACHE, "method.cache.every=3", f"method.cache.mode={mode}", prompts=ONE).logits[2]
        for mode in ("plain", "delta", "recompute")
    )
    without = run(*STEPWISE, prompts=ONE).logits[2]
    distance = [float((one - without).abs().mean()) for one in (plain, delta, recompute)]
    assert len({round(one, 9) for one in (*distance, 0.0)}) == 4


@pytest.mark.parametrize(("mode", "k", "rest"), [("recompute", 1, 1), ("recompute", 2, 2), ("delta", 2, 0)])
def test_layer_tokens_are_the_closed_form(mode: str, k: int, rest: int):
    """Guards the count where positions run through different numbers of layers: key calls 0, 1, 4, 8, 12."""
    knobs = ("method.cache.every=4", f"method.cache.k={k}", f"method.cache.mode={mode}")
    counts = run(*STEPWISE, CACHE, *knobs, prompts=ONE).counts[0]
    keys = 5
    assert counts.layer_tokens == keys * N * WHOLE + (G - keys) * ((N - k) * WHOLE + rest)
    assert counts.query_tokens == keys * WHOLE + (G - keys) * -(-((N - k) * WHOLE + rest) // N)


def test_an_adaptive_key_call_waits_for_changes():
    """Guards q: one token per step, so after calls 0 and 1 every third call is a key call."""
    counts = run(*STEPWISE, CACHE, "method.cache.q=3", "method.cache.mode=delta", prompts=ONE).counts[0]
    keys = len([0, 1, 4, 7, 10, 13])
    assert counts.layer_tokens == keys * N * WHOLE + (G - keys) * (N - 1) * WHOLE


def test_impossible_depths_are_refused():
    """Guards k against the layers of the model, which are known when it runs."""
    with pytest.raises(DecodeError, match="k=3 leaves no layer to run of the 3"):
        run(*STEPWISE, CACHE, "method.cache.k=3", prompts=ONE)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        method_of(*STEPWISE, CACHE, "method.cache.k=0")
    assert random_model().spec.layers == N
