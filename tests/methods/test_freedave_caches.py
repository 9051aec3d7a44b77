"""FreeDave beside caches: drafts of one window, predicted from what was kept when it opened."""

import pytest

from harness.engine.model import ModelKind
from harness.engine.policies import DiffusionMethod
from harness.errors import ConfigError
from harness.runs.build import build_method
from harness.runs.catalogue import read
from harness.runs.config import compose
from tests.methods.closed_form import replay
from tests.methods.test_freedave import DRAFTED, WRAPPED, on_random_model, plain

CACHES = {
    "prefix": ModelKind.MASKED_DIFFUSION,
    "dual": ModelKind.MASKED_DIFFUSION,
    "block_causal": ModelKind.BLOCK_DIFFUSION,
    "sub_block": ModelKind.BLOCK_DIFFUSION,
}


QUICK = ("llada", "threshold", "klass", "eoser")
REFUSED = ("dawn", "hierarchy_remask", "saber", "t2t_edit")


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


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_the_published_setting_computes_windows_only(cache: str):
    """Guards the cost: a whole row per window, then one window (and what is behind it) per draft."""
    made = replay("method=freedave", "method.block_length=4", f"method/cache={cache}")
    base = replay("method=llada", "method.block_length=4", f"method/cache={cache}")
    assert (made.ids, made.steps) == (base.ids, base.steps)
    assert made.calls < base.calls
    behind = {"prefix": [16, 12, 8, 4], "dual": [4] * 4}[cache]
    assert made.counts.query_tokens <= 4 * 21 + made.counts.nfe_total * max(behind)


def test_a_refreshed_cache_is_refused():
    """Guards against drafts that are predicted from keys of another age than the real step's."""
    method = compose(["method=threshold", "method/cache=dual", "method.cache.refresh_interval=2", *DRAFTED])
    with pytest.raises(ConfigError, match="no exact predictions of drafts"):
        assert isinstance(build_method(method), DiffusionMethod)
