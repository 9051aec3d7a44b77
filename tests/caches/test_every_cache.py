"""What every cache promises."""

from dataclasses import dataclass, replace

import pytest
from torch import Tensor

from harness.config.compatibility import reason_against
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.policies import Narrowing
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import REGISTRY
from harness.models.embedded import EmbeddedModel
from tests.caches.decoding import APART, LENGTH, PARALLEL, PROMPTS, Made, decode_with, method_of, random_model, run

CACHES = {
    "prefix": (),
    "dual": (),
    "block_causal": (),
    "sub_block": (),
    "dkv_decode": ("R=4",),
    "dkv_pd": ("R=4",),
    "dkv_prefill": (),
    "dkv_greedy": (),
    "recap": ("pre_full=0",),
    "layer_reuse": (),
    "dllm_cache": ("Kr=3",),
    "d2cache": ("k=4", "sigma=3"),
    "elastic": ("beta=4",),
    "dsb": ("K=4", "w=2"),
}
# The decoder that the promises are tried with, where a cache refuses the usual one.
DECODERS = {"dkv_greedy": ("method=llada", "method.remasking=random", "method.steps=8", "method.block_length=8")}
# What a method computes beside or instead of the whole canvas, without reuse: its own tests hold it to account.
KEEP_NOTHING = {"none", "cut_suffix", "shadow_block"}


def overrides(cache: str) -> list[str]:
    """Return how a user chooses a cache."""
    return [f"method/cache={cache}", *(f"method.cache.{knob}" for knob in CACHES[cache])]


def method_with(cache: str) -> DiffusionMethod:
    """Build the decoder that a cache is tried with."""
    return method_of(*DECODERS.get(cache, PARALLEL), *overrides(cache))


def fits(cache: str, kind: str) -> bool:
    """Return whether a cache suits models of a kind."""
    method = method_with(cache)
    return reason_against(method, ModelKind(kind)) is None


def model_for(cache: str) -> EmbeddedModel:
    """Return random weights that a cache suits."""
    return random_model("masked_diffusion" if fits(cache, "masked_diffusion") else "block_diffusion")


def run_with(cache: str, rows: slice = slice(None)) -> Made:
    """Decode some of the prompts with a cache on a model that it suits."""
    return decode_with(method_with(cache), model_for(cache), PROMPTS[rows], first_seed=rows.start or 0)


def test_no_cache_is_left_out():
    """Guards against a cache that nobody holds to these promises."""
    assert {name for group, name in REGISTRY if group == "method/cache"} == {*KEEP_NOTHING, *CACHES}


@pytest.mark.parametrize("cache", CACHES)
def test_a_row_does_not_depend_on_the_others(cache: str):
    """Guards ragged queries, and what is kept of rows when others leave."""
    together = run_with(cache)
    parts = [run_with(cache, rows) for rows in APART]
    assert [one for part in parts for one in part.decided] == together.decided
    assert [one for part in parts for one in part.counts] == together.counts


OTHERS = [("masked_diffusion", 1), ("block_diffusion", 0), ("block_diffusion", 1)]


@pytest.mark.parametrize(
    ("cache", "kind", "shift"), [(cache, *other) for cache in CACHES for other in OTHERS if fits(cache, other[0])]
)
def test_other_models(cache: str, kind: str, shift: int):
    """Guards the position before, which shifted models predict from, and blocks that see no later ones."""
    model = random_model(kind, shift)
    made = decode_with(method_with(cache), model, PROMPTS[:3])
    for one, counts in zip(made.generations, made.counts, strict=True):
        assert model.spec.mask_id not in one.tokens
        assert counts.nfe - counts.nfe_cache <= LENGTH
        assert counts.layer_tokens <= model.spec.layers * counts.query_tokens


@pytest.mark.parametrize("cache", CACHES)
def test_work_is_saved(cache: str):
    """Guards against a cache that computes everything, and against counts that do not show what it saves."""
    model, made = model_for(cache), run_with(cache)
    for counts, prompt in zip(made.counts, PROMPTS, strict=True):
        assert counts.layer_tokens < model.spec.layers * counts.nfe * (len(prompt) + LENGTH)


@dataclass(frozen=True)
class GrowOnce:
    """A finish rule that adds a mask per prompt token but three to a row whose first window is complete."""

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Grow rows."""
        grow_B = complete_B & (canvas.length_B == canvas.prompt_length_B + LENGTH)
        canvas.resize(canvas.length_B + grow_B * (canvas.prompt_length_B - 3))


@pytest.mark.parametrize("cache", CACHES)
def test_rows_that_grow_leave_the_others_alone(cache: str):
    """Guards what is kept of rows in a canvas that becomes wider because of other rows."""
    method = replace(method_with(cache), finish=GrowOnce())
    together = decode_with(method, model_for(cache), PROMPTS[:4])
    parts = [decode_with(method, model_for(cache), [PROMPTS[row]], first_seed=row) for row in range(4)]
    assert [one for part in parts for one in part.decided] == together.decided
    assert [one for part in parts for one in part.counts] == together.counts
    assert [len(one.tokens) for one in together.generations] == [LENGTH + len(p) - 3 for p in PROMPTS[:4]]


REFUSED = {
    "method=llada method.cfg_scale=1": "without guidance",
    "method=freedave": "exact predictions",
}
PREDICTS_DRAFTS = ("prefix", "dual", "block_causal", "sub_block")
UNFIT = [
    (cache, method)
    for method in REFUSED
    for cache in CACHES
    if "freedave" not in method or cache not in PREDICTS_DRAFTS
]


@pytest.mark.parametrize(("cache", "method"), UNFIT)
def test_what_a_cache_cannot_work_with_is_refused(cache: str, method: str):
    """Guards against answers from keys and values of another row or another draft."""
    with pytest.raises(ValueError, match=REFUSED[method]):
        run(*method.split(), *overrides(cache))


@pytest.mark.parametrize("cache", CACHES)
def test_tokens_may_be_taken_back(cache: str):
    """Guards decoders that mask again: they end, with real tokens, and are refused where positions are left out."""
    method = ("method=hierarchy_remask", "method.rm=0.7", *overrides(cache))
    if isinstance(method_with(cache).cache, Narrowing):
        with pytest.raises(ValueError, match="does not predict every position that"):
            run(*method)
        return
    made = run(*method, model=model_for(cache))
    assert sum(one.remasked for one in made.generations) > 0
    assert all(model_for(cache).spec.mask_id not in one.tokens for one in made.generations)
