"""Settings beside each other, with numbers that can be checked by hand."""

from pathlib import Path

import pytest

from harness.results.comparison import load
from harness.results.html.leaderboard import Standing, area_rows, as_row, standings
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path)


def by_setting(found: list[Standing], task: str | None) -> dict[str, Standing]:
    return {one.comparison.setting: one for one in found if one.task == task}


def standings_of(store: Store) -> list[Standing]:
    return standings(load(store, sorted(store.read("runs")["run_id"].to_pylist())))


def test_settings_stand_over_all_tasks_and_on_each(store: Store):
    """Guards the choice of a task: means over both, then each alone, model by model."""
    add_sweep(store)
    found = standings_of(store)
    assert list(dict.fromkeys(one.task for one in found)) == [None, "copy", "sort"]
    fast = by_setting(found, None)["fast step=4"].comparison
    assert (fast.n, fast.accuracy.value, fast.nfe) == (4, 0.75, 1.0)
    assert by_setting(found, "sort")["fast step=4"].comparison.accuracy.value == 0.5


def test_one_task_has_no_mean_over_tasks(store: Store):
    """Guards against the same rows twice."""
    add_run(store, "base")
    assert [one.task for one in standings_of(store)] == ["copy"]


def test_verdicts_are_corrected_for_all_that_is_compared(store: Store):
    """Guards significance: 8 of 8 answers lost have a mid-p of 1/256, which Holm doubles beside a second setting."""
    add_run(store, "base", correct=[True] * 8 + [False] * 6, nfe=[4] * 14, latency_s=[0.1] * 14)
    worse = [False] * 8 + [False] * 6
    add_run(store, "worse", setting="fast a", method="fast", correct=worse, nfe=[1] * 14, latency_s=[0.1] * 14)
    open_ = [True] * 8 + [True] * 3 + [False] * 3
    add_run(store, "open", setting="fast b", method="fast", correct=open_, nfe=[2] * 14, latency_s=[0.1] * 14)
    found = by_setting(standings_of(store), "copy")
    assert found["fast a"].p_holm == pytest.approx(2 / 256)
    assert found["fast b"].p_holm == pytest.approx(1 / 8)
    assert [found[one].verdict for one in ("llada", "fast a", "fast b")] == ["baseline", "worse", "open"]


def test_better_is_told(store: Store):
    """Guards the other side: 8 gained answers."""
    add_run(store, "base", correct=[False] * 8, nfe=[4] * 8, latency_s=[0.1] * 8)
    add_run(store, "new", method="new", setting="new", correct=[True] * 8, nfe=[4] * 8, latency_s=[0.1] * 8)
    assert by_setting(standings_of(store), "copy")["new"].verdict == "better"


def test_without_a_baseline_nothing_is_claimed(store: Store):
    """Guards against comparisons that were never made."""
    add_run(store, "lone", method="fast", setting="fast", nfe=[1, 1])
    (one,) = standings_of(store)
    assert (one.verdict, one.p_holm) == ("none", None)
    assert as_row(one)["difference"] is None


def test_the_front_is_what_nothing_beats(store: Store):
    """Guards fronts: fewer calls, more accuracy, and a setting that loses both; with 2 samples none surely loses."""
    add_run(store, "base")
    add_run(store, "fast", method="fast", setting="fast", nfe=[1, 1], correct=[True, False])
    add_run(store, "bad", method="bad", setting="bad", nfe=[5, 5], correct=[False, False])
    found = by_setting(standings_of(store), "copy")
    assert [("nfe" in found[one].front) for one in ("llada", "fast", "bad")] == [True, True, False]
    assert found["bad"].beaten == ()


def test_a_mean_over_fewer_tasks_is_on_no_front(store: Store):
    """Guards against a setting that was asked the easy task alone."""
    for task, right in (("copy", True), ("sort", False)):
        add_run(store, f"base-{task}", task=task, correct=[right, right])
    add_run(store, "easy", method="easy", setting="easy", nfe=[1, 1], task="copy")
    found = by_setting(standings_of(store), None)
    assert (found["easy"].front, "nfe" in found["llada"].front) == ((), True)


def test_areas_are_those_of_a_method_over_its_settings(store: Store):
    """Guards AUP: a rectangle for one setting, a trapezium for two, and the mean over tasks."""
    add_sweep(store)
    add_run(store, "base2", setting="llada steps=2", nfe=[2, 2])
    found = {(one["task"], one["method"]): one for one in area_rows(standings_of(store)) if one["model"] == "tiny"}
    assert {key: (one["points"], one["tasks"]) for key, one in found.items()} == {
        (None, "llada"): (2, 2), (None, "fast"): (1, 2), ("copy", "llada"): (2, 1), ("copy", "fast"): (1, 1),
        ("sort", "llada"): (1, 1), ("sort", "fast"): (1, 1)}  # fmt: skip
    assert found["copy", "llada"]["area"] == 200 and found["sort", "llada"]["area"] == 100
    assert found[None, "llada"]["area"] == 150


def test_a_row_holds_what_the_page_shows(store: Store):
    """Guards the format: estimates as value, low, high."""
    add_sweep(store)
    row = as_row(by_setting(standings_of(store), "sort")["fast step=4"])
    assert row["accuracy"] == pytest.approx([0.5, 0.0945, 0.9055], abs=1e-4)
    assert (row["variant"], row["runs"], row["lost"], row["gained"], row["p"]) == ("fast", ["fast-sort"], 1, 0, 0.5)
    assert row["times_nfe"] == pytest.approx([4.0, 4.0, 4.0])
