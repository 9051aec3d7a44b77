"""math-verify behind two functions: equality of two LaTeX answers, and the value of one, bounded in time."""

import json
import select
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from harness.errors import ConfigError

WORKER = Path(__file__).with_name("verify_worker.py")
INSTALL = "pip install 'decbench[math]'"
# The worker bounds itself to five seconds a piece; this one is for what its alarms cannot interrupt.
LIMIT_S = 30.0
_START_LIMIT_S = 120.0


def installed_version() -> str | None:
    """Return the version of math-verify, or None if it is not installed."""
    try:
        return version("math-verify")
    except PackageNotFoundError:
        return None


def require() -> str:
    """Return the version of math-verify; raise ConfigError if it is not installed."""
    found = installed_version()
    if found is None:
        raise ConfigError(
            f"task.grader=math_verify: needs the package math-verify: {INSTALL}; task.grader=text does without"
        )
    return found


@dataclass
class Verifier:
    """A worker process that is started with the first question and again after one that took too long."""

    limit_s: float = LIMIT_S
    _worker: subprocess.Popen[str] | None = field(default=None, repr=False)

    def equal(self, gold: str, answer: str) -> bool | None:
        """Tell whether two answers are equal expressions; None where that could not be found out in time."""
        return self._ask([gold, answer])

    def value(self, expression: str) -> Fraction | None:
        """Return the rational number that an expression in LaTeX stands for; None if none, or not found out in time."""
        value = self._ask(expression)
        return None if value is None else Fraction(value)

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None

    def _ask(self, question: str | list[str]) -> Any:
        fresh = self._worker is None or self._worker.poll() is not None
        if fresh:
            require()
            self._worker = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._worker is not None and self._worker.stdin is not None and self._worker.stdout is not None
        try:
            self._worker.stdin.write(json.dumps(question) + "\n")
            self._worker.stdin.flush()
        except BrokenPipeError:
            return self._give_up()
        reply = _line(self._worker.stdout, self.limit_s + (_START_LIMIT_S if fresh else 0))
        return json.loads(reply) if reply else self._give_up()

    def _give_up(self) -> None:
        self.close()


def _line(stream: IO[str], limit_s: float) -> str:
    """Return the next line, or nothing after the limit or the end of the stream."""
    ready, _, _ = select.select([stream], [], [], limit_s)
    return stream.readline() if ready else ""


VERIFIER = Verifier()
"""The one worker of this process; it ends with the process, whose end closes its input."""
