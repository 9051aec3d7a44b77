"""Elastic-Cache: a sliding window of masks, and layers that recompute where attention drifts."""

from copy import deepcopy
from dataclasses import replace

import pytest

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
    with pytest.raises(ValueError, match="beta must be at least 1, got 0"):
        method_of(*STEPWISE, CACHE, "method.cache.beta=0")
