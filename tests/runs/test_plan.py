"""A sweep is a plan: all of its jobs are checked before the first one runs, and the user says what an error stops."""

from pathlib import Path

import pytest

from harness.models.embedded import EmbeddedModel
from harness.results.store import Store
from tests.conftest import RunDecbench

SMALL = ("run", "model=random_mdm", "task.samples=2", "gen_length=8", "results_dir=store")

REFUSALS = {
    ("seed=range(0,6)", "task.samples=2,0"): "job 2 of 12 (seed=0 task.samples=0): task.samples=0: must be at least",
    ("method=threshold,eb", "method.threshold=0.5"): "job 2 of 2 (method=eb): method.threshold: method=eb has no such",
    ("method=llada,thresold",): "(method=thresold): method=thresold: no such method; did you mean threshold",
    ("method=llada", "method.steps=4,many"): "job 2 of 2 (method.steps=many): method.",
    ("method=llada,ar_greedy",): "method=ar_greedy: does not run on model=random_mdm",
    ("method=llada", "method.block_length=4,5"): "method.block_length=5: must divide gen_length=8",
    ("task.data=null,absent.jsonl",): "job 2 of 2 (task.data=absent.jsonl): absent.jsonl: cannot be read",
    ("method=threshold", "method.threshold=0.5,nan"): "method.threshold=nan: must be a finite number",
    ("seed=1,99999999999999999999",): "seed=99999999999999999999: must lie from",
    ("batch_size=1,9999999999",): "batch_size=9999999999: must be at most 2147483647",
    ("device=cpu,cuda",): "device.device=cuda: this machine has no usable CUDA device; use device=cpu",
    ("device.threads=1,two",): "device.threads=two: must be a whole number from 1 to 1024",
}


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a machine without a GPU, whatever it has."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no model be loaded."""
    monkeypatch.setattr("harness.config.build.load_model", None)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("choices", REFUSALS, ids=" ".join)
def test_a_job_that_cannot_be_is_refused_before_the_first_runs(
    choices: tuple[str, ...], call_decbench: RunDecbench, tmp_path: Path
):
    """Guards a night's sweep against a bad value that shows in the morning."""
    process = call_decbench(*SMALL, *choices)
    assert process.returncode == 2 and not (tmp_path / "store").exists()
    (line,) = process.stderr.splitlines()
    assert line.startswith("decbench run: job 2 of ") and REFUSALS[choices] in line and "on_error=record" in line


@pytest.mark.parametrize("choices", [one for one in REFUSALS if "seed=range(0,6)" not in one], ids=" ".join)
def test_a_refused_job_is_stored_and_the_others_run_where_the_user_says_so(
    choices: tuple[str, ...], call_decbench: RunDecbench, tmp_path: Path
):
    """Guards sweeps with impossible pairs, whatever it is that cannot be: even what has no config has a row."""
    process = call_decbench(*SMALL, *choices, "on_error=record")
    rows = Store(root=tmp_path / "store").read("runs").to_pylist()
    skipped = next(row for row in rows if row["status"] == "skipped")
    assert process.returncode == 0, process.stderr
    assert sorted(row["status"] for row in rows) == ["ok", "skipped"] and skipped["model"] == "random_mdm"
    assert skipped["error"] in process.stdout and "Traceback" not in process.stderr
    reason = REFUSALS[choices]
    assert (reason.partition("): ")[2] or reason) in skipped["error"]


@pytest.mark.parametrize(("on_error", "statuses", "code"), [("stop", ["failed"], 1), ("record", ["failed", "ok"], 1)])
def test_the_user_says_what_a_failure_stops(
    on_error: str, statuses: list[str], code: int, call_decbench: RunDecbench, tmp_path: Path
):
    """Guards both: a sweep that ends at the first failure, and one that goes on."""
    process = call_decbench(*SMALL, "gen_length=120,8", f"on_error={on_error}")
    rows = Store(root=tmp_path / "store").read("runs").to_pylist()
    assert process.returncode == code
    assert sorted(row["status"] for row in rows) == statuses
    if on_error == "stop":
        (line,) = process.stderr.splitlines()
        assert line.startswith("decbench run: job 1 of 2 (gen_length=120): task=list_copy, sample ")


def test_a_single_run_that_fails_ends_in_one_line(call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch):
    """Guards the exit code against telling a failure from a request that cannot be."""
    monkeypatch.setattr(EmbeddedModel, "forward", lambda *a, **k: 1 / 0)
    process = call_decbench(*SMALL)
    assert process.returncode == 1
    assert process.stderr == "decbench run: ZeroDivisionError: division by zero\n"


def test_the_old_word_is_refused_with_the_new_one(call_decbench: RunDecbench):
    """Guards scripts that say what ended a command before."""
    process = call_decbench(*SMALL, "on_error=raise")
    assert process.returncode == 2 and "on_error=raise: must be stop or record; raise is called stop" in process.stderr


def test_a_key_given_once_may_need_the_options_that_are_chosen(call_decbench: RunDecbench):
    """Guards knobs that all chosen methods have and the default method has not."""
    process = call_decbench(*SMALL, "method=threshold,factor", "method.score_dtype=float64", "--json")
    assert process.returncode == 0, process.stderr
    assert call_decbench(*SMALL, "method=threshold", "method.threshold=0.5,0.9").returncode == 0
