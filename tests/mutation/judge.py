"""Mutants in copies of the tree, two at once, each against the tests that cover it."""

import re
import shlex
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from shutil import copytree

from attrs import evolve
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import WorkItem, WorkResult

from tests.mutation.covering import Coverage

_SLOWEST_TEST_S = 60
_SLOWDOWN = 4
"""How much longer than when they were recorded tests may take, beyond which a mutant counts as one that never ends."""


def judged(
    mutants: Sequence[WorkItem], coverage: Coverage, *, workers: int, seconds: float
) -> Iterator[tuple[WorkItem, WorkResult]]:
    """Yield mutants with their results as they come; each is tried on tests that took `seconds` when recorded."""
    with ExitStack() as stack:
        free: SimpleQueue[Path] = SimpleQueue()
        for _ in range(workers):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutation-")))
            free.put(copytree(coverage.tree, folder / "tree"))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        stack.callback(pool.shutdown, cancel_futures=True)

        def judge(mutant: WorkItem) -> WorkResult:
            copy = free.get()
            try:
                return _judge(mutant, copy, coverage, seconds)
            finally:
                free.put(copy)

        running = {pool.submit(judge, mutant): mutant for mutant in mutants}
        for future in as_completed(running):
            yield running[future], future.result()


def _judge(mutant: WorkItem, copy: Path, coverage: Coverage, seconds: float) -> WorkResult:
    mutation = mutant.mutations[0]
    tests = coverage.of(str(mutation.module_path), mutation.start_pos[0], seconds=seconds)
    command = shlex.join(pytest_command(copy, tests)) if tests else "true"
    timeout = _SLOWEST_TEST_S + _SLOWDOWN * sum(coverage.tests[test] for test in tests)
    result = mutate_and_test([evolve(mutation, module_path=copy / mutation.module_path)], command, timeout)
    return evolve(result, diff=(result.diff or "").replace(f"{copy}/", ""))


def pytest_command(tree: Path, tests: Sequence[str], *options: str) -> list[str]:
    """Say how `tests` run in `tree`, stopping at the first failure."""
    chosen = tree.parent / "tests"
    chosen.write_text("\n".join(tests))
    quiet = ["-q", "-x", "-rfE", "-p", "no:cacheprovider", f"--timeout={_SLOWEST_TEST_S}", *options]
    return ["env", "-C", str(tree), f"PYTHONPATH={tree}", sys.executable, "-m", "pytest", *quiet, f"@{chosen}"]


def killers(results: Sequence[WorkResult], tests: Collection[str]) -> list[str]:
    """Return the tests that failed, in any result."""
    return sorted({test for result in results for test in _failed(result)} & set(tests))


def is_known(result: WorkResult, tests: Collection[str]) -> bool:
    """Say whether what failed is among the tests that are tried today; a mutant that ends all of them fails none."""
    failed = _failed(result)
    return not failed or not failed.isdisjoint(tests)


def _failed(result: WorkResult) -> set[str]:
    return set(re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", result.output or "", re.MULTILINE))
