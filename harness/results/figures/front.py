"""The front of a panel and its interval: what the best setting of a cost reaches, on resampled samples.

Shapes: R replicates, S settings, G places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.comparison import Measured, by_sample
from harness.results.figures.columns import MORE_IS_BETTER
from harness.results.pareto import chance_on_front, reached
from harness.results.resampling import Floats, resampled_means

_REPLICATES = 2_000
_SUMS = {
    "accuracy": ("correct", None),
    "nfe": ("nfe", None),
    "query_tokens": ("query_tokens", None),
    "latency_s": ("latency_s", None),
    "tpf": ("tokens_out", "nfe"),
}
"""Quantities that follow from samples: a column's mean, or the ratio of two."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """How often each setting is on the front, and the ends of what it reaches in 95 % of replicates at each place.

    An end is nan where that many replicates reach nothing.
    """

    chance_S: Floats
    at_G: Floats
    low_G: Floats
    high_G: Floats


def front_of(settings: Sequence[Sequence[Measured]], x: str, y: str) -> Front | None:
    """Return the front of settings, each the runs of one, all resampled together.

    None where a quantity follows from no samples, or the settings did not answer the same ones.
    """
    if not settings or x not in _SUMS or y not in _SUMS:
        return None
    cells = [sorted(by_sample(runs), key=lambda one: one.run["task"]) for runs in settings]
    if not all(_asked(one) == _asked(cells[0]) for one in cells):
        return None
    x_RS, y_RS = _replicates(cells, x), _replicates(cells, y)
    if np.isnan(x_RS).any() or np.isnan(y_RS).any():
        return None
    signs = [1 if column in MORE_IS_BETTER else -1 for column in (x, y)]
    cost_RS, gain_RS = -signs[0] * x_RS, signs[1] * y_RS
    chance_S = chance_on_front(cost_RS, gain_RS)
    at_G = np.unique(cost_RS.mean(axis=0)[chance_S > 0])
    ends = reached(cost_RS, gain_RS, at_G)[:: signs[1]]
    order = np.argsort(-signs[0] * at_G)
    low_G, high_G = (signs[1] * end[order] for end in ends)
    return Front(chance_S=chance_S, at_G=-signs[0] * at_G[order], low_G=low_G, high_G=high_G)


def _asked(cells: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    return [(one.run["task"], one.samples["sample_id"].to_pylist()) for one in cells]


def _replicates(cells: Sequence[Sequence[Measured]], column: str) -> Floats:
    """Return a quantity of every setting in every replicate, [R, S]; tasks weigh equally."""
    top, bottom = _SUMS[column]
    sums_RS = _means(cells, top)
    return sums_RS if bottom is None else sums_RS / _means(cells, bottom)


def _means(cells: Sequence[Sequence[Measured]], column: str) -> Floats:
    tasks = [np.stack([one.column(column) for one in alike], axis=1) for alike in zip(*cells, strict=True)]
    return np.mean([resampled_means(task, part, _REPLICATES) for part, task in enumerate(tasks)], axis=0)
