"""Many runs from one command line: an experiment's points and axes, and choices that were typed."""

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from omegaconf import DictConfig, OmegaConf

from harness.config.catalogue import file_of, names
from harness.config.composition import compose, options_of
from harness.config.option_files import written
from harness.config.overrides import numbers_typed, parse
from harness.config.root import GROUPS
from harness.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The jobs of a command, each a list of overrides, the config that they share, and whether a process runs them."""

    jobs: list[list[str]]
    base: DictConfig
    launched: bool


def expand(overrides: Sequence[str]) -> Sweep:
    """Return one list of overrides per run: points times axes of the experiment times choices on the command line.

    A choice is a value with commas (`method.threshold=0.8,0.9`), `range(...)` or, for a group, `glob(...)`. What the
    command line sets, an experiment does not: its axes and points lose that key, and what belongs to it. Points vary
    slowest, so that a model stays loaded. Raises ConfigError for what is no choice.
    """
    single, choices = _split(overrides)
    shared = [*single, *_first_options(choices)]
    base, options = compose(shared), options_of(shared)
    written = [shlex.split(point) for point in base.points or [""]]
    every = _axes(base)
    spelled = _axes_as_written(every, options["experiment"])
    chosen = {one.partition("=")[0] for point in written for one in point} | every.keys()
    # What belongs to an option that the experiment does not choose is about any option, the one typed included.
    beaten = {override.get_key_element() for override in parse(overrides)} & chosen
    points = [[one for one in point if not _is_set(one, beaten)] for point in written]
    axes = [
        [f"{key}={spelled.get((key, place), _written(value))}" for place, value in enumerate(values)]
        for key, values in every.items()
        if not _is_set(f"{key}=", beaten)
    ]
    jobs = [[*single, *point, *combination] for point in points for combination in product(*axes, *choices)]
    launched = options["hydra/launcher"] != "basic"
    return Sweep(jobs=[list(job) for job in dict.fromkeys(map(tuple, jobs))], base=base, launched=launched)


def _first_options(choices: Sequence[Sequence[str]]) -> list[str]:
    """Return the first option that exists of every group that is chosen from: keys given once may need one of them."""
    found = []
    for choice in choices:
        group = choice[0].partition("=")[0]
        if group in GROUPS:
            found.append(next((one for one in choice if one.partition("=")[2] in names(group)), choice[0]))
    return found


def _axes(base: DictConfig) -> dict[str, list[Any]]:
    if base.axes is not None and not isinstance(base.axes, DictConfig):
        raise ConfigError(f"axes={base.axes}: must be lists of values by key, written {{seed: [1, 2]}}")
    axes = OmegaConf.to_container(base.axes) if base.axes else {}
    assert isinstance(axes, dict)
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"axes.{key}={values}: an axis is a list of values; write [a, b]")
    return {str(key): values for key, values in axes.items()}


def _axes_as_written(axes: Mapping[str, list[Any]], name: str | None) -> dict[tuple[str, int], str]:
    """Return the floats of an experiment's axes as its file has them, by axis and place."""
    if name not in names("experiment"):
        return {}
    found = {}
    for key, texts in written(file_of("experiment", name), "axes").items():
        for place, (text, value) in enumerate(zip(texts, axes.get(key, []), strict=False)):
            if isinstance(value, float) and numbers_typed([f"={text}"]) and float(text) == value:
                found[key, place] = text
    return found


def _written(value: object) -> str:
    """Write a value of an axis as an override does; texts may hold commas and blanks."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./:+-]+", value):
        return f"'{value}'"
    return value if isinstance(value, str) else json.dumps(value)


def _is_set(override: str, beaten: Collection[str]) -> bool:
    """Say whether the command line sets the key of an override, or the option that the key belongs to."""
    key = override.partition("=")[0].lstrip("+~")
    return any(key == one or key.startswith((f"{one}.", f"{one}/")) for one in beaten)


def _split(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    single: list[str] = []
    choices: list[list[str]] = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        if not override.is_sweep_override():
            single.append(text)
            continue
        choices.append([f"{override.get_key_element()}={value}" for value in _values(text, override)])
        if not choices[-1]:
            raise ConfigError(f"{text}: chooses nothing; known: {', '.join(names(override.key_or_group))}")
    return single, choices


def _cut(text: str) -> list[str]:
    """Cut a text at the commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for before, letter in zip(f" {text}", text, strict=False):
        if letter in "'\"" and before != "\\" and quote in ("", letter):
            quote = "" if quote else letter
        depth += 0 if quote else (letter in "[{(") - (letter in ")}]")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _values(text: str, override: Override) -> list[str]:
    """Return the values of a choice, as they were typed."""
    if override.is_interval_sweep():
        raise ConfigError(f"{text}: an interval has no end of values; write range(start,stop,step), or a list: a,b,c")
    chosen: Any = override.value()
    if not isinstance(chosen, Glob):
        # Parsing turns 0.50 into 0.5, so that what is no more than a list is cut as it stands.
        cut = _cut(re.sub(r"^choice\((.*)\)$", r"\1", text.partition("=")[2].strip()))
        if isinstance(chosen, ChoiceSweep) and len(cut) == len(chosen.list) and not (chosen.tags or chosen.shuffle):
            return cut
        return list(override.sweep_string_iterator())
    if override.key_or_group not in GROUPS:
        raise ConfigError(f"{text}: glob chooses among the options of {', '.join(GROUPS)}; write a list: a,b,c")
    return chosen.filter(list(names(override.key_or_group)))
