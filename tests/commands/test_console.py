"""What commands print: whole lines where a program reads them, names of runs on a terminal."""

import io
import re

import pytest
from rich.console import Console

from harness.commands.console import console
from harness.runs.progress import SweepProgress
from tests.conftest import RunDecbench
from tests.test_architecture import PRODUCT, name_of

LONG = ("method=llada", "method/finish=predict_eos", "method.finish.confidence=0.50", "method/verifier=freedave",
        "method.verifier.draft_steps=2", "method.score_dtype=float64", "method.logits_eos_inf=true")  # fmt: skip
SETTING = "llada logits_eos_inf=True score_dtype=float64 finish=predict_eos finish.confidence=0.50 verifier=freedave"


def test_a_piped_table_of_runs_breaks_no_line(call_decbench: RunDecbench):
    """Guards grep and cut on tables, and progress that names what it takes from the store."""
    asked = ("run", "model=random_mdm", "task.samples=1", "gen_length=4", "results_dir=store", *LONG)
    call_decbench(*asked)
    lines = call_decbench(*asked).stdout.splitlines()
    assert lines[0].startswith(f"run 1/1 random_mdm {SETTING}") and lines[1] == "  taken from the store"
    (row,) = (line for line in lines if re.search(rf"^\s*{re.escape(SETTING)}.* \d+[.]\d \[", line))
    assert row.split()[-1] and not any("…" in line for line in lines)


def test_text_in_brackets_is_no_style(capsys: pytest.CaptureFixture[str]):
    """Guards lists in settings, which the terminal library would swallow."""
    console().print("order=[bold,up] [red]", "x" * 300)
    assert capsys.readouterr().out == f"order=[bold,up] [red] {'x' * 300}\n"


def test_a_resumed_run_is_named_on_a_terminal():
    """Guards the lines that a bar leaves behind: which run it was that was taken, or failed."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    with SweepProgress(console=screen, runs=2) as progress:
        progress.begin("tiny_mdm llada order=[bold] list_copy")
        progress.end("taken from the store")
    assert "run 1/2 tiny_mdm llada order=[bold] list_copy: taken from the store" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_consoles_are_made_in_one_place():
    """Guards the next command against lines that break in pipes; tables of sweeps are also written elsewhere."""
    making = {name_of(path) for path in PRODUCT if re.search(r"\bConsole\(", path.read_text())}
    assert making == {"harness/commands/console.py", "harness/results/report_sweep.py"}
