"""Another checkout of the project, run as its users run it: what the gate compares a change with.

Only the command line and the store of a checkout are used, so that its code may differ in everything else.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, RunFailed
from harness.results.gate.timing import Round, enough
from harness.results.store import Store

WHOLE = "the whole command"
"""What is timed besides the settings: loading, composing and grading included."""

_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A folder with a version of the project; it runs on the interpreter that runs this."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "harness" / "__main__.py").is_file():
            raise ConfigError(f"gate.base={self.folder}: is no checkout of decbench; give the folder of one")

    @contextmanager
    def stored(self, overrides: Sequence[str]) -> Iterator[Store]:
        """Run what overrides describe, into a store that is there for as long as the context.

        Raises RunFailed, with the last lines that it wrote, where the command itself cannot be carried out.
        """
        with tempfile.TemporaryDirectory(prefix="decbench-gate-") as place:
            options = [f"results_dir={place}", "resume=false", "name=null", "on_error=record"]
            command = [sys.executable, "-m", "harness", "run", *overrides, *options]
            paths = os.pathsep.join([str(self.folder.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])
            done = subprocess.run(
                command, cwd=self.folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
            )
            store = Store(root=place)
            if not store.attempts():
                last = " ".join(done.stderr.strip().splitlines()[-_TOLD:])
                raise RunFailed(f"{self.folder}: could not run {' '.join(overrides)}: {last or 'it wrote nothing'}")
            yield store

    def cpu_seconds(self, overrides: Sequence[str]) -> dict[str, float]:
        """Return the CPU seconds of decoding by setting, and those of the whole command, its children included."""
        before = _children()
        with self.stored([*overrides, "measure=timed", "measure.repetitions=1", "tracker=none"]) as store:
            found = {WHOLE: _children() - before}
            runs = {row["run_id"]: row for row in store.read("runs").to_pylist()}
            for row in store.read("samples", columns=["cpu_s"]).to_pylist():
                run = runs[row["run_id"]]
                label = " ".join(run[name] for name in ("model", "setting", "task"))
                found[label] = found.get(label, 0.0) + row["cpu_s"]
        return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(
    base: Checkout, head: Checkout, overrides: Sequence[str], *, most: int, told: Callable[[int], None]
) -> list[Round]:
    """Time base and head round by round, until a slowdown of 15 % would be seen everywhere, or `most` rounds.

    `told` is called with the number of every round before it starts.
    """
    rounds: list[Round] = []
    while len(rounds) < most and not enough(rounds):
        told(len(rounds) + 1)
        first, second, third = (one.cpu_seconds(overrides) for one in (base, head, base))
        rounds.append(Round(base=first, head=second, again=third))
    return rounds
