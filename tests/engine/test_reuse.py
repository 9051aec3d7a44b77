"""Evaluation of some positions against stored keys and values."""

import pytest
import torch

from harness.engine.canvas import Canvas
from harness.engine.records import Ledger
from harness.engine.reuse import forward_queries, new_store, whole_BL
from harness.models import random as random_models

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
    store, ledger = new_store(model, canvas), Ledger()
    row_N, position_N = canvas.undecided_BL.nonzero(as_tuple=True)
    first = forward_queries(ledger, model, canvas, store, whole_BL(canvas), row_N, position_N)
    some_BL = whole_BL(canvas) & (canvas.place_BL >= torch.tensor([[2], [5]]))
    chosen_N = some_BL[row_N, position_N]
    again = forward_queries(ledger, model, canvas, store, some_BL, row_N[chosen_N], position_N[chosen_N])
    torch.testing.assert_close(again, first[chosen_N], atol=1e-11, rtol=0)
    assert [record.query_B.tolist() for record in ledger.records] == [[12, 14], [6, 3]]


def test_a_row_without_a_query_is_neither_changed_nor_charged():
    """Guards rows that have nothing to compute in a call that others need."""
    model, canvas = laid_out("masked_diffusion")
    store, ledger, none_N = new_store(model, canvas), Ledger(), torch.zeros(0, dtype=torch.int64)
    forward_queries(ledger, model, canvas, store, whole_BL(canvas), none_N, none_N)
    before = store.rows(torch.tensor([1]))
    canvas.commit(canvas.undecided_BL, torch.full_like(canvas.tokens_BL, 40))
    forward_queries(ledger, model, canvas, store, whole_BL(canvas) & torch.tensor([[True], [False]]), none_N, none_N)
    after = store.rows(torch.tensor([1]))
    for old, new in zip(before.keys, after.keys, strict=True):
        assert torch.equal(old[:, :14], new[:, :14])
    assert ledger.records[-1].sample_B.tolist() == [0]


def test_a_position_that_is_read_must_be_computed():
    """Guards shifted models against caches that forget the position before."""
    model, canvas = laid_out("masked_diffusion")
    with pytest.raises(AssertionError, match="is not computed"):
        forward_queries(
            Ledger(), model, canvas, new_store(model, canvas), canvas.undecided_BL, torch.tensor([0]), torch.tensor([0])
        )
