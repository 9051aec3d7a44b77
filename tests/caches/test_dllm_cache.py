"""dLLM-Cache: features of every layer, refreshed at intervals and by change."""

import pytest
import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ForwardRequest, Layer
from methods.caches.dllm_cache import FeatureCache, turn
from tests.caches.decoding import (
    LENGTH,
    PARALLEL,
    PROMPTS,
    STEPWISE,
    method_of,
    models,
    random_model,
    run,
    same_decoding,
)
from tests.engine.asking import asked

ONE = [[2, 30, 76, 4]]
P, G, N = 4, LENGTH, 3
CACHE = "method/cache=dllm_cache"


def knobs(kp: int, kr: int, rho: float) -> tuple[str, ...]:
    """Return how a user sets the three knobs."""
    return CACHE, f"method.cache.Kp={kp}", f"method.cache.Kr={kr}", f"method.cache.rho={rho}"


@pytest.mark.parametrize(("kr", "rho"), [(1, 0.25), (99, 1.0)])
@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_computing_everything_is_no_cache(method: tuple[str, ...], kr: int, rho: float):
    """Guards the sum of kept and new features: a refresh in every call, or every response token by its change."""
    assert same_decoding(*knobs(1, kr, rho), method=method)


def test_a_whole_share_is_a_refresh_up_to_the_prompt():
    """Guards the same where the prompt stays as it was in the first call."""
    for model, prompts in models():
        both = (knobs(50, 99, 1.0), knobs(50, 1, 0.25))
        whole, refreshed = (run(*PARALLEL, *one, model=model, prompts=prompts) for one in both)
        assert (whole.decided, whole.counts) == (refreshed.decided, refreshed.counts)


@pytest.mark.parametrize(("kp", "kr", "rho"), [(8, 4, 0.25), (50, 7, 0.3), (3, 5, 0.0)])
def test_layer_tokens_are_the_closed_form(kp: int, kr: int, rho: float):
    """Guards intervals that count from the first call, the share of every layer, and layer 0, which is always run."""
    made = run(*STEPWISE, *knobs(kp, kr, rho), prompts=ONE)
    per_call = [P * (s % kp == 0) + (G if s % kr == 0 else int(rho * G)) for s in range(G)]
    layer_tokens = [(P + G) + (N - 1) * one for one in per_call]
    assert made.counts[0].layer_tokens == sum(layer_tokens)
    assert made.queries == [-(-one // N) for one in layer_tokens]


def test_the_tokens_that_turned_most_are_computed():
    """Guards the order of the share: with room for one, it is the token that was committed."""
    model = random_model()
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(PROMPTS[:1], gen_length=8, mask_id=model.spec.mask_id, pad_id=0, seeds=[0])
    reads_N = canvas.undecided_BL.nonzero(as_tuple=True)
    logits = {}
    for rho in (0.0, 0.125, 1.0):
        shown = canvas.copy()
        cache = FeatureCache(Kp=99, Kr=99, rho=rho)
        cache.evaluate(asked(model, shown, *reads_N))
        shown.calls_B = shown.calls_B + 1
        shown.commit(shown.place_BL == 3, torch.full_like(shown.tokens_BL, 40))
        logits[rho] = cache.evaluate(asked(model, shown, *reads_N))
    distance = {rho: (logits[rho] - logits[1.0]).abs().mean(1) for rho in (0.0, 0.125)}
    assert int((distance[0.0] - distance[0.125]).argmax()) == 3


class Published:
    """The published steps for one row, one segment after the other, with features in plain dictionaries."""

    def __init__(self, prompt: int, kp: int, kr: int, rho: float) -> None:
        self.prompt, self.kp, self.kr, self.rho = prompt, kp, kr, rho
        self.call, self.kept, self.layer_tokens_B = -1, {}, torch.zeros(1, dtype=torch.int64)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        self.call += index == 0
        length = x_BLC.shape[1]
        prompt, response = list(range(self.prompt)), list(range(self.prompt, length))
        chosen = prompt if index == 0 or self.call % self.kp == 0 else []
        if index == 0 or self.call % self.kr == 0:
            chosen = chosen + response
        else:
            values = layer.values(x_BLC)[0].flatten(1)
            old = self.kept["v", index].flatten(1)
            same = [float(values[j] @ old[j] / values[j].norm() / old[j].norm()) for j in response]
            count = int(self.rho * len(response))
            chosen = chosen + sorted(j for _, j in sorted(zip(same, response, strict=True))[:count])
            if self.rho:
                self.kept["v", index][response] = values[response].view_as(self.kept["v", index][response])
        if not chosen:
            return x_BLC + self.kept["a", index] + self.kept["m", index]
        at_1T = torch.tensor(chosen)[None]
        q, k, v = layer.project(x_BLC[:, chosen], at_1T)
        self._keep("k", index, length, chosen, k)
        self._keep("v", index, length, chosen, v)
        out = layer.attend(q, self.kept["k", index][None], self.kept["v", index][None], at_1T)
        x_BLC = x_BLC + self._keep("a", index, length, chosen, out)
        return x_BLC + self._keep("m", index, length, chosen, layer.feed_forward(x_BLC[:, chosen]))

    def _keep(self, name: str, index: int, length: int, chosen: list[int], new_1TX: Tensor) -> Tensor:
        if (name, index) not in self.kept:
            self.kept[name, index] = new_1TX.new_zeros(length, *new_1TX.shape[2:])
        self.kept[name, index][chosen] = new_1TX[0]
        return self.kept[name, index]


@pytest.mark.parametrize(("kp", "kr", "rho"), [(5, 3, 0.4), *((kp, 7, 0.05) for kp in (2, 3, 5)), (3, 7, 0.0)])
@pytest.mark.parametrize("length", [8, 16])
def test_partial_refreshes_are_the_published_steps(kp: int, kr: int, rho: float, length: int):
    """Guards which features are new and which are kept, call by call, against the steps written down plainly.

    With a share that is above 0 but no token, values are new all the same: the prompt sees them when it is refreshed.
    """
    made = run(*STEPWISE, "method.block_length=8", *knobs(kp, kr, rho), prompts=ONE, length=length)
    model, plan = random_model(), Published(P, kp, kr, rho)
    tokens_BL = torch.tensor([[*ONE[0], *[model.spec.mask_id] * length]])
    decided_at = torch.tensor(made.generations[0].decided_at)
    for call, logits_NV in enumerate(made.logits):
        block = call // 8 * 8
        open_N = P + block + (decided_at[block : block + 8] >= call).nonzero().squeeze(1)
        expected_NV = model.forward(ForwardRequest(tokens_BL, plan=plan))[0, open_N]
        torch.testing.assert_close(logits_NV, expected_NV, atol=1e-10, rtol=0)
        place = int((decided_at == call).nonzero())
        tokens_BL[0, P + place] = made.generations[0].tokens[place]


def test_small_turns_keep_their_order_and_rounding_is_none():
    """Guards the order where a cosine is 1 but for rounding, which differs from batch to batch."""
    old_BTX = torch.randn(1, 6, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved_BTX = torch.zeros_like(old_BTX)
    moved_BTX[0, :, 0] = torch.tensor([1e-16, 1.0, 1e-9, 1e-10, 1e-3, 0.0])
    turned_T = turn(3 * (old_BTX + moved_BTX), old_BTX)[0]
    assert turned_T.argsort(descending=True, stable=True).tolist() == [1, 4, 2, 3, 0, 5]
    assert turned_T[0] == turned_T[5] == 0
    cosine_T = torch.cosine_similarity(old_BTX + moved_BTX, old_BTX, dim=-1)[0]
    torch.testing.assert_close(turned_T, (2 * (1 - cosine_T)).clamp(min=0).sqrt(), atol=1e-7, rtol=0)


def test_finished_blocks_that_do_not_turn_are_no_lottery():
    """Guards block-causal models, in which whole blocks are equally far from turning."""
    model, prompts, cache = random_model("block_diffusion"), PROMPTS[4:], knobs(50, 7, 0.25)
    together = run(*STEPWISE, *cache, model=model, prompts=prompts).decided
    assert [run(*STEPWISE, *cache, model=model, prompts=[one]).decided[0] for one in prompts] == together


def test_values_are_refused():
    """Guards shares and intervals that mean nothing."""
    with pytest.raises(ValueError, match=r"rho=1\.5: must be between 0 and 1"):
        method_of(*STEPWISE, *knobs(1, 1, 1.5))
    with pytest.raises(ValueError, match=r"Kr=0[.0]*: must be at least 1"):
        method_of(*STEPWISE, *knobs(1, 0, 0.5))
