"""ReCAP for text: groups of one full call and light ones."""

import pytest
import torch

from tests.caches.decoding import LENGTH, PARALLEL, STEPWISE, method_of, models, run, same_decoding

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
WHOLE = P + G


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_no_light_calls_are_no_cache(method: tuple[str, ...]):
    """Guards full calls; a window that ends within its first calls has no light one either."""
    assert same_decoding("method/cache=recap", "method.cache.r=0", method=method)
    assert same_decoding("method/cache=recap", "method.cache.pre_full=16", method=method)


@pytest.mark.parametrize("method", [(*STEPWISE, "method.block_length=8"), PARALLEL])
def test_light_calls_for_the_whole_block_are_the_dual_cache(method: tuple[str, ...]):
    """Guards what a group keeps: with all of a block for targets, and no end, only its opening call is a full one."""
    boundless = ("method/cache=recap", "method.cache.pre_full=0", "method.cache.r=99", "method.cache.u_min=8")
    for model, prompts in models():
        ours, dual = (run(*method, *one, model=model, prompts=prompts) for one in (boundless, ["method/cache=dual"]))
        assert (ours.decided, ours.queries) == (dual.decided, dual.queries)
        for one, other in zip(ours.logits, dual.logits, strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("r", "pre_full", "u_min"), [(1, 2, 4), (3, 0, 4), (2, 1, 1)])
def test_query_tokens_are_the_closed_form(r: int, pre_full: int, u_min: int):
    """Guards the group: full, then r light calls of the targets and the token before; u_min ends a group early."""
    knobs = (f"method.cache.r={r}", f"method.cache.pre_full={pre_full}", f"method.cache.u_min={u_min}")
    made = run(*STEPWISE, "method/cache=recap", *knobs, prompts=ONE)
    expected, left, step = 0, G, 0
    while left:
        expected, left, step = expected + WHOLE, left - 1, step + 1
        if step > pre_full:
            targets = min(u_min, left)
            light = min(r, targets)
            expected, left, step = expected + light * (targets + 1), left - light, step + light
    assert (made.counts[0].query_tokens, made.counts[0].nfe) == (expected, G)


def test_a_schedule_sets_the_targets():
    """Guards the quota of the light calls: 2 tokens per step, so 2 targets and the 2 tokens before."""
    made = run("method=llada", "method.steps=8", "method/cache=recap", "method.cache.pre_full=0", prompts=ONE)
    assert (made.counts[0].query_tokens, made.counts[0].nfe) == (4 * (WHOLE + 4), 8)
    assert sorted(made.generations[0].decided_at) == [step for step in range(8) for _ in range(2)]


def test_light_calls_commit_targets_alone():
    """Guards positions that were not computed: without them the first light call reads the four targets."""
    made = run(*STEPWISE, "method/cache=recap", "method.cache.pre_full=0", prompts=ONE)
    assert [len(logits) for logits in made.logits[:4]] == [16, 4, 14, 4]


def test_values_are_refused():
    """Guards against groups that never end."""
    with pytest.raises(ValueError, match=r"u_min=0[.0]*: must be at least 1"):
        method_of(*STEPWISE, "method/cache=recap", "method.cache.u_min=0")
