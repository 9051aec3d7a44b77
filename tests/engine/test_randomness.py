"""Draws that depend on their key and on nothing else, and look random."""

import hashlib
from itertools import product

import pytest
import torch
from torch import Tensor

from harness.engine.shared.randomness import sample_seed, uniforms

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def draws(seed: int, step: int = 0, purpose: str = "token", length: int = 64) -> Tensor:
    """Draw for one row."""
    return uniforms(torch.tensor([seed]), torch.tensor([step]), purpose, length)[0]


def mix(x: int) -> int:
    """Apply the finaliser of splitmix64 in unbounded integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (1, 7), ((1 << 63) - 1, 1023)])
def test_the_generator_is_splitmix64(seed: int, step: int):
    """Guards published seeds: signed words must shift and overflow as unsigned ones do."""
    salt = int.from_bytes(hashlib.blake2b(b"token", digest_size=7).digest(), "big")
    row = mix(mix(seed + GOLDEN & WORD) ^ step * GOLDEN + salt & WORD)
    expected = [(mix(row + place * GOLDEN & WORD) >> 11) / (1 << 53) for place in range(1, 9)]
    assert draws(seed, step, length=8).tolist() == expected


def test_a_row_draws_the_same_in_any_batch():
    """Guards answers against batch size, order of samples and the length of other rows."""
    seed_B, step_B = torch.tensor([5, 9, 2]), torch.tensor([0, 3, 1])
    together_BL = uniforms(seed_B, step_B, "token", 40)
    for row in range(3):
        assert torch.equal(together_BL[row, :7], draws(int(seed_B[row]), int(step_B[row]), length=7))
    assert torch.equal(uniforms(seed_B.flip(0), step_B.flip(0), "token", 40), together_BL.flip(0))


def test_no_global_generator_is_read_or_moved():
    """Guards against a draw that depends on what was drawn before."""
    state = torch.get_rng_state()
    first = draws(3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(draws(3), first)


def test_every_part_of_the_key_matters():
    """Guards tokens against being drawn with the numbers that order positions, or with those of the last step."""
    made = [draws(*key) for key in product((0, 1), (0, 1), ("token", "order"))]
    for index, one in enumerate(made):
        for other in made[:index]:
            assert not bool((one == other).any())


def test_draws_are_uniform():
    """Guards the distribution: chi-square of 16 cells with 15 degrees of freedom; its 99.99 % quantile is 44.3."""
    drawn = uniforms(torch.arange(64), torch.zeros(64, dtype=torch.int64), "token", 256).flatten()
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    expected = len(drawn) / 16
    cells = torch.histc(drawn, 16, 0, 1)
    assert float(((cells - expected) ** 2 / expected).sum()) < 44.3


@pytest.mark.parametrize("axis", ["seed", "step", "position"])
def test_neighbours_are_not_correlated(axis: str):
    """Guards against a counter that is mixed too little: seeds, steps and positions come in sequence."""
    count = torch.arange(4096)
    zero = torch.zeros_like(count)
    drawn = {
        "seed": lambda: uniforms(count, zero, "token", 1)[:, 0],
        "step": lambda: uniforms(zero, count, "token", 1)[:, 0],
        "position": lambda: draws(0, length=4096),
    }[axis]()
    correlation = torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]))[0, 1]
    assert abs(float(correlation)) < 4 / 64


def test_seeds_of_samples_differ_and_fit():
    """Guards against two samples, tasks, runs or repetitions that share their randomness, and against overflow."""
    keys = list(product((0, 1), ("copy", "sort"), ("0", "1", "11"), (0, 1)))
    seeds = {sample_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert sample_seed(0, "copy", "0") == sample_seed(0, "copy", "0", 0)
