"""Areas under parallelism from comparisons."""

from pathlib import Path

import pytest

from harness.results.comparison import compare, load
from harness.results.parallelism import areas
from harness.results.store import Store
from tests.results.factory import add_run


def test_knobs_are_points_of_one_method_and_parts_are_another(tmp_path: Path):
    """Guards grouping and the area: (1, 100 %) and (4, 100 %) give 400; a cache is a method of its own."""
    store = Store(root=tmp_path)
    add_run(store, "slow", setting="llada", nfe=[4, 4])
    add_run(store, "fast", setting="llada steps=1", nfe=[1, 1])
    add_run(store, "cached", setting="llada cache=dual cache.r=2", nfe=[2, 2])
    found = areas(compare(load(store, ["slow", "fast", "cached"]), per_task=True))
    assert [(one.method, one.points) for one in found] == [("llada", 2), ("llada cache=dual", 1)]
    assert [one.value for one in found] == pytest.approx([400, 200])


def test_a_task_that_nobody_solves_has_no_area(tmp_path: Path):
    """Guards against a division by the best accuracy."""
    store = Store(root=tmp_path)
    add_run(store, "wrong", correct=[False, False])
    assert areas(compare(load(store, ["wrong"]), per_task=True))[0].value == 0
