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


def forget() -> None:
    """Forget all draws; they are made anew, and are the same, where they are asked for."""
    _remembered.clear()


def _draw(n: int, generator: np.random.Generator, replicates: int) -> Counts:
    """Draw multinomial counts: independent Poisson counts of somewhat fewer than `n`, and the rest one by one.

    Given its sum, a row of Poisson counts is multinomial, and so it stays with draws added. That is three times as fast
    as drawing all of them. The Poisson law is in steps of 2^-16. Both passes go over rows that fit into the cache.
    """
    bounds = _poisson_bounds(1 - _SHORT / math.sqrt(n) if n >= _MANY else 0.0)
    counts_RN = np.zeros((replicates, n), np.uint8)
    rows = [counts_RN[start : start + _CHUNK] for start in range(0, replicates, _CHUNK)]
    above = np.empty(rows[0].shape, np.bool_)
    for part in rows:
        raw = generator.bit_generator.random_raw(-(-part.size // 4)).view(np.uint16)[: part.size].reshape(part.shape)
        for bound in bounds:
            part += np.greater_equal(raw, bound, out=above[: len(part)]).view(np.uint8)
    for part in rows:
        left = n - part.sum(axis=1, dtype=np.int64)
        # Hardly ever: such a row is drawn one by one.
        part[left < 0], left = 0, np.where(left < 0, n, left)
        places = np.repeat(np.arange(len(part)) * n, left)
        np.add.at(part.reshape(-1), places + generator.integers(n, size=len(places)), np.uint8(1))
    return counts_RN


def _poisson_bounds(rate: float) -> NDArray[np.uint16]:
    """Return from which of 2^16 equally likely numbers on a Poisson count is at least 1, 2, ...; none at rate 0."""
    terms = np.cumprod(np.concatenate([[math.exp(-rate)], rate / np.arange(1, _TERMS)]))
    bounds = np.ceil(np.cumsum(terms) * _STEPS)
    return bounds[bounds < _STEPS].astype(np.uint16)
