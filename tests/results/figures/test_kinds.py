"""The data behind every kind of figure, in closed form; drawing them all shows that they can be drawn."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.results.figures.definition import KINDS, TABLE, read_definition
from harness.results.figures.making import Made, make
from harness.results.figures.order_map import order_of
from harness.results.figures.scatter import TheoryPoint
from harness.results.statistics import wilson
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep, run_row, sample_rows
from tests.results.figures.traced import asked_again, step, traced_store

pytest.importorskip("matplotlib")

THEORY = (
    TheoryPoint(task="copy", kind="ideal", nfe=1, accuracy=0.25),
    TheoryPoint(task="copy", kind="ideal", nfe=4, accuracy=1),
    TheoryPoint(task="copy", kind="fewest", nfe=2, accuracy=1),
)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return traced_store(tmp_path_factory.mktemp("traced"))


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return asked_again(tmp_path_factory.mktemp("twice"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(root=tmp_path_factory.mktemp("swept"))
    add_sweep(store)
    return store


def made(store: Store, **option: Any) -> Made:
    """Draw a figure that YAML would say."""
    return make(store, read_definition(option, "figure"), theory=lambda runs: THEORY)


def rows(figure: Made, *columns: str, **where: Any) -> list[tuple[Any, ...]]:
    """Return some columns of the rows that have the values of `where`."""
    frame = figure.data
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return [tuple(row) for row in frame[list(columns)].itertuples(index=False)]


def test_scatter_has_a_point_per_setting_and_what_theory_says(swept: Store):
    """Guards points, intervals, panels, theory and front: `fast` has 1 call and 1 of 2 right on sort."""
    figure = made(swept, kind="scatter", x="nfe", y="accuracy", panels="task", log="x", theory=True, front=True)
    assert figure.data["kind"].value_counts().to_dict() == {"measured": 6, "front": 3, "ideal": 2, "fewest": 1}
    half = wilson(1, 2)
    columns = ("x", "y", "low", "high", "n", "front", "runs")
    assert rows(figure, *columns, panel="sort", group="tiny · fast") == [
        (1, 0.5, half.low, half.high, 2, True, "fast-sort")
    ]
    assert rows(figure, "group", panel="sort", front=False) == [("tiny · llada",)]
    assert [panel.get_title(loc="left") for panel in figure.figure.axes] == ["copy", "sort"]
    named = {text.get_text() for text in figure.figure.legends[0].get_texts()}
    theory = {"ideal sampler, k per step", "fewest calls without loss"}
    assert named == {"tiny · llada", "tiny · fast", "causal · ar_greedy", "not beaten in both"} | theory


def test_theory_is_drawn_where_it_belongs(swept: Store):
    """Guards against the line of one task in another's panel."""
    figure = made(swept, kind="scatter", x="nfe", y="accuracy", panels="task", theory=True)
    drawn = [[line for line in panel.lines if "ideal" in str(line.get_label())] for panel in figure.figure.axes]
    assert [len(lines) for lines in drawn] == [1, 0]
    assert drawn[0][0].get_xydata().tolist() == [[1, 25], [4, 100]]


def test_runs_of_one_setting_are_one_point(tmp_path: Path):
    """Guards seeds: 2 of 2 and 0 of 2 right in 4 and 2 calls are half right in 3 calls, of the same 2 samples."""
    store = Store(root=tmp_path)
    add_run(store, "a", seed=1)
    add_run(store, "b", seed=2, correct=[False, False], nfe=[2, 2])
    found = rows(made(store, kind="scatter", x="nfe", y="accuracy"), "x", "y", "n", "low")
    assert found == [(3, 0.5, 2, wilson(1, 2).low)]


def test_lines_count_a_sample_once(tmp_path: Path):
    """Guards n and intervals: two seeds of two samples are means of two."""
    store = Store(root=tmp_path)
    add_run(store, "a", seed=1)
    add_run(store, "b", seed=2, correct=[False, False])
    found = rows(made(store, kind="lines", x="prompt_tokens", y="accuracy"), "y", "n", "low")
    assert found == [(0.5, 2, wilson(1, 2).low)]


def test_a_front_has_an_interval(tmp_path: Path):
    """Guards the band by counting: of 3 calls `good` gets 2 of 4 right, `poor` never any; one call gets none."""
    store = Store(root=tmp_path)
    half = [True, True, False, False]
    for name, correct, calls in (("good", half, 3), ("poor", [False] * 4, 3), ("fast", [False] * 4, 1)):
        add_run(store, name, setting=name, correct=correct, nfe=[calls] * 4, latency_s=[0.1] * 4)
    figure = made(store, kind="scatter", x="nfe", y="accuracy", groups="setting", front=True)
    told = rows(figure, "group", "front", "chance", kind="measured")
    chances = {group: (front, chance) for group, front, chance in told}
    assert chances["fast"] == (True, 1) and chances["poor"] == (False, 0)
    # All four draws hit what is wrong in 1 of 16 replicates; the front reaches nothing more with `good` then.
    assert chances["good"][0] and chances["good"][1] == pytest.approx(15 / 16, abs=0.02)
    assert rows(figure, "x", "low", "high", kind="front") == [(1, 0, 0), (3, 0, 1)]
    assert len(figure.figure.axes[0].collections) == 1


def test_a_front_over_other_samples_has_none(tmp_path: Path):
    """Guards against replicates that pair what was asked something else."""
    store = Store(root=tmp_path)
    add_run(store, "a", setting="a")
    add_run(store, "b", setting="b", correct=[True], nfe=[1], latency_s=[0.1])
    assert rows(made(store, kind="scatter", x="nfe", y="accuracy", front=True), "x", kind="front") == []


def test_lines_may_be_about_runs(tmp_path: Path):
    """Guards columns that only runs have: every sample of a run stands for its run."""
    store = Store(root=tmp_path)
    for batch in (1, 2):
        add_run(store, f"b{batch}", batch_size=batch, minutes=batch, tps=10.0 * batch)
    found = rows(made(store, kind="lines", x="batch_size", y="tps", groups="model"), "x", "y")
    assert found == [(1, 10), (2, 20)]


def test_what_runs_were_told_is_no_mean(tmp_path: Path):
    """Guards against one point for all batch sizes, or all seeds, of a setting."""
    store = Store(root=tmp_path)
    for batch in (1, 2):
        add_run(store, f"b{batch}", setting_id="one", batch_size=batch, seed=batch, minutes=batch, tps=float(batch))
    for x in ("batch_size", "seed"):
        found = rows(made(store, kind="scatter", x=x, y="tps", groups="model"), "x", "y")
        assert found == [(1, 1), (2, 2)]


def test_a_setting_that_was_measured_twice_is_one_run(tmp_path: Path):
    """Guards n: counts and a trace of the same samples tell nothing new, and no interval is narrower for them."""
    store = Store(root=tmp_path)
    add_run(store, "a", setting_id="one", measure="counts", minutes=1)
    add_run(store, "b", setting_id="one", measure="traced", minutes=2)
    assert rows(made(store, kind="scatter", x="nfe", y="accuracy"), "n", "runs") == [(2, "b")]


def test_two_axes_draw_a_knob_from_the_config(tmp_path: Path):
    """Guards places in the configuration as columns, and both axes of a panel."""
    store = Store(root=tmp_path)
    for knob, calls in ((0.5, 1), (0.75, 4)):
        add_run(store, f"k{calls}", nfe=[calls, calls], setting=f"llada k={knob}",
                config=f'{{"method": {{"k": {knob}}}}}')  # fmt: skip
    figure = made(store, kind="two_axes", x="config.method.k", y=["accuracy", "nfe"], log="x")
    assert rows(figure, "x", "y", y_column="nfe") == [(0.5, 1), (0.75, 4)]
    assert rows(figure, "x", "y", y_column="accuracy") == [(0.5, 1), (0.75, 1)]
    assert [panel.get_ylabel() for panel in figure.figure.axes] == ["accuracy, %", "model calls per sample"]


def test_lines_take_columns_of_samples(swept: Store):
    """Guards means over samples per value of x, which may be a sample's: all prompts have 4 tokens."""
    figure = made(swept, kind="lines", x="prompt_tokens", y=["accuracy", "latency_s"], runs={"method": "fast"})
    share = wilson(3, 4)
    assert rows(figure, "x", "y", "low", "n", panel="accuracy") == [(4, 0.75, share.low, 4)]
    assert rows(figure, "x", "y", "low", "n", panel="latency_s") == [(4, pytest.approx(0.1), pytest.approx(0.1), 4)]


def test_many_values_share_bins(tmp_path: Path):
    """Guards curves of long prompts: 20 lengths become 8 means, with all samples in them."""
    store = Store(root=tmp_path)
    add_run(store, "a", nfe=[*range(1, 21)], correct=[True] * 20, latency_s=[0.1] * 20)
    found = rows(made(store, kind="lines", x="nfe", y="accuracy"), "x", "n")
    assert len(found) == 8
    assert sum(n for _, n in found) == 20
    assert found[0][0] == 2  # of 1, 2 and 3


def test_box_has_the_quartiles_of_samples(traced: Store):
    """Guards boxes: two decoders take 0.1 and 0.3 seconds for the same two samples."""
    figure = made(traced, kind="box", y="latency_s", runs={"method": ["left", "two"]}, groups="model")
    assert rows(figure, "low", "median", "high", "n") == [
        (pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.3), 2)
    ]


def test_boxes_of_several_groups_lie_below_one_another(traced: Store):
    """Guards the places of boxes: one row for each group, the first at the top."""
    figure = made(traced, kind="box", y="latency_s", runs={"method": ["left", "two"]}, groups="method")
    (panel,) = figure.figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["two", "left"]
    assert panel.get_yticks().tolist() == [0, 1]


def test_bars_and_areas_follow_the_published_area(tmp_path: Path):
    """Guards the area: (1, 100 %) and (4, 100 %) give 400, a point at 50 % counts for nothing."""
    store = Store(root=tmp_path)
    add_run(store, "slow", setting="llada", nfe=[4, 4])
    add_run(store, "fast", setting="llada steps=1", nfe=[1, 1])
    add_run(store, "bad", setting="llada steps=0", nfe=[1, 1], correct=[True, False])
    assert rows(made(store, kind="bars"), "group", "area", "points", "tasks") == [("llada", 400, 3, 1)]
    figure = made(store, kind="area", panels="task")
    assert sorted(rows(figure, "x", "y", "counts")) == [(1, 100, True), (4, 50, False), (4, 100, True)]


def test_radar_is_relative_to_the_best_on_a_task(tmp_path: Path):
    """Guards the circle: half the area of the best is half of it, on each task by itself."""
    store = Store(root=tmp_path)
    for task in ("a", "b", "c"):
        add_run(store, f"{task}1", task=task, nfe=[2, 2])
        add_run(store, f"{task}2", task=task, nfe=[1, 1], method="fast", setting="fast")
    shares = rows(made(store, kind="radar"), "group", "share")
    assert sorted(shares) == [("fast", 1)] * 3 + [("llada", 0.5)] * 3


def test_the_order_map_tells_left_to_right_from_pairs(traced: Store):
    """Guards positions, times and the order: left to right is 1; 0 1 0 1 has tau-b 2 / sqrt(6 * 4)."""
    figure = made(traced, kind="order_map", runs={"method": ["left", "two"]})
    cells = rows(figure, "position", "time", "y", "n", kind="share", group="left")
    assert cells == [(0, 0, 1, 2), (1, 0.25, 1, 2), (2, 0.5, 1, 2), (3, 0.75, 1, 2)]
    assert rows(figure, "window", "y", kind="tau") == [(4, pytest.approx(1)), (4, pytest.approx(1 / 6**0.5))]


@pytest.mark.parametrize(
    ("decided_at", "window", "order"),
    [
        ([0, 1, 2, 3], 4, 1),
        ([3, 2, 1, 0], 4, -1),
        ([0, 1, 2, 3, 3, 2, 1, 0], 4, 0),
        ([0, 0, 0, 0, 0, 1, 2, 3], 4, 1),
        ([0, 0, 0, 0], 4, None),
        ([0, 1, 2], 4, None),
        ([-1, 0, 1, -2, 2, 3], 4, 1),
    ],
)
def test_the_order_of_a_window_is_kendalls(decided_at: list[int], window: int, order: float | None):
    """Guards windows side by side, ties of a whole window, and positions that nobody committed."""
    assert order_of(decided_at, window) == (None if order is None else pytest.approx(order))


def test_progress_has_the_means_of_its_tenth(traced: Store):
    """Guards bins: of 4 steps the third lies at 50 percent; of 4 positions, 2 were decided before it."""
    figure = made(traced, kind="progress", runs={"method": "left"})
    assert rows(figure, "x", "y", "n", panel="score") == [(5, 0.5, 2), (25, 0.625, 2), (55, 0.75, 2), (75, 0.875, 2)]
    assert rows(figure, "x", "y", panel="score over share decided")[2] == (55, 0.75)
    assert {y for (y,) in rows(figure, "y", panel="entropy")} == {1.0}
    assert {y for (y,) in rows(figure, "y", panel="margin")} == {2.0}


def test_convergence_rises_where_answers_emerge(traced: Store):
    """Guards the staircase: the answer stands from the second of 4 steps, at 25 percent, in both samples."""
    figure = made(traced, kind="convergence", runs={"method": "left"})
    share = wilson(2, 2)
    assert rows(figure, "x", "y", "low", "n") == [(at, 1, share.low, 2) for at in (25, 50, 100)]
    (stairs,) = figure.figure.axes[0].lines
    assert stairs.get_xydata().tolist() == [[0, 0], [25, 100], [50, 100], [100, 100]]


def test_per_call_has_committed_and_accepted_tokens(traced: Store):
    """Guards both panels: 2 and 0 of 3 drafts accepted, half of the rounds each, which commit 3 tokens and 1."""
    figure = made(traced, kind="per_call")
    assert rows(figure, "x", "y", "n", panel="committed", group="tiny · two") == [(1, 2, 2), (2, 2, 2)]
    assert rows(figure, "x", "y", panel="committed", group="causal · drafts") == [(1, 3), (2, 1)]
    assert rows(figure, "x", "y", "n", panel="accepted") == [(0, 50, 2), (1, 0, 2), (2, 50, 2)]


def test_a_step_without_a_call_of_its_own_belongs_to_the_call_before(tmp_path: Path):
    """Guards drafts of diffusion: calls that commit 1 + 2 and 1 tokens, of whose 4 and 1 drafts 2 and none stood."""
    samples = sample_rows(correct=[True], nfe=[2], latency_s=[0.1])
    told = [(1, 4, 1, 8), (1, 1, 1, 0), (1, 0, 0, 0), (1, 1, 0, 8)]
    steps = [
        step("s0", at, n_committed=committed, n_drafted=drafted, n_accepted=accepted, n_computed=computed)
        for at, (committed, drafted, accepted, computed) in enumerate(told)
    ]
    store = Store(root=tmp_path)
    store.write(run_row("drafts", samples, measure="traced"), samples, steps)
    figure = made(store, kind="per_call")
    assert rows(figure, "x", "y", panel="committed") == [(1, 3), (2, 1)]
    assert rows(figure, "x", "y", panel="accepted") == [(0, 50), (1, 0), (2, 50)]


def test_the_share_from_caches_comes_from_steps(traced: Store):
    """Guards staleness: 4 computed and 4 reused positions per step are half, and a run that reuses none has 0."""
    figure = made(traced, kind="scatter", x="reused_share", y="accuracy", runs={"method": ["left", "two"]})
    assert sorted(rows(figure, "group", "x")) == [("left", 0.5), ("two", 0)]


@pytest.mark.parametrize(
    "option",
    [
        {"kind": "box", "y": "latency_s"},
        {"kind": "lines", "x": "prompt_tokens", "y": "latency_s"},
        {"kind": "order_map", "runs": {"method": ["left", "two"]}},
        {"kind": "progress"},
        {"kind": "convergence"},
        {"kind": "per_call"},
        {"kind": "bars"},
        {"kind": "area"},
    ],
    ids=lambda option: option["kind"],
)
def test_a_second_seed_of_the_same_answers_changes_nothing(traced: Store, twice: Store, option: dict[str, Any]):
    """Guards n, intervals and areas: what is asked again with another seed is no further sample, and no other point."""
    once, again = (made(store, **option).data for store in (traced, twice))
    pd.testing.assert_frame_equal(once, again)


def test_seeds_that_differ_are_averaged(tmp_path: Path):
    """Guards boxes and areas: 0.1 and 0.3 seconds are 0.2; 1 and 3 calls of 4 tokens are one point between them."""
    store = Store(root=tmp_path)
    add_run(store, "a", seed=1, latency_s=[0.1, 0.2], nfe=[1, 1])
    add_run(store, "b", seed=2, latency_s=[0.3, 0.4], nfe=[4, 4], correct=[False, False])
    found = rows(made(store, kind="box", y="latency_s"), "low", "median", "high", "n")
    assert found == [(pytest.approx(0.2), pytest.approx(0.25), pytest.approx(0.3), 2)]
    assert rows(made(store, kind="area"), "x", "y", "n") == [(2.5, 50, 2)]
    assert rows(made(store, kind="bars"), "area", "points", "n") == [(125, 1, 2)]


@pytest.mark.parametrize("kind", ["progress", "convergence", "per_call"])
def test_steps_are_those_of_the_newest_run_that_has_them(tmp_path: Path, traced: Store, kind: str):
    """Guards against an empty figure after a setting was counted once more."""
    store = traced_store(tmp_path)
    for name in ("left", "two"):
        values = {"method": name, "setting": name, "model": "tiny", "measure": "counts"}
        add_run(store, f"{name} counted", setting_id=f"of_{name}", minutes=9, **values)
    pd.testing.assert_frame_equal(made(store, kind=kind).data, made(traced, kind=kind).data)


def test_boxes_of_two_columns_have_panels_of_their_own(traced: Store):
    """Guards a second y: calls beside seconds, each with its axis."""
    option = {"kind": "box", "groups": "method", "runs": {"method": ["left", "two"]}, "log": "x"}
    figure = made(traced, **option, y=["latency_s", "nfe"])
    assert rows(figure, "median", "n", y_column="nfe") == [(4, 2), (2, 2)]
    assert [panel.get_xlabel() for panel in figure.figure.axes] == ["seconds per sample", "model calls per sample"]
    left, right = (panel.get_xlim() for panel in figure.figure.axes)
    assert left[1] < 1 < right[1]


def test_every_kind_is_drawn_here():
    """Guards a new kind that nothing draws."""
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if kind != TABLE and f'kind="{kind}"' not in text] == []
