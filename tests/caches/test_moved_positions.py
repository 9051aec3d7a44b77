"""Caches when positions move: what was computed for other places, or of a row that ended elsewhere, is not used."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import evaluate
from harness.engine.diffusion.method import NoCache
from harness.engine.shared.records import Ledger
from tests.caches.decoding import LENGTH, PROMPTS, random_model, run
from tests.caches.test_every_cache import CACHES, method_with, model_for

INSERTION = torch.tensor([3, 0, 0])
MOVES: dict[str, Callable[[Canvas], None]] = {
    "grown": lambda canvas: canvas.resize(canvas.length_B + INSERTION),
    "cut": lambda canvas: canvas.resize(canvas.length_B - INSERTION),
    "inserted": lambda canvas: canvas.insert(canvas.prompt_length_B + 1, INSERTION),
}


def commit(canvas: Canvas, place: int) -> None:
    """Take a step that closes one place of every row."""
    canvas.commit(canvas.place_BL == place, torch.full_like(canvas.tokens_BL, 40 + place))
    canvas.tick(torch.ones_like(canvas.held_B))


# A sub-block's other positions may be stale by definition.
@pytest.mark.parametrize("moves", [["grown"], ["cut"], ["inserted"], ["cut", "inserted"]], ids="-".join)
@pytest.mark.parametrize("cache", sorted(CACHES.keys() - {"sub_block"}))
def test_the_next_prediction_is_exact(cache: str, moves: list[str]):
    """Guards length and places apart: what is cut off as much as is inserted leaves the length as it was."""
    method, model = method_with(cache), model_for(cache)
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(
        PROMPTS[:3], gen_length=LENGTH, mask_id=model.spec.mask_id, pad_id=model.spec.pad_id, seeds=range(3)
    )
    for place in (0, 2, 3):
        method.window.update(canvas)
        evaluate(model, method, canvas, Ledger())
        commit(canvas, place)
    for move in moves:
        MOVES[move](canvas)
    method.window.update(canvas)
    made = evaluate(model, method, canvas, Ledger())
    exact = evaluate(model, replace(method, cache=NoCache()), canvas.copy(), Ledger())
    moved_N = made.row_N == 0
    assert bool(moved_N.any())
    rank_BL = exact.scatter(torch.arange(len(exact.row_N)), -1)
    theirs_NV = exact.logits_NV[made.gather(rank_BL)[moved_N]]
    torch.testing.assert_close(made.logits_NV[moved_N], theirs_NV, atol=1e-9, rtol=0)


def test_a_finished_block_is_computed_anew_where_its_row_ends_elsewhere():
    """Guards blocks whose tokens are the same, and which see fewer of them."""
    method, model = method_with("block_causal"), model_for("block_causal")
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts([[2] * 6], gen_length=6, mask_id=model.spec.mask_id, pad_id=0, seeds=[0])
    commit(canvas, 2)
    for length in (12, 10, 12):
        canvas.resize(torch.tensor([length]))
        method.window.update(canvas)
        made, exact = (evaluate(model, one, canvas, Ledger()) for one in (method, replace(method, cache=NoCache())))
        torch.testing.assert_close(made.logits_NV, exact.logits_NV, atol=1e-9, rtol=0)


GROWTH = ("method/finish=canvas_growth", "method.finish.low=0.6", "method.finish.grow=4", "method.finish.Lmax=24")
GROWTH += ("method.finish.W=4", "method.finish.eos_init=0", "method.finish.eos_grow=2")


@pytest.mark.parametrize("rule", [GROWTH, ("method/finish=predict_eos",)], ids=["canvas_growth", "predict_eos"])
@pytest.mark.parametrize("decoder", [("sdar", 0), ("fast_dllm_v2", 1), ("threshold", 0)], ids=lambda one: one[0])
def test_storing_blocks_changes_no_answer_of_another_length(decoder: tuple[str, int], rule: tuple[str, ...]):
    """Guards exact reuse of the blocks before the first that moved, which is less work, and not a call more."""
    (name, shift), blocks = decoder, ("method.block_length=8",) if decoder[0] != "fast_dllm_v2" else ()
    model, method = random_model("block_diffusion", shift), (f"method={name}", *blocks, *rule)
    without = run(*method, "method/cache=none", model=model)
    for merged in ("false", "true"):
        made = run(*method, "method/cache=block_causal", f"method.cache.merged={merged}", model=model)
        assert made.decided == without.decided
    assert [counts.nfe for counts in made.counts] == [counts.nfe for counts in without.counts]
    assert sum(made.queries) < sum(without.queries)
