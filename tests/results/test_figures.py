"""The figure shows what was measured, and the same data give the same files."""

from pathlib import Path

import pytest

from harness.results.comparison import Comparison, compare, load
from harness.results.figures.calls import TheoryPoint, accuracy_over_calls, save
from harness.results.figures.style import marks_of
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep

pytest.importorskip("matplotlib")

THEORY = (
    TheoryPoint(task="copy", kind="ideal", nfe=1, accuracy=0.25),
    TheoryPoint(task="copy", kind="ideal", nfe=4, accuracy=1),
    TheoryPoint(task="copy", kind="fewest", nfe=2, accuracy=1),
)


@pytest.fixture
def per_task(tmp_path: Path) -> list[Comparison]:
    store = Store(root=tmp_path)
    return compare(load(store, add_sweep(store)), per_task=True)


def test_the_csv_holds_every_point(per_task: list[Comparison], tmp_path: Path) -> None:
    """Guards against a point of the figure that nobody can look up."""
    _, points = accuracy_over_calls(per_task, THEORY)
    assert points["kind"].value_counts().to_dict() == {"measured": 6, "ideal": 2, "fewest": 1}
    fast = points[(points["method"] == "fast") & (points["task"] == "sort")].iloc[0]
    assert (fast["nfe"], fast["accuracy"], fast["n"]) == (1, 0.5, 2)


def test_every_task_has_a_panel_and_every_line_a_name(per_task: list[Comparison]) -> None:
    """Guards against lines without a legend and axes without a label."""
    figure, _ = accuracy_over_calls(per_task, THEORY)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["copy", "sort"]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {
        "ideal sampler, k per step",
        "fewest calls without loss",
        "tiny · llada",
        "tiny · fast",
        "causal · ar_greedy",
    }
    assert "nfe" in figure.get_supxlabel() and "accuracy" in figure.get_supylabel()


def test_the_theory_is_drawn_where_it_belongs(per_task: list[Comparison]) -> None:
    """Guards against the line of one task in another's panel."""
    figure, _ = accuracy_over_calls(per_task, THEORY)
    drawn = [[line for line in panel.lines if line.get_label() == "ideal sampler, k per step"] for panel in figure.axes]
    assert [len(lines) for lines in drawn] == [1, 0]
    assert drawn[0][0].get_xydata().tolist() == [[1, 25], [4, 100]]


def test_a_point_stands_at_its_x_and_none_hides_another(tmp_path: Path) -> None:
    """Guards against one call drawn at 0.6: equal points differ in shape, are hollow, and are moved vertically only."""
    store = Store(root=tmp_path)
    methods = ("llada", "dream", "other")
    for method in methods:
        add_run(store, method, method=method, setting=method, nfe=[1, 1])
    figure, _ = accuracy_over_calls(compare(load(store, methods), per_task=True))
    (panel,) = figure.axes
    marks = marks_of(panel)
    assert [line.get_xydata().tolist() for line in marks] == [[[1, 100]]] * 3
    assert len({line.get_marker() for line in marks}) == 3
    assert {line.get_markerfacecolor() for line in marks} == {"none"}
    shown = [line.get_transform().transform([1, 100]) * 72 / figure.dpi for line in marks]
    assert [x for x, _ in shown] == pytest.approx([shown[0][0]] * 3)
    heights = sorted(y for _, y in shown)
    assert heights[1] - heights[0] == pytest.approx(2.4) == heights[2] - heights[1]


def test_a_crowd_of_equal_points_stays_near_its_place(tmp_path: Path) -> None:
    """Guards accuracies that can be read off: twelve equal points span what five would, 11 points of 1/72 inch."""
    store = Store(root=tmp_path)
    methods = [f"m{at}" for at in range(12)]
    for method in methods:
        add_run(store, method, method=method, setting=method)
    figure, _ = accuracy_over_calls(compare(load(store, methods), per_task=True))
    marks = marks_of(figure.axes[0])
    heights = [line.get_transform().transform([4, 100])[1] * 72 / figure.dpi for line in marks]
    assert max(heights) - min(heights) == pytest.approx(11)


def test_the_same_data_give_the_same_bytes(per_task: list[Comparison], tmp_path: Path) -> None:
    """Guards against a date or random ids in committed figures."""
    first = save(*accuracy_over_calls(per_task, THEORY), tmp_path / "one")
    second = save(*accuracy_over_calls(per_task, THEORY), tmp_path / "two")
    assert [path.suffix for path in first] == [".svg", ".png", ".csv"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("tasks", [1, 3, 4, 7])
def test_any_number_of_tasks_fits_the_grid(tasks: int, tmp_path: Path) -> None:
    """Guards against the empty places of a grid whose last row is not full."""
    store = Store(root=tmp_path)
    names = [f"task_{number}" for number in range(tasks)]
    for name in names:
        add_run(store, name, method="llada", setting="llada", task=name)
    figure, _ = accuracy_over_calls(compare(load(store, names), per_task=True))
    assert [panel.get_title(loc="left") for panel in figure.axes] == names
    lowest = {panel.get_subplotspec().colspan.start: panel for panel in figure.axes}
    assert all(panel.xaxis.get_tick_params()["labelbottom"] for panel in lowest.values())
