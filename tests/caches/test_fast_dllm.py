"""Fast-dLLM's prefix and dual cache: what is computed, and that nothing else differs from no cache."""

from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.reuse import Gathered
from harness.engine.shared.records import Ledger
from harness.errors import DataError
from methods.caches import fast_dllm
from methods.caches.fast_dllm import DualCache, PrefixCache
from tests.caches.decoding import (
    LENGTH,
    PARALLEL,
    PROMPTS,
    STEPWISE,
    decode_with,
    method_of,
    models,
    random_model,
    run,
    same_decoding,
)
from tests.engine.asking import asked
from tests.methods.closed_form import PROMPT, replay
from tests.methods.test_every_step import allowed, method_for

CACHES = {"prefix": PrefixCache, "dual": DualCache}
P, G = len(PROMPT), LENGTH


def published(cache: str, steps: list[int], block: int, shift: int = 0, prompt: int = P) -> int:
    """Return L + (T - 1)(L - s), or L + (T - 1)(e - s), per block; shifted, s - 1 while s is open."""
    total = 0
    for first in range(0, G, block):
        calls = sorted(set(steps[first : first + block]))
        rest = G - first if cache == "prefix" else block
        total += prompt + G + (len(calls) - 1) * rest + shift * calls.index(steps[first])
    return total


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("block", "threshold"), [(4, 0.7), (8, 0.5), (16, 0.7)])
@pytest.mark.parametrize("cache", CACHES)
def test_exact_recomputation_is_no_cache_and_costs_what_is_published(
    cache: str, block: int, threshold: float, shifted: bool
):
    """Guards trajectories on a model that has no stale keys, the number of calls, and the published table."""
    method = ("method=threshold", f"method.threshold={threshold}", f"method.block_length={block}")
    made, without = replay(*method, f"method/cache={cache}", shifted=shifted), replay(*method, shifted=shifted)
    assert (made.ids, made.calls, made.steps) == (without.ids, without.calls, without.steps)
    steps = [int(step) for step in made.steps.split()]
    assert made.counts.query_tokens == published(cache, steps, block, int(shifted))
    assert made.counts.nfe_cache == made.counts.nfe_prefill == 0


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("cache", CACHES)
def test_networks_cost_what_is_published(cache: str, block: int):
    """Guards the table where keys are stale, and the trajectory is the cache's own."""
    for model, prompts in models():
        decoder = ("method=threshold", "method.threshold=0.5", f"method.block_length={block}")
        made = run(*decoder, f"method/cache={cache}", model=model, prompts=prompts)
        for prompt, one, counts in zip(prompts, made.generations, made.counts, strict=True):
            expected = published(cache, list(one.decided_at), block, model.spec.shift, len(prompt))
            assert (counts.query_tokens, counts.nfe) == (expected, len(set(one.decided_at)))


@pytest.mark.parametrize("method", [STEPWISE, PARALLEL])
@pytest.mark.parametrize("cache", CACHES)
def test_a_refresh_in_every_call_is_no_cache(cache: str, method: tuple[str, ...]):
    """Guards positions, slots and shifted sources on networks."""
    assert same_decoding(f"method/cache={cache}", "method.cache.refresh_interval=1", method=method)


@pytest.mark.parametrize("cache", CACHES)
def test_a_window_that_covers_the_row_is_no_cache(cache: str):
    """Guards against keys of the opening call where nothing is outside of the window."""
    made, without = (run(*STEPWISE, *one, prompts=[[], []]) for one in ([f"method/cache={cache}"], []))
    assert (made.decided, made.counts) == (without.decided, without.counts)


@pytest.mark.parametrize("interval", [2, 5])
def test_refreshes_come_in_between(interval: int):
    """Guards the interval, which counts the calls of a window."""
    knobs = ("method.block_length=8", "method/cache=dual", f"method.cache.refresh_interval={interval}")
    made = run(*STEPWISE, *knobs, prompts=PROMPTS[:1])
    whole = len(range(0, 8, interval))
    assert made.counts[0].query_tokens == 2 * (whole * (len(PROMPTS[0]) + G) + (8 - whole) * 8)


@pytest.mark.parametrize("cache", [PrefixCache(), DualCache()])
def test_a_token_that_changes_outside_of_the_window_is_heard_of(cache: PrefixCache | DualCache):
    """Guards decided tokens that a decoder masks again or edits: the row is computed whole, and only that row."""
    model, ledger = random_model(), Ledger()
    assert model.spec.mask_id is not None
    prompts = [[2, 30], [2, 30, 4]]
    canvas = Canvas.from_prompts(prompts, gen_length=8, mask_id=model.spec.mask_id, pad_id=0, seeds=[0, 0])
    canvas.open_window(torch.tensor([True, True]), (canvas.place_BL >= 4) & (canvas.place_BL < 8))
    canvas.commit(canvas.place_BL == 1, torch.full_like(canvas.tokens_BL, 40))

    def computed() -> list[int]:
        cache.evaluate(asked(model, canvas, *canvas.open_BL.nonzero(as_tuple=True), ledger))
        return ledger.records[-1].query_B.tolist()

    assert [computed(), computed()] == [[10, 11], [4, 4]]
    canvas.commit(canvas.place_BL == 5, torch.full_like(canvas.tokens_BL, 40))
    assert computed() == [4, 4]
    canvas.remask((canvas.place_BL == 1) & torch.tensor([[True], [False]]))
    assert [computed(), computed()] == [[10, 4], [4, 4]]


OFTEN = {"llada", "threshold", "t2t_edit", "prophet", "hierarchy_remask", "adablock"}
SHOWN = [
    pytest.param(one.row, one.column, one.kind.value, marks=[] if one.row in OFTEN else [pytest.mark.slow])
    for one in allowed()
    if one.column in CACHES
]


@pytest.mark.parametrize(("name", "cache", "kind"), SHOWN)
def test_what_the_host_knows_of_a_window_changes_no_call(
    name: str, cache: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """Guards calls that look at no token, whatever a policy reads, edits, stops or moves, and whenever rows leave."""
    method = replace(method_for(name, kind), cache=CACHES[cache]())
    made = decode_with(method, random_model(kind), PROMPTS[1::2])
    monkeypatch.setattr(fast_dllm, "compute_again", lambda *_: None)
    looked = decode_with(method, random_model(kind), PROMPTS[1::2])
    assert (made.generations, made.counts) == (looked.generations, looked.counts)
    assert made.queries == looked.queries and all(map(torch.equal, made.logits, looked.logits))


def test_a_window_that_stays_is_asked_for_once(monkeypatch: pytest.MonkeyPatch):
    """Guards the stream of a device: nothing is read of a call's positions but where a window opens."""
    method, model = method_of(*STEPWISE, "method.block_length=8", "method/cache=dual"), random_model()
    asked_at: list[int] = []
    real = Gathered.of.__func__
    monkeypatch.setattr(Gathered, "of", classmethod(lambda cls, *told: asked_at.append(1) or real(cls, *told)))
    made = decode_with(method, model, PROMPTS[:2])
    assert len(made.queries) == LENGTH and len(asked_at) == 2 * LENGTH // 8


def test_what_is_read_outside_of_the_window_is_computed():
    """Guards early commits, whose stopper looks at an answer far behind the window."""
    prophet = ("method=prophet", "method.block_length=4", "method/cache=dual", "method.gap_thresholds=[1e9,1e9,1e9]")
    made = run(*prophet, prompts=PROMPTS[:1])
    assert LENGTH * 4 < made.counts[0].query_tokens < LENGTH * (len(PROMPTS[0]) + LENGTH)


def test_a_row_longer_than_the_context_is_refused_by_name():
    """Guards against an index error deep in a layer, where a call without a cache has a message."""
    for cache in ("none", "dual"):
        with pytest.raises(DataError, match="does not fit the 64 positions"):
            run(*STEPWISE, f"method/cache={cache}", prompts=[[2] * 50])


def test_values_are_refused():
    """Guards against a division by zero in the middle of a run."""
    with pytest.raises(ValueError, match=r"method\.cache.*refresh_interval=0[.0]*: must be at least 1"):
        method_of(*STEPWISE, "method/cache=dual", "method.cache.refresh_interval=0")
