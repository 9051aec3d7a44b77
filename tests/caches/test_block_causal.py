"""Finished blocks of block-causal models: exact reuse, counted call by call."""

from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.fit import refuse_kind
from harness.engine.diffusion.method import NoCache
from harness.engine.shared.model import ModelKind
from harness.engine.shared.records import Ledger
from methods.caches.block_causal import BlockCausalCache, SubBlockCache
from tests.caches.decoding import APART, LENGTH, PROMPTS, Made, method_of, random_model, run, trained_model
from tests.engine.asking import asked

K, G = 8, LENGTH
DECODERS = {
    "threshold": ("method=threshold", "method.threshold=0.3", "method.block_length=8"),
    "straddling": ("method=threshold", "method.threshold=0.3", "method.block_length=4"),
    "whole": ("method=llada", "method.steps=8"),
    "eb": ("method=eb", "method.gamma=2"),
    "hierarchy_remask": ("method=hierarchy_remask", "method.rm=0.7"),
    "saber": ("method=saber",),
    "prophet": ("method=prophet", "method.block_length=8", "method.gap_thresholds=[3,2,1]"),
    "block_eos": ("method=dinfer_threshold", "method.early_stop=true", "method.block_length=8"),
}
CACHES = [("method/cache=block_causal",), ("method/cache=block_causal", "method.cache.merged=true")]


def block_run(*overrides: str, shift: int = 0, **kwargs) -> Made:
    """Decode on a block-causal model with blocks of 8."""
    return run(*overrides, model=random_model("block_diffusion", shift), **kwargs)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("cache", CACHES, ids=["stored", "merged"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_reuse_is_exact(decoder: str, cache: tuple[str, ...], shift: int):
    """Guards windows across blocks, tokens taken back, reads far ahead, and sources in stored blocks."""
    made, without = block_run(*DECODERS[decoder], *cache, shift=shift), block_run(*DECODERS[decoder], shift=shift)
    assert made.decided == without.decided
    assert [one.remasked for one in made.generations] == [one.remasked for one in without.generations]
    for one, other in zip(made.counts, without.counts, strict=True):
        assert shift or one.query_tokens <= other.query_tokens
        assert shift or one.nfe - one.nfe_cache == other.nfe


PUBLISHED = {
    "sdar": ("method=sdar", "method/finish=full"),
    "sequential": ("method=sdar", "method.remasking=sequential", "method.denoising_steps=3"),
    "fast_dllm_v2": ("method=fast_dllm_v2", "method.sub_block_length=4"),
}


@pytest.mark.parametrize("cache", CACHES, ids=["stored", "merged"])
@pytest.mark.parametrize("decoder", [*DECODERS, *PUBLISHED])
def test_reuse_is_exact_on_the_trained_model(decoder: str, cache: tuple[str, ...]):
    """Guards the same where tokens mean something, and the decoders that the cache was published with."""
    (model, prompts), method = trained_model("tiny_block"), (DECODERS | PUBLISHED)[decoder]
    made, without = (run(*method, *one, model=model, prompts=prompts) for one in (cache, ["method/cache=none"]))
    assert made.decided == without.decided
    assert [one.nfe - one.nfe_cache for one in made.counts] == [one.nfe for one in without.counts]
    assert sum(made.queries) <= sum(without.queries)


@pytest.mark.parametrize("cache", [*CACHES, ("method/cache=sub_block",)], ids=["stored", "merged", "sub_block"])
@pytest.mark.parametrize("decoder", ["threshold", "straddling", "hierarchy_remask"])
def test_a_row_does_not_depend_on_the_others(decoder: str, cache: tuple[str, ...]):
    """Guards rows whose prompts end at different places of a block, and their counts."""
    together = block_run(*DECODERS[decoder], *cache)
    parts = [block_run(*DECODERS[decoder], *cache, prompts=PROMPTS[rows]) for rows in APART]
    assert [one for part in parts for one in part.decided] == together.decided
    assert [one for part in parts for one in part.counts] == together.counts


@pytest.mark.parametrize("prompt_length", [3, 8, 10, 16])
def test_calls_and_queries_are_the_closed_form(prompt_length: int):
    """Guards one prefill, one call per finished block but the last, and the blocks of every call.

    One token per step, left to right, all masks read: a call computes the blocks from the first mask to the end.
    """
    knobs = ("method=llada", "method.remasking=left_to_right")
    stored, merged = (block_run(*knobs, *cache, prompts=[[2] * prompt_length]).counts[0] for cache in CACHES)
    length, masks = prompt_length + G, range(prompt_length, prompt_length + G)
    finishing = sum(mask % K == 0 for mask in masks[1:])
    prefill = prompt_length // K * K
    assert (stored.nfe_prefill, stored.prefill_tokens) == (int(prefill > 0), prefill)
    assert (stored.nfe_cache, stored.nfe) == (finishing, G + finishing)
    computed = sum(length - mask // K * K for mask in masks)
    assert stored.query_tokens == computed + finishing * K + prefill
    assert (merged.nfe_prefill, merged.nfe_cache, merged.nfe) == (0, 0, G)
    assert merged.query_tokens == stored.query_tokens


def test_the_last_token_of_a_stored_block_says_the_next():
    """Guards shifted models: where a prompt fills its blocks, the prefill is the evaluation of the next position."""
    model, cache, ledger = random_model("block_diffusion", 1), BlockCausalCache(), Ledger()
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(
        [[2] * 8, [2] * 8, [2] * 9], gen_length=16, mask_id=model.spec.mask_id, pad_id=0, seeds=[0, 0, 0]
    )

    def evaluated(places: list[int]) -> list[tuple]:
        """Return role, samples and queries of the calls that reading one place of each row takes."""
        before, at = len(ledger.records), canvas.place_BL == torch.tensor(places)[:, None]
        reads_N = at.nonzero(as_tuple=True)
        made = cache.evaluate(asked(model, canvas, *reads_N, ledger))
        torch.testing.assert_close(made, NoCache().evaluate(asked(model, canvas, *reads_N)), atol=1e-9, rtol=0)
        canvas.commit(at, torch.full_like(canvas.tokens_BL, 40))
        canvas.calls_B = canvas.calls_B + 1
        return [(one.role.value, one.sample_B.tolist(), one.query_B.tolist()) for one in ledger.records[before:]]

    assert evaluated([0, 1, 0]) == [("prefill", [0, 1, 2], [8, 8, 8]), ("target", [1, 2], [8, 8])]
    canvas.commit(canvas.place_BL < 8, torch.full_like(canvas.tokens_BL, 40))
    assert evaluated([8, 9, 8]) == [("cache", [1, 2], [8, 8]), ("target", [0, 1, 2], [8, 8, 8])]


def test_a_window_is_computed_alone_within_its_block():
    """Guards the sub-block cache: whole block where a window opens or a token outside of it changes, else 4 of 8."""
    knobs = ("method=llada", "method.remasking=left_to_right", "method.block_length=4")
    made = block_run(*knobs, "method/cache=sub_block", prompts=[[2] * 8]).counts[0]
    assert (made.nfe, made.nfe_cache) == (G + 1, 1)
    assert made.query_tokens == 8 + 4 * (8 + 3 * 4) + 8


def test_a_shifted_model_computes_the_block_until_the_first_position_is_known():
    """Guards the published condition: the first logits of a sub-block come from before it."""
    model, cache, ledger = random_model("block_diffusion", 1), SubBlockCache(), Ledger()
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts([[2] * 4], gen_length=4, mask_id=model.spec.mask_id, pad_id=0, seeds=[0])
    canvas.open_window(torch.tensor([True]), canvas.place_BL >= 0)
    computed = []
    for place in (1, 2, 0, 3):
        cache.evaluate(asked(model, canvas, *canvas.open_BL.nonzero(as_tuple=True), ledger))
        computed.append(ledger.records[-1].query_B.tolist())
        canvas.commit(canvas.place_BL == place, torch.full_like(canvas.tokens_BL, 40))
    assert computed == [[8], [8], [8], [4]]


@pytest.mark.parametrize("which", ["random", "shifted", "trained"])
def test_windows_of_whole_blocks_need_no_sub_block_cache(which: str):
    """Guards the sub-block cache where there is nothing outside of the window but what is stored."""
    model, prompts = random_model("block_diffusion", int(which == "shifted")), [[2] * 8, [2] * 16]
    if which == "trained":
        model, asked = trained_model("tiny_block")
        prompts = [prompt[: len(prompt) // K * K] for prompt in asked]
    decoder = ("method=threshold", "method.threshold=0.6", "method.block_length=8")
    made, without = (run(*decoder, *one, model=model, prompts=prompts) for one in (["method/cache=sub_block"], []))
    assert made.decided == without.decided
    assert any(counts.nfe > 3 for counts in made.counts)


@pytest.mark.parametrize("cache", [BlockCausalCache(), SubBlockCache()])
def test_models_that_see_later_blocks_are_refused(cache: BlockCausalCache | SubBlockCache):
    """Guards against keys of finished blocks that are not final."""
    method = replace(method_of("method=threshold"), cache=cache)
    refuse_kind(method, ModelKind.BLOCK_DIFFUSION)
    with pytest.raises(ValueError, match="needs a block_diffusion model, not a masked_diffusion one"):
        refuse_kind(method, ModelKind.MASKED_DIFFUSION)


@pytest.mark.parametrize("cache", [*CACHES, ("method/cache=sub_block",)], ids=["stored", "merged", "sub_block"])
def test_a_call_that_nothing_is_read_of_computes_the_window(cache: tuple[str, ...]):
    """Guards rows that are held although their window is complete: the call that a policy wants is made, and counts."""
    words = ("model=tiny_block", "method=freedave", "method.block_length=8", "method.selector.threshold=0.3")
    words = (*words, "method.verifier.draft_steps=1", "method.idle_calls=true")
    model, prompts = trained_model("tiny_block")
    plain, made = (run(*words, *more, model=model, prompts=prompts) for more in ((), cache))
    assert sum(one.nfe for one in made.counts) >= sum(one.nfe for one in plain.counts)
    if cache in CACHES:
        assert made.decided == plain.decided
        assert [one.nfe for one in made.counts] == [one.nfe for one in plain.counts]
