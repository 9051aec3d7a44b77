"""Processes of programs that share a user are counted program by program."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.code.sandbox import Limits, Tier, Verdict, confinement, kernel
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.supervisor import run_at
from tests.tasks.code.hostile import AS_MANY_AS_POSSIBLE
from tests.tasks.code.surroundings import as_ordinary

BARE = [Tier.LANDLOCK, Tier.LIMITS]
FORKS_ALL_THE_TIME = "import os\nfor _ in range(100):\n    if os.fork() == 0: os._exit(0)\n    os.wait()"
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


def run(tier: Tier, programs: list[str]) -> list[Verdict]:
    """Run programs side by side, all as one ordinary user."""
    if reason := Machine.here().lacks(tier):
        pytest.skip(f"tier {tier.value}: {reason}")

    def job() -> list[Verdict]:
        with ThreadPoolExecutor(len(programs)) as pool:
            return list(pool.map(lambda program: run_at(tier, program, Limits(wall_s=2), Machine.here()), programs))

    return as_ordinary(job)


@pytest.fixture(autouse=True)
def prepared() -> None:
    """What an ordinary user may not find out any more in a copy of this process is found out before."""
    if not Machine.here().filters:
        pytest.skip("system calls cannot be filtered here")
    assert confinement.code()


@pytest.mark.parametrize("tier", BARE)
def test_bombs_take_nothing_from_their_neighbours(tier: Tier) -> None:
    """A bomb that fills the user's process limit, so that a right program beside it cannot fork and fails."""
    first, *verdicts = run(tier, [FORKS_ALL_THE_TIME, *[BOMB] * 4, AS_MANY_AS_POSSIBLE])
    assert (first.status, verdicts[-1].status) == ("passed", "passed"), (first, verdicts[-1])
    assert {verdict.status for verdict in verdicts[:-1]} == {"timeout"}


def test_without_questions_the_kernel_bounds_them_together() -> None:
    """A bomb without any bound where somebody listens to calls already, as in some containers."""
    # The user's other processes count, too, and may come and go.
    some = AS_MANY_AS_POSSIBLE.replace("32 <= started <= 34", "8 <= started < 99")

    def job() -> Verdict:
        kernel.give_up_privileges()
        assert kernel.listen({"acct": 163}) is not None
        return run_at(Tier.LIMITS, some, Limits(), Machine.here())

    assert as_ordinary(job).passed
