"""What happens to a sweep in weeks of use: kills, full disks, a second sweep, clocks, lost files, trackers that fail.

Whatever happens, the same command ends with the store of an undisturbed sweep. `pytest -m slow
tests/e2e/test_disturbances.py` kills 50 commands at random moments.
"""

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from harness.results.files import Folder
from harness.results.store import Store
from harness.runs import runner
from tests.conftest import RunDecbench
from tests.results.equality import content
from tests.runs.processes import wait_for_end, working_in

SWEEP = ("run", "model=random_mdm", "gen_length=8", "batch_size=2", "measure=traced", "method.temperature=1",
         "save_every_s=0")  # fmt: skip
SMALL = (*SWEEP, "seed=0,1", "task.samples=4")
ENDINGS = ((os.kill, signal.SIGTERM), (os.kill, signal.SIGKILL), (os.killpg, signal.SIGKILL))
LONG = (*SWEEP, "task.samples=48")
BATCHES = 24
"""Batches of a run of the long sweep."""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def undisturbed(tmp_path: Path, call_decbench: RunDecbench) -> Path:
    """Return the store of the small sweep if nothing happens."""
    assert call_decbench(*SMALL, "results_dir=whole").returncode == 0
    return tmp_path / "whole"


@pytest.mark.parametrize("full", [0, 3, 5, 7, 9])
def test_a_full_disk(
    full: int, undisturbed: Path, tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards results against the disk that is full from some file on: one line, and what is stored stays."""
    real, written = Folder.write, []

    def write(self, name, fill):
        written.append(name)
        if len(written) > full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, name, fill)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", write)
        said = call_decbench(*SMALL, "results_dir=store")
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("decbench run: results_dir=store: cannot be written (No space left")
    assert call_decbench(*SMALL, "results_dir=store").returncode == 0
    assert content(tmp_path / "store") == content(undisturbed)


def test_a_clock_that_is_set_back(
    undisturbed: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Guards what is newest: runs that are made again a year earlier come after those of before."""

    class Earlier(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2001, 1, 1, tzinfo=UTC)

    first = Store(root=undisturbed).newest()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "datetime", Earlier)
        assert call_decbench(*SMALL, "results_dir=whole", "resume=false").returncode == 0
    newest = Store(root=undisturbed).newest()
    assert [one.number for one in newest] == [one.number + 1 for one in first] == [2, 2]
    assert {row.year for row in Store(root=undisturbed).read("runs")["created"].to_pylist()} == {2001}
    assert call_decbench(*SMALL, "results_dir=whole").stdout.count("taken from the store") == 2


@pytest.mark.parametrize("table", ["runs", "samples", "steps"])
def test_a_file_that_is_gone(table: str, undisturbed: Path, call_decbench: RunDecbench):
    """Guards a store that somebody tidied: the run whose file is gone is made again, and the other is not."""
    before = content(undisturbed)
    next(iter(sorted((undisturbed / table).glob("*.parquet")))).unlink()
    again = call_decbench(*SMALL, "results_dir=whole")
    assert again.returncode == 0 and again.stdout.count("taken from the store") == 1
    assert content(undisturbed) == before


@pytest.mark.parametrize("fault", [ConnectionError("unreachable"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_tracker_that_fails(
    fault: Exception, undisturbed: Path, tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    """Guards runs against W&B: without a network, or with its quota or disk used up, it costs its report only."""

    def init(**_):
        raise fault

    fake = types.SimpleNamespace(init=init, Settings=dict, Table=dict, Image=dict)
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    assert call_decbench(*SMALL, "results_dir=store", "tracker=wandb").returncode == 0
    assert sum("the tracker failed" in line and str(fault) in line for line in caplog.messages) == 2
    left_out = [row.pop("config") for store in (undisturbed, tmp_path / "store") for row in content(store)["runs"]]
    assert len(left_out) == 4
    assert content(tmp_path / "store", ["samples", "steps"]) == content(undisturbed, ["samples", "steps"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands, each in a group of processes of its own, of which none outlives the test."""
    groups = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "harness", *words, "results_dir=store"]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        groups.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **quiet))
        return groups[-1]

    yield start
    for process in groups:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def batches(folder: Path) -> int:
    """Count the batches of the store: those of runs, and those that are kept of runs which are not finished."""
    kept = sum(1 for _ in folder.glob("store/partial/*/[!.]*.samples.parquet"))
    return kept + BATCHES * sum(1 for _ in folder.glob("store/runs/[!.]*.parquet"))


def reached(process: subprocess.Popen[bytes], folder: Path, wanted: int) -> bool:
    """Wait until a store has so many batches, and return whether the command is still at it."""
    while process.poll() is None and batches(folder) < wanted:
        time.sleep(0.005)
    return process.poll() is None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("launcher", ["inline", "joblib"])
def test_kills_at_random_moments(launcher: str, tmp_path: Path, call_decbench: RunDecbench, start: Start):
    """Guards the promise that nothing is lost: 25 kills, of the command, of all its processes, or asked to end."""
    if launcher != "inline":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    chance, kills, seeds = random.Random(launcher), 0, ""
    for tries in count(1):
        # Each command has two runs more to do than the one before, so that it cannot end before it is killed for long.
        seeds = f"seed=range(0,{2 * tries})"
        process = start(*LONG, seeds, f"launch={launcher}")
        if reached(process, tmp_path, batches(tmp_path) + chance.randint(1, BATCHES)):
            time.sleep(chance.uniform(0, 0.05))
            whom, number = chance.choice(ENDINGS)
            if process.poll() is None:
                whom(process.pid, number)
                kills += 1
        process.wait()
        wait_for_end(tmp_path)
        if kills == 25:
            break
    assert call_decbench(*LONG, seeds, "results_dir=store", f"launch={launcher}").returncode == 0
    assert call_decbench(*LONG, seeds, "results_dir=whole").returncode == 0
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("launcher", "package"), [("joblib", "hydra_plugins.hydra_joblib_launcher"), ("ray", "ray")])
def test_workers_end_with_their_command(
    launcher: str, package: str, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
):
    """Guards a machine against processes that nobody asks any more, and that nobody sees."""
    pytest.importorskip(package)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        process = start(*LONG, "seed=range(0,200)", f"launch={launcher}")
        assert reached(process, tmp_path, 1)
        assert len(working_in(tmp_path)) > 1
        process.kill()
        process.wait()
        wait_for_end(tmp_path)
    assert batches(tmp_path) < 200 * BATCHES


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_sweeps_on_one_store(tmp_path: Path, call_decbench: RunDecbench, start: Start):
    """Guards commands that two people start at once: both end well, and every run is there."""
    both = [start(*LONG, "seed=range(0,12)") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert call_decbench(*LONG, "seed=range(0,12)", "results_dir=whole").returncode == 0
    assert content(tmp_path / "store") == content(tmp_path / "whole")
