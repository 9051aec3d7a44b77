"""What `decbench new` writes runs at once, keeps the promises, and overwrites nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config.plugin_folders import VARIABLE
from tests.conftest import RunDecbench

RUN = {
    "method": "method=mine model=tiny_mdm task=list_copy task.samples=2",
    "task": "task=mine model=tiny_mdm method=threshold",
    "model": "model=mine method=threshold task=list_copy task.samples=2",
}


@pytest.mark.parametrize("kind", RUN)
def test_what_is_written_runs_and_keeps_the_promises(
    kind: str, tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards the first minutes of a new user, and files of theirs against a second call."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "own" / "parts"
    made = call_decbench("new", kind, "mine", "--into", str(folder))
    written = [folder / "mine.py", folder / "conf" / kind / "mine.yaml", folder / "tests" / "test_mine.py"]
    assert made.returncode == 0 and all(file.is_file() and f"wrote {file}\n" in made.stdout for file in written)
    monkeypatch.setenv(VARIABLE, str(folder))
    run = call_decbench("run", *RUN[kind].split(), "results_dir=store", "--json")
    assert json.loads(run.stdout.splitlines()[-1])["runs"][0]["status"] == "ok", run.stderr
    words = ["kind=block_diffusion", "rule=counting"] if kind == "method" else []
    checked = call_decbench("check", f"{kind}=mine", *words)
    assert checked.returncode == 0, checked.stdout
    written[0].write_text("x = 1\n")
    monkeypatch.delenv(VARIABLE)
    again = call_decbench("new", kind, "mine", "--into", str(folder))
    assert again.returncode == 2 and f"{written[0]}: exists already" in again.stderr
    assert written[0].read_text() == "x = 1\n"


def test_the_test_that_is_written_passes(tmp_path: Path, call_decbench: RunDecbench):
    """Guards the test beside a new task, as pytest runs it anywhere."""
    assert call_decbench("new", "task", "mine").returncode == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_mine.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0 and "2 passed" in process.stdout, process.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method threshold", "method=threshold exists already"),
        ("method Mine", "a name is lower-case letters"),
        ("method my-own", "a name is lower-case letters"),
        ("method ../mine", "a name is lower-case letters"),
        ("task class", "is a word of Python"),
        ("task random", "a module random is installed"),
        ("model torch", "a module torch is installed"),
        ("method wide_in", "there is a selector wide_in"),
        ("policy mine", "write decbench new method|task|model NAME"),
        ("method mine --into", "--into names no folder"),
        ("method", "write decbench new method|task|model NAME"),
    ],
)
def test_a_name_that_cannot_be_is_refused(words: str, said: str, call_decbench: RunDecbench, tmp_path: Path):
    """Guards names that would be imported, found or read as something else; nothing is written."""
    process = call_decbench("new", *words.split())
    assert process.returncode == 2 and said in process.stderr and len(process.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
