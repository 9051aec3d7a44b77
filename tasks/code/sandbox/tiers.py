"""Which isolation this machine reaches, found out by trying, and programs run at it."""

import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import ConfigError
from tasks.code.sandbox import interpreter
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.supervisor import run_at
from tasks.code.sandbox.verdict import MINIMUM, Limits, Tier, Verdict

_ESCAPE = """
import os, socket, time
def refused(attempt):
    try:
        attempt()
    except OSError:
        return True
    return False
assert refused(lambda: open({secret!r}).read()), "reads files"
# In a file tree of its own it may write what it likes.
refused(lambda: open({outside!r}, "w").close())
assert {alone} or refused(lambda: os.kill({harness}, 0)), "signals other processes"
assert refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)), "opens sockets"
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(60)
    except OSError:
        break
else:
    raise AssertionError("starts processes without end")
"""


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """The best tier of this machine, why the better ones are not there, and what bounds a program as a whole."""

    tier: Tier
    missing: dict[Tier, str]
    bounds: str = ""

    def facts(self) -> dict[str, object]:
        """Return what a result should say about it."""
        return {"sandbox_tier": self.tier.value, "sandbox_python": interpreter.find().version}

    def __str__(self) -> str:
        reasons = "; ".join(f"tier {tier.value}: {reason}" for tier, reason in self.missing.items())
        return "; ".join(filter(None, (f"tier {self.tier.value} ({self.tier.name.lower()})", reasons, self.bounds)))


@cache
def isolation() -> Isolation:
    """Try the tiers from the best one down, and return the first that holds; ConfigError where none does."""
    missing: dict[Tier, str] = {}
    for tier in Tier:
        reason = Machine.here().lacks(tier) or self_test(tier, Machine.here())
        if reason is None:
            return Isolation(tier=tier, missing=missing, bounds=_bounds(Machine.here()))
        missing[tier] = reason
    raise ConfigError(f"sandbox: no program can be run here ({missing[Tier.LIMITS]})")


def _bounds(machine: Machine) -> str:
    if machine.groups is None:
        return "no control group to be had: the harness adds up what the processes of a program use"
    return f"a control group in {machine.groups.root} bounds all processes of a program"


def require(minimum: Tier = MINIMUM) -> Isolation:
    """Return the isolation of this machine; raise ConfigError if it is less than `minimum`."""
    here = isolation()
    if here.tier.value > minimum.value:
        raise ConfigError(
            f"sandbox=safe: output of a model runs at tier {minimum.value} or better, but this machine reaches {here}; "
            f"get bubblewrap (apt install bubblewrap), use Linux 5.13 or newer, or accept the risk: sandbox=unsafe"
        )
    return here


def self_test(tier: Tier, machine: Machine) -> str | None:
    """Return why a tier does not hold what it promises here, or None: one program each that ends, loops, breaks out."""
    started = run_at(tier, "pass", Limits(), machine)
    if not started.passed:
        return " ".join(f"{started.status} {started.detail} {started.output_tail}".split())
    if run_at(tier, "while True: pass", Limits(wall_s=0.3), machine).status != "timeout":
        return "an endless loop is not stopped"
    return None if tier is Tier.LIMITS else _try_to_escape(tier, machine)


def _try_to_escape(tier: Tier, machine: Machine) -> str | None:
    with tempfile.TemporaryDirectory(prefix="decbench-") as name:
        folder = Path(name)
        # What file modes would refuse anyway proves nothing.
        os.chmod(folder, 0o777)
        (folder / "secret").write_text("secret")
        # In a process namespace of its own, our number may be one of its own processes.
        alone = tier in (Tier.BUBBLEWRAP, Tier.NAMESPACES)
        program = _ESCAPE.format(
            secret=str(folder / "secret"), outside=str(folder / "outside"), alone=alone, harness=os.getpid()
        )
        verdict = run_at(tier, program, Limits(), machine)
        if (folder / "outside").exists():
            return "a program writes outside its folder"
    return None if verdict.passed else f"a program {verdict.detail or verdict.status}"


def run_python(program: str, *, limits: Limits | None = None, tier: Tier | None = None) -> Verdict:
    """Run one program once and return its verdict.

    It passes only if its last line is reached. `tier` is the best of this machine if not given. ConfigError is
    raised below the minimum for a tier that was not asked for, and for one that the machine does not have.
    """
    chosen = tier or require().tier
    if reason := Machine.here().lacks(chosen):
        raise ConfigError(f"sandbox: tier {chosen.value} is not there: {reason}")
    return run_at(chosen, program, limits or Limits(), Machine.here())


def run_many(
    programs: Iterable[str], *, limits: Limits | None = None, tier: Tier | None = None, workers: int | None = None
) -> list[Verdict]:
    """Run programs side by side, on all usable cores unless `workers` says otherwise; verdicts in order.

    A timeout may be the machine's fault: such programs are run again, one after the other, when all else is done.
    Verdicts of the sandbox's own failures are given a second chance, too.
    """
    chosen, todo = tier or require().tier, list(programs)
    with ThreadPoolExecutor(workers or _cores()) as pool:
        verdicts = list(pool.map(lambda program: run_python(program, limits=limits, tier=chosen), todo))
    for place, verdict in enumerate(verdicts):
        if verdict.status in ("timeout", "sandbox_error"):
            verdicts[place] = run_python(todo[place], limits=limits, tier=chosen).after(verdict)
    return verdicts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
