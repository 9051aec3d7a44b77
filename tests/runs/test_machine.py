"""What a run says of the machine it measured on: neighbours, energy, clocks; unknown is null, never zero."""

import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console

from harness.config.composition import compose
from harness.results.schemas import RUNS
from harness.results.store import Store
from harness.runs import machine
from harness.runs.execution import execute
from harness.runs.machine import BUSY, Observed, observed
from harness.runs.plan import plan
from harness.runs.runner import run
from harness.runs.sweep import expand
from tests.runs.test_runner import composed

CUDA = torch.device("cuda", 0)


def told(values: Sequence[Any]) -> Any:
    """Return what gives one value after the other, and raises those that are errors."""
    left: Iterator[Any] = iter(values)

    def answer(*_: Any, **__: Any) -> Any:
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return value

    return answer


def card(monkeypatch: pytest.MonkeyPatch, **answers: Sequence[Any]) -> None:
    """Put a card in place whose driver answers so, once before a region and once after it."""
    defaults = {"reasons": (0, 0), "processes": ((), ()), "millijoules": (5000, 7500)} | answers
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetCurrentClocksEventReasons=told(defaults["reasons"]),
        nvmlDeviceGetComputeRunningProcesses=told([[*map(process, pids)] for pids in defaults["processes"]]),
        nvmlDeviceGetTotalEnergyConsumption=told(defaults["millijoules"]),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(machine.os, "getpid", lambda: 7)


def process(pid: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid)


def seen_on(device: torch.device | None) -> Observed:
    with observed(device) as seen:
        pass
    return seen


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, Observed(throttled=False, busy=False, energy_joules=2.5)),
        ({"reasons": (0, 0x40)}, Observed(throttled=True, busy=False, energy_joules=2.5)),
        ({"reasons": (0x01, 0x02)}, Observed(throttled=False, busy=False, energy_joules=2.5)),
        ({"processes": ((7,), (7, 8))}, Observed(throttled=False, busy=True, energy_joules=2.5)),
        ({"processes": ((7,), (7,))}, Observed(throttled=False, busy=False, energy_joules=2.5)),
        # In a container the driver knows us by another number: one process is ours, two are not.
        ({"processes": ((), (4711,))}, Observed(throttled=False, busy=False, energy_joules=2.5)),
        ({"processes": ((4711, 12), ())}, Observed(throttled=False, busy=True, energy_joules=2.5)),
        ({"millijoules": (RuntimeError("not supported"),) * 2}, Observed(throttled=False, busy=False)),
        ({"reasons": (0, RuntimeError("lost"))}, Observed(busy=False, energy_joules=2.5)),
    ],
)
def test_a_card_is_asked_before_and_after(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Sequence[Any]], expected: Observed
):
    """Guards each question by itself: one that the driver does not answer leaves the others."""
    card(monkeypatch, **answers)
    assert seen_on(CUDA) == expected


def test_without_nvml_nothing_is_known_of_a_card(monkeypatch: pytest.MonkeyPatch):
    """Guards zero joules, and a run that ends for want of a package that only observes."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert seen_on(CUDA) == Observed()


def test_nothing_is_known_of_another_machine():
    """Guards the state of this machine in the row of a model that a server computes."""
    assert seen_on(None) == Observed()


@pytest.mark.parametrize(
    ("all_s", "ours_s", "elapsed_s", "busy"),
    [
        (10.0, 10.0, 10.0, False),
        (12.0, 10.0, 10.0, False),
        (12.1, 10.0, 10.0, True),
        (3.0, 0.9, 10.0, True),
        (9.0, 0.0, 0.1, None),
    ],
)
def test_processors_are_busy_from_a_tenth_of_their_time(
    monkeypatch: pytest.MonkeyPatch, all_s: float, ours_s: float, elapsed_s: float, busy: bool | None
):
    """Guards the threshold, on two processors: our own work is no neighbour's, and a moment tells nothing."""

    def times(worked_s: float) -> list[SimpleNamespace]:
        return [PerProcessor(worked_s / 2, 100.0, 50.0, worked_s / 4)] * 2 + [
            PerProcessor(1e6 * worked_s, 0.0, 0.0, 0.0)
        ]

    monkeypatch.setattr(psutil, "cpu_times", told([times(0.0), times(all_s)]))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    ours = [SimpleNamespace(user=s / 2, system=0.0, children_user=s / 2, children_system=0.0) for s in (0.0, ours_s)]
    monkeypatch.setattr(machine.os, "times", told(ours))
    monkeypatch.setattr(machine.time, "perf_counter", told([5.0, 5.0 + elapsed_s]))
    assert seen_on(torch.device("cpu")) == Observed(busy=busy)


class PerProcessor(tuple):
    """Seconds of a processor as psutil tells them: the time of a guest is in `user` as well."""

    def __new__(cls, user: float, idle: float, iowait: float, guest: float) -> "PerProcessor":
        return super().__new__(cls, (user, idle, iowait, guest))

    idle = property(lambda self: self[1])
    iowait = property(lambda self: self[2])
    guest = property(lambda self: self[3])


@pytest.mark.parametrize(("measure", "warned"), [("counts", []), ("timed", [BUSY])])
def test_a_timed_run_on_a_busy_machine_says_so(
    results_dir: Path, monkeypatch: pytest.MonkeyPatch, measure: str, warned: list[str]
):
    """Guards seconds that a neighbour made; counts are what they are on any machine."""
    monkeypatch.setattr(machine, "_busy", lambda before, after: True)
    made = run(composed(results_dir, f"measure={measure}")).row
    assert made["warnings"] == warned and (made["busy"], made["energy_joules"]) == (True, None)
    (stored,) = Store(root=results_dir).read("runs").to_pylist()
    assert (stored["busy"], stored["energy_joules"], stored["warnings"]) == (True, None, warned)
    assert {"busy", "energy_joules"} < {*RUNS.names}


def test_a_sweep_says_once_that_it_was_not_alone(
    results_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Guards a screen of sixty runs against sixty times the same line, and what is taken from the store."""
    monkeypatch.setattr(machine, "_busy", lambda before, after: True)
    small = ("model=random_mdm", "gen_length=4", "task.samples=1", "measure.repetitions=1")
    said, sweep = StringIO(), [*small, "measure=timed", f"results_dir={results_dir}"]
    run(compose([*sweep, "seed=0"]))
    execute(plan(expand([*sweep, "seed=0,1,2"])), Console(file=said, width=200))
    assert said.getvalue().count(BUSY) == 1 and f"2 of 2 runs: {BUSY}\n" in said.getvalue()
    assert BUSY not in caplog.text
