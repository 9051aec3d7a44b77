"""Layer reuse: lower layers of key calls, and three ways to go on from them."""

import pytest
import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import ForwardRequest, Layer
from methods.caches.layer_reuse import LayerReuse, Mode
from tests.caches.decoding import LENGTH, PARALLEL, STEPWISE, method_of, models, random_model, run, same_decoding
from tests.engine.asking import asked

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
WHOLE, N = P + G, 3
CACHE = "method/cache=layer_reuse"


def test_a_key_call_is_every_other_one_unless_told():
    """Guards those who choose the cache and no number."""
    assert LayerReuse() == LayerReuse(every=2)


@pytest.mark.parametrize(("mode", "due"), [("recompute", "q"), ("delta", "every"), ("plain", "every")])
def test_key_calls_alone_are_no_cache(mode: str, due: str):
    """Guards the lower layers, and what goes from them into the upper ones."""
    assert same_decoding(CACHE, f"method.cache.{due}=1", f"method.cache.mode={mode}", method=PARALLEL)


@pytest.mark.parametrize("which", range(5))
def test_plain_returns_the_logits_of_the_key_call(which: int):
    """Guards the control: with nothing injected the upper layers have nothing new to say, bit for bit."""
    (model, prompts), cache = models()[which], LayerReuse(every=3, mode=Mode.plain)
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(prompts[:2], gen_length=8, mask_id=model.spec.mask_id, pad_id=0, seeds=[0, 0])
    reads_N = canvas.undecided_BL.nonzero(as_tuple=True)
    made = []
    for place in range(4):
        made.append(cache.evaluate(asked(model, canvas, *reads_N)))
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


class Injected:
    """A plan that runs whole layers, keeps the stream behind layer 0, and may go on from another one."""

    def __init__(self, stream_BLC: Tensor | None = None) -> None:
        self.stream_BLC, self.layer_tokens_B = stream_BLC, torch.zeros(1, dtype=torch.int64)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        at_BL = torch.arange(x_BLC.shape[1])[None]
        if index == 1 and self.stream_BLC is not None:
            x_BLC = self.stream_BLC
        elif index == 1:
            self.stream_BLC = x_BLC
        q, k, v = layer.project(x_BLC, at_BL)
        x_BLC = x_BLC + layer.attend(q, k, v, at_BL)
        return x_BLC + layer.feed_forward(x_BLC)


@pytest.mark.parametrize("mode", ["recompute", "delta"])
def test_a_call_between_key_calls_goes_on_from_a_mended_stream(mode: str):
    """Guards k = 1: the committed token's stream is new (its keys depend on tokens alone) or moved by its embedding."""
    made = run(*STEPWISE, CACHE, "method.cache.every=99", "method.cache.k=1", f"method.cache.mode={mode}", prompts=ONE)
    model, answer = random_model(), made.generations[0]
    canvas_1L = torch.tensor([[*ONE[0], *[model.spec.mask_id] * G]])
    streams, tokens = [], []
    for call in range(3):
        plan = Injected()
        tokens.append(canvas_1L.clone())
        model.forward(ForwardRequest(canvas_1L, plan=plan))
        streams.append(plan.stream_BLC)
        place = answer.decided_at.index(call)
        canvas_1L[0, P + place] = answer.tokens[place]
    mended_BLC = streams[1].clone()
    changed = int((tokens[2] != tokens[1]).nonzero()[0, 1])
    if mode == "recompute":
        mended_BLC[0, changed] = streams[2][0, changed]
    else:
        embedding = model.transformer.embedding.weight
        mended_BLC[0, changed] += embedding[tokens[2][0, changed]] - embedding[tokens[1][0, changed]]
    open_N = P + (torch.tensor(answer.decided_at) >= 2).nonzero().squeeze(1)
    expected_NV = model.forward(ForwardRequest(tokens[2], plan=Injected(mended_BLC)))[0, open_N]
    torch.testing.assert_close(made.logits[2], expected_NV, atol=1e-10, rtol=0)


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
    with pytest.raises(ValueError, match=r"k=0[.0]*: must be at least 1"):
        method_of(*STEPWISE, CACHE, "method.cache.k=0")
    assert random_model().spec.layers == N
