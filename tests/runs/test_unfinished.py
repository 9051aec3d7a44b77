"""A run that was stopped goes on at the batch where it stopped, and ends as if it had not been."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.config.composition import compose
from harness.results.files import Folder
from harness.results.schemas import SAMPLES, STEPS, without_names
from harness.results.store import Store
from harness.runs.decode_batch import decode_batch
from harness.runs.runner import run
from harness.runs.street import Batch
from harness.runs.unfinished import Unfinished
from tests.results.equality import content

RUN = ["model=random_mdm", "task.samples=7", "gen_length=8", "batch_size=2", "measure=traced", "method.temperature=1"]


Content = dict[str, list[dict[str, Any]]]


def composed(folder: Path, *overrides: str):
    """Compose a small traced run that keeps every batch."""
    return compose([*RUN, f"results_dir={folder}", "save_every_s=0", *overrides])


class Stopper:
    """Decodes, and raises in the batch with the number `at`, from 0."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.calls = at, error, 0

    def __call__(self, *arguments, **named):
        self.calls += 1
        if self.calls > self.at:
            raise self.error
        return decode_batch(*arguments, **named)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Return what the run leaves if nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(composed(folder))
    assert not list((folder / "partial").iterdir())
    return content(folder)


@pytest.mark.parametrize(("at", "error"), [(0, RuntimeError()), (1, KeyboardInterrupt()), (3, MemoryError())])
def test_a_stopped_run_goes_on_at_its_batch(
    results_dir: Path, undisturbed: Content, at: int, error: BaseException, monkeypatch: pytest.MonkeyPatch
):
    """Guards hours of decoding: only missing batches are decoded, whatever stopped it, and all rows are the same."""
    monkeypatch.setattr("harness.runs.street.decode_batch", Stopper(at, error))
    with pytest.raises(type(error)):
        run(composed(results_dir, "save_every_s=3600"))
    assert Store(root=results_dir).read("samples").num_rows == 0
    rest = Stopper(99, error)
    monkeypatch.setattr("harness.runs.street.decode_batch", rest)
    record = run(composed(results_dir))
    assert rest.calls == 4 - at and not record.resumed
    assert content(results_dir) == undisturbed
    assert not [*(results_dir / "partial").rglob("*.parquet")]


def test_unfinished_batches_are_seen_by_nobody(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards joins and globs of the README: half a run is no result, also for readers that know nothing of us."""
    import duckdb

    run(composed(results_dir, "seed=1"))
    monkeypatch.setattr("harness.runs.street.decode_batch", Stopper(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(composed(results_dir))
    (folder,) = (results_dir / "partial").iterdir()
    assert len([*folder.glob("*.parquet")]) == 2 * 2
    count = f"select count(*) from '{results_dir}/samples/*.parquet'"
    assert duckdb.sql(count).fetchall() == [(7,)]
    assert Store(root=results_dir).read("runs")["seed"].to_pylist() == [1]


@pytest.mark.parametrize("fault", ["short", "bit", "steps", "other run"])
def test_batches_that_cannot_be_trusted_are_decoded_again(
    results_dir: Path,
    undisturbed: Content,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Guards results against batches that were cut, changed, or belong to another run."""
    monkeypatch.setattr("harness.runs.street.decode_batch", Stopper(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(composed(results_dir))
    if fault == "other run":
        monkeypatch.setattr("harness.runs.street.decode_batch", Stopper(2, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(composed(results_dir, "seed=1"))
    damage(results_dir, fault)
    rest = Stopper(99, KeyboardInterrupt())
    monkeypatch.setattr("harness.runs.street.decode_batch", rest)
    run(composed(results_dir))
    assert rest.calls == 3 and "decoded again" in caplog.text
    assert content(results_dir) == undisturbed


def damage(results_dir: Path, fault: str) -> None:
    """Spoil one of the two pairs of files that the first of two runs has kept."""
    first, *others = sorted((results_dir / "partial").iterdir(), key=lambda folder: folder.stat().st_ctime_ns)
    samples = next(iter(sorted(first.glob("*.samples.parquet"))))
    steps = samples.with_name(samples.name.replace(".samples.", ".steps."))
    content = bytearray(samples.read_bytes())
    if fault == "short":
        samples.write_bytes(content[:-20])
    elif fault == "bit":
        content[300] ^= 1
        samples.write_bytes(content)
    elif fault == "steps":
        steps.unlink()
    else:
        samples.write_bytes(next(others[0].glob("*.samples.parquet")).read_bytes())


def test_a_timed_run_starts_anew(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards seconds against being put together from two processes."""
    timed = ["measure=timed", "measure.repetitions=1"]
    monkeypatch.setattr("harness.runs.street.decode_batch", Stopper(3, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(composed(results_dir, *timed))
    assert not (results_dir / "partial").exists()


def test_a_run_that_is_made_again_takes_nothing_over(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards `resume=false`."""
    monkeypatch.setattr("harness.runs.street.decode_batch", Stopper(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(composed(results_dir))
    whole = Stopper(99, KeyboardInterrupt())
    monkeypatch.setattr("harness.runs.street.decode_batch", whole)
    run(composed(results_dir, "resume=false"))
    assert whole.calls == 4


def batch(first: int) -> Batch:
    """Return a batch of one sample with one step."""
    sample = dict.fromkeys(without_names(SAMPLES)) | {"sample_id": f"s{first}", "repetition": 0}
    step = dict.fromkeys(without_names(STEPS)) | {"sample_id": f"s{first}", "scores": [0.5]}
    return Batch(repetition=0, places=[first], samples=[sample], steps=[step])


def by_place(batches: Sequence[Batch]) -> list[Batch]:
    """Return batches in the order of their samples: files have random names."""
    return sorted(batches, key=lambda one: one.places)


@pytest.mark.usefixtures("memory_files")
def test_writing_is_rare():
    """Guards the time of a run of many short batches: files are written once in thirty seconds, on any file system."""
    seconds = iter([0.0, 10.0, 29.0, 30.0, 30.0, 45.0, 59.0, 59.0])
    folder = Folder.at("memory://store")
    made = Unfinished(folder=folder, setting_id="s", run_id="r", every_s=30, clock=lambda: next(seconds))
    counts = []

    def decode() -> None:
        with made:
            for first in range(5):
                made.keep(batch(first))
                counts.append(len(folder.names("partial/r")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode()
    assert counts == [0, 0, 2, 2, 2]
    ids = [f"s{index}" for index in range(5)]
    assert by_place(made.take_over(ids)) == [batch(first) for first in range(5)]
    assert by_place(made.take_over(["t0", *ids[1:]])) == [batch(first) for first in range(1, 5)]
    made.discard()
    assert made.take_over(ids) == []


COMMAND = [sys.executable, "-m", "harness", "run", *RUN[:1], "task.samples=60", *RUN[2:5], "results_dir=store",
           "save_every_s=0"]  # fmt: skip


def started(folder: Path, batches: int) -> subprocess.Popen[bytes]:
    """Start the command, and return when so many batches are kept."""
    process = subprocess.Popen(COMMAND, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and len([*folder.glob("store/partial/*/[!.]*.samples.parquet")]) < batches:
        time.sleep(0.005)
    return process


def test_a_command_that_is_killed_goes_on(tmp_path: Path, call_decbench):
    """Guards the whole way: kill -9, SIGTERM, two processes at once, and in the end the rows of an undisturbed run."""
    whole = tmp_path / "whole"
    call_decbench("run", *COMMAND[4:-2], f"results_dir={whole}")
    killed = started(tmp_path, 2)
    killed.kill()
    killed.wait()
    one, other = started(tmp_path, 5), started(tmp_path, 5)
    one.send_signal(signal.SIGTERM)
    said = one.communicate()[1].decode().splitlines()
    assert one.returncode == 128 + signal.SIGTERM
    assert said[-1].startswith("interrupted; finished runs and batches are stored")
    assert other.wait() == 0, other.communicate()
    assert call_decbench("run", *COMMAND[4:]).returncode == 0
    assert content(tmp_path / "store") == content(whole)
    assert len(Store(root=tmp_path / "store").attempts()) == 1
