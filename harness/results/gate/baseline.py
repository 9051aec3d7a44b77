"""The baseline as a file: JSON lines that a review can read, one per setting and one per sample.

The first line holds why the baseline is what it is: every time that it was accepted, and the reason. What is empty,
zero or not known is left out.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.files import text
from harness.results.gate.observed import Answer, Setting, Step
from harness.results.schemas import COUNTERS

_FORMAT = 1
_TUPLES = ("tokens", "decided_at", "at", "remasked", "edited")


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """A time at which the baseline was written: the day, the commit, the number of settings that changed, and why."""

    reason: str
    day: str
    commit: str | None
    changed: int


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Settings by `setting_id`, and every reason that was given for what they are, oldest first."""

    accepted: tuple[Acceptance, ...] = ()
    settings: Mapping[str, Setting]


def read_baseline(file: Path) -> Baseline:
    """Return the baseline of a file; raise DataError, with the line, for one that is none."""
    if file.is_dir():
        raise DataError(f"{file}: is a folder; name a file, gate.baseline=FILE")
    try:
        lines = text(file).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f'{file}: no baseline can be read there ({error}); --accept "REASON" makes one') from error
    number = 1
    try:
        head, settings = json.loads(lines[0] if lines else "null"), dict[str, Setting]()
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise ValueError(f'is no baseline of format {_FORMAT}; --accept "REASON" into another file makes one')
        accepted = tuple(Acceptance(**one) for one in head["accepted"])
        for line in lines[1:]:
            number += 1
            _take(json.loads(line), settings)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file}, line {number}: {error}; restore the file, or accept it anew") from error
    return Baseline(accepted=accepted, settings=settings)


def _take(line: dict[str, Any], settings: dict[str, Setting]) -> None:
    """Add the setting, or the answer of a setting, that a line holds."""
    if "setting" in line:
        told: dict[str, Any] = dict.fromkeys(("model", "method", "task", "dtype"))
        settings[line["setting_id"]] = Setting(**told | line)
        return
    owner = settings[line.pop("of")]
    settings[owner.setting_id] = replace(owner, answers=(*owner.answers, _answer(line)))


_TOLD = [item for item in fields(Setting) if item.name != "answers"]


def _answer(line: dict[str, Any]) -> Answer:
    told = {"repetition": 0, "decided_at": (), "correct": None, "margin": None, "drawn": False} | _tuples(line)
    return Answer(
        **told
        | {
            "counters": {name: line["counters"].get(name, 0) for name in COUNTERS},
            "steps": tuple(Step(**_tuples(step)) for step in line.get("steps", ())),
        }
    )


def _tuples(line: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if name in _TUPLES else value for name, value in line.items()}


def write_baseline(file: Path, baseline: Baseline) -> None:
    """Write a baseline; raise DataError where that is not possible."""
    ordered = sorted(baseline.settings.values(), key=lambda one: (one.label, one.setting_id))
    head = {"format": _FORMAT, "accepted": [asdict(one) for one in baseline.accepted]}
    written = [json.dumps(line, separators=(",", ":")) for line in (head, *_lines(ordered))]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(written) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); give another: gate.baseline=FILE") from error


def _lines(settings: Iterable[Setting]) -> Iterator[dict[str, Any]]:
    for one in settings:
        yield {item.name: value for item in _TOLD if (value := getattr(one, item.name)) is not None}
        for answer in one.answers:
            yield {"of": one.setting_id} | _without_nothing(asdict(answer)) | {"tokens": answer.tokens}


def _without_nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is there: a verdict or a margin of zero is something, an unknown counter is told as null."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name == "counters":
            kept[name] = {counter: count for counter, count in value.items() if count != 0}
        elif name == "steps" and value:
            kept[name] = [_without_nothing(step) for step in value]
        elif value not in (None, (), []) and not (value == 0 and name in ("repetition", "drawn")):
            kept[name] = value
    return kept


def accepted_anew(old: Baseline | None, runs: Sequence[Setting], changed: Iterable[str], why: Acceptance) -> Baseline:
    """Return the baseline of `runs`: settings that have not `changed` stay as they were written."""
    fresh = {one.setting_id: one for one in runs}
    before, differing = (old.settings if old else {}), set(changed)
    settings = {name: before[name] if name in before and name not in differing else fresh[name] for name in fresh}
    return Baseline(accepted=(*(old.accepted if old else ()), why), settings=settings)
