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
import time
import types
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.results.files import Folder
from harness.results.store import Store
from harness.runs import runner
from tests.conftest import RunDecbench
from tests.results.equality import content

SWEEP = ("run", "model=random_mdm", "gen_length=8", "batch_size=2", "measure=traced", "method.temperature=1",
         "save_every_s=0")  # fmt: skip
SMALL = (*SWEEP, "seed=0,1", "task.samples=4")
ENDINGS = ((os.kill, signal.SIGTERM), (os.kill, signal.SIGKILL), (os.killpg, signal.SIGKILL))
LONG = (*SWEEP, "seed=range(0,12)", "task.samples=96")


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


def started(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start the long sweep in a group of processes of its own."""
    command = [sys.executable, "-m", "harness", *LONG, "results_dir=store", *options]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def files(folder: Path) -> int:
    """Count what has been written to the store and its unfinished batches."""
    return sum(1 for kind in ("runs", "partial/*") for _ in folder.glob(f"store/{kind}/[!.]*.parquet"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("launcher", ["inline", "joblib"])
def test_kills_at_random_moments(launcher: str, tmp_path: Path, call_decbench: RunDecbench):
    """Guards the promise that nothing is lost: 25 kills, of the command, of all its processes, or asked to end."""
    if launcher != "inline":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    chance = random.Random(launcher)
    for _ in range(25):
        process, wanted = started(tmp_path, f"launch={launcher}"), files(tmp_path) + chance.randint(1, 30)
        while process.poll() is None and files(tmp_path) < wanted:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        whom, number = chance.choice(ENDINGS)
        if process.poll() is None:
            whom(process.pid, number)
        process.wait()
    assert call_decbench(*LONG, "results_dir=store", f"launch={launcher}").returncode == 0
    assert call_decbench(*LONG, "results_dir=whole").returncode == 0
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_sweeps_on_one_store(tmp_path: Path, call_decbench: RunDecbench):
    """Guards commands that two people start at once: both end well, and every run is there."""
    both = [started(tmp_path), started(tmp_path)]
    assert [process.wait() for process in both] == [0, 0]
    assert call_decbench(*LONG, "results_dir=whole").returncode == 0
    assert content(tmp_path / "store") == content(tmp_path / "whole")
