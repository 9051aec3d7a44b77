"""Fast-dLLM v2: sub-blocks, inherited tokens, and the end of an answer."""

from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.models import random as random_models
from harness.models.embedded import EmbeddedModel
from methods.diffusion.fast_dllm_v2 import StopToken, SureOrInherited
from tests.caches.decoding import LENGTH, PROMPTS, Made, Positions, decode_with, method_of, random_model, run
from tests.methods.closed_form import candidates

K, G = 8, LENGTH


def decoded(*overrides: str, shift: int = 1, **kwargs) -> Made:
    """Decode random weights with blocks of 8 whose logits are shifted, stop tokens or not."""
    model = random_model("block_diffusion", shift)
    return run("method=fast_dllm_v2", "method/finish=full", *overrides, model=model, **kwargs)


def with_blocks(canvas: Canvas, inherits: bool = True) -> Canvas:
    """Tell a canvas of a model with blocks of 4."""
    canvas.memory["fast_dllm_v2.block_B"] = torch.full_like(canvas.clock_B, 4)
    canvas.memory["fast_dllm_v2.inherits_B"] = torch.full_like(canvas.clock_B, inherits, dtype=torch.bool)
    return canvas


@pytest.mark.parametrize(("inherits", "expected"), [(True, [1, 4]), (False, [1])])
def test_sure_and_inherited_positions_close(inherits: bool, expected: list[int]):
    """Guards the strict comparison, and an inherited token that no threshold gates; position 0 has no predecessor."""
    made, open_BL, canvas = candidates([0.1, 0.95, 0.9, 0.5, 0.2, 0.3])
    chosen_BL = SureOrInherited(threshold=0.9)(made, open_BL, None, with_blocks(canvas, inherits))
    assert chosen_BL[0].nonzero().squeeze(1).tolist() == expected


def windows(prompt_length: int, inherits: bool) -> list[list[int]]:
    """Return the windows in which 10 masks behind a prompt close, sub-blocks of 2 in blocks of 4."""
    canvas = Canvas.from_prompts([[2] * prompt_length], gen_length=10, mask_id=11, pad_id=0, seeds=[0])
    window, seen = method_of("method=fast_dllm_v2", "method.sub_block_length=2").window, []
    with_blocks(canvas, inherits)
    while bool(canvas.undecided_BL.any()):
        window.update(canvas)
        seen.append(canvas.open_BL[0].nonzero().squeeze(1).tolist())
        canvas.commit(canvas.open_BL, torch.zeros_like(canvas.tokens_BL))
    return seen


def test_an_inherited_position_opens_first_and_alone():
    """Guards absolute blocks and sub-blocks, and models which predict nothing from the block before."""
    assert windows(3, True) == [[3], [4], [5], [6, 7], [8], [9], [10, 11], [12]]
    assert windows(4, True) == [[4], [5], [6, 7], [8], [9], [10, 11], [12], [13]]
    assert windows(3, False) == [[3], [4, 5], [6, 7], [8, 9], [10, 11], [12]]


@pytest.mark.parametrize("prompt_length", [3, 8, 10])
def test_storing_a_block_gives_a_token(prompt_length: int):
    """Guards calls of one token each: none of them is spent on storing, and a full prompt's prefill gives the first."""
    counts = decoded("method.threshold=1", prompts=[[2] * prompt_length]).counts[0]
    first_from_prefill = prompt_length % K == 0
    assert (counts.nfe_prefill, counts.prefill_tokens) == (int(prompt_length >= K), prompt_length // K * K)
    assert (counts.nfe, counts.nfe_cache) == (G, 0)
    expected, end = counts.prefill_tokens, prompt_length + G
    for position in range(prompt_length + first_from_prefill, end):
        block = position // K - (position % K == 0)
        expected += min(K, end - block * K)
    assert counts.query_tokens == expected


def test_a_model_that_is_not_shifted_pays_for_storing():
    """Guards aligned models: no inherited token, but a call for each finished block but the last."""
    counts = decoded("method.threshold=1", shift=0, prompts=[[2] * 10]).counts[0]
    assert (counts.nfe_prefill, counts.nfe_cache, counts.nfe) == (1, 2, G + 2)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("knobs", [(), ("method.threshold=0.3", "method.sub_block_length=4")])
def test_storing_blocks_changes_nothing(knobs: tuple[str, ...], shift: int):
    """Guards exact reuse, ragged prompts and inherited tokens included."""
    assert decoded(*knobs, shift=shift).decided == decoded(*knobs, "method/cache=none", shift=shift).decided


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_without_sub_blocks_it_is_sdar(threshold: float):
    """Guards the selector and the blocks against their twin, on a model that is not shifted."""
    knob, model = f"method.threshold={threshold}", random_model("block_diffusion")
    sdar = run("method=sdar", "method/finish=full", knob, model=model)
    made = decoded(knob, shift=0)
    assert (made.decided, made.counts) == (sdar.decided, sdar.counts)


def test_the_sub_block_cache_computes_less():
    """Guards `use_block_cache`: sub-blocks of 2 alone, once the position before them is known."""
    knobs = ("method.threshold=0.3", "method.sub_block_length=2")
    whole, part = (decoded(*knobs, *cache) for cache in ((), ("method/cache=sub_block",)))
    for one, other in zip(part.counts, whole.counts, strict=True):
        assert one.query_tokens < other.query_tokens
        assert one.nfe <= G
    assert len(part.tokens) == len(PROMPTS)


@pytest.mark.parametrize("prompt_length", [3, 10, 13])
def test_sub_block_calls_are_the_closed_form(prompt_length: int):
    """Guards `use_block_cache`, one token per call: the whole block where a sub-block opens, until its first position
    is known, and for a token that is inherited from the block before; else the whole sub-block, prompt included.
    """
    knobs = ("method.threshold=1", "method.sub_block_length=4", "method/cache=sub_block")
    made = decoded(*knobs, prompts=[[2] * prompt_length])
    step = dict(enumerate(made.generations[0].decided_at, prompt_length))
    expected = [K] if prompt_length >= K else []
    for position in sorted(step, key=lambda p: step[p]):
        inherited = position % K == 0
        window = [p for p in step if (p // 4, p % K == 0) == (position // 4, inherited)]
        opening = all(step[p] >= step[position] for p in window)
        first, block = position // 4 * 4, position // K * K - K * inherited
        light = not opening and step.get(first, -1) < step[position]
        expected.append(min(*((4, prompt_length + G - first) if light else (K, prompt_length + G - block))))
    assert made.queries == expected


@pytest.mark.parametrize(
    ("seed", "prompt", "ids", "calls"),
    [
        (0, "5 7 9 4 6 8", "100 6 110 35 36 114", "0-3 4-7 4-7 4-7 8-11 8-11 8-11"),
        (1, "5 7 9 4 6 8 10 11", "8 46 17 59 11 32 11 78", "0-7 8-11 8-11 8-11 8-11 12-15 12-15 12-15"),
    ],
)
def test_light_calls_compute_what_is_given_in_the_sub_block(seed: int, prompt: str, ids: str, calls: str):
    """Guards `use_block_cache` against the published code's answers: prompt and inherited tokens are computed, too."""
    loaded = random_models.load(
        name="r", kind="block_diffusion", seed=seed, block_length=4, dtype=torch.float64, logit_deviation=4.0
    )
    assert isinstance(loaded.model, EmbeddedModel)
    model = Positions(EmbeddedModel(loaded.model.transformer, replace(loaded.model.spec, shift=1)), [])
    asked = [int(token) for token in prompt.split()]
    method = method_of(
        "method=fast_dllm_v2", "method/finish=full", "method.sub_block_length=4", "method.threshold=1",
        "method/cache=sub_block",
    )  # fmt: skip
    made = decode_with(method, model, [asked], len(ids.split()))
    assert " ".join(map(str, made.tokens[0])) == ids
    assert " ".join(f"{one[0]}-{one[-1]}" for one in model.computed) == calls


@pytest.mark.parametrize(
    ("early", "known", "expected"),
    [
        (False, "5 9 . 7 . .", "5 9 . 7 . ."),
        (False, "5 9 3 7 . .", "5 9 0 0 0 0"),
        (True, "5 9 . 7 . .", "5 9 0 0 0 0"),
        (True, ". 9 3 7 . .", ". 9 3 7 . ."),
        (False, "5 6 3 7 9 .", "5 6 3 7 9 ."),
        (True, "5 6 3 7 . .", "5 6 3 7 . ."),
    ],
)
def test_padding_follows_a_stop_token(early: bool, known: str, expected: str):
    """Guards the end of an answer: with its block, or (`early`) when everything before the token is decided."""
    canvas = Canvas.from_prompts([[]], gen_length=6, mask_id=11, pad_id=0, stop_ids=(9,), seeds=[0])
    tokens_BL = torch.tensor([[11 if token == "." else int(token) for token in known.split()]])
    canvas.commit(tokens_BL != 11, tokens_BL)
    StopToken(early=early)(with_blocks(canvas), torch.tensor([True]))
    assert ["." if token == 11 else str(token) for token in canvas.tokens_BL[0].tolist()] == expected.split()


@pytest.mark.parametrize(
    ("known", "window", "expected"),
    [
        ("5 9 . 7 . .", range(3), "5 9 . 7 . ."),
        ("5 9 3 7 . .", range(3), "5 9 0 0 0 0"),
        ("5 9 3 7 . .", range(3, 6), "5 9 0 0 0 0"),
        (". 9 3 7 . .", range(1, 3), ". 9 3 7 . ."),
    ],
)
def test_the_decoders_windows_are_blocks_where_nobody_tells_of_others(known: str, window: range, expected: str):
    """Guards any other decoder: padding waits for the window of the stop token, and for all that is before it."""
    canvas = Canvas.from_prompts([[]], gen_length=6, mask_id=11, pad_id=0, stop_ids=(9,), seeds=[0])
    canvas.window_BL = (canvas.place_BL >= window.start) & (canvas.place_BL < window.stop)
    tokens_BL = torch.tensor([[11 if token == "." else int(token) for token in known.split()]])
    canvas.commit(tokens_BL != 11, tokens_BL)
    StopToken()(canvas, torch.tensor([True]))
    assert ["." if token == 11 else str(token) for token in canvas.tokens_BL[0].tolist()] == expected.split()


def test_the_parts_belong_together():
    """Guards windows that would look for blocks which nobody told of, and models that have none."""
    with pytest.raises(ValueError, match="use method/preparation=model_blocks"):
        method_of("method=fast_dllm_v2", "method/preparation=none")
