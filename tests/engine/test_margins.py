"""Margins are worked out for many steps together, and are those that each step by itself would have told."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import across, nearest

ROWS, WIDTH = 3, 6


def made() -> Canvas:
    return Canvas.from_prompts([[2, 3]] * ROWS, gen_length=WIDTH - 2, mask_id=9, pad_id=0, seeds=range(ROWS))


def doubled(slack_BL: Tensor, among_BL: Tensor) -> Tensor:
    return nearest(2 * slack_BL, among_BL)


def notes(steps: int) -> Iterator[dict[str, Any]]:
    """Yield what steps note: every kind, sometimes several of one, scores that share an infinity, and none."""
    draw = torch.Generator().manual_seed(steps)
    for step in range(steps):
        score_BL = torch.rand(ROWS, WIDTH, generator=draw).round(decimals=2)
        score_BL[step % ROWS, : step % 4] = -torch.inf
        chosen_BL, among_BL = torch.rand(2, ROWS, WIDTH, generator=draw) < torch.tensor([0.3, 0.8])[:, None, None]
        told = {"tokens": (score_BL + 0.5, chosen_BL)}
        yield told | {"rankings": (score_BL, chosen_BL & among_BL, among_BL)} if step % 3 else told
        if step % 5 == 1:
            yield {"bounds": (score_BL.double() - 0.5, among_BL), "gaps": torch.rand(ROWS, generator=draw)}
            yield {"later": (doubled, (score_BL.double() - 0.4, among_BL))}


def least(noted: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return what one note comes to, by its definition."""
    far_B = torch.full((ROWS,), torch.inf, dtype=torch.float64)
    token_B, found = far_B, [far_B]
    if "tokens" in noted:
        gap_BL, decided_BL = noted["tokens"]
        token_B = gap_BL.masked_fill(~decided_BL, torch.inf).amin(1).double()
    found += [noted["gaps"].double()] if "gaps" in noted else []
    found += [nearest(*noted["bounds"]).double()] if "bounds" in noted else []
    found += [across(*noted["rankings"]).double()] if "rankings" in noted else []
    found += [noted["later"][0](*noted["later"][1]).double()] if "later" in noted else []
    return token_B, torch.stack(found).amin(0)


@pytest.mark.parametrize("steps", [1, 2, 7, 80])
@pytest.mark.parametrize("through", ["copy", "rows", "where", "nothing"])
def test_margins_worked_out_together_are_those_of_each_step(steps: int, through: str) -> None:
    """Guards the smallest gap against what happens to a canvas between a step and the end."""
    canvas, order_B = made(), torch.tensor([2, 0, 1])
    token_B, choice_B = (torch.full((ROWS,), torch.inf, dtype=torch.float64) for _ in range(2))
    for step, noted in enumerate(notes(steps)):
        canvas.begin_step()
        canvas.note(**noted)
        last = least(noted)
        token_B, choice_B = torch.minimum(token_B, last[0]), torch.minimum(choice_B, last[1])
        if step % 4 == 2 and through == "copy":
            other = canvas.copy()
            other.note_choice(torch.zeros(ROWS))
        if step % 4 == 2 and through == "rows":
            canvas, last = canvas.rows(order_B), (last[0][order_B], last[1][order_B])
            token_B, choice_B = token_B[order_B], choice_B[order_B]
        if step % 4 == 2 and through == "where":
            nearer = canvas.copy()
            nearer.note_choice(torch.zeros(ROWS))
            canvas = canvas.where(torch.tensor([True, False, True]), nearer)
            for each in (choice_B, last[1]):
                each[1] = 0
    margins = canvas.margins.settled
    assert torch.equal(margins.token_B, token_B) and torch.equal(margins.choice_B, choice_B)
    assert torch.equal(margins.step_token_B, last[0]) and torch.equal(margins.step_choice_B, last[1])


def test_a_canvas_that_grows_keeps_its_margins() -> None:
    """Guards tensors of two widths among the steps that are worked out together."""
    canvas = made()
    canvas.begin_step()
    canvas.note(rankings=(torch.tensor([[0.5, 0.25, 0, 0, 0, 0]] * ROWS), canvas.place_BL == -2, canvas.whole_BL))
    canvas.resize(canvas.length_B + 3)
    canvas.begin_step()
    canvas.note(tokens=(torch.ones(ROWS, WIDTH + 3), canvas.whole_BL))
    assert canvas.margins.settled.choice_B.tolist() == [0.25] * ROWS
    assert canvas.margins.settled.token_B.tolist() == [1.0] * ROWS
    assert canvas.margins.settled.step_choice_B.tolist() == [torch.inf] * ROWS
