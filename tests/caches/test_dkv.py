"""dKV-Cache: kept one step after a token was decided."""

import pytest
import torch

from methods.caches.dkv import with_neighbours
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


@pytest.mark.parametrize(("R", "w", "steps"), [(2, 0, 16), (4, 4, 16), (3, 7, 8), (5, 3, 4)])
@pytest.mark.parametrize("block", [4, 16])
def test_greedy_queries_are_the_plain_reading(R: int, w: int, steps: int, block: int):
    """Guards what is decided next, what was decided last, and what goes with each of the former, call by call."""
    knobs = (f"method.steps={steps}", f"method.block_length={block}", f"method.cache.R={R}", f"method.cache.w={w}")
    made = run(*GREEDY, *knobs, prompts=ONE)
    decided, per_block = made.generations[0].decided_at, steps * block // G
    for call, computed in enumerate(made.positions):
        masks = {P + j for j in range(G) if decided[j] >= call}
        light = plain_neighbours([P + j for j in range(G) if decided[j] == call], masks, w)
        light |= {P + j for j in range(G) if decided[j] == call - 1}
        assert computed == (list(range(P + G)) if call % per_block % R == 0 else sorted(light))
    assert [len(logits) for logits in made.logits] == steps * [G // steps]


def plain_neighbours(targets: list[int], masks: set[int], w: int) -> set[int]:
    """Return the targets, and for each in turn `w` more masks, by turns to the left and to the right of it."""
    chosen = set(targets)
    for target in targets:
        left = sorted((j for j in masks - chosen if j < target), reverse=True)
        right = sorted(j for j in masks - chosen if j > target)
        for turn in range(w):
            side = (left or right) if turn % 2 == 0 else (right or left)
            if side:
                chosen.add(side.pop(0))
    return chosen


def test_neighbours_are_masks_by_turns():
    """Guards both sides, decided positions between, ends, and targets that are near each other, on many rows."""
    generator = torch.Generator().manual_seed(0)
    for w in (0, 1, 2, 3, 5):
        open_BL = torch.rand(80, 14, generator=generator) < 0.6
        target_BL = open_BL & (torch.rand(80, 14, generator=generator) < 0.25)
        made_BL = with_neighbours(target_BL, open_BL, w)
        for target_L, open_L, made_L in zip(target_BL, open_BL, made_BL, strict=True):
            targets, masks = (one_L.nonzero().squeeze(1).tolist() for one_L in (target_L, open_L))
            assert set(made_L.nonzero().squeeze(1).tolist()) == plain_neighbours(targets, set(masks), w)


@pytest.mark.parametrize(
    ("w", "expected"),
    [
        (2, [[3, 5, 6, 7], [0, 1, 2, 6], [0, 4, 5, 7], [1, 2, 4, 5]]),
        (4, [[2, 3, 4, 5, 6, 7], [0, 1, 2, 4, 5, 6], [0, 1, 2, 4, 5, 7], [1, 2, 4, 5, 7]]),
    ],
)
def test_greedy_calls_are_the_published_ones(monkeypatch: pytest.MonkeyPatch, w: int, expected: list[list[int]]):
    """Guards the places of four calls of the authors' code, which decides 3 6 0 5 1 7 2 4 in this order."""
    rank_of_place = torch.tensor([3, 6, 0, 5, 1, 7, 2, 4]).argsort()
    drawn_BL = torch.cat([torch.zeros(4), 1 - rank_of_place / 8])[None]
    monkeypatch.setattr("harness.engine.diffusion.canvas.Canvas.uniforms", lambda canvas, purpose: drawn_BL.double())
    knobs = ("method.steps=16", "method.block_length=8", "method.cache.R=8", f"method.cache.w={w}")
    made = run(*GREEDY, *knobs, prompts=ONE, length=8)
    assert made.generations[0].decided_at == tuple(rank_of_place.tolist())
    assert [[position - P for position in call] for call in made.positions[1:5]] == expected


NINE = [[2, 30, *range(76, 82), 4]]
DREAM = ("method=dream", "method.alg=topk_margin")
SHIFTS = ("right", "un", "un_right")


@pytest.mark.parametrize(
    ("cache", "length", "steps"),
    [
        *((("method/cache=dkv_prefill",), 8, steps) for steps in (2, 8)),
        *((("method/cache=dkv_pd", f"method.cache.shift_type={one}"), 12, 6) for one in SHIFTS),
    ],
)
def test_shifted_models_keep_no_last_position_of_the_prompt(cache: tuple[str, ...], length: int, steps: int):
    """Guards the second calls of the authors' code, and that this holds in every later one."""
    made = run(*DREAM, f"method.steps={steps}", *cache, model=random_model(shift=1), prompts=NINE, length=length)
    assert made.positions[1] == list(range(8, 9 + length))
    assert all(8 in computed for computed in made.positions)


@pytest.mark.parametrize("cache", ["dkv_decode", "dkv_pd"])
@pytest.mark.parametrize("shift_type", SHIFTS)
def test_shift_types_are_the_plain_reading(cache: str, shift_type: str):
    """Guards what is kept of a shifted model: what was decided before the last step, or predicts such, or both."""
    knobs = (f"method/cache={cache}", f"method.cache.shift_type={shift_type}", "method.cache.R=5")
    made = run(*STEPWISE, *knobs, model=random_model(shift=1), prompts=NINE, length=12)
    decided = made.generations[0].decided_at
    for call, computed in enumerate(made.positions):
        known = {i for i in range(21) if i < 9 or decided[i - 9] < call - 1}
        masks = {9 + j for j in range(12) if decided[j] >= call}
        kept = {
            "right": known,
            "un": {i for i in range(21) if (i + 1 if i < 20 else i) in known},
            "un_right": {i for i in known if min(i + 1, 20) in known},
        }[shift_type]
        expected = (set(range(21)) - kept) | {i - 1 for i in masks} | {8}
        if call <= 1 or call % 5 == 0:
            expected |= set(range(0 if cache == "dkv_decode" or not call else 9, 21))
        assert computed == sorted(expected)


def test_shift_types_are_all_one_on_models_without_a_shift():
    """Guards models whose positions predict themselves."""
    made = [run(*STEPWISE, "method/cache=dkv_decode", f"method.cache.shift_type={one}", prompts=ONE) for one in SHIFTS]
    assert made[0].positions == made[1].positions == made[2].positions


def test_greedy_calls_need_to_know_what_comes_next():
    """Guards against an order that the call itself decides, and against steps of no known size."""
    for method in (STEPWISE, ("method=llada",), (*RANDOM, "method/schedule=none")):
        with pytest.raises(ValueError, match=r"use method=llada method\.remasking=random"):
            method_of(*method, "method/cache=dkv_greedy")
    with pytest.raises(ValueError, match=r"w=-1[.0]*: must be at least 0"):
        method_of(*GREEDY, "method.cache.w=-1")


def test_an_interval_has_a_least_value():
    """Guards against a division by zero in the middle of a run."""
    with pytest.raises(ValueError, match=r"method\.cache.*R=0[.0]*: must be at least 1"):
        method_of(*STEPWISE, "method/cache=dkv_pd", "method.cache.R=0")
