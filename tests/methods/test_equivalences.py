"""Settings that make two methods one, and settings whose number of calls is known: on random and on trained weights.

Everything in float64, where no probability of these models is exactly 1 and no entropy exactly 0. Settings are a
method and its knobs; `/` chooses a policy. Beyond 1 no confidence reaches a threshold.
"""

from functools import cache

import pytest

from harness.config.build import build_method
from harness.config.catalogue import read
from harness.config.composition import compose
from harness.engine.diffusion.method import DiffusionMethod
from tests.caches.decoding import LENGTH, PROMPTS, Made, decode_with, random_model, trained_model

KINDS = {
    "random_mdm": "masked_diffusion",
    "random_block": "block_diffusion",
    "tiny_mdm": "masked_diffusion",
    "tiny_block": "block_diffusion",
}
G = LENGTH
# One position per step, the most confident one of a block of 8, or of the whole response.
ONE, ONE_OF_ALL, ONE_BY_ENTROPY = "llada block_length=8", "llada", "llada remasking=entropy"
ONE_PER_STEP = {
    "threshold threshold=1.1 block_length=8": ONE,
    "threshold threshold=1.1 block_length=64": ONE_OF_ALL,
    "factor factor=1e-300 block_length=8": ONE,
    "frechet delta=1 block_length=8": ONE,
    "local_leap tau=1.01 block_length=8": ONE,
    "hierarchy tau=1.1 low=1.1 block_length=8": ONE,
    "hierarchy_remask tau=1.1 low=1.1 rm=0 block_length=8": ONE,
    "dawn tau=1.1 induce=2 low=2 block_length=8": ONE,
    "adablock tau=1.1 theta_d=2 block_length=8": ONE,
    "dsb tau=1.1 block_length=16": ONE_OF_ALL,
    "t2t_edit tau=1.1 tau_edit=1 block_length=8": ONE,
    "wino tau1=1.1 tau2=0 block_length=8": ONE,
    "lopa k=1 threshold=1.1 block_length=8": ONE,
    "freedave draft_steps=1 block_length=8": ONE,
    "klass tau=1 block_length=8": ONE,
    "eoser gamma_min=1 block_length=8": ONE,
    "prophet gap_thresholds=[inf,inf,inf] block_length=8": ONE,
    "ccd d=0 order=confidence": ONE_OF_ALL,
    "pc_sampler lam=0 block_length=8": ONE,
    "eb gamma=0": ONE_BY_ENTROPY,
    "entropy_threshold theta=0 block_length=16": ONE_BY_ENTROPY,
    "multi_block theta=0 add=1 full=1 block_length=16": ONE_BY_ENTROPY,
    "ccd_code expand_ratio=0": ONE_BY_ENTROPY,
    "sdar threshold=1 /finish=full": "sdar remasking=low_confidence_static /finish=full",
    "fast_dllm_v2 threshold=1 /finish=full": "sdar remasking=low_confidence_static /finish=full",
}
SURE = "threshold threshold=0.5 block_length=8"
STRICT = "threshold threshold=0.5 selector.strict=true block_length=8"
SEVERAL_PER_STEP = {
    "local_leap tau=0.5 tau_rel=0.1 r=0 block_length=8": SURE,
    "local_leap tau=0.5 tau_rel=0.5 block_length=8": SURE,
    "local_leap tau=0.5 tau_rel=null block_length=8": SURE,
    "adablock tau=0.5 theta_d=2 block_length=8": SURE,
    "dawn tau=0.5 induce=2 low=2 block_length=8": SURE,
    "threshold threshold=0.5 /window=pipeline window.length=8 window.add=1": SURE,
    "dsb tau=0.5 block_length=16": "threshold threshold=0.5 block_length=16",
    "hierarchy tau=0.5 low=1 block_length=8": STRICT,
    "t2t_edit tau=0.5 tau_edit=1 block_length=8": STRICT,
    "lopa k=1 threshold=0.5 block_length=8": STRICT,
    "klass eps=inf H=1 tau=0.5 block_length=8": STRICT,
    "credit alpha=0 tau=0.5 block_length=8": "dinfer_threshold tau=0.5 block_length=8",
    "hierarchy_remask rm=0 tau=0.5 low=0.1 block_length=8": "hierarchy tau=0.5 low=0.1 block_length=8",
    "multi_block theta=3.5 add=1 full=1 block_length=4": "entropy_threshold theta=3.5 block_length=4",
    "ccd d=0 b=4 order=confidence": "llada steps=4",
    "eoser gamma_min=1 steps=8 block_length=4": "llada steps=8 block_length=4",
    "prophet gap_thresholds=[inf,inf,inf] steps=8 block_length=4": "llada steps=8 block_length=4",
    "fast_dllm_v2 threshold=0.5 /finish=full": "sdar threshold=0.5 /finish=full",
}
# Calls, idle ones included, of every row.
CALLS = {
    "threshold threshold=0 block_length=4": 4,
    "factor factor=1e9 block_length=4": 4,
    "frechet delta=-17 block_length=4": 4,
    "eb gamma=1000": 1,
    "entropy_threshold theta=100 block_length=4": 4,
    "llada steps=8 block_length=4": 8,
    "llada steps=32 block_length=8": 32,
    "dream steps=8 alg=entropy": 8,
    "dream steps=16 alg=maskgit_plus": 16,
    "eoser steps=8": 8,
    "pc_sampler steps=4": 4,
    "prophet gap_thresholds=[-inf,-inf,-inf]": 1,
    "ass block_num=1": 4,
    "ass block_num=2": 4,
    "ass block_num=3": 4,
    "ass block_num=4": 4,
    "eoser_ass block_num=3": 4,
    "dus block_length=8": 2 * 3,
}


def cases(settings: dict, slow: tuple[str, ...] = ("random_block",)) -> list:
    """Return settings with the models that their method runs on; `slow` ones wait if there are others."""
    found = []
    for setting in settings:
        kinds = read("method", setting.split()[0])["models"]
        for model in (model for model, kind in KINDS.items() if kind in kinds):
            waits = model in slow and len(kinds) > 1
            found.append(pytest.param(model, setting, marks=[pytest.mark.slow] if waits else []))
    return found


@cache
def method_of(setting: str) -> DiffusionMethod:
    """Build a method once."""
    name, *knobs = setting.split()
    overrides = [f"method{knob}" if knob.startswith("/") else f"method.{knob}" for knob in knobs]
    method = build_method(compose([f"method={name}", *overrides, f"gen_length={G}", "method.score_dtype=float64"]))
    assert isinstance(method, DiffusionMethod)
    return method


@cache
def made_by(setting: str, model: str) -> Made:
    """Decode two ragged prompts."""
    network, prompts = trained_model(model) if "tiny" in model else (random_model(KINDS[model]), PROMPTS[1:3])
    return decode_with(method_of(setting), network, prompts)


def calls(made: Made) -> list[tuple[int, int]]:
    """Return the calls and evaluated rows of every row."""
    return [(counts.nfe, counts.nfe_total) for counts in made.counts]


def work(made: Made) -> list[tuple[int, int, int]]:
    """Return the calls and query tokens of every row; methods differ in the logits that they look at."""
    return [(counts.nfe, counts.nfe_total, counts.query_tokens) for counts in made.counts]


@pytest.mark.parametrize(("model", "setting"), cases(ONE_PER_STEP))
def test_one_position_per_step_in_one_order_is_one_method(model: str, setting: str):
    """Guards the conservative end of every rule: the same tokens at the same steps, one per call."""
    made, expected = made_by(setting, model), made_by(ONE_PER_STEP[setting], model)
    assert made.decided == expected.decided
    assert [counts.nfe - counts.nfe_cache for counts in expected.counts] == [G] * len(made.counts)
    # Fast-dLLM v2 gets a token of every call that stores a block; queries are compared where rules coincide.
    assert "fast_dllm_v2" in setting or calls(made) == calls(expected)


@pytest.mark.parametrize(("model", "setting"), cases(SEVERAL_PER_STEP))
def test_rules_that_coincide(model: str, setting: str):
    """Guards rules that have another one as a special case, where steps close several positions, but not all."""
    made, expected = made_by(setting, model), made_by(SEVERAL_PER_STEP[setting], model)
    assert (made.decided, work(made)) == (expected.decided, work(expected))
    assert any(1 < max(one.decided_at) + 1 < G for one in expected.generations)


@pytest.mark.parametrize(("model", "setting"), cases(CALLS, slow=("random_block", "tiny_block")))
def test_calls_that_do_not_depend_on_the_model(model: str, setting: str):
    """Guards steps, those without effect included, and that every call computes whole rows."""
    made = made_by(setting, model)
    for one, counts, query in zip(made.generations, made.counts, row_lengths(made, model), strict=True):
        assert counts.nfe + one.idle == CALLS[setting]
        assert (counts.nfe_total, counts.query_tokens) == (counts.nfe, counts.nfe * query)


def row_lengths(made: Made, model: str) -> list[int]:
    """Return how many positions every row has."""
    prompts = trained_model(model)[1] if "tiny" in model else PROMPTS[1:3]
    return [len(prompt) + len(one.tokens) for prompt, one in zip(prompts, made.generations, strict=True)]


@pytest.mark.parametrize("block", [4, 16])
@pytest.mark.parametrize("model", KINDS)
def test_the_oracle_reproduces_its_reference(model: str, block: int):
    """Guards the lower bound: the answer of one position per step, in fewer calls."""
    made, expected = (made_by(f"{name} block_length={block}", model) for name in ("oracle", "llada"))
    assert made.tokens == expected.tokens
    assert all(one.nfe < other.nfe for one, other in zip(made.counts, expected.counts, strict=True))


@pytest.mark.parametrize("model", ["random_mdm", "tiny_mdm"])
def test_wino_takes_nothing_back_without_a_bound(model: str):
    """Guards `tau2=0`, where the same settings with a bound do take tokens back."""
    bound, free = (made_by(f"wino tau1=0.1 tau2={tau2} block_length=16", model) for tau2 in (1, 0))
    assert sum(one.remasked for one in free.generations) == 0 < sum(one.remasked for one in bound.generations)


@pytest.mark.parametrize("model", ["random_mdm", "tiny_mdm"])
def test_daedal_that_never_grows_is_the_strict_threshold(model: str):
    """Guards the decoding between growths: one call more, for the search of the length."""
    made = made_by("daedal eos_init=0 eos_grow=0 W=1 high=0.5 block_length=8", model)
    expected = made_by(STRICT, model)
    assert made.decided == expected.decided
    assert [counts.nfe for counts in made.counts] == [counts.nfe + 1 for counts in expected.counts]
