"""Base and change as two checkouts, timed by their own command lines."""

import shutil
from pathlib import Path

import pytest

from harness.errors import ConfigError, RunFailed
from harness.results.gate.timing import Pace, speeds
from harness.runs.checkouts import WHOLE, Checkout, timed

ROOT = Path(__file__).resolve().parents[2]
SLOWER = """

_as_it_was = decode


def decode(*given, on_progress, **named):
    import time

    before = time.process_time()

    def slower(*told):
        nonlocal before
        spent = time.process_time() - before
        while time.process_time() < before + 1.3 * spent:
            pass
        before = time.process_time()
        on_progress(*told)

    return _as_it_was(*given, on_progress=slower, **named)
"""


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path):
    """Guards against timing the installed package twice."""
    with pytest.raises(ConfigError, match="is no checkout of decbench"):
        Checkout(folder=tmp_path)


def test_what_a_checkout_cannot_run_is_told_with_its_own_words():
    """Guards against a base that knows no such method passing for one that is as it should be."""
    with pytest.raises(RunFailed, match="no_such_method"), Checkout(folder=ROOT).stored(["method=no_such_method"]):
        pass


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_slowdown_of_30_percent_is_seen_and_none_is_not(tmp_path: Path):
    """Guards the whole way of a time: a loop that takes 1.3 times as long, in a copy, on a machine under any load."""
    for part in ("harness", "methods", "tasks", "conf"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "harness" / "engine" / "diffusion" / "loop.py").open("a") as file:
        file.write(SLOWER)
    asked = ["method=llada", "task=list_sort", "task.samples=32", "batch_size=8", "gen_length=16"]
    here, slower = Checkout(folder=ROOT), Checkout(folder=tmp_path)
    found = {one.setting: one for one in speeds(timed(here, slower, asked, most=12, told=lambda number: None))}
    assert {*found} == {"tiny_mdm llada list_sort", WHOLE}
    assert found["tiny_mdm llada list_sort"].pace is Pace.SLOWER
    assert found["tiny_mdm llada list_sort"].ratio == pytest.approx(1.3, abs=0.1)
    same = speeds(timed(here, here, asked, most=12, told=lambda number: None))
    assert not any(one.pace is Pace.SLOWER for one in same)
