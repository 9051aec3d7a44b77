"""Draws of the bootstrap: how often each sample is in each replicate, made once and remembered.

Shapes: N samples, C columns (quantities), R replicates.
"""

import math
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

REPLICATES = 10_000
_SEED = 20_251_124
_CHUNK = 100
# Standard deviations by which the Poisson counts of a replicate fall short of all draws, and where they are worth it.
_SHORT, _MANY = 4, 256
_STEPS, _TERMS = 2**16, 16
_REMEMBERED_BYTES = 2**28

Floats = NDArray[np.float64]
Counts = NDArray[np.uint8]

_remembered: OrderedDict[tuple[int, int, int], Counts] = OrderedDict()


def resampled_means(values_NC: Floats, part: int = 0, replicates: int = REPLICATES) -> Floats:
    """Return the column means of `replicates` resamplings of the rows, [R, C], from a fixed seed.

    Equal numbers of rows are drawn alike in the same `part` and independently in another: what is compared on the
    same samples takes the same part, what is averaged over tasks takes one each.
    """
    means_C = values_NC.mean(axis=0)
    # Single precision suffices for what is left without the mean, and columns without any spread stay so exactly.
    centred_NC = (values_NC - means_C).astype(np.float32)
    counts_RN = draw_counts(len(values_NC), part, replicates)
    chunks = (counts_RN[start : start + _CHUNK] for start in range(0, replicates, _CHUNK))
    return means_C + np.concatenate([chunk.astype(np.float32) @ centred_NC for chunk in chunks]) / len(values_NC)


def draw_counts(n: int, part: int, replicates: int) -> Counts:
    """Return how often each of `n` samples was drawn, [R, N]: every row is multinomial and adds up to `n`."""
    key = n, part, replicates
    if key not in _remembered:
        _remembered[key] = _draw(n, np.random.default_rng([_SEED, part]), replicates)
        while len(_remembered) > 1 and sum(one.nbytes for one in _remembered.values()) > _REMEMBERED_BYTES:
            _remembered.popitem(last=False)
    _remembered.move_to_end(key)
    return _remembered[key]


def _draw(n: int, generator: np.random.Generator, replicates: int) -> Counts:
    """Draw multinomial counts: independent Poisson counts of somewhat fewer than `n`, and the rest one by one.

    Given its sum, a row of Poisson counts is multinomial, and so it stays with draws added. That is three times as fast
    as drawing all of them. The Poisson law is in steps of 2^-16.
    """
    table = _poisson(1 - _SHORT / math.sqrt(n) if n >= _MANY else 0.0)
    counts_RN = np.empty((replicates, n), np.uint8)
    for start in range(0, replicates, _CHUNK):
        part = counts_RN[start : start + _CHUNK]
        raw = generator.bit_generator.random_raw(-(-part.size // 4)).view(np.uint16)
        table.take(raw[: part.size].reshape(part.shape), out=part, mode="clip")
    left_R = n - counts_RN.sum(axis=1, dtype=np.int64)
    # Hardly ever: such a row is drawn one by one.
    counts_RN[left_R < 0], left_R = 0, np.where(left_R < 0, n, left_R)
    places = np.repeat(np.arange(replicates) * n, left_R) + generator.integers(n, size=int(left_R.sum()))
    np.add.at(counts_RN.reshape(-1), places, np.uint8(1))
    return counts_RN


def _poisson(rate: float) -> Counts:
    """Return what 16 random bits stand for in a Poisson law, which at rate 0 is nothing."""
    terms = np.cumprod(np.concatenate([[math.exp(-rate)], rate / np.arange(1, _TERMS)]))
    return np.searchsorted(np.cumsum(terms) * _STEPS, np.arange(_STEPS), side="right").clip(0, _TERMS).astype(np.uint8)
