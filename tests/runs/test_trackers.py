"""Trackers: what each has in common, because it is an option of the group, and what reaches its files."""

import json
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from harness.config.catalogue import names
from harness.config.composition import compose, plain
from harness.config.located import class_at
from harness.results.store import Store
from harness.runs.process import this_process
from harness.runs.trackers.report import Picture, Report
from tests.conftest import RunDecbench

TRACKERS = [name for name in names("tracker") if name != "none"]
RUN = ("run", "model=random_mdm", "task.samples=2", "gen_length=4", "results_dir=store")


def tracker_class(name: str) -> type:
    """Return the class of a tracker."""
    return class_at("tracker", plain(compose([f"tracker={name}"]), "tracker"))


class Told:
    """What a tracker was told, in place of what it would write; reports from the number `fails_at` on are refused."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str) -> None:
        self.reports: list[Report] = []
        self.pictures: list[Picture] = []
        self.cleared: list[str] = []
        self.fails_at, self.error = -1, OSError("No space left on device")
        cls, self._lock = tracker_class(name), Lock()
        patch.setattr(cls, "__post_init__", lambda _: None)
        patch.setattr(cls, "tell", lambda _, report: self._tell(report))
        patch.setattr(cls, "show", lambda _, picture: self.pictures.append(picture))
        patch.setattr(cls, "clear", lambda _, name: self.cleared.append(name))

    def _tell(self, report: Report) -> None:
        with self._lock:
            if 0 <= self.fails_at <= len(self.reports):
                raise self.error
            self.reports.append(report)

    @property
    def ids(self) -> list[str]:
        """Names of the reports, sorted."""
        return sorted(one.id for one in self.reports)


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest) -> str:
    """Name one tracker after the other."""
    return request.param


@pytest.fixture
def told(tracker: str, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Return what it is told."""
    return Told(monkeypatch, tracker)


def test_what_a_store_tells_is_what_its_runs_told(
    tracker: str, told: Told, call_decbench: RunDecbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Guards every field: of runs, of a resumed run under another name, of a failed one, and the picture."""
    live = (*RUN, f"tracker={tracker}", "on_error=record")
    assert call_decbench(*live, "name=first", "seed=0,1").returncode == 0
    assert call_decbench(*live, "name='the second'", "seed=1").returncode == 0
    monkeypatch.setattr("harness.runs.street.decode_batch", None)
    assert call_decbench(*live, "name=first", "seed=2").returncode == 1
    reports, pictures = {one.id: one for one in told.reports}, {one.id for one in told.pictures}
    assert len(reports) == len(told.reports) == 4 and [one.failed for one in told.reports].count(True) == 1
    del told.reports[:], told.pictures[:]
    said = call_decbench("sync", f"tracker={tracker}", "results_dir=store", "--output", "elsewhere")
    assert said.returncode == 0 and "4 of 4 reports" in said.stdout, said.stderr
    assert {one.id: one for one in told.reports} == reports
    assert {one.id for one in told.pictures} <= pictures and told.pictures


def test_everything_is_told_once(tracker: str, told: Told, call_decbench: RunDecbench):
    """Guards a second call, live or not, against another copy of what is there."""
    for _ in range(2):
        call_decbench(*RUN, f"tracker={tracker}", "name=first")
    for _ in range(2):
        assert call_decbench("sync", f"tracker={tracker}", "results_dir=store").returncode == 0
    assert len(told.reports) == 1 and len({one.id for one in told.pictures}) == len(told.pictures)


def test_another_destination_is_told_too(tracker: str, told: Told, call_decbench: RunDecbench):
    """Guards what was synced to files first, and goes to a server or another project later."""
    call_decbench(*RUN, f"tracker={tracker}")
    call_decbench("sync", f"tracker={tracker}", "tracker.project=other", "results_dir=store")
    assert len(told.reports) == 2


@pytest.mark.parametrize("error", [OSError("No space left on device"), ConnectionError("unreachable")])
def test_a_tracker_that_cannot_be_told_loses_nothing(
    error: Exception, tracker: str, told: Told, call_decbench: RunDecbench, tmp_path: Path
):
    """Guards a full disk and a server that is away: one line, exit code 1, and the rest another time."""
    call_decbench(*RUN, "seed=0,1,2")
    before = {file: file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()}
    told.fails_at, told.error = 1, error
    said = call_decbench("sync", f"tracker={tracker}", "results_dir=store")
    assert said.returncode == 1 and str(error) in said.stderr and len(said.stderr.splitlines()) == 1
    assert {file: file.read_bytes() for file in before} == before
    told.fails_at = -1
    assert call_decbench("sync", f"tracker={tracker}", "results_dir=store").returncode == 0
    assert len(told.ids) == 3 == len({*told.ids}) and len(told.cleared) >= 1


def test_a_live_run_outlasts_its_tracker(
    tracker: str, told: Told, call_decbench: RunDecbench, caplog: pytest.LogCaptureFixture
):
    """Guards the run and its exit code; one warning says what happened, and a later sync makes up for it."""
    told.fails_at = 0
    assert call_decbench(*RUN, f"tracker={tracker}").returncode == 0
    assert sum("the tracker failed" in one.message for one in caplog.records) == 1
    told.fails_at = -1
    call_decbench("sync", f"tracker={tracker}", "results_dir=store")
    assert len(told.reports) == 1


def test_what_a_killed_process_began_is_cleared_away(
    tracker: str, told: Told, call_decbench: RunDecbench, tmp_path: Path
):
    """Guards against half a report beside the whole one, and against two that tell the same at a time."""
    call_decbench(*RUN, f"tracker={tracker}")
    (note,) = (tmp_path / "store" / tracker / "reported").glob("*/*")
    (name,), claim = told.ids, note.with_name(f"{note.name}.claim")
    note.unlink()
    claim.write_text(json.dumps(this_process()))
    call_decbench("sync", f"tracker={tracker}", "results_dir=store")
    assert (told.ids, told.cleared) == ([name], [])
    claim.write_text(json.dumps(this_process() | {"started": "1"}))
    call_decbench("sync", f"tracker={tracker}", "results_dir=store")
    assert (told.ids, told.cleared) == ([name, name], [name]) and not claim.exists()


def test_an_absent_package_is_named(tracker: str, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch):
    """Guards the one command that would get it."""
    call_decbench(*RUN)
    for module in [one for one in sys.modules if one == tracker or one.startswith(f"{tracker}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, tracker, None)
    said = call_decbench("sync", f"tracker={tracker}", "results_dir=store")
    assert said.returncode == 2 and f"pip install 'decbench[{tracker}]'" in said.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs a tracker"),
        (["tracker=wandbb"], "did you mean wandb?"),
        (["tracker=wandb", "tracker.mod=x"], "tracker.mod"),
        (["tracker=wandb", "statsu=ok"], "did you mean status?"),
    ],
)
def test_a_wrong_request_ends_in_one_line(words: list[str], message: str, call_decbench: RunDecbench):
    """Guards against tracebacks as the answer to a typo."""
    said = call_decbench("sync", *words)
    assert said.returncode == 2 and message in said.stderr and len(said.stderr.splitlines()) == 1


def test_a_tracker_of_a_users_own_is_told(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the protocol: a class in a folder is all that another tracker needs."""
    options = tmp_path / "own" / "conf" / "tracker"
    options.mkdir(parents=True)
    (options / "lines.yaml").write_text("name: lines\n_target_: my_lines.Lines\nend: '.'\n")
    (tmp_path / "own" / "my_lines.py").write_text(
        "class Lines:\n"
        "    place = 'lines'\n"
        "    def __init__(self, folder, end):\n"
        "        self.file, self.end = folder / 'lines.txt', end\n"
        "    def tell(self, report):\n"
        "        self.file.write_text(report.id + self.end)\n"
        "    def show(self, picture):\n"
        "        pass\n"
    )
    said = call_decbench(*RUN, "tracker=lines", "--config-dir", "own")
    (run_id,) = Store(root=tmp_path / "store").read("runs")["run_id"].to_pylist()
    assert said.returncode == 0 and (tmp_path / "store" / "lines" / "lines.txt").read_text() == f"{run_id}-1."


def test_mlflow_holds_all_that_was_told(call_decbench: RunDecbench, tmp_path: Path):
    """Guards what a reader of MLflow finds: parameters, metrics, tags, samples; local files, and no network."""
    pytest.importorskip("mlflow")
    said = call_decbench(*RUN, "tracker=mlflow", "name=first")
    assert said.returncode == 0 and "mlflow" in said.stdout
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "store" / "mlflow" / "mlruns").as_uri())
    (experiment,) = [one for one in client.search_experiments() if one.name == "decbench"]

    def runs() -> dict[str, Any]:
        return {one.data.tags["decbench.kind"]: one for one in client.search_runs([experiment.experiment_id])}

    (row,) = Store(root=tmp_path / "store").read("runs").to_pylist()
    run = runs()["run"]
    assert run.data.tags["decbench.id"] == f"{row['run_id']}-1" and run.data.tags["decbench.sweep"] == "first"
    assert (run.data.tags["method"], run.info.status) == ("llada", "FINISHED")
    assert run.data.metrics["nfe"] == row["nfe"] and run.data.metrics["accuracy"] == row["accuracy"]
    assert run.data.params["models.target.name"] == "random_mdm" and run.data.params["git_commit"] == row["git_commit"]
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "samples.json")).read_text())
    assert len(table["data"]) == 2 and "output_text" in table["columns"]
    client.set_terminated(run.info.run_id, "RUNNING")
    folder = tmp_path / "store" / "mlflow"
    tracker_class("mlflow")(uri=None, project="decbench", folder=folder).clear(run.data.tags["decbench.id"])
    assert not [
        one for one in client.search_runs([experiment.experiment_id]) if one.data.tags["decbench.kind"] == "run"
    ]


def test_wandb_files_are_whole_and_can_be_cleared(call_decbench: RunDecbench, tmp_path: Path):
    """Guards offline files of stored runs: one folder per attempt, however often, and no second one after a kill."""
    pytest.importorskip("wandb")
    call_decbench(*RUN, "seed=0,1")
    for _ in range(2):
        assert call_decbench("sync", "tracker=wandb", "results_dir=store").returncode == 0
    folders = sorted((tmp_path / "store" / "wandb" / "wandb").glob("offline-run-*"))
    ids = Store(root=tmp_path / "store").read("runs")["run_id"].to_pylist()
    assert sorted(one.name.split("-", 3)[3] for one in folders) == sorted(f"{one}-1" for one in ids)
    assert all(next(one.glob("run-*.wandb")).stat().st_size > 0 for one in folders)
    cls = tracker_class("wandb")
    cls(mode="offline", project="p", entity=None, folder=tmp_path / "store" / "wandb").clear(f"{ids[0]}-1")
    assert len([one for one in folders if one.exists()]) == 1
