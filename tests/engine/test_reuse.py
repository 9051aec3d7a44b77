"""Evaluation of some positions against stored keys and values."""

from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.reuse import (
    Gathered,
    forward_queries,
    recall,
    remember,
    store_of,
    top_probability,
)
from harness.engine.shared.records import Ledger
from harness.models import random as random_models
from tests.engine.asking import asked, empty_store

PROMPTS = [[2, 30, 76, 4], [2, 31, 76, 77, 78, 4]]


def laid_out(kind: str) -> tuple:
    """Return a random float64 model and a ragged canvas."""
    block = 4 if kind == "block_diffusion" else None
    loaded = random_models.load(name="r", kind=kind, seed=3, max_length=64, block_length=block, dtype=torch.float64)
    spec = loaded.model.spec
    assert spec.mask_id is not None
    return loaded.model, Canvas.from_prompts(
        PROMPTS, gen_length=8, mask_id=spec.mask_id, pad_id=spec.pad_id, seeds=[0, 0]
    )


@pytest.mark.parametrize("kind", ["masked_diffusion", "block_diffusion"])
def test_queries_against_what_is_stored_equal_a_forward_from_scratch(kind: str):
    """Guards gathering, padded queries, slots and masks of ragged rows; only real queries are counted."""
    model, canvas = laid_out(kind)
    store, ledger = empty_store(model, canvas), Ledger()
    row_N, position_N = canvas.undecided_BL.nonzero(as_tuple=True)
    first = forward_queries(asked(model, canvas, row_N, position_N, ledger), store, canvas.whole_BL)
    some_BL = canvas.whole_BL & (canvas.place_BL >= torch.tensor([[2], [5]]))
    chosen_N = some_BL[row_N, position_N]
    again = forward_queries(asked(model, canvas, row_N[chosen_N], position_N[chosen_N], ledger), store, some_BL)
    torch.testing.assert_close(again, first[chosen_N], atol=1e-11, rtol=0)
    assert [record.query_B.tolist() for record in ledger.records] == [[12, 14], [6, 3]]


def test_a_row_without_a_query_is_neither_changed_nor_charged():
    """Guards rows that have nothing to compute in a call that others need."""
    model, canvas = laid_out("masked_diffusion")
    store, ledger, none_N = empty_store(model, canvas), Ledger(), torch.zeros(0, dtype=torch.int64)
    nothing = asked(model, canvas, none_N, none_N, ledger)
    forward_queries(nothing, store, canvas.whole_BL)
    before = store.rows(torch.tensor([1]))
    canvas.commit(canvas.undecided_BL, torch.full_like(canvas.tokens_BL, 40))
    forward_queries(nothing, store, canvas.whole_BL & torch.tensor([[True], [False]]))
    after = store.rows(torch.tensor([1]))
    for old, new in zip(before.keys, after.keys, strict=True):
        assert torch.equal(old[:, :14], new[:, :14])
    assert ledger.records[-1].sample_B.tolist() == [0]


def test_a_position_that_is_read_must_be_computed():
    """Guards shifted models against caches that forget the position before."""
    model, canvas = laid_out("masked_diffusion")
    first = asked(model, canvas, torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(AssertionError, match="is not computed"):
        forward_queries(first, empty_store(model, canvas), canvas.undecided_BL)


def test_what_changed_since_it_was_computed():
    """Guards commits, edits, re-masks and rows that grow: stored keys and values of another token must not be used."""
    model, canvas = laid_out("masked_diffusion")
    assert recall(canvas).fresh_B.all()
    none_N = torch.zeros(0, dtype=torch.int64)
    store_of(asked(model, canvas, none_N, none_N))
    remember(canvas, recall(canvas), canvas.whole_BL)
    assert not recall(canvas).changed_BL(canvas).any()
    first_BL = canvas.place_BL == 0
    for change in (
        lambda: canvas.commit(first_BL, torch.full_like(canvas.tokens_BL, 40)),
        lambda: canvas.edit(first_BL, torch.full_like(canvas.tokens_BL, 41)),
        lambda: canvas.remask(first_BL),
    ):
        change()
        assert torch.equal(recall(canvas).changed_BL(canvas), first_BL)
        remember(canvas, recall(canvas), first_BL)
    assert recall(canvas).calls_B.tolist() == [4, 4]
    canvas.open_window(torch.tensor([True, False]), canvas.response_BL)
    assert recall(canvas).calls_B.tolist() == [0, 4]
    canvas.insert(torch.tensor([5, 0]), torch.tensor([1, 0]))
    assert recall(canvas).fresh_B.tolist() == [True, False]
    remember(canvas, recall(canvas), canvas.whole_BL)
    canvas.resize(canvas.length_B - torch.tensor([0, 2]))
    canvas.insert(torch.tensor([0, 7]), torch.tensor([0, 2]))
    assert recall(canvas).fresh_B.tolist() == [False, True], "positions move in a row that stays as long as it is"
    assert not recall(canvas, anew=False).fresh_B.any()
    canvas.resize(canvas.length_B + 4)
    assert recall(canvas).fresh_B.all()


def test_gathered_positions_go_back_to_where_they_came_from():
    """Guards the padding of shorter rows, which must not overwrite a position."""
    chosen_BL = torch.tensor([[True, False, True, True], [False, True, False, False]])
    x_BL, chosen = torch.arange(8).view(2, 4), Gathered.of(chosen_BL)
    assert chosen.take(x_BL)[0].tolist() == [0, 2, 3]
    put_BL = chosen.put(x_BL, -1 - chosen.take(x_BL))
    assert put_BL.tolist() == [[-1, 1, -3, -4], [4, -6, 6, 7]]


def test_the_surest_token_is_no_mask():
    """Guards certainty that is the mask's: of 8, 1 and 1 parts the first is the mask's, where a model has one."""
    model, _ = laid_out("masked_diffusion")
    logits_NV = torch.tensor([[8.0, 1, 1]]).log()
    for mask_id, expected in ((0, 0.5), (None, 0.8)):
        spec = replace(model.spec, vocab_size=3, mask_id=mask_id)
        assert top_probability(logits_NV, spec).tolist() == pytest.approx([expected])
