"""Areas under parallelism per task around a circle, in percent of the best group's."""

from math import pi
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.results.figures import areas
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import add_legend, new_figure, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = areas.INTERVAL
_FEWEST = 3


def data(selected: Selected) -> Frame:
    """Return the area of every group and task, and what it is of the task's largest; at least three tasks."""
    frame = areas.areas_of(selected).groupby(["group", "task"], sort=False, as_index=False).agg(
        area=("area", "mean"), points=("points", "max"), n=("n", "sum")
    )  # fmt: skip
    if frame["task"].nunique() < _FEWEST:
        raise ConfigError(
            f"{selected.definition.name}: kind: radar needs {_FEWEST} tasks or more, and the runs have "
            f"{', '.join(sorted(set(frame['task']))) or 'none'}; use kind: bars"
        )
    best = frame.groupby("task")["area"].transform("max")
    frame["share"] = (frame["area"] / best).fillna(0.0)
    return frame


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a closed line per group over the tasks that it ran; a task that it did not run interrupts the line."""
    import numpy as np

    by_group, tasks = styles(frame["group"]), list(dict.fromkeys(frame["task"]))
    figure = new_figure(definition.width, definition.width + 0.1 * len(by_group))
    panel: Any = figure.subplots(subplot_kw={"projection": "polar"})
    angles = [2 * pi * at / len(tasks) for at in range(len(tasks))]
    for group, part in frame.groupby("group", sort=False):
        shares = part.set_index("task")["share"].reindex(tasks).to_numpy()
        style = by_group[group]
        panel.plot([*angles, angles[0]], 100 * np.append(shares, shares[0]), color=style.colour, marker=style.marker,
                   mfc="none", ls=style.dashes, ms=3.5, label=group)  # fmt: skip
    panel.set_xticks(angles, [task.removeprefix("list_").replace("_", "\n", 1) for task in tasks])
    panel.set_ylim(0, 105)
    panel.set_yticks([25, 50, 75, 100])
    panel.set_rlabel_position(180 / len(tasks))
    panel.grid(color="#dddddd", lw=0.5)
    add_legend(figure, title="area under parallelism, % of the best on the task")
    return figure
