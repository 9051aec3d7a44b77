"""The figure shows what was measured, and the same data give the same files."""

from pathlib import Path

import pytest

from harness.results import drawn
from harness.results.comparison import Comparison, compare, load
from harness.results.figures import TheoryPoint, accuracy_over_calls, save
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


def test_markers_of_equal_values_do_not_hide_each_other(tmp_path: Path) -> None:
    """Guards against methods that vanish behind the one drawn last."""
    store = Store(root=tmp_path)
    for method in ("llada", "dream", "other"):
        add_run(store, method, method=method, setting=method)
    figure, _ = accuracy_over_calls(compare(load(store, ["llada", "dream", "other"]), per_task=True))
    lines = [container.lines[0] for container in figure.axes[0].containers]
    calls = sorted(float(line.get_xdata()[0]) for line in lines)
    assert calls[1] == pytest.approx(4)
    assert calls[1] / calls[0] == pytest.approx(calls[2] / calls[1])
    assert calls[1] / calls[0] > 1.1


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


def test_a_figure_that_shows_its_data_is_left_as_it_is(per_task: list[Comparison], tmp_path: Path) -> None:
    """Guards the seconds of drawing, and a figure against staying when data or files are others."""
    path, origin = tmp_path / "figures" / "sweep.svg", drawn.origin_of(per_task)
    assert drawn.current(path, origin) == []
    written = save(*accuracy_over_calls(per_task), path)
    drawn.note(path, origin, written)
    assert drawn.current(path, origin) == written
    assert drawn.current(path, drawn.origin_of(per_task[1:])) == []
    for file in written:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        assert drawn.current(path, origin) == [], file
        file.unlink()
        assert drawn.current(path, origin) == [], file
        file.write_bytes(whole)
    assert drawn.current(path, origin) == written
