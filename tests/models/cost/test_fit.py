"""A machine is told from the times of calls: its own numbers where they are exact, and nothing beyond what was seen."""

import csv
import json
import random
from pathlib import Path

import pytest

from harness.errors import ConfigError, DataError
from harness.models.cost.fit import Timed, fit, read_fit, timed
from harness.models.cost.machine import Machine
from harness.models.cost.shape import shape_of
from harness.models.cost.work import Call, Work, work_of
from harness.models.public.synthetic import SHAPES
from tests.conftest import RunDecbench

SHAPE = shape_of(SHAPES["dream_7b_instruct"])
TRUE = Machine(flops=3e14, bandwidth=2e12, overhead_s=2e-3)
CALLS = [
    Call.even(rows=rows, query=query, keys=keys)
    for rows in (1, 4, 16)
    for query in (1, 8, 64, 512)
    for keys in (512, 2048)
]


def measured(noise: float = 0.0) -> list[Timed]:
    """Return calls with the times of a machine that is known, give or take a share."""
    draw = random.Random(0)
    return [
        timed(SHAPE, call, TRUE.seconds(work_of(SHAPE, call)) * (1 + draw.uniform(-noise, noise))) for call in CALLS
    ]


def test_exact_times_give_the_machine_back():
    """Guards the fit: rates and overhead of a machine with both walls of the roof, from calls at each."""
    every = measured()
    found = fit([one for place, one in enumerate(every) if place % 3], every[::3])
    assert found.machine.flops == pytest.approx(TRUE.flops, rel=1e-3)
    assert found.machine.bandwidth == pytest.approx(TRUE.bandwidth, rel=1e-2)
    assert found.machine.overhead_s == pytest.approx(TRUE.overhead_s, rel=2e-2)
    assert found.worst_error < 1e-2 and found.calls == 16


def test_errors_are_those_of_calls_that_were_held_out():
    """Guards the claim about predictions: a call that was fitted to tells nothing of them."""
    every = measured(noise=0.1)
    slow = [timed(SHAPE, one.call, 2 * one.seconds) for one in every[:2]]
    found = fit(every[2:], slow)
    assert found.median_error == pytest.approx(0.5, abs=0.06) and found.worst_error >= found.median_error


def test_nothing_is_said_beyond_what_was_measured():
    """Guards predictions for a model a hundred times as large, or a single number smaller."""
    every = measured()
    found = fit(every[1:], every[:1])
    assert found.seconds(every[3].work) == pytest.approx(every[3].seconds, rel=1e-2)
    for work, what in ((Work(linear_flops=1e18, weight_bytes=2e10), "flops"), (Work(linear_flops=1e12), "bytes")):
        with pytest.raises(ConfigError, match=f"{what}: this machine was measured from .* nothing is known beyond"):
            found.seconds(work)


def test_few_calls_tell_no_machine():
    """Guards three numbers against being told from eleven calls, or judged by none."""
    every = measured()
    for some, rest in ((every[:11], every[11:]), (every, [])):
        with pytest.raises(ConfigError, match="at least 12, and one to hold out"):
            fit(some, rest)


def test_this_machine_is_measured_and_predicts(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the way from bench to cost: calls of many shapes, one file, predictions inside what was measured only."""
    sizes = ("width=32", "layers=2", "rounds=1", f"out={tmp_path / 'machine.json'}")
    done = call_decbench("bench", "--fit", *sizes)
    assert done.returncode == 0 and "GFLOP/s" in done.stdout and "held out" in done.stdout, done.stderr
    found = read_fit(tmp_path / "machine.json")
    assert found.calls >= 12 and found.machine.flops > 0
    big = call_decbench("cost", "method=llada", "task.samples=1", f"device={tmp_path / 'machine.json'}")
    assert big.returncode == 2 and "nothing is known beyond" in big.stderr
    told = json.loads((tmp_path / "machine.json").read_text())
    told["fit"] |= {"flops": [0, 1e30], "moved": [0, 1e30]}
    (tmp_path / "machine.json").write_text(json.dumps(told))
    done = call_decbench("cost", "method=llada", "task.samples=1", f"device={tmp_path / 'machine.json'}")
    assert done.returncode == 0 and "predicted_tokens_per_s" in done.stdout


def test_what_was_measured_is_kept_and_drawn(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the figure of the roof: every call of the file, with what was predicted, and a third of them held out."""
    pytest.importorskip("matplotlib")
    sizes = ("width=32", "layers=2", "rounds=1", f"out={tmp_path / 'machine.json'}", "--figure", str(tmp_path))
    done = call_decbench("bench", "--fit", *sizes)
    assert done.returncode == 0 and "roofline.svg" in done.stdout, done.stderr
    calls = json.loads((tmp_path / "machine.json").read_text())["calls"]
    found = read_fit(tmp_path / "machine.json")
    with (tmp_path / "roofline.csv").open() as opened:
        drawn = [*csv.DictReader(opened)]
    assert len(drawn) == len(calls) == 40 and sum(not call["held_out"] for call in calls) == found.calls
    for row, call in zip(drawn, calls, strict=True):
        assert [float(row[one]) for one in ("intensity", "measured_gflops", "predicted_s")] == pytest.approx(
            [call["flops"] / call["bytes"], call["flops"] / call["measured_s"] / 1e9, call["predicted_s"]], rel=1e-5
        )
        assert call["predicted_s"] == found.seconds(Work(linear_flops=call["flops"], weight_bytes=call["bytes"]))
    off = [abs(call["predicted_s"] / call["measured_s"] - 1) for call in calls if call["held_out"]]
    assert max(off) == pytest.approx(found.worst_error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure"], "--figure: needs a value"),
        (["widht=64"], "widht: no such key; did you mean width?"),
        (["width=33"], "width=33: must be a multiple of 32"),
        (["rounds=0"], "rounds=0: must be a whole number of at least 1"),
        (["device=cuda:9"], "device"),
    ],
)
def test_what_cannot_be_measured_ends_in_one_line(call_decbench: RunDecbench, words: list[str], message: str):
    """Guards keys and sizes that cannot be."""
    done = call_decbench("bench", "--fit", *words)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_file_that_is_none_is_named(tmp_path: Path):
    """Guards the name of a file that holds something else."""
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "absent.json"):
        with pytest.raises(DataError, match=f"{name}: is no fitted machine"):
            read_fit(tmp_path / name)
