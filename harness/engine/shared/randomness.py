"""Random numbers that depend on the sample, the step, the purpose and the position, and on nothing else.

A counter-based generator (the finaliser of splitmix64, Steele et al. 2014) in tensor arithmetic: no state, no
global generator, the same draws whatever the batch, the order of samples, or the device.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from harness.engine.shared.indexing import positions

AHEAD = 8
"""Steps that are drawn for at once: one step's numbers take thirty operations, and those of several no more."""

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def sample_seed(run_seed: int, task: str, sample_id: str, repetition: int = 0) -> int:
    """Return the 63-bit seed of one sample of one run."""
    key = f"{run_seed}|{task}|{sample_id}|{repetition}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without dragging the sign along."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def forked_seeds(seed_B: Tensor, number_B: Tensor) -> Tensor:
    """Return a 63-bit seed for each copy of a row by its number; number 0 keeps the row's."""
    forked_B = _shift(_mix(_mix(seed_B + _GOLDEN) ^ (number_B * _GOLDEN + _SECOND)), 1)
    return torch.where(number_B == 0, seed_B, forked_B)


def uniforms(seed_B: Tensor, step_B: Tensor, purpose: str, length: int) -> Tensor:
    """Return float64 [B, `length`] in [0, 1): one draw per row, step, purpose and position."""
    return uniforms_of(row_keys(seed_B), step_B, purpose, length)


def row_keys(seed_B: Tensor) -> Tensor:
    """Return what tells rows apart in every step."""
    return _mix(seed_B + _GOLDEN)


def uniforms_of(key_B: Tensor, step_B: Tensor, purpose: str, length: int) -> Tensor:
    """Return `uniforms` of rows whose `row_keys` are at hand."""
    salt = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=7).digest(), "big")
    row_B = _mix(key_B ^ (step_B * _GOLDEN + salt))
    return _shift(_mix(row_B[..., None] + _spread(length, key_B.device)), 11).double() * 2.0**-53


def uniforms_ahead(key_B: Tensor, step_B: Tensor, purpose: str, length: int) -> Tensor:
    """Return `uniforms_of` each row's step and of those behind it, [B, AHEAD, `length`]."""
    return uniforms_of(key_B[:, None], step_B[:, None] + positions(AHEAD, step_B.device), purpose, length)


@lru_cache(maxsize=256)
def _spread(length: int, device: torch.device) -> Tensor:
    """Return what tells positions apart; the same tensor to all, so that nobody may write to it."""
    with torch.inference_mode(False):
        return torch.arange(1, length + 1, device=device, dtype=torch.int64) * _GOLDEN


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Lend code that is not ours torch's global generators, seeded, and put them back as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
