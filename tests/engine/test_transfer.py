"""Rows of several kinds of numbers that are read at once are what each would be by itself."""

import math

import pytest
import torch

from harness.engine.shared.transfer import read_rows
from tests.engine.operations import Operations

WHOLE = torch.tensor([[1, -(2**62)], [2**53 + 1, 0]])
MARKED = torch.tensor([[True], [False]])
BROKEN = torch.tensor([[0.1, -torch.inf, -0.0], [torch.nan, 1e-300, 3.0]], dtype=torch.float64)
NONE = torch.zeros(2, 0, dtype=torch.int64)


def test_every_number_is_itself():
    """Guards whole numbers beyond 2^53, and every bit of a margin."""
    (first, second), nothing = read_rows(WHOLE, BROKEN, NONE, MARKED), read_rows(NONE[:0])
    assert first == [WHOLE[0].tolist(), tuple(BROKEN[0].tolist()), [], [1]] and nothing == []
    assert math.copysign(1, first[1][2]) == -1
    assert second[0] == WHOLE[1].tolist() and math.isnan(second[1][0]) and second[1][1:] == (1e-300, 3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_numbers_are_told_in_full(dtype: torch.dtype):
    """Guards what a float32 model's margins are reported as."""
    narrow = torch.tensor([[0.1, 1 / 3]], dtype=dtype)
    assert read_rows(narrow) == [[tuple(narrow.double()[0].tolist())]]


def test_the_host_waits_once(monkeypatch: pytest.MonkeyPatch):
    """Guards the stream of a device against a look per part."""
    waits: list[int] = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: waits.append(1) or real(self))
    with Operations(7) as seen:
        read_rows(WHOLE, BROKEN, MARKED)
    assert len(waits) == 1 and not seen.reads
