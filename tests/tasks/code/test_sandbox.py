"""Hostile programs, side by side with peaceful ones, at every tier that this machine has."""

import dataclasses
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.code.sandbox import Limits, Tier, Verdict, confinement
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.supervisor import run_at
from tasks.code.sandbox.tiers import self_test
from tests.tasks.code.hostile import ALL, CORRECT, LIMITED, Hostile
from tests.tasks.code.surroundings import Surroundings, as_ordinary, reaching_out, surroundings

SETTINGS = ["bubblewrap", "namespaces", "landlock", "landlock_abi_1", "limits"]
# Longer than the wall limit of the hostile programs that never end, and with a process of its own.
PEACEFUL = (
    "import os, time\nif os.fork() == 0:\n    time.sleep(0.6)\n    os._exit(0)\nassert os.wait()[1] == 0" + CORRECT
)
# One beside so many hostile programs, and programs at a time.
EVERY, SIDE_BY_SIDE = 6, 12
# A busy machine may take its time over a program that ends by itself, or by another limit.
PATIENT: dict[str, Any] = {"wall_s": 120.0}
# Root gives every program a user of its own; other users share theirs with their programs.
WHO = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]
# Root's programs are unprivileged users, too, when they make their namespaces; what else differs, that a program shares
# its user with the harness and with its neighbours, differs at Landlock, whose older setting is left to the slow tests.
TWICE = [(name, "ordinary") for name in SETTINGS if name != "landlock" and len(WHO) > 1]


@dataclass(frozen=True, kw_only=True)
class Battle:
    """What became of the programs at one tier, and of those beside them."""

    tier: Tier
    programs: dict[str, Hostile]
    verdicts: dict[str, Verdict]
    peaceful: list[Verdict]
    survivors: set[str]
    left: list[str]
    moved: bool


def setting(name: str) -> tuple[Tier, Machine]:
    """Return tier and machine of a setting: a kernel that knows only the first Landlock is played by a newer one."""
    here = Machine.here()
    if name == "landlock_abi_1":
        return Tier.LANDLOCK, dataclasses.replace(here, landlock_abi=min(1, here.landlock_abi))
    return Tier[name.upper()], here


def named(program: str, token: str) -> str:
    """Give the process a name that all its descendants inherit."""
    return f"import ctypes; ctypes.CDLL(None).prctl(15, b'{token}', 0, 0, 0)\n{program}"


def alive(tokens: dict[str, str]) -> set[str]:
    """Return the programs of which a process is still there."""
    names = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.add(comm.read_text().strip())
        except OSError:
            continue
    return {name for name, token in tokens.items() if token in names}


def ourselves() -> tuple[object, ...]:
    """Return what a program of the same user could change about this process, and its children that nobody buried."""
    stats = (path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat"))
    zombies = sum(1 for state, parent, *_ in stats if (state, int(parent)) == ("Z", os.getpid()))
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.sched_getscheduler(0), zombies


def fight(name: str, near: Surroundings) -> Battle:
    tier, machine = setting(name)
    before = ourselves()
    parts = {"limits": (LIMITED,), "landlock_abi_1": (reaching_out(near),)}.get(name, (LIMITED, reaching_out(near)))
    programs = {key: hostile for part in parts for key, hostile in part.items()}
    tokens = {name: f"h{secrets.token_hex(6)}" for name in programs}

    def run(job: tuple[str, str, Limits]) -> Verdict:
        return run_at(tier, named(job[1], job[0]), job[2], machine)

    jobs = [(tokens[name], h.program, Limits(**PATIENT | h.limits)) for name, h in programs.items()]
    peace = [("peaceful", PEACEFUL, Limits(**PATIENT))] * (len(jobs) // EVERY)
    mixed = [job for i, own in enumerate(jobs) for job in [own, *peace[i // EVERY : i // EVERY + 1][: i % EVERY == 0]]]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        ended = list(pool.map(run, mixed))
    limit = time.monotonic() + 5
    while (survivors := alive(tokens)) and time.monotonic() < limit:
        time.sleep(0.05)
    by_token = {job[0]: verdict for job, verdict in zip(mixed, ended, strict=True)}
    return Battle(
        tier=tier,
        programs=programs,
        verdicts={name: by_token[token] for name, token in tokens.items()},
        peaceful=[verdict for job, verdict in zip(mixed, ended, strict=True) if job[0] == "peaceful"],
        survivors=survivors,
        left=os.listdir(tempfile.gettempdir()),
        moved=ourselves() != before,
    )


@pytest.fixture(scope="module")
def near() -> Iterator[Surroundings]:
    with surroundings() as bait:
        yield bait


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(f"{name}-{who}", marks=[pytest.mark.slow] * ((name, who) in TWICE))
        for name in SETTINGS
        for who in WHO
    ],
)
def battle(request: pytest.FixtureRequest, near: Surroundings) -> Battle:
    name, _, who = request.param.partition("-")
    tier, machine = setting(name)
    if reason := machine.lacks(tier) or self_test(tier, machine):
        pytest.skip(f"tier {tier.value}: {reason}")
    assert confinement.code()
    with tempfile.TemporaryDirectory() as working_folders, pytest.MonkeyPatch.context() as patch:
        os.chmod(working_folders, 0o1777)
        patch.setattr(tempfile, "tempdir", working_folders)
        patch.setenv("HARNESS_MARKER", "1")
        return fight(name, near) if who == "root" else as_ordinary(lambda: fight(name, near))


def test_every_program_ends_as_it_must(battle: Battle) -> None:
    """A broken program that passes, takes the harness with it, or is judged differently from tier to tier."""
    allowed = {name: hostile.ends.get(battle.tier, hostile.ends[ALL]) for name, hostile in battle.programs.items()}
    verdicts = battle.verdicts.items()
    wrong = {name: (verdict, allowed[name]) for name, verdict in verdicts if verdict.status not in allowed[name]}
    assert wrong == {}
    reasons = {name: verdicts.detail for name, verdicts in battle.verdicts.items()}
    assert {n: reasons[n] for n, hostile in battle.programs.items() if hostile.says not in reasons[n]} == {}


def test_programs_beside_them_are_not_disturbed(battle: Battle) -> None:
    """A bomb that takes processes, memory or signals from the programs that run at the same time."""
    assert len(battle.peaceful) >= 4
    assert [verdict for verdict in battle.peaceful if not verdict.passed] == []


def test_nothing_is_left(battle: Battle, near: Surroundings) -> None:
    """A daemon that outlives its program, or a file, connection or message that got out."""
    assert (battle.survivors, battle.left, battle.moved) == (set(), [], False)
    assert near.untouched()


def test_the_machine_reaches_a_safe_tier() -> None:
    """A suite that is green because every tier was skipped."""
    tiers = [t for t in (Tier.BUBBLEWRAP, Tier.NAMESPACES, Tier.LANDLOCK) if not Machine.here().lacks(t)]
    assert any(self_test(tier, Machine.here()) is None for tier in tiers)
