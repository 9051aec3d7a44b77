"""FreeDave beside caches: drafts of one window, predicted from what was kept when it opened."""

from dataclasses import replace

import pytest

from harness.config.build import build_method
from harness.config.catalogue import read
from harness.config.composition import compose
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ModelKind
from harness.engine.shared.records import Counts, Ledger
from harness.errors import ConfigError
from tests.caches.decoding import random_model, run, trained_model
from tests.methods.closed_form import replay
from tests.methods.test_freedave import DRAFTED, EAGER, GOLDEN, WRAPPED, on_random_model, plain

CACHES = {
    "prefix": ModelKind.MASKED_DIFFUSION,
    "dual": ModelKind.MASKED_DIFFUSION,
    "block_causal": ModelKind.BLOCK_DIFFUSION,
    "sub_block": ModelKind.BLOCK_DIFFUSION,
}


QUERY_TOKENS = {
    (16, 1): 261, (16, 2): 309, (16, 4): 517, (16, 8): 901, (8, 1): 210, (8, 2): 298, (8, 4): 498, (8, 8): 698,
}  # fmt: skip
QUICK = ("llada", "threshold", "klass", "eoser")
REFUSED = ("daedal", "dawn", "hierarchy_remask", "saber", "t2t_edit")


def cases() -> list:
    """Return what the kinds of models allow, most of it for slow days."""
    return [
        pytest.param(name, cache, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in WRAPPED
        for cache, kind in CACHES.items()
        if kind.value in read("method", name)["models"]
    ]


@pytest.mark.parametrize(("name", "cache"), cases())
def test_no_cache_makes_a_draft_change_a_token(name: str, cache: str):
    """Guards the equality with the same cache: what is kept is that of the window, not that of a draft."""
    block = ["method.block_length=4"] if "block_length" in read("method", name) else []
    base = [f"method={name}", f"method/cache={cache}", *block]
    try:
        made, calls = on_random_model([*base, *DRAFTED], kind=CACHES[cache].value)
    except ConfigError:
        assert name in REFUSED
        return
    expected, most = on_random_model(base, kind=CACHES[cache].value)
    assert plain(made) == plain(expected)
    assert calls <= most


MOVING = [
    ("slowfast", "prefix"), ("slowfast", "dual"), ("dsb", "prefix"), ("saber", "dual"), ("t2t_edit", "prefix"),
    ("hierarchy_remask", "dual"), ("llada", "sub_block"), ("saber", "sub_block"), ("frechet", "block_causal"),
]  # fmt: skip
ROWS = [[2, 60, 5, 9, 55, 4], [2, 31, 4], [2, 17, 4], [81, 53, 77], [30, 22, 82, 16, 49, 89, 5, 53], [2, 4], [88, 89]]


@pytest.mark.parametrize(("name", "cache"), MOVING)
def test_drafts_end_where_a_window_or_its_surroundings_change(name: str, cache: str):
    """Guards windows that slide, tokens revised outside of them, and windows that reach into several blocks.

    What a cache keeps there depends on which states were evaluated one by one; many rows, since few show it.
    """
    for block in (4, 8):
        base = [f"method={name}", f"method/cache={cache}", f"method.block_length={block}"]
        shared = {"kind": CACHES[cache].value, "prompts": ROWS}
        expected, most = on_random_model(base, **shared)
        made, calls = on_random_model([*base, "method/verifier=freedave", "method.verifier.draft_steps=5"], **shared)
        assert plain(made) == plain(expected)
        assert calls <= most


SHIFTED = {
    "prefix": [[2, 60, 5, 9, 55, 4], [2, 31, 4], [2, 17, 4], [88, 89]],
    "dual": [[2, 33, 32, 62], [2, 29], [2, 24, 70, 54, 51, 66, 7, 64], [2, 58, 11], [2, 68, 33]],
    "block_causal": [[2, 60, 5, 9, 55, 4], [2, 31, 4], [2, 17, 4], [88, 89]],
    "sub_block": [[2, 13, 38, 74, 13], [2, 69], [2, 81, 41, 20, 30, 22, 73, 8], [2, 4, 26, 71, 44], [2, 42, 42, 74]],
}
"""Prompts of which drafts that do not end as they should change a token."""


@pytest.mark.parametrize("name", [QUICK[0], *(pytest.param(name, marks=pytest.mark.slow) for name in QUICK[1:])])
@pytest.mark.parametrize("cache", CACHES)
def test_drafts_end_where_a_call_would_no_longer_compute_what_the_one_before_does(cache: str, name: str):
    """Guards models whose logits are shifted: the position before a window is computed while its first one is masked.

    What is kept of it when that is decided comes from the call before, which no draft of the same call has seen.
    """
    shared = {"model": random_model(CACHES[cache].value, 1), "prompts": SHIFTED[cache], "length": 24}
    fewer = 0
    for block in (4, 8):
        base = [f"method={name}", f"method/cache={cache}", f"method.block_length={block}"]
        expected = run(*base, **shared)
        drafted = [*base, "method/verifier=freedave", "method.verifier.draft_steps=5"]
        for drafts in ("batch", "tree"):
            made = run(*drafted, f"method.verifier.drafts={drafts}", **shared)
            assert made.decided == expected.decided
            fewer += sum(one.nfe for one in made.counts) < sum(one.nfe for one in expected.counts)
    assert fewer or name == "threshold"


@pytest.mark.parametrize("cache", ["block_causal", "sub_block"])
def test_drafts_of_shifted_models_cost_stores_at_most(cache: str):
    """Guards calls that evaluate: drafts finish blocks which an evaluation would have stored, had it been alone."""
    shared = {"model": random_model("block_diffusion", 1), "prompts": [[5], [2, 60, 5, 9, 55, 4, 7, 8, 6], [2, 31]]}
    base = ["method=pc_sampler", f"method/cache={cache}", "method.block_length=8"]
    expected = run(*base, **shared)
    reach = ["method.verifier.draft_steps=2", "method.verifier.reach=within"]
    made = run(*base, "method/verifier=freedave", *reach, **shared)
    assert made.decided == expected.decided
    pairs = [*zip(made.counts, expected.counts, strict=True)]
    assert all(one.nfe - one.nfe_cache <= other.nfe - other.nfe_cache for one, other in pairs)
    assert any(one.nfe_cache > other.nfe_cache for one, other in pairs)


def counted(*setting: str, kind: str) -> tuple[list[Generation], list[Counts]]:
    """Decode on the random model; return what was made and what it cost, row by row."""
    ledger = Ledger()
    made, _ = on_random_model(setting, kind=kind, ledger=ledger)
    return plain(made), ledger.counts(range(3))


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("cache", CACHES)
def test_a_tree_is_a_batch_in_one_row(name: str, cache: str):
    """Guards the tree: the same answers, calls and query tokens, but one row of the model for all drafts."""
    reaches = ["across", "eager"] if cache == "block_causal" else ["across"]
    for reach in reaches:
        setting = [f"method={name}", f"method/cache={cache}", "method.block_length=4", *DRAFTED]
        setting.append(f"method.verifier.reach={reach}")
        batch, work = counted(*setting, kind=CACHES[cache].value)
        tree, less = counted(*setting, "method.verifier.drafts=tree", kind=CACHES[cache].value)
        assert tree == batch
        assert [replace(one, nfe_total=0) for one in less] == [replace(one, nfe_total=0) for one in work]
        assert [one.nfe_total for one in less] == [one.nfe for one in less]
        assert all(one.nfe_total > one.nfe for one in work)


@pytest.mark.parametrize("decoder", ["method=llada", "method=threshold method.threshold=0.99"])
@pytest.mark.parametrize("cache", CACHES)
def test_trained_models_answer_alike_in_fewer_calls(cache: str, decoder: str):
    """Guards the equalities with the cache, and of a tree and a batch, where tokens mean something."""
    model, prompts = trained_model("tiny_mdm" if CACHES[cache] is ModelKind.MASKED_DIFFUSION else "tiny_block")
    base = [*decoder.split(), f"method/cache={cache}", "method.block_length=8"]
    expected = run(*base, model=model, prompts=prompts)
    for reach in ["across", "eager"] if cache == "block_causal" else ["across"]:
        drafted = [*base, *DRAFTED, f"method.verifier.reach={reach}"]
        batch, tree = (
            run(*drafted, f"method.verifier.drafts={drafts}", model=model, prompts=prompts)
            for drafts in ("batch", "tree")
        )
        assert batch.decided == tree.decided == expected.decided
        assert batch.queries == tree.queries
        assert sum(counts.nfe for counts in batch.counts) < sum(counts.nfe for counts in expected.counts)


@pytest.mark.parametrize(("block", "drafts"), QUERY_TOKENS)
def test_golden_work(block: int, drafts: int):
    """Guards the query tokens of the published code with its prefix cache; a tree computes the same in a row a call."""
    setting = ["method=freedave", f"method.block_length={block}", f"method.draft_steps={drafts}", "method/cache=prefix"]
    batch, tree = replay(*setting), replay(*setting, "method.drafts=tree")
    assert (batch.calls, batch.counts.nfe_total) == GOLDEN[block, drafts]
    assert batch.counts.query_tokens == QUERY_TOKENS[block, drafts]
    assert (tree.ids, tree.steps, tree.calls) == (batch.ids, batch.steps, batch.calls)
    assert (tree.counts.query_tokens, tree.counts.nfe_total) == (batch.counts.query_tokens, batch.calls)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_finished_draft_has_no_row(cache: str):
    """Guards the last window: a draft that completes the response cannot be gone on from, with a cache as without."""
    knobs = ["method.block_length=16", "method.reach=across"]
    cached, plain_row = replay("method=freedave", f"method/cache={cache}", *knobs), replay("method=freedave", *knobs)
    published = replay("method=freedave", f"method/cache={cache}", knobs[0])
    assert (cached.ids, cached.calls) == (published.ids, published.calls)
    assert cached.counts.nfe_total == plain_row.counts.nfe_total < published.counts.nfe_total


@pytest.mark.parametrize("cache", ["none", "block_causal"])
@pytest.mark.parametrize("name", QUICK)
def test_eager_drafts_change_no_token(name: str, cache: str):
    """Guards drafts in windows that no call has opened yet, against the method with the same cache."""
    base = [f"method={name}", f"method/cache={cache}", "method.block_length=4"]
    expected, most = on_random_model(base, kind="block_diffusion")
    for drafts in (1, 3, 8):
        eager = ["method/verifier=freedave", f"method.verifier.draft_steps={drafts}", EAGER]
        made, calls = on_random_model([*base, *eager], kind="block_diffusion")
        assert plain(made) == plain(expected)
        assert calls <= most


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_eager_calls_in_closed_form(blocks: int):
    """Guards the published pattern with one draft, blocks of 8: a call opens a block, each mask costs one, all but the
    last block are stored; a block's last mask gives the next one its first token, in the last block it costs nothing.
    """
    setting = ["method=sdar", "method.remasking=low_confidence_static", "method/verifier=freedave", EAGER]
    ledger = Ledger()
    on_random_model(
        [*setting, "method.verifier.draft_steps=1"],
        kind="block_diffusion", ledger=ledger, prompts=[[2, 31, 4, 5, 6, 7, 8, 4]], length=8 * blocks,
    )  # fmt: skip
    (work,) = ledger.counts([0])
    inner = (9 + 8 * (blocks - 2) + 7) if blocks > 1 else 8
    assert (work.nfe_prefill, work.nfe_cache, work.nfe - work.nfe_cache) == (1, blocks - 1, inner)


def test_what_needs_something_shared_or_exact_is_refused():
    """Guards trees where nothing is stored, and drafts behind a window that a cache is kept for."""
    with pytest.raises(ConfigError, match="shares what a cache has stored; use method/cache=prefix"):
        build_method(compose(["method=threshold", *DRAFTED, "method.verifier.drafts=tree"]))
    with pytest.raises(
        ConfigError, match="beyond the window that the cache dual is for; use method/cache=none or block_causal"
    ):
        build_method(compose(["method=threshold", "method/cache=dual", *DRAFTED, EAGER]))


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_the_published_setting_computes_windows_only(cache: str):
    """Guards the cost: a whole row per window, then one window (and what is behind it) per draft."""
    made = replay("method=freedave", "method.block_length=4", f"method/cache={cache}")
    base = replay("method=llada", "method.block_length=4", f"method/cache={cache}")
    assert (made.ids, made.steps) == (base.ids, base.steps)
    assert made.calls < base.calls
    drafts = made.counts.nfe_total - 4
    least, most = {"prefix": (4, 16), "dual": (4, 4)}[cache]
    assert 4 * 21 + drafts * least <= made.counts.query_tokens <= 4 * 21 + drafts * most


def test_a_refreshed_cache_is_refused():
    """Guards against drafts that are predicted from keys of another age than the real step's."""
    method = compose(["method=threshold", "method/cache=dual", "method.cache.refresh_interval=2", *DRAFTED])
    with pytest.raises(ConfigError, match="no exact predictions of drafts"):
        assert isinstance(build_method(method), DiffusionMethod)
