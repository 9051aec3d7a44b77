"""The gate as a command: faults put into the code are named by method, sample and step; unchanged code is green."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cli import main
from harness.engine.diffusion import loop as diffusion
from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared import prediction
from harness.errors import RunFailed
from harness.results.gate.baseline import read_baseline
from harness.results.store import Store
from harness.runs.checkouts import Checkout
from methods.diffusion.llada import Split
from tasks.lists.task import ListTask
from tests.conftest import RunDecbench

# Exact laws: wrong answers where two tokens are committed at once, and ties that only the tie rule decides.
LLADA, THRESHOLD = "llada steps=8 block_length=8", "threshold block_length=8"
ASKED = ("model=oracle", "points=['method=llada method.steps=8','method=threshold']", "method.block_length=8",
         "task=list_shuffle", "task.samples=2", "batch_size=2", "gen_length=16", "measure=traced")  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
FIRST = "shuffle-letters-n3-test-s0-0"


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accept a baseline of unchanged code."""
    folder = tmp_path_factory.mktemp("gate")
    file = folder / "base.jsonl"
    assert main(["gate", *ASKED, f"results_dir={folder}", f"gate.baseline={file}", "--accept", "unchanged code"]) == 0
    return file


@pytest.fixture
def gate(call_decbench: RunDecbench, baseline: Path, results_dir: Path) -> Callable[..., dict[str, Any]]:
    """Run the gate on a store of its own and return its JSON, with the exit code."""

    def run(*words: str, base: Path = baseline) -> dict[str, Any]:
        done = call_decbench("gate", *ASKED, f"results_dir={results_dir}", f"gate.baseline={base}", "--json", *words)
        return json.loads(done.stdout.splitlines()[-1]) | {"code": done.returncode}

    return run


def _reversed_ties(score_BL: Tensor) -> Tensor:
    # Later places win by less than any two scores that differ are apart.
    return _scores(score_BL.double() + 1e-12 * torch.arange(score_BL.shape[1]))


_scores = prediction._finite


def _one_more_call_per_block(model: Any, method: Any, canvas: Canvas, ledger: Any, *known: Any) -> Any:
    if not canvas.window_clock_B.any():
        _evaluate(model, method, canvas, ledger)
    return _evaluate(model, method, canvas, ledger, *known)


_evaluate = diffusion.evaluate


def _forgiving(self: ListTask, sample: Any, text: str) -> Any:
    return replace(_score(self, sample, text), correct=True)


_score = ListTask.score


def _one_more(self: Split, canvas: Canvas) -> Tensor:
    return _quota(self, canvas) + 1


_quota = Split.quota

FAULTS = {
    "tie rule": (prediction, "_finite", _reversed_ties, {LLADA: ("outputs", 0), THRESHOLD: ("outputs", 1)}),
    "call": (diffusion, "evaluate", _one_more_call_per_block, {LLADA: ("counters", 0), THRESHOLD: ("counters", 0)}),
    "grader": (ListTask, "score", _forgiving, {LLADA: ("verdicts", None)}),
    "quota": (Split, "quota", _one_more, {LLADA: ("steps", 0)}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_method_sample_and_step(
    fault: str, gate: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    """Guards the purpose of the gate, on the command itself: who differs in what, first where, and nobody else."""
    owner, name, broken, expected = FAULTS[fault]
    monkeypatch.setattr(owner, name, broken)
    found = gate()
    red = {one["setting"]: one["findings"][0] for one in found["settings"] if one["verdict"] == "red"}
    assert found["code"] == 1
    assert {setting: (one["check"], one["step"]) for setting, one in red.items()} == expected
    assert {one["sample"] for one in red.values()} == {FIRST}


def test_unchanged_code_is_green(gate: Callable[..., dict[str, Any]]):
    """Guards against numbers that hang on time, or on what ran before."""
    found = gate()
    assert (found["code"], found["verdict"]) == (0, "green")
    assert [one["findings"] for one in found["settings"]] == [[], []]


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have this machine do so much besides, in processes per processor; they end with this one, however it ends."""
    spin = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(request.param * (os.cpu_count() or 1))]
    yield
    for one in others:
        one.kill()
        one.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("load", [0] * 15 + [3] * 5, indirect=True)
@pytest.mark.usefixtures("load")
def test_the_smoke_experiment_is_as_its_committed_baseline(call_decbench: RunDecbench, results_dir: Path):
    """Guards the committed baseline, 20 times over: it is never red on unchanged code, nor on a busy machine."""
    done = call_decbench("gate", "experiment=smoke", f"results_dir={results_dir}", "--json", cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, found["verdict"]) == (0, "green")
    assert [one["findings"] for one in found["settings"]] == [[]] * len(found["settings"])


def test_what_is_red_without_the_change_does_not_blame_it(
    gate: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Guards blame: the base ran with the same fault, and is asked for the same runs."""
    monkeypatch.setattr(Split, "quota", _one_more)
    assert gate()["code"] == 1
    asked = []

    @contextmanager
    def stored(self: Checkout, overrides: list[str]) -> Iterator[Store]:
        asked.extend(overrides)
        yield Store(root=tmp_path / "results")

    monkeypatch.setattr(Checkout, "stored", stored)
    found = gate(f"gate.base={ROOT}", "gate.time=off")
    assert (found["code"], asked) == (0, list(ASKED))
    assert {one["colour"] for each in found["settings"] for one in each["findings"]} == {"known"}


def test_a_base_that_cannot_run_it_says_nothing(gate: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    """Guards the change that brings an experiment: its base does not know it, and that is told, not red."""

    def stored(self: Checkout, overrides: list[str]) -> None:
        raise RunFailed("base: could not run experiment=new")

    monkeypatch.setattr(Checkout, "stored", stored)
    found = gate(f"gate.base={ROOT}")
    assert (found["code"], found["time"]) == (0, [])
    assert found["notes"] == ["The base could not be compared with: base: could not run experiment=new"]


def test_accepting_says_what_changes_and_keeps_why(
    call_decbench: RunDecbench, baseline: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Guards the baseline's history, settings that did not change, and a baseline that needs no accepting."""
    file = tmp_path / "base.jsonl"
    file.write_text(baseline.read_text())
    words = ("gate", *ASKED, f"gate.baseline={file}", f"results_dir={results_dir}", "--accept")
    monkeypatch.setattr(Split, "quota", _one_more)
    done = call_decbench(*words, "one more per step")
    assert done.returncode == 0 and "| **red** | oracle | `llada steps=8 block_length=8`" in done.stdout
    before, after = read_baseline(baseline), read_baseline(file)
    assert [one.reason for one in after.accepted] == ["unchanged code", "one more per step"]
    assert [one.setting for one in after.settings.values() if one not in before.settings.values()] == [LLADA]
    assert "nothing was accepted" in call_decbench(*words, "again").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gate.tmie=off"], "gate.tmie: no such setting of the gate; did you mean time?"),
        (["gate.time=never"], "gate.time=never: must be one of advise, block, off"),
        (["gate.time=block"], "give gate.base=FOLDER"),
        (["gate.rounds=0"], "gate.rounds=0: must be a whole number from 1"),
        (["gate.base=nowhere"], "gate.base=nowhere: is no checkout of decbench"),
        (["--accept", " "], "--accept: needs the reason"),
        ([], "gate.baseline: nothing names a baseline"),
        (["gate.baseline=none.jsonl"], "none.jsonl: no baseline can be read there"),
        (["--acept", "x"], "did you mean --accept?"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_in_one_line(words: list[str], told: str, call_decbench: RunDecbench):
    """Guards exit code 2, and that nothing has run by then."""
    done = call_decbench("gate", "method=llada", *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert told in done.stderr


def test_a_baseline_holds_no_failures(call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Guards against accepting what went wrong, and shows it as what it is: red."""

    def broken(self: Split, canvas: Canvas) -> Tensor:
        raise ValueError("no quota")

    monkeypatch.setattr(Split, "quota", broken)
    done = call_decbench("gate", *ASKED, "gate.baseline=base.jsonl", "results_dir=store", "--accept", "all of it")
    assert done.returncode == 1 and "no quota" in done.stderr
    assert not (tmp_path / "base.jsonl").exists()
