"""Runs in other processes: in the order of their models, in pieces where a run is long, and with the same results."""

import io
import json
import logging
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import configure_log
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console

from harness.config.composition import compose
from harness.config.loader import ROOT, loader
from harness.config.source_digest import Reader
from harness.errors import RunFailed
from harness.results.store import Store
from harness.runs import launching
from harness.runs.decode_batch import decode_batch
from harness.runs.launching import Task, Work, grouped, take_own_gpu
from harness.runs.plan import plan
from harness.runs.ray_launcher import RayLauncher
from harness.runs.runner import RunRecord, decode_piece, run
from harness.runs.sweep import expand
from harness.runs.watching import Watch
from tests.conftest import RunDecbench
from tests.results.equality import content
from tests.results.factory import run_row
from tests.runs.processes import wait_for_end

RUN = ["model=random_mdm", "task.samples=7", "gen_length=8", "batch_size=2", "measure=traced", "method.temperature=1"]
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "launch=joblib"),
    "submitit": ("hydra_plugins.hydra_submitit_launcher", "hydra/launcher=submitit_local"),
    "ray": ("ray", "launch=ray"),
}


NAMED = """
import torch

MODULE = torch.nn.Identity()


def generate(prompts, gen_length, seeds, *, x):
    MODULE(torch.tensor(prompts))
    return [[2] for _ in prompts]
"""


@pytest.mark.slow
def test_a_sweep_begins_where_it_is_asked_for(
    tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards notebooks: workers of an earlier sweep wait in its folder, and know the code that was there."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    for name in ("first", "second"):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "path", [*sys.path])
            (folder := tmp_path / name).mkdir()
            (folder / f"{name}.py").write_text(NAMED)
            model = [f"model.target={name}:generate", f"model.module={name}.MODULE", "model.tokenizer=symbols"]
            sweep = ("run", "model=external", *model, "model.kwargs.x=1,2", "task.samples=1", "results_dir=store")
            made = call_decbench(*sweep, "launch=joblib", cwd=folder)
            assert made.returncode == 0, made.stderr
            assert len(Store(root=folder / "store").read("samples")) == 2


@pytest.mark.parametrize(
    ("models", "jobs", "groups"),
    [
        ("abab", 4, [[0], [2], [1], [3]]),
        ("abab", 1, [[0, 2], [1, 3]]),
        ("aaaab", 3, [[0, 2], [1, 3], [4]]),
        ("aaaab", 9, [[0], [1], [2], [3], [4]]),
        ("aaa", 2, [[0, 2], [1]]),
    ],
)
def test_a_group_has_one_model(models: str, jobs: int, groups: list[list[int]]):
    """Guards the minutes of loading a model: workers take all its runs in a row, a job of a cluster only its runs."""
    assert grouped(models, jobs) == groups


@pytest.mark.parametrize(
    ("launcher", "tasks", "jobs"),
    [
        ({"n_jobs": 2}, 20, 20),
        ({"n_jobs": 2}, 1248, 32),
        ({"n_jobs": -1}, 10000, 16 * (os.cpu_count() or 1)),
        ({"workers": 4}, 1248, 64),
        ({"submitit_folder": "x", "array_parallelism": 3}, 1248, 3),
    ],
)
def test_a_long_sweep_is_sent_in_few_jobs(launcher: dict[str, Any], tasks: int, jobs: int):
    """Guards the time of a sweep: each job carries all of it along, and composes the launcher's config anew."""
    assert launching._jobs(OmegaConf.create(launcher), tasks) == jobs


def test_a_launcher_leaves_the_logging_of_others_alone():
    """Guards a process that somebody else leads: launchers set its logging, which closes handlers and their streams.

    That of absl, which others import, is what stood for the standard error then: a notebook's, a test's.
    """
    closed: list[str] = []

    class Watched(logging.StreamHandler):
        def close(self) -> None:
            closed.append("closed")
            super().close()

    handler, chosen = Watched(io.StringIO()), ["launch=joblib"]
    compose(chosen)  # which makes the parts known to the loader
    config = loader().load_configuration(ROOT, chosen, RunMode.MULTIRUN)
    # What each of Hydra's launchers begins with.
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    assert closed == []
    handler.close()


def test_a_job_carries_out_its_group(monkeypatch: pytest.MonkeyPatch):
    """Guards the number of a launcher's job against meaning another group."""
    done: list[tuple[str, bool]] = []

    def recorded(cfg, *, begun, shared):
        done.append((str(cfg.seed), begun))
        return RunRecord(row={"seed": cfg.seed})

    monkeypatch.setattr(launching, "run", recorded)
    first, second, third = (
        Task(overrides=("model=random_mdm", f"seed={seed}"), model="m", begun=seed == 2) for seed in range(3)
    )
    work = Work(groups=((first,), (second, third)))
    assert [one and one["row"] for one in work.carry_out(1)] == [{"seed": 1}, {"seed": 2}]
    assert done == [("1", False), ("2", True)]


def test_the_runs_of_a_process_share_what_the_code_of_parts_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards sweeps of many short runs: all installed packages were looked through for each, longer than it decoded."""
    looked: list[Reader] = []
    made = Reader.__init__
    monkeypatch.setattr(Reader, "__init__", lambda reader: (looked.append(reader), made(reader))[1])
    launching._shared.cache_clear()
    tasks = tuple(
        Task(overrides=(*RUN, "task=list_copy", "method=llada", f"seed={seed}", f"results_dir={tmp_path}"), model="m")
        for seed in range(3)
    )
    rows = [one and one["row"] for one in Work(groups=(tasks,)).carry_out(0)]
    assert [row and row["status"] for row in rows] == ["ok"] * 3
    assert len(looked) == 1


@pytest.mark.parametrize(
    ("process", "visible", "left"),
    [
        ("LokyProcess-1", "0,1,2", "1"),
        ("LokyProcess-5", "4,7", "7"),
        ("LokyProcess-2", "3", "3"),
        ("MainProcess", "0,1", "0,1"),
    ],
)
def test_each_worker_has_a_gpu_of_its_own(process: str, visible: str, left: str, monkeypatch: pytest.MonkeyPatch):
    """Guards against all workers of a machine sharing the first of its cards."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    take_own_gpu(process)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


@pytest.mark.parametrize("resume", ["true", "false"])
def test_pieces_are_put_together_as_if_the_run_were_whole(
    results_dir: Path, tmp_path: Path, resume: str, monkeypatch: pytest.MonkeyPatch
):
    """Guards a split run: all rows and counts are the whole one's, under its name; what a piece lost is decoded."""
    run(compose([*RUN, f"results_dir={tmp_path / 'whole'}"]))
    decoded: list[int] = []

    def counted(*arguments, **named):
        decoded.append(1)
        return decode_batch(*arguments, **named)

    monkeypatch.setattr("harness.runs.street.decode_batch", counted)
    cfg = compose([*RUN, f"results_dir={results_dir}", "split=3", f"resume={resume}"])
    for piece in (0, 2):
        decode_piece(cfg, piece)
    assert len(decoded) == 3 and Store(root=results_dir).attempts() == []
    record = run(cfg, begun=True)
    assert len(decoded) == 4 and not record.resumed
    assert content(results_dir) == content(tmp_path / "whole")
    assert not [*results_dir.glob("partial/*")]


def test_a_run_is_told_as_soon_as_it_is_stored(memory_files: dict[str, object]):
    """Guards a long sweep on a cluster against saying nothing until its end, or anything twice."""
    said = io.StringIO()
    jobs = plan(expand(["model=random_mdm", "seed=0,1", "task.samples=1", "results_dir=memory://store"])).jobs
    with Watch(console=Console(file=said, width=200), jobs=jobs) as watch:
        Store(root="memory://store").write(run_row(jobs[1].job.run_id, setting_id="s"))
        watch.look()
        watch.tell(jobs[1], "ok")
        watch.tell(jobs[0], "failed: x")
    assert [line.partition(" random_mdm")[0] for line in said.getvalue().splitlines()] == ["run 2/2", "run 1/2"]
    assert said.getvalue().endswith(": failed: x\n")


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give Ray a folder with a name that is short enough for its sockets, and see that all workers end."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield
        wait_for_end(tmp_path)


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the smoke sweep as this process makes it."""
    from harness.cli import main

    folder = tmp_path_factory.mktemp("inline")
    assert main(["run", "experiment=smoke", f"results_dir={folder}", "name=null"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_smoke_sweep_is_the_same_everywhere(
    launcher: str, inline: Path, results_dir: Path, run_decbench: RunDecbench
):
    """Guards every launcher: real processes of it leave the store that one process leaves."""
    package, option = LAUNCHERS[launcher]
    pytest.importorskip(package)
    done = run_decbench("run", "experiment=smoke", f"results_dir={results_dir}", "name=null", option)
    assert done.returncode == 0, done.stderr
    assert content(results_dir) == content(inline)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_split_run_is_the_same_everywhere(
    launcher: str, results_dir: Path, tmp_path: Path, call_decbench: RunDecbench, run_decbench: RunDecbench
):
    """Guards pieces that other processes decode, beside runs that are whole."""
    package, option = LAUNCHERS[launcher]
    pytest.importorskip(package)
    command = ["run", *RUN, "save_every_s=0"]
    assert call_decbench(*command, f"results_dir={tmp_path / 'whole'}").returncode == 0
    done = run_decbench(*command, f"results_dir={results_dir}", "split=3", option)
    assert done.returncode == 0, done.stderr
    assert content(results_dir) == content(tmp_path / "whole")
    assert [one.number for one in Store(root=results_dir).attempts()] == [1]


class Ray:
    """As much of Ray as the launcher knows, on a cluster with `room` for workers; jobs take no time."""

    exceptions = types.SimpleNamespace(RayError=RuntimeError)

    def __init__(self, room: int, *, broken: Sequence[int] = ()) -> None:
        self.room, self.broken, self.workers = room, broken, 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.room}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: object) -> Callable[[type], Any]:
        return lambda _: types.SimpleNamespace(remote=self._worker)

    def _worker(self, *_: object) -> Any:
        number, self.workers = self.workers, self.workers + 1
        ready = types.SimpleNamespace(remote=lambda: (number, "ready"))
        return types.SimpleNamespace(
            __ray_ready__=ready, carry_out=types.SimpleNamespace(remote=lambda _, job: (number, job))
        )

    def wait(self, running: list[tuple[int, Any]]) -> tuple[list[Any], list[Any]]:
        done = [one for one in running if one[0] < self.room]
        assert done, f"waits for ever for {running}"
        return done[:1], running[1:]

    def get(self, done: tuple[int, Any]) -> Any:
        if done[0] in self.broken:
            raise RuntimeError("has no such folder")
        return done


def launched_on(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, *, workers: int | None, jobs: int, cpus: int = 1
) -> list[Any]:
    """Return which worker carried out which job."""
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    launcher = RayLauncher(address=None, workers=workers, num_cpus=cpus, num_gpus=None)
    launcher.setup(hydra_context=None, task_function=Work(groups=()), config=None)  # type: ignore[arg-type]
    return [one.return_value for one in launcher.launch([[]] * jobs, 0)]


def test_workers_without_room_get_no_work(monkeypatch: pytest.MonkeyPatch):
    """Guards against a sweep that waits for ever: more workers were asked for than there is room for."""
    assert launched_on(Ray(room=1), monkeypatch, workers=3, jobs=3) == [(0, 0), (0, 1), (0, 2)]


def test_a_machine_where_no_worker_starts_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """Guards runs against the one machine of a cluster that does not see the common folder."""
    assert launched_on(Ray(room=2, broken=[0]), monkeypatch, workers=2, jobs=2) == [(1, 0), (1, 1)]
    with pytest.raises(RuntimeError, match="no such folder"):
        launched_on(Ray(room=2, broken=[0, 1]), monkeypatch, workers=2, jobs=2)


def test_workers_that_fit_nowhere_are_refused(monkeypatch: pytest.MonkeyPatch):
    """Guards against waiting for a machine that does not come."""
    with pytest.raises(RunFailed, match=r"^hydra.launcher.num_cpus=4 hydra.launcher.num_gpus=0: there is 2 CPU$"):
        launched_on(Ray(room=2), monkeypatch, workers=None, jobs=2, cpus=4)


FATAL = """
import os, signal
from pathlib import Path
import torch

MODULE = torch.nn.Identity()


def generate(prompts, gen_length, seeds, *, deaths):
    died = len(list(Path(".").glob("died*")))
    if died < deaths:
        Path(f"died{died}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    MODULE(torch.tensor(prompts))
    return [[2] for _ in prompts]
"""
"""A decoder that has its process killed some times."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_killed_ray_worker_is_tried_once_more(deaths: int, tmp_path: Path, run_decbench: RunDecbench):
    """Guards sweeps against a machine that goes; what goes twice ends in one line, and the other runs are stored."""
    pytest.importorskip("ray")
    (tmp_path / "fatal_ray_sampler.py").write_text(FATAL)
    code = ("model.target=fatal_ray_sampler:generate", "model.module=fatal_ray_sampler.MODULE")
    sweep = ("run", "model=external", *code, "model.tokenizer=symbols", f"model.kwargs.deaths={deaths},0",
             "task.samples=1", "results_dir=store")  # fmt: skip
    said = run_decbench(*sweep, "launch=ray", "hydra.launcher.workers=1")
    stored = Store(root=tmp_path / "store").read("runs").num_rows
    if deaths == 1:
        assert said.returncode == 0 and stored == 2, said.stderr
        return
    assert said.returncode == 1 and stored == 1
    (line,) = (one for one in said.stderr.splitlines() if one.startswith("decbench run: "))
    assert line.startswith("decbench run: launch=ray: ") and "the same command runs what is missing" in line
    again = json.loads(run_decbench(*sweep, "--json").stdout.splitlines()[-1])["runs"]
    assert sorted(one["resumed"] for one in again) == [False, True]
