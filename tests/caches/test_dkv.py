"""dKV-Cache: kept one step after a token was decided."""

import pytest

from tests.caches.decoding import (
    LENGTH,
    PARALLEL,
    STEPWISE,
    method_of,
    models,
    random_model,
    run,
    same_decoding,
    trained_model,
)

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
RANDOM = ("method=llada", "method.remasking=random")
GREEDY = (*RANDOM, "method/cache=dkv_greedy")


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_a_refresh_in_every_call_is_no_cache(method: tuple[str, ...]):
    """Guards positions, slots and shifted sources; the prompt's own cache is then what `dkv_prefill` is."""
    assert same_decoding("method/cache=dkv_decode", "method.cache.R=1", method=method)
    for model, prompts in models():
        both = (("method/cache=dkv_pd", "method.cache.R=1"), ("method/cache=dkv_prefill",))
        pd, prefill = (run(*method, *cache, model=model, prompts=prompts) for cache in both)
        assert (pd.decided, pd.counts) == (prefill.decided, prefill.counts)


@pytest.mark.parametrize("cache", [("method/cache=dkv_pd", "method.cache.R=1"), ("method/cache=dkv_prefill",)])
def test_a_prompt_that_sees_no_response_may_be_kept(cache: tuple[str, ...]):
    """Guards the prompt's part where it is exact: in block-causal models whose blocks the prompt fills."""
    trained, asked = trained_model("tiny_block")
    filled = [prompt[: len(prompt) // 8 * 8] for prompt in asked]
    for model, prompts in ((trained, filled), (random_model("block_diffusion"), [[2] * 8, [2, 30] * 8])):
        made, without = (run(*PARALLEL, *one, model=model, prompts=prompts) for one in (cache, ()))
        assert made.decided == without.decided
        assert sum(made.queries) < sum(without.queries)


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


@pytest.mark.parametrize("steps", [16, 4])
def test_greedy_calls_that_are_all_full_are_no_cache(steps: int):
    """Guards the order drawn beforehand: it is the one that the scorer would have drawn, for every quota."""
    knobs = (f"method.steps={steps}", "method.block_length=8")
    assert same_decoding("method/cache=dkv_greedy", "method.cache.R=1", method=(*RANDOM, *knobs), compare_logits=False)


@pytest.mark.parametrize(("R", "w", "steps"), [(2, 0, 16), (4, 4, 16), (3, 7, 8)])
def test_greedy_queries_are_the_closed_form(R: int, w: int, steps: int):
    """Guards the three parts: what is decided next, what was decided last, and masks at most w // 2 away."""
    made = run(*GREEDY, f"method.steps={steps}", f"method.cache.R={R}", f"method.cache.w={w}", prompts=ONE)
    decided, expected = made.generations[0].decided_at, []
    for i in range(steps):
        near = {j for j in range(G) if any(abs(j - k) <= w // 2 for k in range(G) if decided[k] == i)}
        light = sum(decided[j] == i - 1 or (decided[j] >= i and j in near) for j in range(G))
        expected.append(P + G if i % R == 0 else light)
    assert made.queries == expected
    assert [len(logits) for logits in made.logits] == steps * [G // steps]


def test_greedy_calls_need_to_know_what_comes_next():
    """Guards against an order that the call itself decides, and against steps of no known size."""
    for method in (STEPWISE, ("method=llada",), (*RANDOM, "method/schedule=none")):
        with pytest.raises(ValueError, match=r"use method=llada method\.remasking=random"):
            method_of(*method, "method/cache=dkv_greedy")
    with pytest.raises(ValueError, match="w must be at least 0, got -1"):
        method_of(*GREEDY, "method.cache.w=-1")


def test_an_interval_has_a_least_value():
    """Guards against a division by zero in the middle of a run."""
    with pytest.raises(ValueError, match=r"method\.cache.*R must be at least 1, got 0"):
        method_of(*STEPWISE, "method/cache=dkv_pd", "method.cache.R=0")
