"""The command, as a user types it; in a process of its own where that is the point."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli import COMMANDS
from harness.config.catalogue import names
from harness.results.store import Store
from tests.conftest import RunDecbench

RUN = ("run", "model=random_mdm", "task.samples=4")
IMPORTED = (
    "import sys; from harness.cli import main; main(sys.argv[2:]); print({*sys.argv[1].split()} & {*sys.modules})"
)


@pytest.mark.parametrize("command", ["", "list methods", "list models", "list tasks", "list experiments"])
def test_looking_around_imports_nothing_heavy(command: str):
    """Guards the second in which help and lists answer."""
    code = "import sys; from harness.cli import main; main(sys.argv[1:]); print({'torch', 'hydra'} & {*sys.modules})"
    process = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True)
    assert process.stdout.strip().endswith("set()"), process.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(command: str, call_decbench: RunDecbench):
    """Guards the page of a command against being that of all."""
    shown = call_decbench(command, "--help")
    assert shown.returncode == 0 and f"decbench {command}" in shown.stdout
    assert shown.stdout != call_decbench("--help").stdout


def test_experiments_say_what_they_do(call_decbench: RunDecbench):
    """Guards the second column, and that lines are not broken where a program reads them."""
    lines = call_decbench("list", "experiments").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(names("experiment"))
    assert all(len(line.split()) > 6 for line in lines)


def test_methods_are_listed_for_programs(run_decbench: RunDecbench):
    """Guards the stable interface of `list --json`."""
    entries = json.loads(run_decbench("list", "methods", "--json").stdout)
    assert {"llada", "dream", "threshold", "factor", "eb", "oracle", "ar_greedy", "ar_sample"} <= {
        entry["name"] for entry in entries
    }
    assert all(
        {"name", "family", "summary", "paper", "lossless", "models", "knobs"} == entry.keys() for entry in entries
    )


def test_a_run_imports_no_library_that_it_does_not_need(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the seconds before and after decoding, those of torch's compiler (sympy) among them; the last line of
    `run --json`; and resume on the second call.
    """
    run = [*RUN, "results_dir=store", "--json"]
    command = [sys.executable, "-c", IMPORTED, "sympy scipy matplotlib transformers wandb", *run]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    *_, summary, imported = first.stdout.splitlines() or [""] * 2
    assert imported == "set()", first.stderr
    assert json.loads(summary)["runs"][0]["status"] == "ok"
    again = call_decbench(*run)
    assert json.loads(again.stdout.splitlines()[-1])["runs"][0]["resumed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], "did you mean run"),
        (["list", "method"], "did you mean methods"),
        (["run", "task.samples=0"], "task.samples=0"),
        (["run", "nonsense"], "key=value"),
        (["conform", "missing.json"], "missing.json"),
        (["conform", "--jsn"], "conform --jsn: no such option"),
        (["doctor", "--bad"], "doctor --bad: takes protocol=NAME"),
        (["doctor", "threshold"], "doctor threshold: takes protocol=NAME"),
        (["train", "tiny"], "no such embedded model"),
        (["train", "tiny_mdm", "out="], "out=: names no folder"),
        (["train", "tiny_mdm", "scale=fast"], "scale=fast: must be a number"),
    ],
)
def test_a_wrong_request_ends_in_one_line(call_decbench: RunDecbench, arguments: list[str], message: str):
    """Guards against tracebacks as the answer to a typo."""
    process = call_decbench(*arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_a_typo_ends_in_one_line_of_a_process(run_decbench: RunDecbench):
    """Guards the exit code, and warnings and logs of everything that a process imports."""
    process = run_decbench("run", "method=thresold")
    assert process.returncode == 2
    assert process.stderr == "decbench run: method=thresold: no such method; did you mean threshold?\n"


@pytest.mark.parametrize(
    "request_",
    ["run method=thresold", "run modle=x", "plan task=list_srt", "show model=tiny_mdn", "generate hi model=x"],
)
def test_a_name_that_is_none_is_told_before_a_framework_is_imported(request_: str):
    """Guards the second in which a typo is answered."""
    command = [sys.executable, "-c", IMPORTED, "torch pandas pyarrow", *request_.split()]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.stdout == "set()\n" and "no such" in process.stderr


def test_what_is_planned_and_stored_is_told_without_them(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the same for a plan and a list, which need no pandas either."""
    assert call_decbench(*RUN).returncode == 0
    both = "import sys; from harness.cli import main; main(sys.argv[2:]); main(['results', 'list'])"
    code = f"{both}; print({{*sys.argv[1].split()}} & {{*sys.modules}})"
    command = [sys.executable, "-c", code, "scipy matplotlib transformers wandb pandas", "plan", *RUN[1:]]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.stdout.endswith("set()\n"), process.stderr
    assert "1 jobs: 1 stored" in process.stdout and "1 runs in results/raw" in process.stdout


def test_show_names_types_and_paper(call_decbench: RunDecbench):
    """Guards the answer to: which knobs does this method have?"""
    text = call_decbench("show", "method=threshold", "method.threshold=0.80").stdout
    assert "method.threshold" in text and "0.80" in text and "2505.22618" in text


def test_show_of_a_model_says_which_fields_are_ignored(call_decbench: RunDecbench):
    """Guards the answer to: what was this checkpoint allowed to say without being understood?"""
    text = call_decbench("show", "model=llada2_mini", "model.ignored_fields=[mtp]").stdout
    assert "16 B active" in text and "llada2" in text
    assert [line.split() for line in text.splitlines() if "ignored" in line] == [["model.ignored_fields", '["mtp"]']]


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, call_decbench: RunDecbench):
    """Guards the store against kill -9, and resume against doing finished work again."""
    sweep = ["run", "model=random_mdm", "task.samples=8", "seed=0,1,2,3", "results_dir=store"]
    process = subprocess.Popen([sys.executable, "-m", "harness", *sweep], cwd=tmp_path, stdout=subprocess.DEVNULL)
    folder = tmp_path / "store" / "runs"
    while process.poll() is None and not (folder.is_dir() and any(folder.glob("*.parquet"))):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = Store(root=tmp_path / "store").read("runs").num_rows
    again = json.loads(call_decbench(*sweep, "--json").stdout.splitlines()[-1])["runs"]
    assert finished >= 1
    assert [r["status"] for r in again] == ["ok"] * 4
    assert sum(r["resumed"] for r in again) >= finished
    assert Store(root=tmp_path / "store").read("runs").num_rows == 4


LONG = ("run", "model=random_mdm", "task.samples=8", "seed=range(0,40)", "results_dir=store")
GOES_ON = "interrupted; finished runs and batches are stored"


def wait_for_a_run(folder: Path, going_on: Callable[[], bool]) -> None:
    """Return when a run is stored, or nothing makes one any more."""
    while going_on() and not any((folder / "store" / "runs").glob("[!.]*.parquet")):
        time.sleep(0.01)


def test_a_command_that_is_asked_to_end_says_how_to_go_on(tmp_path: Path):
    """Guards sweeps on clusters, which end jobs by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *LONG],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),  # a shell's background jobs ignore some
    )
    wait_for_a_run(tmp_path, lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.decode().splitlines()[-1].startswith(GOES_ON)
    assert Store(root=tmp_path / "store").read("runs").num_rows >= 1


@pytest.fixture
def heard() -> Iterator[None]:
    """Hear signals as a command on a terminal does, whatever started the tests."""
    before = signal.signal(signal.SIGHUP, lambda *_: None), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip((signal.SIGHUP, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_terminal_ends_a_command_in_the_same_way(tmp_path: Path, number: signal.Signals, call_decbench: RunDecbench):
    """Guards terminals that are closed, and Ctrl-C."""
    ended = threading.Event()

    def interrupt() -> None:
        wait_for_a_run(tmp_path, lambda: not ended.is_set())
        if not ended.is_set():
            os.kill(os.getpid(), number)

    asking = threading.Thread(target=interrupt)
    asking.start()
    said = call_decbench(*LONG)
    ended.set()
    asking.join()
    assert said.returncode == 128 + number and said.stderr.splitlines()[-1].startswith(GOES_ON)
    assert 1 <= Store(root=tmp_path / "store").read("runs").num_rows < 40


def test_a_command_that_stores_nothing_does_not_say_so_when_it_is_interrupted(
    call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards against looking for runs that only a plan was made of."""

    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt(signal.SIGTERM)

    monkeypatch.setitem(COMMANDS, "plan", interrupted)
    said = call_decbench("plan")
    assert (said.returncode, said.stderr) == (128 + signal.SIGTERM, "interrupted\n")


def test_run_alone_explains_itself(call_decbench: RunDecbench):
    """Guards the first thing that a new user types."""
    process = call_decbench("run")
    assert process.returncode == 2 and "decbench list models" in process.stdout
    assert call_decbench("--version").stdout.startswith("decbench 0")


def test_an_offline_wandb_run_is_written(run_decbench: RunDecbench, tmp_path: Path):
    """Guards what a W&B user finds: an offline run of the run's id inside the results folder."""
    pytest.importorskip("wandb")
    process = run_decbench(*RUN, "tracker=wandb", "results_dir=store", "--json")
    run_id = json.loads(process.stdout.splitlines()[-1])["runs"][0]["run_id"]
    assert list((tmp_path / "store" / "wandb").rglob(f"run-{run_id}-1.wandb"))


FATAL = """
import os, signal, time
from pathlib import Path
import torch

MODULE = torch.nn.Identity()


def generate(prompts, gen_length, seeds, *, fatal):
    if fatal and not Path("killed").exists():
        while not list(Path("store", "runs").glob("[!.]*.parquet")):
            time.sleep(0.01)
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    MODULE(torch.tensor(prompts))
    return [[2] for _ in prompts]
"""
"""A decoder that has its process killed once, when the run of the one that is not fatal is stored."""


def test_a_killed_worker_ends_in_one_line(tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch):
    """Guards sweeps in worker processes against one that runs out of memory: what is finished is stored."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "fatal_sampler.py").write_text(FATAL)
    code = ("model.target=fatal_sampler:generate", "model.module=fatal_sampler.MODULE", "model.tokenizer=symbols")
    sweep = ("run", "model=external", *code, "model.kwargs.fatal=false,true", "task.samples=1", "results_dir=store")
    killed = call_decbench(*sweep, "launch=joblib")
    assert killed.returncode == 1 and "Traceback" not in killed.stderr
    lines = [one for one in killed.stderr.splitlines() if one.startswith("decbench run: ")]
    assert len(lines) == 1, killed.stderr
    assert lines[0].startswith("decbench run: launch=joblib: TerminatedWorkerError: ")
    assert "the same command runs what is missing" in lines[0]
    again = json.loads(call_decbench(*sweep, "--json").stdout.splitlines()[-1])["runs"]
    assert [(one["status"], one["resumed"]) for one in again] == [("ok", True), ("ok", False)]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_short_training_learns_to_copy(run_decbench: RunDecbench, tmp_path: Path):
    """Guards the training command end to end: the loss falls, and the sidecar says what was done."""
    process = run_decbench("train", "tiny_mdm", "scale=0.1", "evaluate=50", "out=trained")
    assert process.returncode == 0, process.stderr
    sidecar = json.loads((tmp_path / "trained" / "training.json").read_text())
    for stage in sidecar["stages"]:
        losses = [loss for _, loss in stage["loss_curve"]]
        assert losses[-1] < losses[0] / 2
    assert min(sidecar["evaluation"]["exact_match"]["copy"].values()) >= 0.9
