"""Figures of costs: what is drawn is what rows say, each part, line and marker in its place."""

from collections.abc import Iterator
from typing import Any

import pytest

from harness.results.figures import break_even, roofline, time_parts
from harness.results.figures.making import Made, make_rows
from harness.results.figures.style import drawing, marks_of

pytest.importorskip("matplotlib")
PARTS = [
    {"decoding": "llada", "part": "attention", "ms_per_token": 1.0, "share": 0.25},
    {"decoding": "llada", "part": "head", "ms_per_token": 3.0, "share": 0.75},
    {"decoding": "threshold with a name that needs two lines", "part": "attention", "ms_per_token": 0.5, "share": 1.0},
    {"decoding": "threshold with a name that needs two lines", "part": "head", "ms_per_token": 0.0, "share": 0.0},
]
CALLS = [
    {"intensity": 1.0, "measured_gflops": 2.0, "predicted_gflops": 2.5, "measured_s": 0.010, "predicted_s": 0.008,
     "held_out": False},
    {"intensity": 64.0, "measured_gflops": 30.0, "predicted_gflops": 32.0, "measured_s": 0.016, "predicted_s": 0.015,
     "held_out": True},
]  # fmt: skip
EVEN = [
    {"kind": "line", "group": "dual", "x": 1, "y": 1.5, "low": None, "high": None},
    {"kind": "line", "group": "dual", "x": 2, "y": 3.0, "low": None, "high": None},
    {"kind": "line", "group": "dual", "x": 4, "y": None, "low": None, "high": None},
    {"kind": "reached", "group": "threshold", "x": 1, "y": 2.0, "low": 1.0, "high": 4.0},
    {"kind": "reached", "group": "eb", "x": 1, "y": 2.0, "low": 1.0, "high": 4.0},
]


@pytest.fixture(autouse=True)
def in_the_house_style() -> Iterator[None]:
    with drawing():
        yield


def made(kind: str, rows: list[dict[str, Any]], **drawn: float) -> Made:
    return make_rows(kind, rows, summary="What is drawn.", provenance={"of": kind}, **drawn)


def points(line: Any) -> list[list[float]]:
    """Return what a line goes through."""
    return line.get_xydata().tolist()


def test_parts_stand_one_after_another_and_fill_a_bar():
    """Guards bars whose parts overlap, and totals that are not those of the rows."""
    figure: Any = made("time_parts", PARTS).figure
    panel = figure.axes[0]
    bars = {(round(bar.get_y() + 0.35), bar.get_x(), bar.get_width()) for bar in panel.patches}
    assert bars == {(0, 0, 25), (0, 25, 75), (1, 0, 100), (1, 100, 0)}
    assert len({bar.get_hatch() for bar in panel.patches}) == 2
    assert [text.get_text() for text in panel.texts] == ["4.00", "0.500", "ms per token"]
    assert [one.get_text().count("\n") for one in panel.get_yticklabels()] == [0, 1]
    assert made("time_parts", PARTS).caption == f"What is drawn. B{time_parts.INTERVAL[1:]}."


def test_calls_stand_under_their_roof_and_held_out_ones_are_hollow():
    """Guards units, and a claim about predictions that would show the calls it was fitted to."""
    axes: Any = made("roofline", CALLS, flops=40e9, bandwidth=10e9).figure.axes
    rates, times = axes
    drawn = {line.get_label(): line for line in rates.lines}
    roof = points(drawn["roof of the fitted machine"])
    assert roof[1] == [4.0, 40.0] and roof[2] == [96.0, 40.0] and roof[0] == pytest.approx([2 / 3, 20 / 3])
    assert points(drawn["predicted"]) == [[1.0, 2.5], [64.0, 32.0]]
    assert points(drawn["measured"]) == [[1.0, 2.0]]
    assert points(drawn["measured, held out"]) == [[64.0, 30.0]]
    assert drawn["measured, held out"].get_markerfacecolor() == "none" != drawn["measured"].get_markerfacecolor()
    pairs = [points(line) for line in times.lines if line.get_label().startswith("measured")]
    assert pairs == [[[10.0, 8.0]], [[16.0, 15.0]]]
    assert "hollow: not fitted to" in roofline.INTERVAL


def test_lines_end_where_nothing_is_fast_enough_and_markers_are_seen():
    """Guards a line drawn through what cannot be, and equal markers of which one would hide the other."""
    figure: Any = made("break_even", EVEN, block=32).figure
    panel = figure.axes[0]
    drawn = {line.get_label(): line for line in panel.lines}
    xs, ys = drawn["dual cache"].get_data()
    assert [*map(float, xs)] == [1, 2, 4] and [*map(float, ys)][:2] == [1.5, 3.0] and float(ys[2]) != float(ys[2])
    assert [*drawn["a call per block of 32"].get_ydata()] == [32, 32]
    marks = marks_of(panel)
    assert [points(line) for line in marks] == [[[1, 2.0]]] * 2
    assert len({line.get_transform().transform([1.0, 2.0])[1] for line in marks}) == 2
    assert "lines end" in break_even.INTERVAL
    assert [one.get_text() for one in panel.get_xticklabels()] == ["1", "2", "4"]
