"""A machine is told from the times of calls: its own numbers where they are exact, and nothing beyond what was seen."""

import csv
import json
import random
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness.commands.bench_fit import Options, _calls, _transformer, _widths
from harness.commands.cost import options
from harness.errors import ConfigError, DataError
from harness.models.checkpoint import read_config
from harness.models.cost.fit import Timed, fit, timed
from harness.models.cost.fit_file import read_fit
from harness.models.cost.machine import Machine
from harness.models.cost.shape import ModelShape, shape_of
from harness.models.cost.work import Call, Work, work_of
from harness.models.embedded import CHECKPOINTS
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
    for work, what in ((Work(linear_flops=1e18, weight_bytes=2e10), "operations"), (Work(linear_flops=1e12), "bytes")):
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


def fitted(file: Path, **changes: Any) -> Path:
    """Write a file as the bench does, from calls that are known, with some keys of the fit set to others."""
    every = measured()
    told = fit(every[1:], every[:1]).kept()
    for key, value in changes.items():
        section, name = (told["machine"], key.removeprefix("machine_")) if "machine_" in key else (told, key)
        section[name] = value
    kept = {"options": {"dtype": "bfloat16", "device": "cuda"}, "fit": told}
    file.write_text(json.dumps(kept))
    return file


def test_a_file_that_is_none_is_named(tmp_path: Path):
    """Guards the name of a file that holds something else."""
    for name, content in (
        ("other.json", "{}"),
        ("list.json", "[1]"),
        ("half.json", '{"fit": '),
        ("fit.json", '{"fit": 1}'),
    ):
        (tmp_path / name).write_text(content)
    for name in ("other.json", "list.json", "half.json", "fit.json", "absent.json"):
        with pytest.raises(
            DataError, match=f"{name}: is no fitted machine .*; write one with decbench bench --fit out="
        ):
            read_fit(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("flops", [1], r"fit.flops=\[1\]: must be two numbers"),
        ("flops", ["1", "2"], "fit.flops=.*: must be two numbers"),
        ("flops", [2, 1], "fit.flops=.*: must be two numbers"),
        ("moved", None, "fit.moved=None: must be two numbers"),
        ("moved", [1, float("inf")], "fit.moved=.*: must be two numbers"),
        ("machine_flops", "3e14", "fit.machine.flops=3e14: must be a number of more than 0"),
        ("machine_flops", 0, "fit.machine.flops=0: must be a number of more than 0"),
        ("machine_bandwidth", -1, "fit.machine.bandwidth=-1: must be a number of more than 0"),
        ("machine_bandwidth", float("nan"), "fit.machine.bandwidth=nan: must be a number of more than 0"),
        ("machine_bandwidth", None, "fit.machine.bandwidth=None: must be a number of more than 0"),
        ("machine_memory_share", True, "fit.machine.memory_share=True: must be a number of more than 0"),
        ("machine_overhead_s", -1e-9, "fit.machine.overhead_s=-1e-09: must be a number of at least 0"),
        ("machine_speed", 1, "fit.machine.speed: no such key"),
        ("machine", None, "is no fitted machine .fit.machine must be an object"),
        ("median_error", "small", "fit.median_error=small: must be a number of at least 0"),
    ],
)
def test_a_file_with_a_number_that_cannot_be_is_refused(tmp_path: Path, key: str, value: object, message: str):
    """Guards predictions against a file that was edited: the file, the key and the value in one line."""
    assert read_fit(fitted(tmp_path / "good.json")).dtype == "bfloat16"
    with pytest.raises(DataError, match=f"bad.json: {message}.*; write one with decbench bench --fit"):
        read_fit(fitted(tmp_path / "bad.json", **{key: value}))


def test_a_file_without_its_number_type_is_refused(tmp_path: Path):
    """Guards bytes per value, which predictions take from there."""
    told = json.loads(fitted(tmp_path / "machine.json").read_text())
    for told_of in ({"dtype": "int8"}, {"dtype": []}, [], None):
        (tmp_path / "machine.json").write_text(json.dumps(told | {"options": told_of}))
        with pytest.raises(DataError, match=r"machine.json: options.dtype=.*: must be one of float32, "):
            read_fit(tmp_path / "machine.json")


def test_values_take_what_they_took_where_the_machine_was_measured(tmp_path: Path):
    """Guards predictions of half the bytes for a machine that was measured with whole ones."""
    file = fitted(tmp_path / "machine.json")
    assert options([f"device={file}"]).bytes_per_value == options([]).bytes_per_value == 2
    kept = file.read_text().replace("bfloat16", "float32")
    file.write_text(kept)
    assert options([f"device={file}"]).bytes_per_value == 4
    assert options([f"device={file}", "bytes_per_value=4"]).bytes_per_value == 4
    with pytest.raises(
        ConfigError, match=r"bytes_per_value=2: .*machine.json was measured with 4 bytes per value; leave"
    ):
        options(["bytes_per_value=2", f"device={file}"])


def test_what_was_not_measured_is_told_with_what_measures_it(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the way on: the file, what the model needs, and a command whose calls are as large."""
    file = fitted(tmp_path / "machine.json")
    done = call_decbench("cost", "model=tiny_mdm", "task.samples=1", "gen_length=4", f"device={file}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "model=tiny_mdm makes a call of " in done.stderr and f"{file} was measured from " in done.stderr
    words = shlex.split(done.stderr[done.stderr.index("decbench bench --fit") :])
    assert words[3:] == ["width=128", "layers=4", "vocabulary=128", "device=cuda", "dtype=bfloat16", f"out={file}"]


def test_the_usual_measurement_covers_embedded_models():
    """Guards the first thing that users try: a file of the bench, and a model of this package."""
    measured_work = [work_of(shape, call) for shape, call in usual_calls()]
    lengths = (12, 24, 48)
    for name in ("tiny_mdm", "tiny_block", "tiny_ar", "tiny_moe"):
        shape = shape_of(read_config(CHECKPOINTS / name), bytes_per_value=4)
        for call in [
            Call.even(rows=rows, query=q, keys=keys) for rows in (1, 8) for keys in lengths for q in (1, keys)
        ]:
            work = work_of(shape, call)
            for what in ("flops", "moved"):
                values = [getattr(one, what) for one in measured_work]
                assert min(values) <= getattr(work, what) <= max(values)


def usual_calls() -> list[tuple[ModelShape, Call]]:
    """Return what is timed where nothing else is asked."""
    models = [_transformer(Options(), width) for width in _widths(Options())]
    return [(shape_of(model.config, bytes_per_value=4), call) for model in models for call, _ in _calls(model)]
