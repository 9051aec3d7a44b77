"""Forwards against stored keys and values equal forwards from scratch (float64, so that only bugs differ)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, keep_rows
from harness.models.key_values import KeyValueStore
from harness.models.slots import SlotStore
from harness.models.transformer import Attention, Transformer
from tests.engine.operations import peak_bytes
from tests.models.shapes import random_model, tokens

F64 = {"dtype": torch.float64}
CAUSAL = {"attention": Attention.CAUSAL}
BLOCK = {"attention": Attention.BLOCK_CAUSAL, "block_length": 4}
L = 16


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-11, rtol=0)


def filled(model: Transformer, tokens_BT: Tensor, slots: int = L) -> KeyValueStore:
    """Return a store that holds all of `tokens_BT`."""
    kv = model.new_store(tokens_BT.shape[0], slots)
    model.logits(ForwardRequest(tokens_BT, kv=kv, end=tokens_BT.shape[1]))
    return kv


def window(start: int, stop: int, rows: int = 1) -> Tensor:
    return torch.arange(start, stop).expand(rows, -1)


@pytest.mark.parametrize("kind", [{}, CAUSAL, BLOCK])
def test_a_cached_full_pass_is_a_full_pass(kind: dict) -> None:
    """Guards the write, the read range and the own mask over a store."""
    model, tokens_BT = random_model(**F64, **kind), tokens(3, L)
    kv = model.new_store(3, L + 5)
    close(model.logits(ForwardRequest(tokens_BT, kv=kv, end=L)), model(tokens_BT))


@pytest.mark.parametrize("kind", [{}, CAUSAL, BLOCK])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (5, 11), (15, 16)])
def test_recomputing_unchanged_tokens_changes_nothing(kind: dict, start: int, stop: int) -> None:
    """Guards positions, slots and mask of a window: logits and stored values must be those of the full pass."""
    model, tokens_BT = random_model(**F64, **kind), tokens(2, L)
    kv = filled(model, tokens_BT)
    stored = [t.clone() for t in kv.keys + kv.values]
    logits = model.logits(ForwardRequest(tokens_BT[:, start:stop], positions_BT=window(start, stop, 2), kv=kv))
    close(logits, model(tokens_BT)[:, start:stop])
    for before, after in zip(stored, kv.keys + kv.values, strict=True):
        close(after, before)


def stale_reference(model: Transformer, old_BT: Tensor, new_BT: Tensor, start: int, stop: int) -> Tensor:
    """Return the window's logits where all other keys are those of `old_BT`, by one masked forward.

    The old row and the new window stand side by side; old queries see old keys, new queries see the new window
    and the old keys outside of it.
    """
    places = torch.arange(old_BT.shape[1])
    inside = (places >= start) & (places < stop)
    new = torch.cat([torch.zeros_like(inside), torch.ones(stop - start, dtype=torch.bool)])
    outside_or_new = torch.cat([~inside, torch.ones(stop - start, dtype=torch.bool)])
    visible_BTS = torch.where(new[:, None], outside_or_new[None, :], ~new[None, :])[None]
    both_BT = torch.cat([old_BT, new_BT[:, start:stop]], 1)
    positions_BT = torch.cat([places, places[inside]]).expand_as(both_BT)
    logits = model.logits(ForwardRequest(both_BT, positions_BT=positions_BT, visible_BTS=visible_BTS, structured=False))
    return logits[:, old_BT.shape[1] :]


@pytest.mark.parametrize(("start", "stop"), [(4, 9), (0, 5), (6, L)])
def test_a_window_replaces_its_slots_in_place(start: int, stop: int) -> None:
    """Guards dual cache (window in the middle) and prefix cache (suffix): new inside, stale outside, no copy."""
    model, old_BT, new_BT = random_model(**F64), tokens(2, L), tokens(2, L, seed=1)
    kv = filled(model, old_BT)
    logits = model.logits(ForwardRequest(new_BT[:, start:stop], positions_BT=window(start, stop, 2), kv=kv))
    close(logits, stale_reference(model, old_BT, new_BT, start, stop))
    again = model.logits(ForwardRequest(new_BT[:, start:stop], positions_BT=window(start, stop, 2), kv=kv))
    close(again, logits)


def test_later_windows_see_replaced_slots() -> None:
    """Guards against a replacement that only its own call sees."""
    model, tokens_BT = random_model(**F64, **CAUSAL), tokens(1, L)
    other_BT = tokens_BT.clone()
    other_BT[:, 8:12] = tokens(1, 4, seed=2)
    kv = filled(model, tokens_BT)
    model.logits(ForwardRequest(other_BT[:, 8:12], positions_BT=window(8, 12), kv=kv))
    last = model.logits(ForwardRequest(other_BT[:, 12:], positions_BT=window(12, L), kv=kv))
    close(last, model(other_BT)[:, 12:])


@pytest.mark.parametrize("structured", [True, False])
def test_block_decoding_equals_one_masked_pass(structured: bool) -> None:
    """Guards the persistent store: noisy passes over a block leave no trace once its final tokens are written."""
    model, tokens_BT = random_model(**F64, **BLOCK), tokens(2, L)
    expected, kv = model(tokens_BT), model.new_store(2, L)
    for start in range(0, L, 4):
        places = window(start, start + 4, 2)
        for content_BT in (torch.zeros_like(places), tokens_BT[:, start : start + 4]):
            logits = model.logits(
                ForwardRequest(content_BT, positions_BT=places, kv=kv, end=start + 4, structured=structured)
            )
        close(logits, expected[:, start : start + 4])


def test_causal_decoding_token_by_token_equals_one_pass() -> None:
    """Guards autoregressive decoding with a prefill."""
    model, tokens_BT = random_model(**F64, **CAUSAL), tokens(2, L)
    expected, kv = model(tokens_BT), model.new_store(2, L)
    close(model.logits(ForwardRequest(tokens_BT[:, :6], kv=kv, end=6)), expected[:, :6])
    for place in range(6, L):
        step = model.logits(ForwardRequest(tokens_BT[:, place, None], positions_BT=window(place, place + 1, 2), kv=kv))
        close(step, expected[:, place, None])


@pytest.mark.parametrize("kind", [{}, CAUSAL, BLOCK])
def test_rows_at_different_points(kind: dict) -> None:
    """Guards batches in which every row has its own window."""
    model, tokens_BT = random_model(**F64, **kind), tokens(2, L)
    kv = filled(model, tokens_BT)
    starts = [2, 9]
    places = torch.stack([torch.arange(s, s + 4) for s in starts])
    logits = model.logits(ForwardRequest(tokens_BT.gather(1, places), positions_BT=places, kv=kv))
    full = model(tokens_BT)
    for row, start in enumerate(starts):
        close(logits[row], full[row, start : start + 4])


def test_ragged_windows_are_padded_into_a_slot_nobody_sees() -> None:
    """Guards batches whose windows differ in length: padding must neither be seen nor spoil the store."""
    model, tokens_BT = random_model(**F64), tokens(2, L)
    kv = filled(model, tokens_BT, slots=L + 1)
    slots = torch.tensor([[3, 4, 5, 6], [10, 11, L, L]])
    visible_BTS = (torch.arange(L + 1) < L)[None, None]
    logits = model.logits(
        ForwardRequest(
            tokens_BT.gather(1, slots.clamp(max=L - 1)),
            positions_BT=slots.clamp(max=L - 1),
            slots_BT=slots,
            kv=kv,
            visible_BTS=visible_BTS,
        )
    )
    full = model(tokens_BT)
    close(logits[0], full[0, 3:7])
    close(logits[1, :2], full[1, 10:12])
    close(model.logits(ForwardRequest(tokens_BT, kv=kv, end=L)), full)


def test_rows_are_copied_in_any_order_and_number() -> None:
    """Guards leaving rows and expanded drafts: a copy must not share memory with its origin."""
    model, tokens_BT = random_model(**F64), tokens(2, L)
    kv = filled(model, tokens_BT)
    order = torch.tensor([1, 0, 1])
    copied = kv.rows(order)
    model.logits(ForwardRequest(tokens(3, 4, seed=3), positions_BT=window(0, 4, 3), kv=copied))
    close(
        model.logits(ForwardRequest(tokens_BT[:, 4:9], positions_BT=window(4, 9, 2), kv=kv)), model(tokens_BT)[:, 4:9]
    )
    repeated = model.logits(ForwardRequest(tokens_BT[order, 4:9], positions_BT=window(4, 9, 3), kv=kv.rows(order)))
    close(repeated, model(tokens_BT)[order, 4:9])


def test_positions_need_not_be_slots() -> None:
    """Guards drafts side by side: two candidates of one position in two slots, each as if it stood alone."""
    model, tokens_BT = random_model(**F64, **CAUSAL), tokens(1, 8)
    kv = model.new_store(1, 10)
    model.logits(ForwardRequest(tokens_BT, kv=kv, end=8))
    candidates = torch.tensor([[5, 7]])
    own = torch.eye(2, dtype=torch.bool)
    visible_BTS = torch.cat([torch.ones(2, 8, dtype=torch.bool), own], 1)[None]
    logits = model.logits(
        ForwardRequest(
            candidates,
            positions_BT=torch.tensor([[8, 8]]),
            slots_BT=torch.tensor([[8, 9]]),
            kv=kv,
            visible_BTS=visible_BTS,
            structured=False,
        )
    )
    for n in range(2):
        alone = model(torch.cat([tokens_BT, candidates[:, n, None]], 1))
        close(logits[:, n], alone[:, -1])


@pytest.mark.parametrize("kind", [{}, CAUSAL, BLOCK])
def test_a_right_padded_row_equals_the_row_alone(kind: dict) -> None:
    """Guards `visible_BTS`, alone and together with the model's own mask."""
    model, tokens_BT = random_model(**F64, **kind), tokens(2, L)
    lengths_B = torch.tensor([L, 11])
    visible_BTS = (torch.arange(L) < lengths_B[:, None])[:, None]
    padded = model.logits(ForwardRequest(tokens_BT, visible_BTS=visible_BTS))
    close(padded[0], model(tokens_BT[:1])[0])
    close(padded[1, :11], model(tokens_BT[1:, :11])[0])


def test_a_query_that_sees_nothing_stays_finite() -> None:
    """Guards against NaN from padding queries, which would reach real rows through a sum."""
    model = random_model()
    visible_BTS = torch.ones(1, L, L, dtype=torch.bool)
    visible_BTS[:, 3] = False
    assert model.logits(ForwardRequest(tokens(1, L), visible_BTS=visible_BTS)).isfinite().all()


@pytest.mark.parametrize("tied_head", [False, True])
def test_only_selected_rows_reach_norm_and_head(tied_head: bool) -> None:
    """Guards the cost of the vocabulary: logits nobody reads must not be computed."""
    model, tokens_BT = random_model(**F64, tied_head=tied_head), tokens(3, L)
    select_N = torch.tensor([40, 3, 17, 3])
    full, seen = model(tokens_BT), []
    for module in (model.norm, model.head):
        if module is not None:
            module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[:-1])))
    close(model.logits(ForwardRequest(tokens_BT, select_N=select_N)), full.flatten(0, 1)[select_N])
    assert set(seen) == {(4,)}


def stored(kind: str) -> KeyValueStore | SlotStore:
    """Return a store of four layers, of the in-tree transformer or of a transformers model, with something in it."""
    places_BT, layers, slots = window(0, 5, 3), 4, 900
    if kind == "own":
        store = KeyValueStore(*([torch.zeros(3, slots, 1, 4) for _ in range(layers)] for _ in range(2)))
    else:
        store = SlotStore(layers, 3, slots)
    for layer in range(layers):
        values_BTKD = torch.arange(3 * 5 * 4.0).view(3, 5, 1, 4) + 100 * layer
        values_BTKD = values_BTKD if kind == "own" else values_BTKD.transpose(1, 2)
        store.write(layer, places_BT, values_BTKD, -values_BTKD)
    return store


@pytest.mark.parametrize("kind", ["own", "slots"])
def test_rows_that_finish_leave_without_a_second_copy_of_the_others(kind: str) -> None:
    """Guards memory: a finished row of a large model must not ask for as much as all keys and values once more."""

    def held(one: Any) -> list[Tensor]:
        return [*one.keys, *one.values]

    store, index_B = stored(kind), torch.tensor([0, 2])
    expected = [one.clone() for one in held(store.rows(index_B))]
    made, both = peak_bytes(lambda: stored(kind)), peak_bytes(lambda: keep_rows(stored(kind), index_B))
    copied = peak_bytes(lambda: stored(kind).rows(index_B))
    part = expected[0].numel() * expected[0].element_size()
    assert both - made <= 2 * part < copied - made, "what is at hand beside all of it is of one layer"
    store = keep_rows(store, index_B)
    assert all(torch.equal(one, other) for one, other in zip(held(store), expected, strict=True))
    last, nobody = keep_rows(store, torch.tensor([1])), torch.tensor([], dtype=torch.int64)
    assert all(torch.equal(one, other[1:]) for one, other in zip(held(last), expected, strict=True))
    assert {one.shape[0] for one in held(keep_rows(last, nobody))} == {0}
