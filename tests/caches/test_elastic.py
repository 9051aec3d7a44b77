"""Elastic-Cache: a sliding window of masks, and layers that recompute where attention drifts."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, Layer
from harness.models.embedded import EmbeddedModel
from tests.caches.decoding import LENGTH, PARALLEL, PROMPTS, STEPWISE, method_of, random_model, run, trained_model

ONE = [[2, 30, 76, 4]]
P, G, N = 4, LENGTH, 3
CACHE = "method/cache=elastic"


def first_layer(name: str) -> EmbeddedModel:
    """Return a trained model without its other layers."""
    model, _ = trained_model(name)
    transformer = deepcopy(model.transformer)
    transformer.blocks = transformer.blocks[:1]
    return EmbeddedModel(transformer, replace(model.spec, layers=1))


@pytest.mark.parametrize("profile", ["column", "row"])
@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
@pytest.mark.parametrize("name", ["random", "tiny_mdm", "tiny_block"])
def test_a_single_layer_has_nothing_stale(name: str, method: tuple[str, ...], profile: str):
    """Guards queries and kept keys and values: those of layer 0 depend on tokens alone, so all answers are exact."""
    model = random_model(layers=1) if name == "random" else first_layer(name)
    knobs = (CACHE, f"method.cache.profile={profile}")
    assert run(*method, *knobs, model=model).decided == run(*method, model=model).decided


@pytest.mark.parametrize("beta", [1, 5, 16])
@pytest.mark.parametrize("gam", [0, 2])
def test_layer_tokens_are_the_closed_form(beta: int, gam: int):
    """Guards the window, and the layers above a drift: with gam = 2 layer 0 always drifts, with 0 none does."""
    made = run(*STEPWISE, CACHE, f"method.cache.beta={beta}", f"method.cache.gam={gam}", prompts=ONE)
    window = [min(beta, G - i) + 1 for i in range(1, G)]
    above = [P + G if gam else one for one in window]
    layer_tokens = [N * (P + G), *(one + (N - 1) * up for one, up in zip(window, above, strict=True))]
    assert made.counts[0].layer_tokens == sum(layer_tokens)
    assert made.queries == [-(-one // N) for one in layer_tokens]


@pytest.mark.parametrize("profile", ["column", "row"])
def test_drift_decides_how_much_is_recomputed(profile: str):
    """Guards the comparison: a stricter one computes more, and between never and always there is something."""
    work = [
        run(*STEPWISE, CACHE, f"method.cache.gam={gam}", f"method.cache.profile={profile}", "method.cache.beta=4")
        for gam in (0, 0.9, 0.999, 2)
    ]
    tokens = [sum(one.layer_tokens for one in made.counts) for made in work]
    assert tokens[0] < tokens[1] < tokens[2] < tokens[3]


class PlainPlan:
    """The rule for one row, read plainly: keys, values, outputs, tracked positions and profiles in dictionaries."""

    def __init__(self, gam: float, pays: bool) -> None:
        self.gam, self.pays, self.kept, self.tracked, self.profile = gam, pays, {}, {}, {}
        self.masks, self.chosen, self.everything = [], [], True
        self.layer_tokens_B = torch.zeros(1, dtype=torch.int64)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Run a layer for the chosen positions; choose all of them for the next ones if attention has drifted."""
        at, length = self.chosen, x_BLC.shape[1]
        self.layer_tokens_B = self.layer_tokens_B + len(at)
        q, k, v = layer.project(x_BLC[:, at], torch.tensor([at]))
        keys, values = self._keep("k", index, length, k), self._keep("v", index, length, v)
        y_1TC = x_BLC[:, at] + layer.attend(q, keys, values, torch.tensor([at]))
        outputs = self._keep("y", index, length, y_1TC + layer.feed_forward(y_1TC))
        looks = dict(zip(at, layer.attention(q, keys, torch.tensor([at]))[0].tolist(), strict=True))
        if self.everything:
            outside = [j for j in range(length) if j not in self.masks]
            self.tracked[index] = max(outside, key=lambda j: sum(looks[i][j] for i in self.masks))
        tracked, before = self.tracked[index], self.profile.get(index, {})
        now = dict(enumerate(looks[tracked])) if self.pays else {i: looks[i][tracked] for i in self.masks}
        self.profile[index] = now
        if not self.everything and self._similarity(now, before) < self.gam:
            self.everything, self.chosen = True, list(range(length))
        return outputs

    def _keep(self, name: str, index: int, length: int, new_1TX: Tensor) -> Tensor:
        self.kept.setdefault((name, index), new_1TX.new_zeros(1, length, *new_1TX.shape[2:]))
        self.kept[name, index][:, self.chosen] = new_1TX
        return self.kept[name, index].clone()

    def _similarity(self, now: dict[int, float], before: dict[int, float]) -> float:
        both = now.keys() & before.keys()
        norms = [sum(profile[i] ** 2 for i in both) ** 0.5 for profile in (now, before)]
        return sum(now[i] * before[i] for i in both) / (norms[0] * norms[1]) if both else 0.0


@pytest.mark.parametrize(("gam", "beta", "block"), [(0.9, 4, 16), (0.99, 3, 8), (0.999, 6, 16)])
@pytest.mark.parametrize("profile", ["column", "row"])
@pytest.mark.parametrize("name", ["random", "trained"])
def test_layers_compute_what_a_plain_reading_computes(name: str, profile: str, gam: float, beta: int, block: int):
    """Guards where layers drift and what they then start from, call by call: layer tokens and logits."""
    model, prompts = (random_model(), PROMPTS[::4]) if name == "random" else trained_model()
    knobs = [f"method.cache.{knob}" for knob in (f"gam={gam}", f"beta={beta}", f"profile={profile}")]
    decoder = ("method=threshold", "method.threshold=0.8", f"method.block_length={block}")
    for prompt in prompts:
        made = run(*decoder, CACHE, *knobs, model=model, prompts=[prompt])
        (answer,), start, plan = made.generations, len(prompt), PlainPlan(gam, profile == "row")
        tokens, work = [*prompt, *[model.spec.mask_id] * G], []
        for call, logits_NV in enumerate(made.logits):
            masks = [start + place for place in range(G) if answer.decided_at[place] >= call]
            last = [start + place for place in range(G) if answer.decided_at[place] == call - 1]
            end = start + ((masks[0] - start) // block + 1) * block
            plan.masks = sorted(masks, key=lambda i: (i >= end, i))[:beta]
            plan.everything = not call
            watched = plan.tracked.values() if plan.pays else ()
            plan.chosen = sorted({*plan.masks, *last, *watched}) if call else list(range(len(tokens)))
            done = int(plan.layer_tokens_B)
            expected_LV = model.forward(ForwardRequest(torch.tensor([tokens]), plan=plan))[0]
            work.append(int(plan.layer_tokens_B) - done)
            read = sorted(i for i in plan.masks if i < end)
            torch.testing.assert_close(logits_NV, expected_LV[read], atol=1e-9, rtol=0)
            for place in range(G):
                tokens[start + place] = answer.tokens[place] if answer.decided_at[place] <= call else model.spec.mask_id
        assert made.queries == [-(-one // model.spec.layers) for one in work]
        assert made.counts[0].layer_tokens == sum(work)


def test_a_recomputed_layer_uses_what_the_window_brought():
    """Guards the kept inputs: recomputing above changes the answers of the window."""
    never, always = (run(*STEPWISE, CACHE, f"method.cache.gam={gam}", prompts=PROMPTS[:1]).logits[1] for gam in (0, 2))
    without = run(*STEPWISE, prompts=PROMPTS[:1]).logits[1]
    assert float((always - without).abs().mean()) < float((never - without).abs().mean())


def test_only_the_window_is_committed():
    """Guards positions that were not computed: a window of one mask decodes from left to right."""
    made = run(*STEPWISE, CACHE, "method.cache.beta=1", prompts=ONE)
    assert list(made.generations[0].decided_at) == list(range(G))


def test_values_are_refused():
    """Guards windows without a mask."""
    with pytest.raises(ValueError, match=r"beta=0[.0]*: must be at least 1"):
        method_of(*STEPWISE, CACHE, "method.cache.beta=0")
