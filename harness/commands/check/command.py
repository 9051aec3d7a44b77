"""`decbench check method=NAME`: whether a method, cache, task or model keeps the promises of its kind."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from rich.table import Table

from harness.commands.console import console as output
from harness.config import plugins
from harness.config.catalogue import names, nearest
from harness.errors import ConfigError, DataError, MissingDependency

SUBJECTS = ("method", "cache", "task", "model")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rule to be tried: `words` are those of the command that shows it; `run` yields what breaks it.

    `alone` are the words of the same part without another one beside it; a rule that it breaks alone is tried once.
    """

    rule: str
    words: str
    run: Callable[[], Iterator[str]]
    alone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a rule: `kept` or `broken`, by what, and the command that shows it."""

    rule: str
    subject: str
    verdict: str
    broken_by: tuple[str, ...]
    see: str


def main(argv: Sequence[str]) -> int:
    """Try every rule, print a table or JSON, and return 1 if one is broken.

    `rule=` and `kind=` try a part of them.
    """
    group, name, overrides, only = _asked([argument for argument in argv if argument != "--json"])
    verdicts = _verdicts(trial for trial in _trials(group, name, overrides, only.get("kind")) if _wanted(trial, only))
    if not verdicts:
        raise ConfigError(f"check {' '.join(argv)}: there is nothing to try; leave rule= or kind= out")
    broken = [one for one in verdicts if one.verdict == "broken"]
    if "--json" in argv:
        sys.stdout.write(json.dumps({"broken": len(broken), "rules": [asdict(one) for one in verdicts]}) + "\n")
    else:
        _print(verdicts)
    return 1 if broken else 0


def _asked(words: Sequence[str]) -> tuple[str, str, list[str], dict[str, str]]:
    """Return what is to be checked, further overrides, and the rule and kind that are asked for."""
    given = [word.partition("=") for word in words]
    chosen = [(key, value) for key, _, value in given if key in SUBJECTS]
    subjects = [one for one in chosen if not (one[0] == "model" and len(chosen) > 1)]
    if len(subjects) != 1:
        raise ConfigError(f"check {' '.join(words)}: names no part; write {', '.join(f'{s}=NAME' for s in SUBJECTS)}")
    group, name = subjects[0]
    known = names(group) if group != "cache" else _caches()
    if group == "cache" and name in known:
        return group, name, *_rest(words, f"cache={name}")
    if name not in known and group == "cache":
        raise ConfigError(f"cache={name}: no such cache; {nearest(name, known)}")
    return group, name, *_rest(words, f"{group}={name}")


def _rest(words: Sequence[str], subject: str) -> tuple[list[str], dict[str, str]]:
    only = {key: value for key, _, value in (word.partition("=") for word in words) if key in ("rule", "kind")}
    return [w for w in words if w != subject and w.partition("=")[0] not in ("rule", "kind")], only


def _caches() -> list[str]:
    from harness.config import options

    options.register()
    return options.names_of("method/cache")


def _trials(group: str, name: str, overrides: list[str], kind: str | None) -> Iterator[Trial]:
    from harness.commands.check import methods, others

    if group == "method":
        return methods.of_method(name, overrides, kind)
    if group == "cache":
        return methods.of_cache(name, overrides, kind)
    return others.of_task(name, overrides) if group == "task" else others.of_model(name, overrides)


def _wanted(trial: Trial, only: dict[str, str]) -> bool:
    return only.get("rule", trial.rule) == trial.rule


def _verdicts(trials: Iterable[Trial]) -> list[Verdict]:
    made: list[Verdict] = []
    broken: set[tuple[str, str | None]] = set()
    for trial in trials:
        # Beside a dozen caches it would be broken a dozen times more, in minutes.
        if (trial.rule, trial.alone) in broken:
            continue
        made.append(_judge(trial))
        if made[-1].broken_by:
            broken.add((trial.rule, trial.words))
    return made


def _judge(trial: Trial) -> Verdict:
    try:
        broken = list(dict.fromkeys(trial.run()))
    except (ConfigError, DataError, MissingDependency) as error:
        broken = [str(error)]
    except Exception as error:
        # The part is somebody's own: whatever it raises is what is wrong with it.
        file, reason = plugins.explained(error, plugins.ours().code)
        broken = [f"{reason}" if file == plugins.ours().code else f"{file}: {reason}"]
    return Verdict(
        rule=trial.rule,
        subject=trial.words,
        verdict="broken" if broken else "kept",
        broken_by=tuple(chain(broken[:_SHOWN], [f"and {len(broken) - _SHOWN} more"] * (len(broken) > _SHOWN))),
        see=f"decbench check {trial.words} rule={trial.rule}",
    )


def _print(verdicts: list[Verdict]) -> None:
    console, table = output(), Table("rule", "kept", "broken", box=None)
    for rule in dict.fromkeys(one.rule for one in verdicts):
        mine = [one.verdict for one in verdicts if one.rule == rule]
        table.add_row(rule, str(mine.count("kept")), str(mine.count("broken") or ""))
    console.print(table)
    for one in verdicts:
        for problem in one.broken_by:
            console.print(f"broken: {one.rule}: {problem}", soft_wrap=True, highlight=False)
        if one.broken_by:
            console.print(f"  see: {one.see}", soft_wrap=True, highlight=False)
