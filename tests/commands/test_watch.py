"""`decbench watch`: how far a sweep is, from another process, by its store alone."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from harness.commands.watch import main as watch
from harness.results.requests import read_requests, write_sign
from harness.results.store import Store
from harness.runs.announcement import Announcement
from harness.runs.decode_batch import decode_batch
from harness.runs.plan import Plan, plan
from harness.runs.process import has_ended, this_process
from harness.runs.progress import Silent
from harness.runs.runner import perform
from harness.runs.standing import State, look, sweeps
from harness.runs.sweep import expand
from tests.conftest import RunDecbench

SWEEP = ("model=random_mdm", "task.samples=4", "gen_length=4", "seed=0,1,2", "name=mine")
LABEL = "random_mdm llada list_copy"


def planned(folder: Path, *overrides: str) -> Plan:
    """Return the plan of three small runs."""
    return plan(expand([*SWEEP, f"results_dir={folder}", *overrides]))


def test_a_sweep_that_has_ended_is_shown_once(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the snapshot that a pipe gets: counts and results; a sweep that takes all from the store is one, too."""
    assert call_decbench("run", *SWEEP, "results_dir=store").returncode == 0
    for name in ("mine", "again"):
        told = call_decbench("watch", name, "once=true", "results_dir=store")
        lines = told.stdout.splitlines()
        assert told.returncode == 0 and lines[0].startswith(f"{name} ") and "done at" in lines[0]
        assert lines[1] == "3 of 3 runs done, 0 left"
        assert [line.partition(")")[0].strip() for line in lines[2:] if LABEL in line] == [
            f"{LABEL} (seed={seed}" for seed in (0, 1, 2)
        ]
        call_decbench("run", *SWEEP, "name=again", "results_dir=store")
    assert not list((tmp_path / "store" / "requests").glob(".*"))


def test_a_running_sweep_is_seen_while_it_runs(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards counts, samples of an unfinished run, failures, and the time that is left."""
    store, jobs = Store(root=results_dir), planned(results_dir, "save_every_s=0", "on_error=record")
    with Announcement(jobs, store):
        (asked,) = sweeps(store)
        before = look(store, asked)
        assert (before.state, before.left, before.left_s, before.name) == (State.RUNNING, 3, None, "mine")
        perform(jobs.jobs[0].job, store, Silent())
        calls = iter([decode_batch, decode_batch])
        monkeypatch.setattr("harness.runs.street.decode_batch", lambda *a, **named: next(calls)(*a, **named))
        perform(jobs.jobs[1].job, store, Silent())
        found = look(store, asked)
        assert (found.state, found.left, found.count("ok"), found.count("failed")) == (State.RUNNING, 1, 1, 1)
        assert found.left_s is not None and found.left_s >= 0
        answered = [row["accuracy"] for _, row in found.answered if row["status"] == "ok"]
        assert answered and answered[0] is not None


def test_samples_of_a_run_that_is_not_finished_count(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards the progress of one long run, which is all there is to see of many sweeps."""
    store, jobs = Store(root=results_dir), planned(results_dir, "save_every_s=0")
    calls = iter([decode_batch, decode_batch])

    def stopping(*arguments, **named):
        try:
            return next(calls)(*arguments, **named)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("harness.runs.street.decode_batch", stopping)
    with pytest.raises(KeyboardInterrupt), Announcement(jobs, store):
        perform(jobs.jobs[0].job, store, Silent())
    found = look(store, sweeps(store)[0])
    assert found.state is State.STOPPED
    assert [(one["label"], one["decodings"], kept) for one, kept in found.decoding] == [(f"{LABEL} (seed=0)", 4, 2)]


def test_a_run_that_is_made_anew_is_not_done_before(results_dir: Path):
    """Guards resume=false, and failures that are tried again: what was there before the sweep answers nothing."""
    store = Store(root=results_dir)
    perform(planned(results_dir).jobs[0].job, store, Silent())
    with Announcement(planned(results_dir), store):
        assert look(store, sweeps(store)[-1]).left == 2
    with Announcement(planned(results_dir, "resume=false"), store):
        found = look(store, sweeps(store)[-1])
        assert found.left == 3 and [row["resumed"] for row in found.asked] == [False] * 3


@pytest.mark.parametrize(("age_s", "state"), [(5, State.RUNNING), (600, State.STOPPED)])
def test_a_sweep_on_another_machine_is_told_by_its_signs(
    results_dir: Path, age_s: int, state: State, monkeypatch: pytest.MonkeyPatch
):
    """Guards clusters, where no process can be asked after."""
    monkeypatch.setattr("harness.runs.announcement.EVERY_S", 3600)
    store = Store(root=results_dir)
    with Announcement(planned(results_dir), store):
        (asked,) = sweeps(store)
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        process = this_process() | {"machine": "elsewhere"}
        sign = {"process": process, "at": at.isoformat(), "every_s": 5, "ended": None}
        write_sign(store, str(asked[0]["sweep_id"]), sign)
        assert look(store, asked).state is state


def test_a_sweep_that_is_killed_is_seen_as_stopped(tmp_path: Path, call_decbench: RunDecbench):
    """Guards kill -9, which leaves nothing behind that could say so; the same command goes on, and that is seen."""
    sweep = ["run", "model=random_mdm", "task.samples=8", "gen_length=4", "seed=range(0,8)", "name=long"]
    sweep.append("results_dir=store")
    process = subprocess.Popen([sys.executable, "-m", "harness", *sweep], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and not any((tmp_path / "store" / "runs").glob("[!.]*.parquet")):
            time.sleep(0.01)
        # It lives, and does not get to its end meanwhile.
        process.send_signal(signal.SIGSTOP)
        running = json.loads(call_decbench("watch", "results_dir=store", "--json").stdout)
    finally:
        process.kill()
        process.wait()
    told = call_decbench("watch", "once=true", "results_dir=store")
    assert running["state"] == "running" and running["runs"] == 8 and running["ok"] >= 1 and running["left"] > 0
    assert told.returncode == 0 and "stopped, no progress since 20" in told.stdout.splitlines()[0]
    assert call_decbench(*sweep).stdout.count("taken from the store") >= running["ok"]
    after = json.loads(call_decbench("watch", "long", "results_dir=store", "--json").stdout)
    assert (after["state"], after["ok"], after["left"]) == ("done", 8, 0)


class Terminal:
    """A terminal of which the text is kept."""

    def __init__(self) -> None:
        self.console = Console(file=StringIO(), force_terminal=True, width=120)

    @property
    def text(self) -> str:
        """All that was written."""
        return self.console.file.getvalue()  # type: ignore[attr-defined]


def test_watching_ends_with_the_sweep(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards the view that is left open: it follows, and ends by itself; one sweep more does not matter to it."""
    terminal, store, jobs = Terminal(), Store(root=results_dir), planned(results_dir)
    monkeypatch.setattr("harness.commands.watch.console", lambda: terminal.console)
    with Announcement(jobs, store) as announced:
        waiting = list(jobs.jobs)
        records = []

        def pass_time(_: float) -> None:
            records.append(perform(waiting.pop(0).job, store, Silent()))
            if not waiting:
                announced.answer(records)

        monkeypatch.setattr("harness.commands.watch.time.sleep", pass_time)
        assert watch([f"results_dir={results_dir}"]) == 0
    assert "0 of 3 runs done, 3 left" in terminal.text and "3 of 3 runs done, 0 left" in terminal.text


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (KeyboardInterrupt(signal.SIGTERM), 143)])
def test_ctrl_c_ends_watching_alone(
    stop: BaseException,
    code: int,
    results_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Guards the exit codes of the house, and against telling that the sweep was interrupted."""
    terminal, store = Terminal(), Store(root=results_dir)
    monkeypatch.setattr("harness.commands.watch.console", lambda: terminal.console)

    def pass_time(_: float) -> None:
        raise stop

    monkeypatch.setattr("harness.commands.watch.time.sleep", pass_time)
    with Announcement(planned(results_dir), store):
        assert watch([f"results_dir={results_dir}"]) == code
        assert look(store, sweeps(store)[0]).state is State.RUNNING
    assert "interrupted" not in capsys.readouterr().err


def test_a_sweep_that_stops_while_it_is_watched_is_no_success(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards scripts that wait for a sweep."""
    terminal, store = Terminal(), Store(root=results_dir)
    monkeypatch.setattr("harness.commands.watch.console", lambda: terminal.console)
    announced = Announcement(planned(results_dir), store).__enter__()
    monkeypatch.setattr("harness.commands.watch.time.sleep", lambda _: announced.__exit__(RuntimeError, None, None))
    assert watch([f"results_dir={results_dir}"]) == 1 and "stopped, no progress since" in terminal.text


def test_requests_of_before_have_no_labels(results_dir: Path):
    """Guards stores whose table of requests has fewer columns."""
    store = Store(root=results_dir)
    with Announcement(planned(results_dir), store):
        pass
    (file,) = (results_dir / "requests").glob("*.parquet")
    table = pq.read_table(file).drop_columns(["label", "decodings"])
    pq.write_table(table, file)
    assert [row["label"] for row in read_requests(store).rows] == [None] * 3


def test_processes_are_told_apart():
    """Guards against numbers of processes that are used again, or mean another one elsewhere."""
    ours = this_process()
    assert has_ended(ours) is False and has_ended({**ours, "machine": "elsewhere"}) is None
    assert has_ended({**ours, "started": "1"}) is True
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert has_ended({**ours, "pid": gone.pid}) is True


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "no sweep was started here"),
        (["once=yes"], "once=yes: must be true or false"),
        (["one=true"], "did you mean once?"),
        (["--jsn"], "did you mean --json?"),
    ],
)
def test_a_wrong_request_ends_in_one_line(asked: list[str], message: str, call_decbench: RunDecbench):
    """Guards against tracebacks as the answer to a typo."""
    told = call_decbench("watch", *asked, "results_dir=nowhere")
    assert told.returncode == 2 and message in told.stderr and len(told.stderr.splitlines()) == 1
