"""Which tier is taken, what is refused, and what runs twice."""

import ctypes
import platform

import pytest

from harness.errors import ConfigError
from tasks.code.sandbox import Isolation, Limits, Tier, confinement, kernel, require, run_many, run_python, tiers
from tasks.code.sandbox.confinement import Machine, request


@pytest.mark.parametrize(
    "calls",
    [
        kernel.DENIED,
        kernel.METADATA,
        kernel.LIMITS_OF_OTHERS,
        kernel.SIGNALS,
        kernel.REPLACED,
        {name: number for name, (number, _) in kernel.ARGUMENTS.items()},
    ],
)
def test_numbers_of_calls_are_those_of_libseccomp(calls: dict[str, int]) -> None:
    """A mistyped number: the call goes through, and another one that programs need is refused."""
    if platform.machine() != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    theirs = {name: library.seccomp_syscall_resolve_name(name.encode()) for name in calls}
    assert {name: number for name, number in theirs.items() if number >= 0}.items() <= calls.items()


def test_output_of_models_needs_a_safe_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated programs run unprotected on a machine without namespaces and Landlock, and nobody notices."""
    weak = Isolation(tier=Tier.LIMITS, missing={Tier.LANDLOCK: "the kernel has no Landlock"})
    monkeypatch.setattr(tiers, "isolation", lambda: weak)
    with pytest.raises(ConfigError, match=r"^sandbox=safe: .*tier 3 .*the kernel has no Landlock; .*sandbox=unsafe$"):
        require()
    with pytest.raises(ConfigError, match="sandbox=safe"):
        run_python("pass")
    assert require(Tier.LIMITS) is weak
    assert run_python("pass", tier=Tier.LIMITS).passed


def test_a_tier_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a tier and getting a lesser one."""
    bare = Machine(landlock_abi=0, filters=False, bubblewrap=None)
    monkeypatch.setattr(Machine, "here", staticmethod(lambda: bare))
    for tier in (Tier.BUBBLEWRAP, Tier.NAMESPACES, Tier.LANDLOCK):
        with pytest.raises(ConfigError, match=f"tier {tier.value} is not there"):
            run_python("pass", tier=tier)


def test_timeouts_run_again_alone() -> None:
    """A correct program that fails because the machine was busy, or a second attempt that hides the first."""
    slow, fine = run_many(["while True: pass", "pass"], limits=Limits(wall_s=0.2), tier=Tier.LIMITS)
    assert (slow.status, slow.first) == ("timeout", "timeout")
    assert (fine.status, fine.first) == ("passed", None)


def test_a_sandbox_that_fails_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of our own counted against the model."""
    monkeypatch.setattr(confinement, "command", lambda *_: ["/bin/sh", "-c", "echo broken >&2; exit 3"])
    verdict = run_python("pass", tier=Tier.LIMITS)
    assert (verdict.status, verdict.output_tail) == ("sandbox_error", "broken\n")
    monkeypatch.setattr(confinement, "command", lambda *_: ["no-such-program"])
    assert run_python("pass", tier=Tier.LIMITS).status == "sandbox_error"


def test_verdicts_say_what_happened() -> None:
    """A failure that nobody can explain from the stored row."""
    wrong = run_python("print('seen', flush=True)\nassert 1 == 2, 'one is not two'", tier=Tier.LIMITS)
    assert (wrong.detail, wrong.output_tail) == ("one is not two", "seen\n")
    assert run_python("{}['key']", tier=Tier.LIMITS).status == "error:KeyError"


def test_sets_have_one_order() -> None:
    """A program that prints or compares a set of texts passing today and failing tomorrow."""
    program = "import os; os.write(1, repr({'a', 'b', 'c', 'd', 'e', 'f'}).encode())"
    assert len({run_python(program, tier=Tier.LIMITS).output_tail for _ in range(3)}) == 1


def test_older_kernels_are_helped_by_the_filter() -> None:
    """Signals, and changes of modes and sizes, that an older Landlock does not see."""
    old = Machine(landlock_abi=1, filters=True, bubblewrap=None)
    new = Machine(landlock_abi=6, filters=True, bubblewrap=None)
    assert {"kill", "tgkill"} <= set(request(Tier.LANDLOCK, old, Limits(), user=1)["only_self"])
    assert "kill" not in request(Tier.LANDLOCK, new, Limits(), user=1)["only_self"]
    assert {"chmod", "truncate", "pidfd_send_signal"} <= set(request(Tier.LANDLOCK, old, Limits(), user=1)["denied"])
