"""Markers that all can be seen, each at its x."""

from collections.abc import Iterator

import pytest

from harness.results.figures.columns import label
from harness.results.figures.style import (
    draw_points,
    drawing,
    marks_of,
    new_panels,
    percent_axis,
    scale_axis,
    separate,
    styles,
)

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def in_the_house_style() -> Iterator[None]:
    with drawing():
        yield


def drawn(count: int):
    """Draw so many groups of one point, all at 1 call and 100 percent; return the panel's figure."""
    figure, (panel,) = new_panels([""])
    by_group = styles(f"m{at}" for at in range(count))
    for name, style in by_group.items():
        draw_points(panel, pd.DataFrame([{"x": 1, "y": 100, "low": 80, "high": 100}]), style, name)
    scale_axis(panel, "x", [1, 16])
    panel.set_ylim(-6, 108)
    separate(figure)
    return figure


def shown(figure, line) -> list[float]:
    """Return where a marker is drawn, in 1/72 inch."""
    return (line.get_transform().transform(line.get_xydata()[0]) * 72 / figure.dpi).tolist()


def test_a_point_stands_at_its_x_and_none_hides_another():
    """Guards against one call drawn at 0.6: equal points differ in shape, are hollow, and are moved vertically only."""
    figure = drawn(3)
    marks = marks_of(figure.axes[0])
    assert [line.get_xydata().tolist() for line in marks] == [[[1, 100]]] * 3
    assert len({line.get_marker() for line in marks}) == 3
    assert {line.get_markerfacecolor() for line in marks} == {"none"}
    places = [shown(figure, line) for line in marks]
    at, _ = figure.axes[0].transData.transform([1, 100]) * 72 / figure.dpi
    assert [x for x, _ in places] == pytest.approx([at] * 3)
    heights = sorted(y for _, y in places)
    assert heights[1] - heights[0] == pytest.approx(2.4)
    assert heights[2] - heights[1] == pytest.approx(2.4)


def test_a_crowd_of_equal_points_stays_near_its_place():
    """Guards accuracies that can be read off: twelve equal points span 11 points of 1/72 inch, not 26."""
    figure = drawn(12)
    heights = [shown(figure, line)[1] for line in marks_of(figure.axes[0])]
    assert max(heights) - min(heights) == pytest.approx(11)


def test_bars_of_intervals_stay_where_they_are():
    """Guards intervals that can be read off, whatever happens to their markers."""
    bars = [line for line in drawn(3).axes[0].lines if len(line.get_xydata()) == 2]
    assert [line.get_xydata().tolist() for line in bars] == [[[1, 80], [1, 100]]] * 3
    assert {line.get_transform().contains_branch(line.axes.transData) for line in bars} == {True}


def test_seventy_seven_groups_have_a_style_each():
    """Guards against two methods that look alike in a figure of all of them."""
    assert len({(one.colour, one.marker) for one in styles(map(str, range(77))).values()}) == 77


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_panels_fits_the_grid(count: int):
    """Guards the empty places of a grid whose last row is not full: the lowest panel of each column has numbers."""
    figure, panels = new_panels([f"t{at}" for at in range(count)])
    assert [panel.get_title(loc="left") for panel in figure.axes] == [f"t{at}" for at in range(count)]
    lowest = {panel.get_subplotspec().colspan.start: panel for panel in panels}
    assert all(panel.xaxis.get_tick_params()["labelbottom"] for panel in lowest.values())
    assert figure.get_figwidth() == 3.3


def test_panels_are_spread_evenly_over_rows():
    """Guards against six panels as four and two: at most four of 6.9 inches fit a row, three and three look better."""
    _, panels = new_panels([""] * 6, width=6.9)
    assert [panel.get_subplotspec().colspan.start for panel in panels] == [0, 1, 2, 0, 1, 2]


def test_one_call_has_a_tick():
    """Guards logarithmic axes whose ends cannot be read."""
    _, (panel,) = new_panels([""])
    scale_axis(panel, "x", [1, 12])
    assert [*panel.get_xticks()] == [1, 2, 4, 8, 16]
    assert [one.get_text() for one in panel.get_xticklabels()] == ["1", "2", "4", "8", "16"]
    scale_axis(panel, "x", [0.01, 0.5])
    assert [one.get_text() for one in panel.get_xticklabels()] == ["0.01", "0.1", "1"], "powers of two are long there"


def test_points_at_the_ends_of_percent_are_inside():
    """Guards markers at 0 and at 100 percent, half of which would be cut off."""
    _, (panel,) = new_panels([""])
    percent_axis(panel)
    low, high = panel.get_ylim()
    assert low < 0 and high > 100


def test_an_axis_says_the_unit_of_its_column():
    """Guards columns without a label of their own: the schema knows their units."""
    assert [label(one) for one in ("wall_s", "tokens_out", "config.x_y")] == ["wall, s", "tokens out, tokens", "x y"]
