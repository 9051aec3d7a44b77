"""`claims.yaml`, read and refused in one line that names the claim, the key and what would do.

Beside `claims` the file has `tasks`, named lists of tasks, and `settings`, named overrides that claims share.
"""

import difflib
import math
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import DataError
from harness.results.claims.claim import Check, Claim, Compare, Published, Side
from harness.results.claims.metrics import ACCURACY, METRICS

_TOP = ("tasks", "settings", "claims")
_NEEDED = ("id", "system", "paper", "place", "claim")
_ALLOWED = (
    *_NEEDED, "tasks", "with", "of", "against", "compare", "metric", "published", "unit", "tolerance", "bound",
    "hardware", "holds_if", "needs", "not_comparable",
)  # fmt: skip
_TEXTS = (*_NEEDED, "with", "compare", "metric", "unit", "bound", "hardware", "not_comparable")
_CHECK = ("compare", "metric", "of", "against", "along", "tasks", "with", "at_least", "at_most")
_POINTS, _SHARE = 0.5, 0.05
"""What is reproduced where a claim does not say: accuracy to half a point, anything else to 5 %."""


def read_claims(file: Path) -> list[Claim]:
    """Return the claims of a file; raise DataError for one that cannot be read or says something wrong.

    A claim whose `published` maps tasks to values is one claim per task, named `ID-TASK`.
    """
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); name the file of the claims") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise DataError(f"{file}: claims must be a list; write claims: [{{id: ..., system: ...}}]")
    _only(str(file), content, _TOP)
    shared = {key: _a_mapping(f"{file}: {key}", content.get(key) or {}, "name: ...") for key in ("tasks", "settings")}
    reader = _Reader(file=file, **shared)
    claims = [claim for entry in content["claims"] for claim in reader.claims(entry)]
    ids = [claim.id for claim in claims]
    if repeated := [one for one in ids if ids.count(one) > 1]:
        raise DataError(f"{file}: id={repeated[0]}: stands there twice; every claim has a name of its own")
    return claims


@dataclass(frozen=True, kw_only=True)
class _Reader:
    file: Path
    tasks: Mapping[str, list[str]]
    settings: Mapping[str, str]

    def claims(self, entry: Any) -> Iterator[Claim]:
        """Yield what an entry of the list claims."""
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise DataError(f"{self.file}: claims: {entry!r} has no id; write - id: a-name-of-its-own")
        where = f"{self.file}: {entry['id']}"
        _only(where, entry, _ALLOWED)
        if missing := [key for key in _NEEDED if not entry.get(key)]:
            raise DataError(f"{where}: lacks {', '.join(missing)}")
        _texts(where, entry)
        published = entry.get("published")
        if published == {}:
            raise DataError(f"{where}: published={{}}: names no task; write task: value")
        if isinstance(published, dict):
            for task, value in published.items():
                told = {"id": f"{entry['id']}-{task}", "claim": f"{entry['claim']}: {task}"}
                one = {**entry, **told, "published": value, "tasks": task}
                yield self._claim(f"{where}: published.{task}", one)
        else:
            yield self._claim(where, entry)

    def _claim(self, where: str, entry: Mapping[str, Any]) -> Claim:
        mechanism, value = entry.get("holds_if"), entry.get("published")
        if (value is None) == (mechanism is None) and not entry.get("not_comparable"):
            raise DataError(f"{where}: needs either a published value, or holds_if with checks of the mechanism")
        if mechanism is not None:
            checks = self._mechanism(where, entry, mechanism)
        elif entry.get("of") is not None:
            checks = [self._check(where, {**_shared(entry), "compare": entry.get("compare", "value")})]
        else:
            checks = []
        published = None if value is None else _published(where, entry, checks)
        lacking = _a_mapping(f"{where}: needs", entry.get("needs") or {}, "method: [name]")
        needs = {kind: tuple(_words(where, f"needs.{kind}", names)) for kind, names in lacking.items()}
        if not checks and not needs and not entry.get("not_comparable"):
            raise DataError(f"{where}: says neither of which setting (of), nor what it needs, nor not_comparable")
        return Claim(
            id=entry["id"],
            system=entry["system"],
            paper=str(entry["paper"]),
            place=str(entry["place"]),
            text=str(entry["claim"]),
            checks=tuple(checks),
            published=published,
            needs=needs,
            not_comparable=entry.get("not_comparable"),
        )

    def _mechanism(self, where: str, entry: Mapping[str, Any], given: object) -> list[Check]:
        if not isinstance(given, list) or not given:
            raise DataError(f"{where}: holds_if={given}: must be a list of checks")
        example = "compare: ratio, metric: nfe, at_most: 1"
        own = [_a_mapping(f"{where}: holds_if", one, example) for one in given]
        checks = [self._check(where, {**_shared(entry), **one}) for one in own]
        for check in checks:
            _bounded(where, check)
        return checks

    def _check(self, where: str, entry: Mapping[str, Any]) -> Check:
        _only(where, entry, _CHECK)
        _texts(where, entry)
        compare = entry.get("compare")
        if compare not in (known := [one.value for one in Compare]):
            raise DataError(f"{where}: compare={compare}: {_near(str(compare), known)}")
        kind, metric = Compare(compare), entry.get("metric")
        if kind is not Compare.EQUAL and metric not in METRICS:
            raise DataError(f"{where}: metric={metric}: {_near(str(metric), METRICS)}")
        sides = self._sides(where, kind, entry)
        bounds = {key: _number(where, key, entry[key]) for key in ("at_least", "at_most") if key in entry}
        return Check(compare=kind, metric=None if kind is Compare.EQUAL else metric, sides=sides, **bounds)

    def _sides(self, where: str, kind: Compare, entry: Mapping[str, Any]) -> tuple[Side, ...]:
        if kind in (Compare.RISES, Compare.FALLS):
            along = entry.get("along")
            if not isinstance(along, list) or len(along) < 2:
                raise DataError(f"{where}: along={along}: {kind.value} needs a list of two settings or more")
            return tuple(self._side(where, entry, one) for one in along)
        keys = ("of",) if kind is Compare.VALUE else ("of", "against")
        if missing := [key for key in keys if not entry.get(key)]:
            raise DataError(f"{where}: {kind.value} lacks {', '.join(missing)}; write overrides of decbench run")
        return tuple(self._side(where, entry, entry[key]) for key in keys)

    def _side(self, where: str, entry: Mapping[str, Any], overrides: object) -> Side:
        shared = entry.get("with")
        if shared is not None and shared not in self.settings:
            raise DataError(f"{where}: with={shared}: {_near(str(shared), self.settings)}")
        try:
            words = shlex.split(f"{self.settings[shared] if shared else ''} {overrides}")
        except ValueError as error:
            raise DataError(f"{where}: {overrides}: cannot be read ({error})") from error
        if bad := [one for one in words if "=" not in one]:
            raise DataError(f"{where}: {bad[0]}: is no override; they look like method=threshold")
        named = entry.get("tasks") or []
        tasks = self.tasks.get(named, [named]) if isinstance(named, str) else named
        if not isinstance(tasks, list):
            raise DataError(f"{where}: tasks={tasks}: must be a task, a list of tasks, or the name of one")
        if any(word.startswith("task=") for word in words) == bool(tasks):
            raise DataError(f"{where}: {overrides}: needs its tasks once, as tasks: NAME or as task=NAME")
        own = [word.removeprefix("task=") for word in words if word.startswith("task=")]
        left = tuple(word for word in words if not word.startswith("task="))
        return Side(overrides=left, tasks=tuple(map(str, tasks)) or tuple(own))


def _shared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the checks of a claim have in common."""
    return {key: entry[key] for key in ("metric", "of", "against", "tasks", "with") if key in entry}


def _published(where: str, entry: Mapping[str, Any], checks: list[Check]) -> Published:
    value, bound = _number(where, "published", entry["published"]), entry.get("bound")
    if bound not in (None, "at_least", "at_most"):
        raise DataError(f"{where}: bound={bound}: must be at_least or at_most")
    metric, compare = entry.get("metric"), entry.get("compare", "value")
    times = compare in (Compare.RATIO.value, Compare.SAVING.value)
    known = METRICS[metric].unit if metric in METRICS else ""
    tolerance = entry.get("tolerance", _POINTS if metric == ACCURACY and not times else _SHARE * abs(value))
    if checks and checks[0].compare in (Compare.RISES, Compare.FALLS, Compare.EQUAL):
        raise DataError(f"{where}: compare={compare}: gives no number that a published value could be held against")
    return Published(
        value=value,
        unit=str(entry.get("unit", "x" if times else known)),
        tolerance=_number(where, "tolerance", tolerance),
        bound=bound,
        hardware=entry.get("hardware"),
    )


def _bounded(where: str, check: Check) -> None:
    has = check.at_least is not None or check.at_most is not None
    alone = check.compare in (Compare.RISES, Compare.FALLS, Compare.EQUAL)
    if has == alone:
        wanted = "takes no at_least or at_most" if alone else "needs at_least or at_most"
        raise DataError(f"{where}: holds_if: {check.compare.value} {wanted}")


def _a_mapping(where: str, value: object, example: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: {value!r}: must be a mapping, such as {{{example}}}")
    return value


def _texts(where: str, entry: Mapping[str, Any]) -> None:
    for key in _TEXTS:
        if entry.get(key) is not None and not isinstance(entry[key], str):
            raise DataError(f"{where}: {key}={entry[key]}: must be a text; put it in quotes")


def _words(where: str, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise DataError(f"{where}: {key}={value}: must be a list of names")
    return value


def _number(where: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: {key}={value}: must be a number")
    return float(value)


def _only(where: str, entry: Mapping[str, Any], allowed: Collection[str]) -> None:
    for key in entry:
        if key not in allowed:
            raise DataError(f"{where}: {key}: no such key; {_near(str(key), allowed)}")


def _near(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
