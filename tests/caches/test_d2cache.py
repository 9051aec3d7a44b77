"""d2Cache: the masks that are next, what changed, and what attention flows to."""

import pytest
import torch

from harness.engine.canvas import Canvas
from methods.caches.d2cache import DualAdaptiveCache, Rollout, filled, nucleus
from tests.caches.decoding import LENGTH, PARALLEL, STEPWISE, method_of, run, same_decoding

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
CACHE = "method/cache=d2cache"


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_computing_everything_is_no_cache(method: tuple[str, ...]):
    """Guards the queries, their padding, and which of the logits go on to the loop; those behind the window do not."""
    assert same_decoding(CACHE, "method.cache.p_roll=1", method=method, compare_logits=False)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_query_tokens_are_at_most_the_closed_form(k: int):
    """Guards the sets: k masks, the last token, and one token of the rollout, which may be among them."""
    knobs = (f"method.cache.k={k}", "method.cache.p_roll=0", "method.cache.sigma=3")
    made = run(*STEPWISE, CACHE, *knobs, prompts=ONE)
    least = P + G + sum(min(k, G - i) + 1 for i in range(1, G))
    assert least <= made.counts[0].query_tokens <= least + G - 1
    assert made.counts[0].nfe == G
    for i, logits in enumerate(made.logits):
        assert len(logits) == G if i == 0 else min(k, G - i) <= len(logits) <= min(k, G - i) + 1


def first_masks(k: int, confidences: list[float], known: list[int], window: tuple[int, int] = (0, 8)) -> list[int]:
    """Return the masks that a canvas with stored confidences would compute next."""
    constraints = {place: 3 for place in known}
    canvas = Canvas.from_prompts([[]], gen_length=8, mask_id=11, pad_id=0, seeds=[0], constraints=[constraints])
    place_BL = torch.arange(8)[None]
    canvas.open_window(torch.tensor([True]), (place_BL >= window[0]) & (place_BL < window[1]))
    canvas.memory["d2cache.confidence_BL"] = torch.tensor([confidences], dtype=torch.float64)
    return DualAdaptiveCache(k=k, sigma=2.0)._masks(canvas)[0].nonzero().squeeze(1).tolist()


def test_masks_are_chosen_by_confidence_and_density():
    """Guards the product: equal confidences follow what is known, and confidence can outweigh it."""
    assert first_masks(2, [0.5] * 8, [0, 1, 5]) == [2, 3]
    assert first_masks(2, [0.5] * 6 + [0.95, 0.95], [0, 1, 5]) == [2, 6]


def test_masks_of_the_window_come_first():
    """Guards the block: others follow, to the end of the block in which k masks have been counted."""
    sure_late = [0.1] * 4 + [0.9] * 4
    assert first_masks(2, sure_late, [], window=(0, 2)) == [0, 1]
    assert first_masks(3, sure_late, [], window=(0, 2)) == [0, 1, 2]
    assert first_masks(3, sure_late, [1], window=(0, 2)) == [0, 2, 3]
    assert first_masks(9, sure_late, [1], window=(0, 2)) == [0, 2, 3, 4, 5, 6, 7]


def test_the_rollout_by_hand():
    """Guards the order of layers, the identity, and positions that are no queries."""
    rollout = Rollout(torch.tensor([[True, False, True]]))
    rollout(0, torch.tensor([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]]))
    rollout(1, torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]))
    first = torch.tensor([[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    second = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(rollout.flow_BLL[0], second @ first)


def test_the_nucleus_keeps_what_fits():
    """Guards the share, which is not exceeded but for the first, and positions that are padding."""
    importance_BL, real_BL = torch.tensor([[0.1, 0.4, 0.2, 0.3, 9.0]]), torch.tensor([[True] * 4 + [False]])
    for share, expected in ((0.0, [1]), (0.5, [1]), (0.7, [1, 3]), (1.0, [0, 1, 2, 3])):
        assert nucleus(importance_BL, real_BL, share)[0].nonzero().squeeze(1).tolist() == expected


def test_short_gaps_are_filled():
    """Guards w: gaps between chosen positions, not those at the ends."""
    chosen_BL = torch.tensor([[False, True, False, True, False, False, True, False]])
    assert filled(chosen_BL, 1)[0].nonzero().squeeze(1).tolist() == [1, 2, 3, 6]
    assert filled(chosen_BL, 2)[0].nonzero().squeeze(1).tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(filled(chosen_BL, 0), chosen_BL)


def test_frozen_confidences_are_those_of_the_first_call():
    """Guards the flag: with it other masks come next, without it the confidence follows the canvas."""
    knobs = (CACHE, "method.cache.k=3", "method.cache.sigma=3")
    frozen, live = (run(*STEPWISE, *knobs, f"method.cache.frozen_conf={flag}", prompts=ONE) for flag in (True, False))
    assert torch.equal(frozen.logits[1], live.logits[1])
    assert frozen.decided != live.decided


def test_values_are_refused():
    """Guards shares that mean nothing."""
    with pytest.raises(ValueError, match=r"p_roll must be between 0 and 1, got 2"):
        method_of(*STEPWISE, CACHE, "method.cache.p_roll=2")
