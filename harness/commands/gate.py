"""`decbench gate experiment=smoke ...`: what runs do now, against a baseline that is committed.

  decbench gate key=value ...               run it, as `decbench run` would, and compare it with the baseline
  --accept REASON                           write the baseline anew; the reason is kept in it
  --markdown FILE, --junit FILE, --json     the findings for a pull request, a CI server, a program (last line)
  gate.baseline=FILE                        results/gate/NAME.jsonl, NAME being that of the experiment
  gate.base=FOLDER                          a checkout without the change: what is as red there does not blame it,
                                            and CPU times of both are compared
  gate.time=advise|block|off                whether a slowdown against gate.base is red; advise
  gate.rounds=N                             the most rounds of timing; 40

Outputs, steps and counters have to be equal, and so have the verdicts of equal answers. A difference whose margin is
below what the dtype can decide is a tie, drawn answers are compared by the intervals of their counters, accuracy by an
exact paired test. Exit code 0: green, 1: red, 2: the request cannot be carried out.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.commands.console import console
from harness.commands.results.words import Words, parse
from harness.config.catalogue import nearest, tell_problems
from harness.errors import ConfigError, RunFailed, one_line
from harness.results.gate.baseline import Acceptance, Baseline, accepted_anew, read_baseline, write_baseline
from harness.results.gate.observed import Setting, observe
from harness.results.gate.report import Report, junit, markdown, plain
from harness.results.gate.timing import Speed, speeds
from harness.results.gate.verdicts import Verdict, blameless, verdicts
from harness.results.store import Store
from harness.runs.checkouts import Checkout, timed
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.sweep import Sweep, expand

_PREFIX = "gate."
_TIMES = ("advise", "block", "off")
_ROUNDS = 40
_HERE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was typed: the overrides of the runs, and what to do with them."""

    overrides: list[str]
    store: Store
    baseline: Path | None
    base: Checkout | None
    time: str
    rounds: int


def main(argv: Sequence[str]) -> int:
    """Run, compare and report; return the exit code."""
    words = parse(argv, flags=("--json", "-m", "--multirun"), options=("--accept", "--markdown", "--junit"))
    asked, reason = _asked(words), words.options.get("--accept")
    if not asked.overrides:
        sys.stdout.write(f"{__doc__}")
        return 2
    sweep = expand([*asked.overrides, f"results_dir={asked.store.root}"])
    tell_problems()
    file = asked.baseline or _default(sweep)
    known = read_baseline(file) if reason is None or file.exists() else None
    runs, commit = _executed(sweep, asked.store)
    found = verdicts(known.settings if known else {}, runs)
    if reason is not None:
        return _accept(file, known, runs, found, Acceptance(reason=reason, day=_today(), commit=commit, changed=0))
    assert known is not None
    report = _against_base(asked, asked.base, known, found) if asked.base else Report(verdicts=found)
    _write(report, words)
    return int(report.red)


def _asked(words: Words) -> Asked:
    """Return what was typed; raise ConfigError for what cannot be."""
    split = [word.removeprefix(_PREFIX).partition("=") for word in words.rest if word.startswith(_PREFIX)]
    given = {name: value for name, _, value in split}
    known = ("baseline", "base", "time", "rounds")
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{_PREFIX}{name}: no such setting of the gate; {nearest(name, known)}")
        if not value:
            raise ConfigError(f"{_PREFIX}{name}=: needs a value")
    time, rounds, base = given.get("time", _TIMES[0]), given.get("rounds", str(_ROUNDS)), given.get("base")
    if time not in _TIMES:
        raise ConfigError(f"gate.time={time}: must be one of {', '.join(_TIMES)}")
    if not (rounds.isascii() and rounds.isdigit() and int(rounds) > 0):
        raise ConfigError(f"gate.rounds={rounds}: must be a whole number from 1")
    if time == "block" and base is None:
        raise ConfigError("gate.time=block: times are compared with those of a checkout; give gate.base=FOLDER")
    reason = words.options.get("--accept")
    if reason is not None and not reason.strip():
        raise ConfigError("--accept: needs the reason for which the baseline changes")
    return Asked(
        overrides=[word for word in words.rest if not word.startswith(_PREFIX)],
        store=words.store,
        baseline=Path(given["baseline"]) if "baseline" in given else None,
        base=Checkout(folder=Path(base)) if base else None,
        time=time,
        rounds=int(rounds),
    )


def _default(sweep: Sweep) -> Path:
    if not sweep.base.name:
        raise ConfigError("gate.baseline: nothing names a baseline; give gate.baseline=FILE, or experiment=NAME")
    return Path("results") / "gate" / f"{sweep.base.name}.jsonl"


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _executed(sweep: Sweep, store: Store) -> tuple[list[Setting], str | None]:
    """Run the jobs of a sweep, each for itself: one that cannot be is a finding. Return them, and the commit."""
    sweep.base.on_error = "record"
    for job in sweep.jobs:
        job.append("on_error=record")
    records = execute(plan(sweep), console(stderr=True))
    commits = {record.row["git_commit"] for record in records if record.row["git_commit"]}
    return observe(store, [record.run_id for record in records]), min(commits, default=None)


def _accept(
    file: Path, known: Baseline | None, runs: Sequence[Setting], found: Sequence[Verdict], why: Acceptance
) -> int:
    for one in runs:
        if one.failure is not None:
            raise RunFailed(f"{one.label}: {one.failure}; a baseline holds no failures, so nothing was accepted")
    changed = [one.setting.setting_id for one in found if one.findings]
    if known is not None and not changed:
        sys.stdout.write(f"{file}: is as it should be; nothing was accepted\n")
        return 0
    sys.stdout.write(markdown(Report(verdicts=found)))
    why = Acceptance(reason=why.reason, day=why.day, commit=why.commit, changed=len(changed))
    write_baseline(file, accepted_anew(known, runs, changed, why))
    sys.stdout.write(f"\n{file}: {len(runs)} settings, {len(changed)} of them accepted anew: {why.reason}\n")
    return 0


def _against_base(asked: Asked, base: Checkout, known: Baseline, found: list[Verdict]) -> Report:
    """Judge verdicts and times against the checkout without the change; one that cannot run it says nothing."""
    try:
        with base.stored(asked.overrides) as store:
            names = [attempt.run_id for attempt in store.newest()]
            found = blameless(found, verdicts(known.settings, observe(store, names)))
        return Report(verdicts=found, speeds=_speeds(asked, base), blocks=asked.time == "block")
    except RunFailed as error:
        return Report(verdicts=found, notes=[f"The base could not be compared with: {one_line(error)}"])


def _speeds(asked: Asked, base: Checkout) -> list[Speed]:
    if asked.time == "off":
        return []

    def told(number: int) -> None:
        sys.stderr.write(f"decbench gate: timing, round {number} of at most {asked.rounds}\n")

    return speeds(timed(base, Checkout(folder=_HERE), asked.overrides, most=asked.rounds, told=told))


def _write(report: Report, words: Words) -> None:
    sys.stdout.write(markdown(report))
    for option, form in (("--markdown", markdown), ("--junit", junit)):
        words.written(option, form(report))
    if "--json" in words.flags:
        sys.stdout.write(json.dumps(plain(report)) + "\n")
