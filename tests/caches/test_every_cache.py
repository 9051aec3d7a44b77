"""What every cache promises."""

import pytest

from harness.engine.policies import Narrowing
from tests.caches.decoding import LENGTH, PARALLEL, PROMPTS, method_of, random_model, run

CACHES = {
    "prefix": (),
    "dual": (),
    "dkv_decode": ("R=4",),
    "dkv_pd": ("R=4",),
    "dkv_prefill": (),
    "recap": ("pre_full=0",),
    "layer_reuse": (),
    "dllm_cache": ("Kr=3",),
    "d2cache": ("k=4", "sigma=3"),
    "elastic": ("beta=4",),
}


def overrides(cache: str) -> list[str]:
    """Return how a user chooses a cache."""
    return [f"method/cache={cache}", *(f"method.cache.{knob}" for knob in CACHES[cache])]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("cache", CACHES)
def test_a_row_does_not_depend_on_the_others(cache: str, size: int):
    """Guards ragged queries, and what is kept of rows when others leave."""
    together = run(*PARALLEL, *overrides(cache))
    parts = [run(*PARALLEL, *overrides(cache), prompts=PROMPTS[i : i + size]) for i in range(0, 8, size)]
    assert [one for part in parts for one in part.decided] == together.decided
    assert [one for part in parts for one in part.counts] == together.counts


@pytest.mark.parametrize(("kind", "shift"), [("masked_diffusion", 1), ("block_diffusion", 0)])
@pytest.mark.parametrize("cache", CACHES)
def test_other_models(cache: str, kind: str, shift: int):
    """Guards the position before, which shifted models predict from, and blocks that see no later ones."""
    model = random_model(kind, shift)
    made = run(*PARALLEL, *overrides(cache), model=model, prompts=PROMPTS[:3])
    for one, counts in zip(made.generations, made.counts, strict=True):
        assert model.spec.mask_id not in one.tokens
        assert counts.nfe <= LENGTH
        assert counts.layer_tokens <= model.spec.layers * counts.query_tokens


@pytest.mark.parametrize("cache", CACHES)
def test_work_is_saved(cache: str):
    """Guards against a cache that computes everything, and against counts that do not show what it saves."""
    model, made = random_model(), run(*PARALLEL, *overrides(cache))
    for counts, prompt in zip(made.counts, PROMPTS, strict=True):
        assert counts.layer_tokens < model.spec.layers * counts.nfe * (len(prompt) + LENGTH)


REFUSED = {
    "method=llada method.cfg_scale=1": "without guidance",
    "method=freedave": "exact predictions",
}


@pytest.mark.parametrize("method", REFUSED)
@pytest.mark.parametrize("cache", CACHES)
def test_what_a_cache_cannot_work_with_is_refused(cache: str, method: str):
    """Guards against answers from keys and values of another row or another draft."""
    with pytest.raises(ValueError, match=REFUSED[method]):
        run(*method.split(), *overrides(cache))


@pytest.mark.parametrize("cache", CACHES)
def test_tokens_may_be_taken_back(cache: str):
    """Guards decoders that mask again: they end, with real tokens, and are refused where positions are left out."""
    method = ("method=hierarchy_remask", "method.rm=0.7", *overrides(cache))
    if isinstance(method_of(*PARALLEL, *overrides(cache)).cache, Narrowing):
        with pytest.raises(ValueError, match="does not predict every position that"):
            run(*method)
        return
    made = run(*method)
    assert sum(one.remasked for one in made.generations) > 0
    assert all(random_model().spec.mask_id not in one.tokens for one in made.generations)
