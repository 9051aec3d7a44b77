"""FreeDave's released loop for block-causal models, read plainly: predictions from scratch, calls by their kind."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.records import Ledger, Role
from tests.methods.test_freedave import on_random_model, random_model

BLOCK, MASK_ID = 8, 1
PROMPTS = (
    [2, 31, 4, 5, 6, 7, 8, 4],
    [2, 40, 76, 77, 4, 9, 11],
    [2, 50, 4],
    [2, 60, 5, 9, 55, 4, 30, 31, 32, 33, 34, 4],
)
Told = tuple[Tensor, Tensor]
"""Best token of every position, and its log probability."""


def predict(tokens_L: Tensor) -> Told:
    """Return what the model says of a whole row."""
    logits_LV = random_model("block_diffusion").forward(
        ForwardRequest(tokens_L[None], select_N=torch.arange(len(tokens_L)))
    )
    logits_LV[:, MASK_ID] = -torch.inf
    best = logits_LV.log_softmax(-1).max(-1)
    return best.indices, best.values


def filled(tokens_L: Tensor, told: Told, window: range, count: int) -> Tensor:
    """Return the row with the `count` best masks of the window filled, by block and then by confidence."""
    masks = [i for i in window if tokens_L[i] == MASK_ID]
    best = sorted(masks, key=lambda i: (i // BLOCK, -float(told[1][i])))[:count]
    tokens_L = tokens_L.clone()
    tokens_L[best] = told[0][best]
    return tokens_L


def verified(tokens_L: Tensor, told: Told, window: range, drafts: int) -> tuple[Tensor, Told, Tensor]:
    """Return the draft that is accepted, what the model says of it, and the row that the step behind it leads to."""
    made = [filled(tokens_L, told, window, count) for count in range(1, drafts + 1)]
    for at, draft_L in enumerate(made):
        told = predict(draft_L)
        target_L = filled(draft_L, told, window, 1)
        if at + 1 == len(made) or not torch.equal(made[at + 1], target_L):
            return draft_L, told, target_L
    raise AssertionError("there is a draft")


def published(prompt: list[int], gen_length: int, draft_steps: int, eager: bool) -> tuple[tuple[int, ...], Counter]:
    """Decode one row; return the answer and its calls."""
    tokens_L, end = torch.tensor([*prompt, *[MASK_ID] * gen_length]), len(prompt) + gen_length
    calls = Counter(prefill=int(len(prompt) >= BLOCK))
    ahead = math.ceil(draft_steps / BLOCK) * BLOCK if eager else 0
    for start in range(len(prompt) // BLOCK * BLOCK, end, BLOCK):
        block, window = range(start, min(start + BLOCK, end)), range(start, min(start + BLOCK + ahead, end))
        complete = not (tokens_L[block] == MASK_ID).any()
        calls += Counter(store=1, found_complete=int(complete))
        told = None if complete else predict(tokens_L)
        calls += Counter(predict=int(not complete))
        while told is not None and (tokens_L[block] == MASK_ID).any():
            masks = int((tokens_L[window] == MASK_ID).sum())
            if masks == 1:
                tokens_L = filled(tokens_L, told, window, 1)
                break
            calls += Counter(predict=1)
            tokens_L, told, target_L = verified(tokens_L, told, window, min(draft_steps, masks))
            if eager and not (tokens_L[block] == MASK_ID).any():
                tokens_L = target_L
    return tuple(tokens_L[len(prompt) :].tolist()), calls


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("draft_steps", [1, 2, 4, 9])
@torch.inference_mode()
def test_answers_and_calls_are_the_published_ones(draft_steps: int, eager: bool):
    """Guards what is predicted ahead, which calls have drafts, and that drafts store nothing.

    What the answer ends with is not stored here, and blocks that end together are stored at once.
    """
    setting = ["method=sdar", "method.remasking=low_confidence_static", "method.score_dtype=float64"]
    reach = "eager" if eager else "within"
    for prompt in PROMPTS:
        ledger = Ledger()
        (made,), _ = on_random_model(
            [*setting, "method/finish=full", "method/verifier=freedave", f"method.verifier.reach={reach}",
             f"method.verifier.draft_steps={draft_steps}"],
            kind="block_diffusion", ledger=ledger, prompts=[prompt], length=20,
        )  # fmt: skip
        (work,) = ledger.counts([0])
        tokens, calls = published(prompt, 20, draft_steps, eager)
        assert made.tokens == tokens
        opens = next(record for record in ledger.records if record.role is Role.TARGET)
        seen = BLOCK * (1 + eager * math.ceil(draft_steps / BLOCK)) - len(prompt) % BLOCK
        assert opens.head_B.tolist() == [min(20, seen)]
        assert (work.nfe_prefill, work.nfe - work.nfe_cache) == (calls["prefill"], calls["predict"])
        assert work.nfe_cache == calls["store"] - 1 - calls["found_complete"]
