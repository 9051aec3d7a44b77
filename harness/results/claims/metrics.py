"""The numbers that claims speak of, from means of what is stored per sample.

Shapes: C columns, in the order of `COLUMNS`; anything may stand before them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("correct", "nfe", "nfe_total", "query_tokens", "layer_tokens", "tokens_out", "efe", "latency_s")
_CORRECT, _NFE, _ROWS, _QUERIES, _LAYERS, _OUT, _EFE, _LATENCY = range(len(COLUMNS))
ACCURACY = "accuracy"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number by its name in the store; `timed` ones compare on one machine only, `unit` is for readers."""

    of: Callable[[Floats], Floats]
    unit: str
    timed: bool = False


def _column(at: int) -> Callable[[Floats], Floats]:
    return lambda means_C: means_C[..., at]


METRICS = {
    ACCURACY: Metric(of=lambda means_C: 100 * means_C[..., _CORRECT], unit="%"),
    "nfe": Metric(of=_column(_NFE), unit="calls"),
    "nfe_total": Metric(of=_column(_ROWS), unit="rows"),
    "query_tokens": Metric(of=_column(_QUERIES), unit="tokens"),
    "layer_tokens": Metric(of=_column(_LAYERS), unit="layer tokens"),
    "efe": Metric(of=_column(_EFE), unit="full forwards"),
    "tpf": Metric(of=lambda means_C: means_C[..., _OUT] / means_C[..., _NFE], unit="tokens/call"),
    "latency_s": Metric(of=_column(_LATENCY), unit="s", timed=True),
    "tps": Metric(of=lambda means_C: means_C[..., _OUT] / means_C[..., _LATENCY], unit="tokens/s", timed=True),
}
