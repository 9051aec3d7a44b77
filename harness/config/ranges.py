"""What an experiment searches: the knobs of its methods, each with a range, a step, or a list of values."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from harness.errors import ConfigError

_KEYS = ("baseline", "split", "knobs")
_ENDS = ("low", "high", "step")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A knob that takes one of some values, as overrides write them."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A knob that takes numbers from `low` on, `step` apart, up to `high`; whole ones where all three are."""

    key: str
    low: float
    high: float
    step: float

    @property
    def values(self) -> tuple[str, ...]:
        """The numbers, in order, as people write them."""
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(f"{round(self.low + at * self.step, 10):.10g}" for at in range(count))


Knob = Choices | Range


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched: the overrides of the baseline, the seed that halves samples, and knobs by method."""

    baseline: str
    split: int
    knobs: Mapping[str, tuple[Knob, ...]]


def read_space(option: Any) -> Space:
    """Return what `search:` says; raise ConfigError, naming the key, for what is wrong with it."""
    plain = OmegaConf.to_container(option) if OmegaConf.is_config(option) else option
    if not isinstance(plain, Mapping):
        raise ConfigError(f"search={plain}: must hold baseline and knobs, such as conf/experiment/iso_quality.yaml")
    _known(plain, _KEYS, "search")
    baseline, split, knobs = plain.get("baseline"), plain.get("split", 0), plain.get("knobs")
    if not isinstance(baseline, str) or not baseline.strip():
        raise ConfigError(f"search.baseline={baseline}: must be overrides of a method, such as method=llada")
    if isinstance(split, bool) or not isinstance(split, int):
        raise ConfigError(f"search.split={split}: must be a whole number, the seed by which samples are halved")
    if not isinstance(knobs, Mapping):
        raise ConfigError(f"search.knobs={knobs}: must be knobs by method: {{threshold: {{method.threshold: ...}}}}")
    return Space(
        baseline=baseline,
        split=split,
        knobs={str(method): _knobs(of, f"search.knobs.{method}") for method, of in knobs.items()},
    )


def _knobs(option: object, where: str) -> tuple[Knob, ...]:
    if option is not None and not isinstance(option, Mapping):
        raise ConfigError(f"{where}={option}: must be ranges by knob, such as {{method.threshold: [0.5, 0.9]}}")
    return tuple(_knob(str(key), value, f"{where}.{key}") for key, value in (option or {}).items())


def _knob(key: str, value: object, where: str) -> Knob:
    if isinstance(value, list) and value:
        return Choices(key=key, values=tuple(_written(one) for one in value))
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}={value}: must be a list of values, or {{low: 0.3, high: 0.99, step: 0.01}}")
    _known(value, _ENDS, where)
    low, high, step = (value.get(end) for end in _ENDS)
    for end, number in zip(_ENDS, (low, high, step), strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"{where}.{end}={number}: must be a number")
    assert isinstance(low, int | float) and isinstance(high, int | float) and isinstance(step, int | float)
    if step <= 0 or high < low:
        raise ConfigError(f"{where}: low={low} high={high} step={step}: must rise by a step above 0")
    return Range(key=key, low=low, high=high, step=step)


def _known(option: Mapping[Any, Any], keys: Sequence[str], where: str) -> None:
    for key in option:
        if key not in keys:
            close = difflib.get_close_matches(str(key), keys, n=1)
            raise ConfigError(
                f"{where}.{key}: no such key; {f'did you mean {close[0]}?' if close else ', '.join(keys)}"
            )


def _written(value: object) -> str:
    return "null" if value is None else str(value).replace(" ", "")
