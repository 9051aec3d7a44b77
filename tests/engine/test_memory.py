"""What policies keep of rows: rows that have nothing under a key are told the default, whatever stands beside them."""

import torch

from harness.engine.shared.memory import Memory

ROWS_B = torch.tensor([True, False])


def kept(memory: Memory, key: str, default: float = -1) -> list:
    """Return what `get` says of a key, with a tensor as default."""
    return memory.get(key, torch.full_like(memory[key], default)).tolist()


def test_a_row_that_has_joined_has_nothing_until_its_key_is_written():
    """Guards defaults that are not 0: counters from 1, infinite bounds, tokens of the last step."""
    old, fresh = Memory({"a.count_B": torch.tensor([5, 6])}), Memory({"a.start_B": torch.tensor([3])})
    memory = Memory.joined([old, fresh], [2, 1])
    assert kept(memory, "a.count_B") == [5, 6, -1] and memory["a.count_B"].tolist() == [5, 6, 0]
    assert kept(memory, "a.start_B") == [-1, -1, 3] and memory.get("a.count_B", 7).tolist() == [5, 6, 7]
    assert memory.get("b", 2) == 2 and memory.get("b") is None
    assert kept(memory.rows(torch.tensor([2, 0])), "a.count_B") == [-1, 5]
    assert kept(Memory.joined([memory, memory], [3, 3]), "a.count_B") == [5, 6, -1] * 2
    copy = memory.copy()
    memory["a.count_B"] = memory["a.count_B"] + 1
    assert kept(memory, "a.count_B") == [6, 7, 1] and kept(copy, "a.count_B") == [5, 6, -1]
    copy |= {"a.count_B": torch.tensor([1, 1, 0])}
    assert kept(copy, "a.count_B") == [1, 1, 0]
    again = Memory.joined([old, fresh], [2, 1])
    again.update({"a.count_B": torch.tensor([1, 1, 0])})
    assert kept(again, "a.count_B") == [1, 1, 0]


def test_a_step_that_is_taken_back_leaves_nothing():
    """Guards rows that are evaluated again, or idle, while others make a step that first writes a key."""
    before, after = Memory(), Memory({"a.count_B": torch.tensor([1, 1])})
    assert kept(after.where(ROWS_B, before), "a.count_B") == [1, -1]
    assert kept(before.where(ROWS_B, after), "a.count_B") == [-1, 1]
    again = Memory({"a.count_B": torch.tensor([2, 2])}).where(~ROWS_B, after.where(ROWS_B, before))
    assert kept(again, "a.count_B") == [1, 2]


def test_what_is_shorter_gets_zeros_behind():
    """Guards rows of canvases that have grown, joined to others or put in place of some."""
    short, long = Memory({"a.seen_BL": torch.tensor([[1], [1]])}), Memory({"a.seen_BL": torch.tensor([[2, 3], [2, 3]])})
    assert short.where(ROWS_B, long)["a.seen_BL"].tolist() == [[1, 0], [2, 3]]
    assert Memory.joined([short, long], [2, 2])["a.seen_BL"].tolist() == [[1, 0], [1, 0], [2, 3], [2, 3]]
    short.widen(3, 0)
    assert short["a.seen_BL"].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_what_tells_of_stores_goes_with_them():
    """Guards a draft that takes over what was evaluated of another one, and no policy's memory."""
    mine, theirs = Memory({"a.count_B": torch.tensor([1])}), Memory({"cache.x_B": torch.tensor([2])})
    theirs["a.count_B"] = torch.tensor([9])
    both = mine.with_(theirs.only_cached())
    assert (both["a.count_B"].tolist(), both["cache.x_B"].tolist()) == ([1], [2])
