"""Pareto fronts: which settings no other beats in cost and accuracy, and how sure that is.

Shapes: R replicates, S settings, G places.
"""

import numpy as np
from numpy.typing import NDArray

from harness.results.resampling import Floats

Flags = NDArray[np.bool_]


def front(cost_S: Floats, accuracy_S: Floats) -> Flags:
    """Return which settings are on the front, [..., S]: no other costs no more, is no worse, and better in one.

    Equal settings are on it together; a setting that is not a number in either is not. Leading axes are alike.
    """
    known_S = ~(np.isnan(cost_S) | np.isnan(accuracy_S))
    cost_S, accuracy_S = np.where(known_S, cost_S, np.inf), np.where(known_S, accuracy_S, -np.inf)
    on_S = known_S.copy()
    for other in range(cost_S.shape[-1]):
        cost_1, accuracy_1 = cost_S[..., other, None], accuracy_S[..., other, None]
        better_S = (cost_1 < cost_S) | (accuracy_1 > accuracy_S)
        on_S &= ~((cost_1 <= cost_S) & (accuracy_1 >= accuracy_S) & better_S)
    return on_S


def chance_on_front(cost_RS: Floats, accuracy_RS: Floats) -> Floats:
    """Return in which share of replicates each setting is on the front, [S].

    Replicates have to be paired: in each, all settings are measured on the same resampled samples.
    """
    return front(cost_RS, accuracy_RS).mean(axis=0)


def reached(cost_RS: Floats, accuracy_RS: Floats, at_G: Floats) -> tuple[Floats, Floats]:
    """Return between what the best accuracy at a cost of at most `at_G` lies in 95 % of replicates, two [G].

    nan is an end beyond which replicates have no setting as cheap. Replicates have to be paired.
    """
    best_GR = np.array([np.where(cost_RS <= at, accuracy_RS, -np.inf).max(axis=1) for at in at_G])
    low_G, high_G = np.quantile(best_GR, [0.025, 0.975], axis=1, method="inverted_cdf")
    return np.where(np.isinf(low_G), np.nan, low_G), np.where(np.isinf(high_G), np.nan, high_G)


def surely_beaten(cost_S2: Floats, accuracy_S2: Floats) -> Flags:
    """Return which settings another one beats whatever their values within their intervals (low, high), [S].

    All others may be on the front: what is drawn as one is those, not only the settings that `front` names.
    """
    cheaper_SS = cost_S2[:, None, 1] < cost_S2[None, :, 0]
    better_SS = accuracy_S2[:, None, 0] > accuracy_S2[None, :, 1]
    return np.logical_or.reduce(cheaper_SS & better_SS, axis=0)
