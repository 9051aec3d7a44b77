"""dKV-Cache: kept one step after a token was decided."""

import pytest

from tests.caches.decoding import LENGTH, PARALLEL, STEPWISE, method_of, run, same_decoding

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_a_refresh_in_every_call_is_no_cache(method: tuple[str, ...]):
    """Guards positions, slots and shifted sources; the prompt's own cache is then what `dkv_prefill` is."""
    assert same_decoding("method/cache=dkv_decode", "method.cache.R=1", method=method)
    pd, prefill = run(*method, "method/cache=dkv_pd", "method.cache.R=1"), run(*method, "method/cache=dkv_prefill")
    assert (pd.decided, pd.counts) == (prefill.decided, prefill.counts)


def test_query_tokens_are_the_closed_form():
    """Guards the delay: one token per step, full calls 0, 1 and every R-th, else masks and the last token alone."""
    R = 4
    full = [i <= 1 or i % R == 0 for i in range(G)]
    rest = [G - i + 1 for i in range(G)]
    decode = run(*STEPWISE, "method/cache=dkv_decode", f"method.cache.R={R}", prompts=ONE).counts[0]
    assert decode.query_tokens == sum(P + G if full[i] else rest[i] for i in range(G))
    pd = run(*STEPWISE, "method/cache=dkv_pd", f"method.cache.R={R}", prompts=ONE).counts[0]
    assert pd.query_tokens == P + sum(G if full[i] else rest[i] for i in range(G))
    prefill = run(*STEPWISE, "method/cache=dkv_prefill", prompts=ONE).counts[0]
    assert prefill.query_tokens == P + G * G
    assert decode.nfe == pd.nfe == prefill.nfe == G


def test_a_new_block_drops_the_cache():
    """Guards step numbers that count from the beginning of the block."""
    made = run(*STEPWISE, "method.block_length=8", "method/cache=dkv_decode", "method.cache.R=99", prompts=ONE)
    rest = sum(G - i + 1 for i in (*range(2, 8), *range(10, 16)))
    assert made.counts[0].query_tokens == 4 * (P + G) + rest


def test_an_interval_has_a_least_value():
    """Guards against a division by zero in the middle of a run."""
    with pytest.raises(ValueError, match=r"method\.cache.*R must be at least 1, got 0"):
        method_of(*STEPWISE, "method/cache=dkv_pd", "method.cache.R=0")
