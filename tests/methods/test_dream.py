"""Dream's sampler against its golden trajectories and schedules."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from methods.diffusion.dream import Algorithm, DreamQuota
from tests.methods.closed_form import replay

GOLDEN = {
    "alg=maskgit_plus steps=16": ("3 10 2 6 0 10 5 9 8 8 2 3 10 0 7 2", "5 13 15 14 1 11 8 12 9 10 6 7 3 2 4 15"),
    "alg=maskgit_plus steps=8": ("3 10 2 6 0 10 5 2 8 9 2 5 10 0 6 2", "2 6 7 7 0 4 3 5 4 6 3 5 2 1 1 7"),
    "alg=maskgit_plus steps=4": ("3 10 2 7 0 6 5 2 8 9 2 1 10 0 6 2", "1 3 3 1 0 2 1 3 3 2 2 2 1 0 0 3"),
    "alg=topk_margin steps=16": ("3 10 2 6 0 10 5 9 8 8 9 3 10 0 7 2", "12 14 15 11 1 6 5 13 7 10 9 8 3 2 4 15"),
    "alg=topk_margin steps=8": ("3 10 2 6 0 10 5 2 9 8 2 3 10 0 6 2", "5 7 7 5 0 4 3 4 6 2 6 1 3 1 2 7"),
    "alg=topk_margin steps=4": ("3 10 2 7 0 10 5 2 10 8 9 3 10 0 6 2", "2 3 3 3 0 2 1 2 3 1 1 0 2 0 1 3"),
    "alg=entropy steps=16": ("3 10 2 7 0 10 5 9 8 8 2 3 10 0 7 2", "3 14 15 12 2 11 8 15 9 10 6 7 4 1 5 13"),
    "alg=entropy steps=8": ("3 10 2 6 0 10 5 2 8 8 2 3 10 0 7 2", "2 7 7 1 1 5 4 6 5 6 3 4 2 0 3 7"),
    "alg=entropy steps=4": ("3 10 2 7 0 10 3 9 9 8 2 3 10 0 6 2", "1 3 3 1 0 2 2 3 1 2 2 3 1 0 0 3"),
    "alg=entropy steps=8 top_k=3": ("3 10 2 6 0 10 5 2 8 9 2 5 10 0 6 2", "2 6 7 7 0 4 3 5 4 6 3 5 2 1 1 7"),
    "alg=maskgit_plus steps=8 top_p=0.8": ("3 10 2 6 0 10 5 2 9 8 2 3 10 0 6 2", "5 7 7 4 0 3 2 5 6 2 6 1 3 1 4 7"),
}  # fmt: skip
QUOTAS = {
    (8, 8): [0, *[1] * 6, 2],
    (16, 16): [0, *[1] * 14, 2],
    (256, 256): [0, *[1] * 254, 2],
    (768, 768): [0, *[1] * 766, 2],
    (1024, 1024): [0, 0, *[1] * 1021, 3],
    (1280, 1280): [0, 0, *[1] * 1277, 3],
    (256, 128): [1, *[2] * 126, 3],
    (256, 64): [3, *[4] * 62, 5],
    (256, 32): [7, *[8] * 30, 9],
    (32, 8): [3, 4, 4, 4, 4, 4, 4, 5],
}


@pytest.mark.parametrize("knobs", GOLDEN)
def test_golden_trajectories(knobs: str):
    """Guards ids, official calls (idle ones included) and commits, on a model whose logits are shifted."""
    made = replay("method=dream", *(f"method.{knob}" for knob in knobs.split()), shifted=True)
    assert (made.ids, made.steps) == GOLDEN[knobs]
    assert made.calls == int(knobs.split("steps=")[1].split()[0])


@pytest.mark.parametrize(("length", "steps"), QUOTAS)
def test_quotas_are_truncated_in_float32(length: int, steps: int):
    """Guards a schedule that is not one per step, in the arithmetic of the reference."""
    schedule = DreamQuota(steps=steps, gen_length=length)
    canvas = Canvas.from_prompts([[]], gen_length=length, mask_id=11, pad_id=0, seeds=[0])
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    found = []
    for _ in range(steps):
        quota_B = schedule.quota(canvas)
        found.append(int(quota_B))
        first_BL = canvas.open_BL & (canvas.open_BL.cumsum(1) <= quota_B[:, None])
        canvas.commit(first_BL, canvas.tokens_BL)
        canvas.tick(torch.tensor([True]))
    assert found == QUOTAS[length, steps]


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33, 64])
def test_quotas_sum_to_the_masks(length: int):
    """Guards the last step, which takes what truncation has left, for any number of steps, more than masks included."""
    for steps in (1, 2, 3, 5, 8, 16, 40, 64, 100):
        schedule = DreamQuota(steps=steps, gen_length=length)
        canvas = Canvas.from_prompts([[]], gen_length=length, mask_id=11, pad_id=0, seeds=[0])
        canvas.open_window(torch.tensor([True]), canvas.response_BL)
        for _ in range(steps):
            left, quota_B = int(canvas.open_BL.sum()), schedule.quota(canvas)
            assert 0 <= int(quota_B) <= left
            canvas.commit(canvas.open_BL & (canvas.open_BL.cumsum(1) <= quota_B[:, None]), canvas.tokens_BL)
            canvas.tick(torch.tensor([True]))
        assert not bool(canvas.undecided_BL.any()), steps


def test_origin_flips_a_coin_per_position():
    """Guards the Bernoulli schedule: of 40 * 64 positions about an eighth closes first, and the last step closes all.

    The bounds are four standard deviations, 4 * sqrt(2560 / 8 * 7 / 8).
    """
    canvas = Canvas.from_prompts([[]] * 40, gen_length=64, mask_id=11, pad_id=0, seeds=range(40))
    canvas.open_window(torch.ones(40, dtype=torch.bool), canvas.response_BL)
    schedule = DreamQuota(steps=8, gen_length=64, alg=Algorithm.origin)
    assert abs(int(schedule.quota(canvas).sum()) - 320) < 67
    canvas.tick(torch.ones(40, dtype=torch.bool), 7)
    assert schedule.quota(canvas).tolist() == [64] * 40
    made = replay("method=dream", "method.alg=origin", "method.steps=8", shifted=True)
    assert made.calls == 8 and str(11) not in made.ids.split()
