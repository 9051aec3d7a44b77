"""Drafts that share a row of the model see what is stored and themselves, as if each had a row."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.reuse import forward_queries
from harness.engine.shared.kv_tree import DraftsStore
from harness.engine.shared.records import Ledger
from tests.engine.asking import asked, empty_store
from tests.engine.test_reuse import laid_out

ROW_D = torch.tensor([0, 0, 0, 1])


def drafted(canvas: Canvas) -> Canvas:
    """Return three drafts of the first row and one of the second, each with other tokens in the response."""
    drafts = canvas.rows(ROW_D)
    made_BL = drafts.undecided_BL & (drafts.place_BL < torch.tensor([1, 2, 3, 2])[:, None])
    drafts.commit(made_BL, torch.arange(30, 34)[:, None].expand_as(drafts.tokens_BL))
    return drafts


@pytest.mark.parametrize("kind", ["masked_diffusion", "block_diffusion"])
def test_a_draft_is_computed_as_in_a_row_of_its_own(kind: str):
    """Guards visibility, blocks, ragged queries, a second call over the first one's keys, and the store that goes on.

    A draft whose row has no other writes in place; slots behind the row are taken for the rest alone.
    """
    model, canvas = laid_out(kind)
    store, none_N = empty_store(model, canvas), torch.zeros(0, dtype=torch.int64)
    forward_queries(asked(model, canvas, none_N, none_N), store, canvas.whole_BL)
    drafts = drafted(canvas)
    tree, plain, ledger = DraftsStore(store, ROW_D, [3, 1]), store.rows(ROW_D), Ledger()
    for first in (torch.tensor([0, 2, 1, 3]), torch.tensor([3, 1, 8, 0])):
        query_DL = drafts.response_BL & (drafts.place_BL >= first[:, None])
        request = asked(model, drafts, *query_DL.nonzero(as_tuple=True), ledger)
        made, alone = (forward_queries(request, kept, query_DL) for kept in (tree, plain))
        torch.testing.assert_close(made, alone, atol=1e-11, rtol=0)
    assert [record.query_B.tolist() for record in ledger.records] == [[21, 5], [8, 6, 7, 5], [12, 8], [5, 7, 8]]
    assert [record.head_B.sum() for record in ledger.records] == [26, 26, 20, 20]
    assert tree.shared.slots == tree.slots + 8 + 7 + 7
    for index_B in (torch.tensor([2, 3]), torch.tensor([0])):
        for made, alone in zip(tree.rows(index_B).keys, plain.rows(index_B).keys, strict=True):
            torch.testing.assert_close(made[:, :-1], alone[:, :-1], atol=1e-11, rtol=0)


def test_only_drafts_without_a_past_can_grow():
    """Guards slots behind a row, which growth would overwrite."""
    model, canvas = laid_out("masked_diffusion")
    tree = DraftsStore(empty_store(model, canvas), ROW_D, [3, 1]).grown(20)
    assert (tree.slots, tree.slot_DL.shape) == (20, (4, 19))
    assert tree.take([1, 0, 2, 0]) == [20, 21, 21, 20] and tree.shared.slots == 23
    with pytest.raises(AssertionError, match="the slots behind are taken"):
        tree.grown(30)
