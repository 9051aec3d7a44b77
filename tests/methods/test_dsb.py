"""DSB: where the window ends, and what it is equal to at its limits."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ForwardRequest
from harness.errors import ConfigError
from harness.models.embedded import EmbeddedModel
from methods.diffusion.dsb import Sliding
from tests.caches.decoding import LENGTH, models, run
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.trained import decode_task


def windows(selected: list[list[int]], length: int, max_block: int) -> list[list[int]]:
    """Return the open places before each step that decides `selected` of eight places, and after the last."""
    canvas = Canvas.from_prompts([[3]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0])
    seen = []
    for places in [*selected, []]:
        Sliding(length=length, max_block=max_block).update(canvas)
        seen.append(canvas.place_BL[0, canvas.open_BL[0]].tolist())
        commit_BL = torch.isin(canvas.place_BL, torch.tensor(places, dtype=torch.int64))
        canvas.commit(commit_BL, torch.zeros_like(canvas.tokens_BL))
        canvas.tick(torch.tensor([True]))
    return seen


def test_the_border_moves_by_one_per_decided_token():
    """Guards that a hard first position does not stop the window, unless its size is limited."""
    assert windows([[1], [2]], 2, -1) == [[0, 1], [0, 2], [0, 3]]
    assert windows([[1], [2]], 2, 2) == [[0, 1], [0], [0]]
    assert windows([[0], [1, 2]], 3, 3) == [[0, 1, 2], [1, 2, 3], [3, 4, 5]]


def test_a_window_over_the_whole_response_is_the_threshold_decoder():
    """Guards the wiring, on a formula and on the trained model."""
    whole, reference = replay("method=dsb", "method.tau=0.7"), replay("method=threshold", "method.threshold=0.7")
    assert (whole.ids, whole.calls, whole.steps) == (reference.ids, reference.calls, reference.steps)
    ours = decode_task("list_shuffle", "method=dsb")
    theirs = decode_task("list_shuffle", "method=threshold")
    assert [made.tokens for made in ours.generations] == [made.tokens for made in theirs.generations]


def one_by_one(model: EmbeddedModel, prompt: list[int], size: int) -> tuple[list[int], list[int]]:
    """Commit the surest mask of the `size` positions from the first mask on; return tokens and steps."""
    mask = model.spec.mask_id
    assert mask is not None
    tokens, steps = [*prompt, *[mask] * LENGTH], [0] * LENGTH
    for step in range(LENGTH):
        logits_LV = model.forward(ForwardRequest(torch.tensor([tokens])))[0]
        logits_LV[:, mask] = -torch.inf
        sure_L = logits_LV.softmax(-1).amax(-1).tolist()
        first = tokens.index(mask, len(prompt))
        masks = [i for i in range(first, min(first + size, len(tokens))) if tokens[i] == mask]
        best = max(masks, key=lambda i: sure_L[i])
        tokens[best], steps[best - len(prompt)] = int(logits_LV[best].argmax()), step
    return tokens[len(prompt) :], steps


def test_a_window_of_constant_size_slides_one_by_one():
    """Guards max_block = K beyond any threshold, on random and trained weights, against a plain reading."""
    for model, prompts in models():
        if model.spec.shift:
            continue
        knobs = ("method.tau=1.1", "method.max_block=4", "method.block_length=4", "method.score_dtype=float64")
        made = run("method=dsb", *knobs, model=model, prompts=prompts[:2])
        for prompt, one in zip(prompts[:2], made.generations, strict=True):
            assert (list(one.tokens), list(one.decided_at)) == one_by_one(model, prompt, 4)


def test_only_the_first_window_is_a_next_one():
    """Guards caches: a window that slides is no reason to compute all anew."""
    canvas, window = Canvas.from_prompts([[]], gen_length=6, mask_id=MASK_ID, pad_id=0, seeds=[0]), Sliding(length=2)
    seen = []
    for place in range(4):
        window.update(canvas)
        seen.append((int(canvas.window_index_B), canvas.place_BL[canvas.window_BL].tolist()[0]))
        canvas.commit(canvas.place_BL == place, torch.zeros_like(canvas.tokens_BL))
        canvas.tick(torch.tensor([True]))
    assert seen == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_a_window_of_one_is_left_to_right():
    """Guards the limit; no threshold can stop it."""
    made = replay("method=dsb", "method.max_block=1", "method.tau=1.1")
    assert made.steps == " ".join(map(str, range(16)))


def test_a_limit_that_means_nothing_is_refused():
    """Guards 0, which some would read as no limit."""
    with pytest.raises(ConfigError, match=r"method.max_block=0"):
        replay("method=dsb", "method.max_block=0")
