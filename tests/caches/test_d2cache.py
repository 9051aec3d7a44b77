"""d2Cache: the masks that are next, what changed, and what attention flows to."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.reuse import Gathered
from harness.engine.shared.model import ForwardRequest, Layer
from harness.models.embedded import EmbeddedModel
from methods.caches.d2cache import DualAdaptiveCache, Rollout, filled, nucleus
from tests.caches.decoding import (
    LENGTH,
    PARALLEL,
    PROMPTS,
    STEPWISE,
    method_of,
    random_model,
    run,
    same_decoding,
    trained_model,
)

ONE = [[2, 30, 76, 4]]
P, G = 4, LENGTH
CACHE = "method/cache=d2cache"


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
def test_computing_everything_is_no_cache(method: tuple[str, ...]):
    """Guards the queries, their padding, and which of the logits go on to the loop; those behind the window do not."""
    assert same_decoding(CACHE, "method.cache.p_roll=1", method=method, compare_logits=False)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_query_tokens_are_the_closed_form(k: int):
    """Guards the sets: k masks, the last token, and one token of the rollout, which is not among them."""
    knobs = (f"method.cache.k={k}", "method.cache.p_roll=0", "method.cache.sigma=3")
    made = run(*STEPWISE, CACHE, *knobs, prompts=ONE)
    assert made.counts[0].query_tokens == P + G + sum(min(k, G - i) + 2 for i in range(1, G))
    assert made.counts[0].nfe == G
    for i, logits in enumerate(made.logits):
        assert len(logits) == G if i == 0 else min(k, G - i) <= len(logits) <= min(k, G - i) + 1


class Published:
    """The published selection for one row, read plainly; keys, values, confidences and importance in dictionaries."""

    def __init__(self, prompt: int, k: int, sigma: float, p_roll: float, w: int) -> None:
        self.prompt, self.k, self.sigma, self.p_roll, self.w = prompt, k, sigma, p_roll, w
        self.kept, self.confidence, self.flow, self.chosen = {}, {}, Tensor(), []
        self.layer_tokens_B = torch.zeros(1, dtype=torch.int64)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Run a layer for the chosen positions, and roll its attention out."""
        length, at_1T = x_BLC.shape[1], torch.tensor(self.chosen)[None]
        q, k, v = layer.project(x_BLC[:, self.chosen], at_1T)
        for name, new_1TX in (("k", k), ("v", v)):
            self.kept.setdefault((name, index), new_1TX.new_zeros(1, length, *new_1TX.shape[2:]))
            self.kept[name, index][:, self.chosen] = new_1TX
        keys, values = self.kept["k", index], self.kept["v", index]
        passed_on = torch.eye(length, dtype=torch.float64)
        passed_on[self.chosen] += layer.attention(q, keys, at_1T)[0]
        self.flow = passed_on / passed_on.sum(1, keepdim=True) @ (self.flow if index else torch.eye(length).double())
        x_BLC = x_BLC.clone()
        x_BLC[:, self.chosen] += layer.attend(q, keys, values, at_1T)
        x_BLC[:, self.chosen] += layer.feed_forward(x_BLC[:, self.chosen])
        return x_BLC

    def density(self, place: int, known: list[bool]) -> float:
        """Return the certainty density: known on the left, and on the right if the last position is, G each."""
        line = [True] * G + known + [known[-1]] * G
        kernel = [math.exp(-(d**2) / (2 * self.sigma**2)) for d in range(-200, 201)]
        return sum(kernel[200 + G + place - j] for j, one in enumerate(line) if one) / sum(kernel)

    def choose(self, masks: list[int], last: list[int], block: int) -> list[int]:
        """Return masks by confidence and density, what the last step committed, and the nucleus."""
        known = [self.prompt + place not in masks for place in range(G)]
        score = {i: self.confidence[i] * self.density(i - self.prompt, known) for i in masks}
        start = self.prompt + (masks[0] - self.prompt) // block * block
        best = max(score.values())
        score |= {i: score[i] + best for i in masks if i < start + block}
        enough = masks[min(self.k, len(masks)) - 1]
        end = start + ((enough - start) // block + 1) * block
        nearby = sorted((i for i in masks if i < end), key=lambda i: -score[i])
        chosen = {*nearby[: self.k], *last}
        importance, share = self.flow.sum(0).tolist(), 0.0
        others = sorted((j for j in range(len(importance)) if j not in chosen), key=lambda j: -importance[j])
        total = sum(importance[j] for j in others)
        for rank, j in enumerate(others):
            share += importance[j] / total
            if rank and share > self.p_roll:
                break
            chosen.add(j)
        behind = sorted(chosen)
        for left, right in pairwise(behind):
            chosen |= set(range(left, right)) if right - left <= self.w else set()
        return sorted(chosen)

    def logits(self, model: EmbeddedModel, tokens: list[int], masks: list[int]) -> Tensor:
        """Compute the chosen positions; return the logits of the masks among them, and remember how sure they are."""
        logits_LV = model.forward(ForwardRequest(torch.tensor([tokens]), plan=self))[0]
        seen = [i for i in masks if i in self.chosen]
        words = [v for v in range(model.spec.vocab_size) if v != model.spec.mask_id]
        self.confidence |= {i: float(logits_LV[i, words].softmax(-1).max()) for i in seen}
        return logits_LV[seen]


@pytest.mark.parametrize(
    ("k", "sigma", "p_roll", "w", "block"),
    [(3, 3.0, 0.1, 0, 16), (5, 2.0, 0.4, 0, 8), (4, 10.0, 0.2, 3, 4), (2, 3.0, 0.3, 1, 2)],
)
@pytest.mark.parametrize("name", ["random", "trained"])
def test_queries_are_the_published_selection(name: str, k: int, sigma: float, p_roll: float, w: int, block: int):
    """Guards every set, its end and its ties, call by call, against the selection written down plainly."""
    model, prompts = (random_model(), PROMPTS[::3]) if name == "random" else trained_model()
    knobs = [f"method.cache.{knob}" for knob in (f"k={k}", f"sigma={sigma}", f"p_roll={p_roll}", f"w={w}")]
    for prompt in prompts:
        decoder = ("method=threshold", "method.threshold=0.6", f"method.block_length={block}")
        made = run(*decoder, CACHE, *knobs, model=model, prompts=[prompt])
        (answer,), start = made.generations, len(prompt)
        plan, tokens = Published(start, k, sigma, p_roll, w), [*prompt, *[model.spec.mask_id or 0] * G]
        for call, (queries, logits_NV) in enumerate(zip(made.queries, made.logits, strict=True)):
            masks = [start + place for place in range(G) if answer.decided_at[place] >= call]
            last = [start + place for place in range(G) if answer.decided_at[place] == call - 1]
            plan.chosen = plan.choose(masks, last, block) if call else list(range(len(tokens)))
            expected_NV = plan.logits(model, tokens, masks)
            assert queries == len(plan.chosen)
            torch.testing.assert_close(logits_NV, expected_NV, atol=1e-9, rtol=0)
            for place in range(G):
                tokens[start + place] = answer.tokens[place] if answer.decided_at[place] <= call else model.spec.mask_id
        assert max(answer.decided_at) > 2


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
    rollout = Rollout(Gathered.of(torch.tensor([[True, False, True]])))
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
    """Guards w: the distance of chosen positions, of which 1 leaves no gap; ends are no gaps."""
    chosen_BL = torch.tensor([[False, True, False, True, False, False, True, False]])
    assert filled(chosen_BL, 2)[0].nonzero().squeeze(1).tolist() == [1, 2, 3, 6]
    assert filled(chosen_BL, 3)[0].nonzero().squeeze(1).tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(filled(chosen_BL, 0), chosen_BL)
    assert torch.equal(filled(chosen_BL, 1), chosen_BL)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_nucleus_is_of_what_is_not_chosen_yet(shift: int):
    """Guards that every call adds one to the masks, the last token and, on shifted models, what predicts the masks."""
    knobs = (CACHE, "method.cache.k=2", "method.cache.p_roll=0")
    made, looked_at = run(*STEPWISE, *knobs, model=random_model(shift=shift), prompts=ONE), 0
    for call, (computed, logits) in enumerate(zip(made.positions, made.logits, strict=True)):
        last = [P + j for j in range(G) if made.generations[0].decided_at[j] == call - 1]
        masks = [i for i in computed if i >= P and made.generations[0].decided_at[i - P] >= call]
        if call and len(masks) <= 2:
            chosen = {*masks, *last, *(i - shift for i in masks)}
            assert len(logits) == min(2, G - call)
            assert len(set(computed) - chosen) == 1
            looked_at += 1
    assert looked_at


def test_frozen_confidences_are_those_of_the_first_call():
    """Guards the flag: with it other masks come next, without it the confidence follows the canvas."""
    knobs = (CACHE, "method.cache.k=3", "method.cache.sigma=3")
    frozen, live = (run(*STEPWISE, *knobs, f"method.cache.frozen_conf={flag}", prompts=ONE) for flag in (True, False))
    assert torch.equal(frozen.logits[1], live.logits[1])
    assert frozen.decided != live.decided


def test_values_are_refused():
    """Guards shares that mean nothing."""
    with pytest.raises(ValueError, match=r"p_roll=2[.0]*: must be between 0 and 1"):
        method_of(*STEPWISE, CACHE, "method.cache.p_roll=2")
