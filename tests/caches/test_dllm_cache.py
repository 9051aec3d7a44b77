"""dLLM-Cache: features of every layer, refreshed at intervals and by change."""

import pytest
import torch

from harness.engine.canvas import Canvas
from harness.engine.records import Ledger
from methods.caches.dllm_cache import FeatureCache
from tests.caches.decoding import LENGTH, PARALLEL, PROMPTS, STEPWISE, method_of, random_model, run, same_decoding

ONE = [[2, 30, 76, 4]]
P, G, N = 4, LENGTH, 3
CACHE = "method/cache=dllm_cache"


def knobs(kp: int, kr: int, rho: float) -> tuple[str, ...]:
    """Return how a user sets the three knobs."""
    return CACHE, f"method.cache.Kp={kp}", f"method.cache.Kr={kr}", f"method.cache.rho={rho}"


@pytest.mark.parametrize(("kr", "rho"), [(1, 0.25), (1, 0.0), (99, 1.0)])
@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_computing_everything_is_no_cache(method: tuple[str, ...], kr: int, rho: float):
    """Guards the sum of kept and new features: a refresh in every call, or every response token by its change."""
    assert same_decoding(*knobs(1, kr, rho), method=method)


def test_a_whole_share_is_a_refresh_up_to_the_prompt():
    """Guards the same where the prompt stays as it was in the first call."""
    whole, refreshed = run(*PARALLEL, *knobs(50, 99, 1.0)), run(*PARALLEL, *knobs(50, 1, 0.25))
    assert (whole.decided, whole.counts) == (refreshed.decided, refreshed.counts)


@pytest.mark.parametrize(("kp", "kr", "rho"), [(8, 4, 0.25), (50, 7, 0.3), (3, 5, 0.0)])
def test_layer_tokens_are_the_closed_form(kp: int, kr: int, rho: float):
    """Guards intervals that count from the first call, the share of every layer, and layer 0, which is always run."""
    counts = run(*STEPWISE, *knobs(kp, kr, rho), prompts=ONE).counts[0]
    per_call = [P * (s % kp == 0) + (G if s % kr == 0 else int(rho * G)) for s in range(G)]
    assert counts.layer_tokens == sum((P + G) + (N - 1) * one for one in per_call)


def test_the_tokens_that_turned_most_are_computed():
    """Guards the order of the share: with room for one, it is the token that was committed."""
    model, ledger = random_model(), Ledger()
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(PROMPTS[:1], gen_length=8, mask_id=model.spec.mask_id, pad_id=0, seeds=[0])
    reads_N = canvas.undecided_BL.nonzero(as_tuple=True)
    logits = {}
    for rho in (0.0, 0.125, 1.0):
        shown = canvas.copy()
        cache = FeatureCache(Kp=99, Kr=99, rho=rho)
        cache.evaluate(ledger, model, shown, *reads_N)
        shown.calls_B = shown.calls_B + 1
        shown.commit(shown.place_BL == 3, torch.full_like(shown.tokens_BL, 40))
        logits[rho] = cache.evaluate(ledger, model, shown, *reads_N)
    distance = {rho: (logits[rho] - logits[1.0]).abs().mean(1) for rho in (0.0, 0.125)}
    assert int((distance[0.0] - distance[0.125]).argmax()) == 3


def test_values_are_refused():
    """Guards shares and intervals that mean nothing."""
    with pytest.raises(ValueError, match=r"rho must be between 0 and 1, got 1\.5"):
        method_of(*STEPWISE, *knobs(1, 1, 1.5))
    with pytest.raises(ValueError, match="Kr must be at least 1, got 0"):
        method_of(*STEPWISE, *knobs(1, 0, 0.5))
