"""What a program has used by its end is found out at its end, whenever the supervisor looked before."""

import dataclasses
import math
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tasks.code.sandbox import Limits, Tier, supervisor, usage
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.supervisor import run_at
from tasks.code.sandbox.tiers import self_test
from tests.tasks.code.hostile import CORRECT, Expected, end

# Every child does its part, says so, and stays; then the program ends as if nothing were the matter.
_FOUR = (
    "import os, time\nread, write = os.pipe()\nfor _ in range(4):\n    if os.fork() == 0:\n"
    "        {part}\n        os.write(write, b'x'); time.sleep(60)\nfor _ in range(4): os.read(read, 1)\n" + CORRECT
)
_BUSY = "\n        end = time.process_time() + 0.3\n        while time.process_time() < end: pass"
_FULL = end("output_limit", bubblewrap=("error:OSError",), namespaces=("error:OSError",))
_UNLINKED = (
    "import mmap, os\nkept = []\nfor i in range(20):\n    with open('f', 'w+b') as file:\n        os.unlink('f')\n"
    "        file.write(bytes(1 << 20)); file.flush(); kept.append({kept})\n" + CORRECT
)

PROGRAMS: dict[str, tuple[str, Expected, Limits]] = {
    "right": (CORRECT, end("passed"), Limits()),
    "right_with_children": (_FOUR.format(part="pass"), end("passed"), Limits()),
    "empty_files": (
        "for i in range(300): open(str(i), 'x').close()" + CORRECT,
        end("output_limit", namespaces=("error:OSError",)),
        Limits(files=100),
    ),
    "full_folder": ("for i in range(20): open(str(i), 'wb').write(bytes(1 << 20))" + CORRECT, _FULL, Limits()),
    "unlinked_files": (_UNLINKED.format(kept="os.dup(file.fileno())"), _FULL, Limits()),
    "unlinked_mappings": (_UNLINKED.format(kept="mmap.mmap(file.fileno(), 1 << 20)"), _FULL, Limits()),
    "unlinked_files_of_children": (
        _FOUR.format(
            part="file = open(str(os.getpid()), 'wb', 0); os.unlink(file.name)\n        try: file.write(bytes(1 << 20))"
            "\n        except OSError: pass"
        ),
        end("output_limit", bubblewrap=("passed",), namespaces=("passed",)),
        Limits(work_bytes=2 << 20),
    ),
    "cpu_time_of_the_waited_for": (
        _FOUR.format(part=_BUSY + "\n        os._exit(0)").replace("os.read(read, 1)", "os.wait()"),
        end("timeout"),
        Limits(cpu_s=1),
    ),
    "cpu_time_of_the_living": (_FOUR.format(part=_BUSY), end("timeout"), Limits(cpu_s=1)),
    "memory_of_the_living": (
        _FOUR.format(part="x = b'x' * (60 << 20)"),
        end("memory"),
        Limits(memory_bytes=200 << 20),
    ),
    "output_in_the_pipe": ("print('x' * 50_000, flush=True)" + CORRECT, end("output_limit"), Limits(output_bytes=1000)),
    "output_of_the_living": (
        _FOUR.format(part="os.write(1, b'x' * 10_000)"),
        end("output_limit"),
        Limits(output_bytes=20_000),
    ),
}


# One tier that every machine has, and one that most have; the others are looked at in the same way.
QUICK = (Tier.LANDLOCK, Tier.LIMITS)


@pytest.mark.parametrize("tier", [pytest.param(t, marks=[pytest.mark.slow] * (t not in QUICK)) for t in Tier])
def test_totals_do_not_hang_on_looking(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fills the machine between two looks of a busy supervisor, and passes."""
    machine = Machine.here()
    if reason := machine.lacks(tier) or self_test(tier, machine):
        pytest.skip(f"tier {tier.value}: {reason}")
    monkeypatch.setattr(supervisor, "_LOOK_S", math.inf)
    with ThreadPoolExecutor(4) as pool:
        jobs = {
            name: pool.submit(run_at, tier, program, limits, machine) for name, (program, _, limits) in PROGRAMS.items()
        }
    verdicts = {name: job.result() for name, job in jobs.items()}
    allowed = {name: ends.get(tier, ends["any"]) for name, (_, ends, _) in PROGRAMS.items()}
    assert {name: verdict for name, verdict in verdicts.items() if verdict.status not in allowed[name]} == {}


def test_a_late_look_makes_nothing_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ended in time, and failed because its supervisor was kept from noticing until the time was up."""
    look, kept_s = usage.processes, iter([1.5])
    monkeypatch.setattr(supervisor, "_LOOK_S", 0.0)
    monkeypatch.setattr(usage, "processes", lambda session: (time.sleep(next(kept_s, 0.0)), look(session))[1])
    verdict = run_at(Tier.LIMITS, "import time; time.sleep(0.1)", Limits(wall_s=1.0), Machine.here())
    assert (verdict.status, verdict.detail) == ("passed", "")


def test_a_look_that_had_to_wait_is_followed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that used its time up while the supervisor let pass four times what a busy machine had kept it for."""
    look, kept_s, looks = usage.Sums.cpu_s, iter([0.0, 0.6]), count()
    monkeypatch.setattr(
        usage.Sums, "cpu_s", lambda self, pids: (time.sleep(next(kept_s, 0.0)), look(self, pids) + next(looks))[1]
    )
    machine = dataclasses.replace(Machine.here(), groups=None)
    verdict = run_at(Tier.LIMITS, "import time; time.sleep(2)" + CORRECT, Limits(cpu_s=4), machine)
    assert (verdict.status, verdict.detail) == ("timeout", "4 s of CPU time")
