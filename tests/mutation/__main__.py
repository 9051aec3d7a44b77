"""Mutation testing: change the code in small ways, one at a time, and ask whether a test notices.

`record` copies the tree as it is and runs the suite there with coverage; `run` tries a seeded sample of mutants on the
tests that cover them, and goes on where it was stopped; `report` tells what became of them. What was killed stays
killed after another `record`; deleting the folder starts over.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import cosmic_ray.commands
import cosmic_ray.modules
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkItem, WorkResult
from coverage import CoverageData

from tests.mutation.covering import Coverage, passed
from tests.mutation.judge import is_known, judged, killers, pytest_command
from tests.mutation.report import REASONS, outcome, outdated, reasons, report
from tests.mutation.sample import draw

FOLDER = Path(".mutation").absolute()
TREE, ALL, SESSION = FOLDER / "tree", FOLDER / "all.sqlite", FOLDER / "session.sqlite"
COVERAGE, JUNIT = FOLDER / "coverage.sqlite", FOLDER / "junit.xml"
MUTATED = (
    *("harness/engine", "harness/results", "methods/diffusion", "methods/caches"),
    *("tasks/lists", "tasks/math", "tasks/puzzles", "tasks/code/extraction.py"),
)


def record(options: argparse.Namespace) -> list[str]:
    """Copy what git knows or would add, run the suite in the copy, and list every possible mutant."""
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, check=True, text=True).stdout.split("\0")
    for file in filter(Path.is_file, map(Path, filter(None, names))):
        (TREE / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, TREE / file)
    coverage = ["--cov", "--cov-context=test", "--cov-report=", f"--junitxml={JUNIT}"]
    suite = [sys.executable, "-m", "pytest", "-q", "-n", str(options.workers), "--dist", "loadfile", "-m", options.mark]
    env = ["env", "-C", str(TREE), f"PYTHONPATH={TREE}", f"COVERAGE_FILE={COVERAGE}"]
    ended = subprocess.run([*env, *suite, "-p", "no:cacheprovider", *coverage]).returncode
    if ended not in (0, 1):
        return [f"pytest ended with {ended} before the suite did: record again"]
    with contextlib.chdir(TREE), use_db(ALL) as database:
        cosmic_ray.commands.init(cosmic_ray.modules.find_modules(map(Path, MUTATED)), database, {})
    tests = passed(JUNIT)
    print(f"{len(tests)} tests passed")
    return _failing(list(tests), "--collect-only")


def run(options: argparse.Namespace) -> list[str]:
    """Try the mutants of the sample that have no result yet, then the tests that killed some, on the code as it is."""
    mutants, coverage = _sample(options), _coverage()
    with use_db(SESSION) as session:
        known = {item.job_id for item in session.work_items}
        session.add_work_items(mutant for mutant in mutants if mutant.job_id not in known)
        retried = {"not judged", "survived"} if options.survivors else {"not judged"}
        found = dict(session.results)
        waiting = [mutant for mutant in mutants if _waits(found.get(mutant.job_id), retried, coverage)]
        started = time.monotonic()
        results = judged(waiting, coverage, workers=options.workers, seconds=options.seconds)
        for done, (mutant, result) in enumerate(results, start=1):
            session.set_result(mutant.job_id, result)
            where = f"{mutant.mutations[0].module_path}:{mutant.mutations[0].start_pos[0]}"
            print(f"{done}/{len(waiting)} {time.monotonic() - started:.0f} s {outcome(result)} {where}", flush=True)
        killed = [result for result in dict(session.results).values() if outcome(result) == "killed"]
    return _failing(killers(killed, list(coverage.tests))) + tell(options)


def _waits(result: WorkResult | None, retried: Collection[str], coverage: Coverage) -> bool:
    return outcome(result) in retried or (result is not None and not is_known(result, coverage.tests))


def tell(options: argparse.Namespace) -> list[str]:
    """Print what became of the sample, and survivors without a reason in the form of survivors.toml."""
    accepted = reasons(REASONS.read_text())
    with use_db(SESSION, WorkDB.Mode.open) as session:
        faults = report(_sample(options), dict(session.results), accepted)
    return faults + [f"{REASONS.name}: the line is gone: {change}" for change in outdated(accepted, TREE)]


def _sample(options: argparse.Namespace) -> list[WorkItem]:
    with use_db(ALL, WorkDB.Mode.open) as database:
        return draw(database.work_items, TREE, seed=options.seed, size=options.mutants)


def _coverage() -> Coverage:
    data = CoverageData(str(COVERAGE))
    data.read()
    return Coverage(tree=TREE, data=data, tests=passed(JUNIT))


def _failing(tests: list[str], *options: str) -> list[str]:
    """Run tests on the code as it is: one that fails without a mutant has killed none."""
    if not tests:
        return []
    shown = subprocess.run(pytest_command(TREE, tests, *options), capture_output=True, text=True)
    return [] if shown.returncode == 0 else [f"tests fail without a mutant:\n{shown.stdout[-2000:]}"]


def main() -> int:
    """Return 0 if the command found nothing wrong, else 1."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--mutants", type=int, default=300, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=100, help="of tests for one mutant, as recorded")
    parser.add_argument("--survivors", action="store_true", help="try survivors again, with the tests of a new record")
    parser.add_argument("--workers", type=int, default=2, help="mutants, or tests of `record`, at once")
    parser.add_argument("--mark", default="not slow and not gpu and not weights", help="which tests are recorded")
    options = parser.parse_args()
    if options.command != "record" and not (ALL.exists() and JUNIT.exists()):
        parser.error(f"{FOLDER}: nothing is recorded; begin with `scripts/mutate record`")
    faults = COMMANDS[options.command](options)
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


COMMANDS = {"record": record, "run": run, "report": tell}

if __name__ == "__main__":
    sys.exit(main())
