"""The table of drafts, by hand: ratios of totals over tasks, who is listed, and what has no number."""

from pathlib import Path
from typing import Any

import pytest

from harness.results.comparison import compare, load
from harness.results.drafting import Drafted, drafting, markdown
from harness.results.store import Store
from tests.results.factory import add_run

CAUSAL = {"model": "causal", "family": "autoregressive"}
OF_DRAFTS = {"nfe_draft": 4.0, "query_tokens_draft": 6.0, "layer_loads_draft": 8.0}


def stored(folder: Path, *, old: bool = False) -> dict[str, Drafted]:
    """Return what is said of a baseline and a drafting method on two tasks, of 2 samples each, and of another model."""
    store = Store(root=folder)
    for task, loads in (("copy", 16.0), ("sort", 24.0)):
        made: dict[str, Any] = CAUSAL | {"task": task, "tokens_generated": 5.0, "tokens_out": 4.0}
        add_run(store, f"base-{task}", method="ar_greedy", setting="ar_greedy", layer_loads=loads, **made)
        add_run(store, f"other-{task}", task=task, layer_loads=loads)
        drafts = {"rounds": 2.0, "draft_tokens": 4.0, "accepted_draft_tokens": 1.0, "acceptance_rate": 0.25}
        if task == "sort":
            drafts |= {"rounds": 4.0, "draft_tokens": 8.0, "accepted_draft_tokens": 5.0, "acceptance_rate": 0.625}
        loaded = {} if old else {"layer_loads": loads / 2 + 2}
        add_run(store, f"fast-{task}", method="spec", setting="spec", **made, **drafts, **loaded, **OF_DRAFTS)
    measured = load(store, store.read("runs")["run_id"].to_pylist())
    return {one.setting: one for one in drafting(compare(measured), measured)}


def test_numbers_are_ratios_of_totals(tmp_path: Path) -> None:
    """Guards against means of ratios: 1 of 2 and 5 of 4 rounds' drafts stand, 40 layers against 24."""
    found = stored(tmp_path)
    assert found.keys() == {"ar_greedy", "spec"}, "a model with which nothing is drafted is left out"
    spec = found["spec"]
    assert (spec.accepted_length, spec.draft_length) == (2.0, 2.0)
    assert (spec.acceptance_rate, spec.waste) == (0.5, pytest.approx(0.2))
    assert (spec.layer_loads, spec.layer_loads_draft, spec.times_loads) == (12.0, 8.0, pytest.approx(40 / 24))
    base = found["ar_greedy"]
    assert (base.accepted_length, base.acceptance_rate, base.times_loads) == (None, None, 1.0)


def test_what_is_not_known_is_no_number(tmp_path: Path) -> None:
    """Guards tables of older stores, which know no loads, and cells of methods that draft nothing."""
    found = stored(tmp_path, old=True)
    assert (found["spec"].layer_loads, found["spec"].times_loads) == (None, None)
    lines = markdown([*found.values()]).splitlines()
    assert lines[2].startswith("| causal | ar_greedy | - | - | - | 4.0 | - | 32 | - |")
    assert lines[3].startswith("| causal | spec | 2.00 | 2.00 | 50.0 | 4.0 | 4.0 | 32 | 6 | - | 8.0 | - | 20.0 |")
