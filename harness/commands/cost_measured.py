"""Predictions for a machine that was measured: inside what was, or the command that would measure what is needed."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.commands.cost import Options
    from harness.models.cost.fit import Fit
    from harness.models.cost.shape import ModelShape
    from harness.models.cost.work import Call, Timing
    from harness.models.transformer import TransformerConfig

_WIDEST = 1 << 15


def require_measured(where: "Timing", shape: "ModelShape", calls: Sequence["Call"]) -> None:
    """Raise Unmeasured, telling what all of some calls need, if one is beyond what a machine was measured at."""
    from harness.models.cost.fit import Fit
    from harness.models.cost.work import work_of

    if isinstance(where, Fit):
        where.require([work_of(shape, call) for call in calls])


@contextmanager
def measured_for(asked: "Options", config: "TransformerConfig", where: "Timing") -> Iterator[None]:
    """Have a call that was not measured end with the command that measures such calls."""
    from harness.models.cost.fit import Fit, Unmeasured

    try:
        yield
    except Unmeasured as error:
        assert isinstance(where, Fit)
        raise ConfigError(f"model={asked.model} makes {error}; {_remedy(config, where, error.needs)}") from error


def _remedy(config: "TransformerConfig", where: "Fit", needs: tuple[float, float]) -> str:
    """Return the measurement of a transformer like a model, wide enough for calls as large as those."""
    from harness.commands.bench_fit import largest, width_for
    from harness.models.cost.fit_file import BYTES
    from harness.models.cost.shape import shape_of
    from harness.models.cost.work import work_of

    width = width_for(config.width)
    while width <= _WIDEST:
        sizes = replace(config, width=width, heads=1, kv_heads=1, head_width=width, feed_forward_width=3 * width)
        work = work_of(shape_of(replace(sizes, experts=None), bytes_per_value=BYTES[where.dtype]), largest())
        if work.flops >= needs[0] and work.moved >= needs[1]:
            return (
                f"measure it with decbench bench --fit width={width} layers={config.layers} "
                f"vocabulary={config.vocab_size} device={where.device} dtype={where.dtype} "
                f"out={shlex.quote(where.file)}"
            )
        width = width_for(width + width // 4)
    return "no call so large can be measured; use fewer rows or positions, or a machine by name: device=h200"
