"""DSB's cache: a sliding neighbourhood, and everything once enough is decided."""

import pytest

from tests.caches.decoding import LENGTH, PARALLEL, STEPWISE, method_of, run, same_decoding

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
DSB = ("method=dsb", "method.block_length=4", "method/cache=dsb")
LEFT_TO_RIGHT = ("method.tau=1.1", "method.scorer.order=left_to_right")


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL, ("method=dsb", "method.block_length=4", "method.tau=0.3")])
def test_a_full_call_after_every_token_is_no_cache(method: tuple[str, ...]):
    """Guards full calls, and that one follows when enough is decided, not after so many calls."""
    assert same_decoding("method/cache=dsb", "method.cache.K=1", method=method)


@pytest.mark.parametrize(("refresh", "w"), [(4, 0), (5, 3), (99, 24)])
def test_query_tokens_are_the_closed_form(refresh: int, w: int):
    """Guards the window's end and start: one token per call, which brings the window forward by one."""
    made = run(*DSB, *LEFT_TO_RIGHT, f"method.cache.K={refresh}", f"method.cache.w={w}", prompts=ONE)
    light = [min(4, G - i) + min(max(w, 1), P + i) for i in range(G)]
    assert made.queries == [P + G if i % refresh == 0 else light[i] for i in range(G)]


def test_what_the_last_step_decided_is_computed():
    """Guards the advance where it is more than `w`: four tokens per call, each of which is computed as itself."""
    made = run(*DSB, "method.tau=0", "method.cache.K=9", "method.cache.w=1", prompts=ONE)
    assert made.queries == [P + G, 4 + 4, 4 + 4, P + G]


def test_values_are_refused():
    """Guards against full calls that come without a token."""
    with pytest.raises(ValueError, match=r"K=0[.0]*: must be at least 1"):
        method_of(*DSB, "method.cache.K=0")
    with pytest.raises(ValueError, match=r"w=-1[.0]*: must be at least 0"):
        method_of(*DSB, "method.cache.w=-1")
