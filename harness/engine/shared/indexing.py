"""Positions, constants and counts per row that nobody makes twice, and none of which waits for the device.

Shapes: B rows, N entries of any rows.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def positions(width: int, device: torch.device) -> Tensor:
    """Return every position of `width`, from 0; the same tensor to all, so that nobody may write to it."""
    with torch.inference_mode(False):
        return torch.arange(width, device=device)


@lru_cache(maxsize=256)
def filled(shape: tuple[int, ...], fill: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of one value; the same tensor to all, so that nobody may write to it."""
    with torch.inference_mode(False):
        return torch.full(shape, fill, dtype=dtype, device=device)


@lru_cache(maxsize=256)
def listed(numbers: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return these numbers; the same tensor to all, so that nobody may write to it."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=dtype, device=device)


def flags(marked: Iterable[bool], device: torch.device) -> Tensor:
    """Return which are marked; the same tensor to all, so that nobody may write to it."""
    return listed(tuple(marked), device, torch.bool)


def per_row(row_N: Tensor, rows: int) -> Tensor:
    """Return how many entries each of the rows has, [B]; unlike `bincount`, without waiting for the device."""
    none_B, one_1 = filled((rows,), 0, row_N.dtype, row_N.device), filled((1,), 1, row_N.dtype, row_N.device)
    return none_B.index_add(0, row_N, one_1.expand(len(row_N)))


def of_busy(counts: Sequence[int], tensor: Tensor) -> Tensor:
    """Return, of what there is by row, the entries of rows that have something to do, of which there are `counts`."""
    if all(counts):
        return tensor
    return tensor.index_select(0, listed(tuple(row for row, n in enumerate(counts) if n), tensor.device))
