"""`decbench cost`: the calls of a small model, priced for a large one; no number of it was measured."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands import cost
from harness.models.cost.generations import Lengths, break_even
from harness.models.cost.machine import machine
from harness.models.cost.shape import shape_of
from harness.models.cost.work import Call, seconds_of
from harness.models.public.synthetic import SHAPES
from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_run

ONE = ("task.samples=1", "gen_length=16")


def costs(call_decbench: RunDecbench, *words: str) -> list[dict[str, Any]]:
    """Return the rows of a command that succeeds."""
    done = call_decbench("cost", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["cost"]


def test_full_calls_cost_what_their_shape_says(call_decbench: RunDecbench):
    """Guards the way from calls to seconds: 16 calls over the whole row, priced by hand for LLaDA's shape."""
    (cost, causal) = costs(call_decbench, "method=llada", *ONE)
    length = cost["query_tokens"] / 16
    call = Call.even(rows=1, query=int(length), keys=int(length), head=16)
    seconds = seconds_of(shape_of(SHAPES["llada_8b_instruct"]), [call] * 16, machine("h200"))
    assert (cost["calls"], cost["tokens_per_call"]) == (16, 1)
    assert cost["predicted_tokens_per_s"] == pytest.approx(16 / seconds)
    assert causal["query_tokens"] == length - 1 and causal["calls"] == 16


@pytest.mark.parametrize(("batch_size", "calls"), [(3, 12), (32, 4)])
def test_batches_are_those_that_were_asked_for(call_decbench: RunDecbench, batch_size: int, calls: int):
    """Guards a price under a batch size that nothing was decoded at: every call has as many rows as the label says."""
    (cost, _) = costs(call_decbench, "method=llada", "gen_length=4", f"batch_size={batch_size}")
    assert (cost["calls"], cost["tokens_per_call"]) == (calls, batch_size)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_causal_method_costs_what_stands_beside_it(call_decbench: RunDecbench, batch_size: int):
    """Guards the baseline: what a causal model would cost is what one does cost, prompts and stored keys included."""
    words = ("model=tiny_ar", "method=ar_greedy", f"batch_size={batch_size}", "task.samples=8")
    (cost, causal) = costs(call_decbench, *words)
    assert cost.pop("even_at") == pytest.approx(cost["tokens_per_call"]) and causal.pop("even_at") is None
    assert cost.pop("decoding") != causal.pop("decoding")
    assert cost == pytest.approx(causal)


def test_a_cache_computes_less_and_reads_more(call_decbench: RunDecbench):
    """Guards reused positions: windows compute fewer positions than rows, and read the keys of all."""
    settings = ("method=llada", "method.block_length=8", *ONE)
    plain, cached = (costs(call_decbench, *settings, f"method/cache={cache}")[0] for cache in ("none", "dual"))
    assert plain["calls"] == cached["calls"] and plain["query_tokens"] > 2 * cached["query_tokens"]
    assert plain["predicted_gflops_per_token"] > 2 * cached["predicted_gflops_per_token"]
    assert cached["cache_bytes"] > plain["cache_bytes"]


def test_served_models_are_told_with_where_they_are_cheapest(call_decbench: RunDecbench):
    """Guards the table of a token's cost where many are served; its numbers have a test of their own."""
    rows = costs(call_decbench, "serving", "context=8192")
    assert [(row["model"], row["attention_on"], row["rest_on"]) for row in rows] == [
        ("step_3", "h20", "h800"),
        ("deepseek_v3", "h800", "h800"),
        ("qwen3_235b_a22b", "h20", "h800"),
        ("qwen3_32b", "h20", "h800"),
    ]
    table = call_decbench("cost", "serving", "context=8192").stdout
    assert "predicted_usd_per_million" in table and "0.05505" in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=llada_8b_instrct"], "model=llada_8b_instrct: no such model; did you mean llada_8b_instruct?"),
        (["model=olmoe_7b_instruct"], "model=olmoe_7b_instruct: its shape is not known here; choose llada_8b_instruct"),
        (["model=llada2_mini"], "model.path"),
        (["device=h100"], "device=h100: no such machine is known; known: h200, "),
        (["bytes_per_value=many"], "bytes_per_value=many: must be a number of bytes, such as 2 or 0.5, at most 8"),
        (["bytes_per_value=0"], "bytes_per_value=0: must be a number of bytes"),
        (["experiment=smoke"], "experiment=smoke: is for run; cost decodes a few prompts and stores nothing"),
        (["method=thresold"], "method=thresold: no such method; did you mean threshold?"),
        (["method=ar_greedy"], "method=ar_greedy: does not run on model=tiny_mdm"),
        (["on="], "on=: needs a value; leave it out for the default"),
        (["byte_per_value=4"], "byte_per_value: no such key; did you mean bytes_per_value?"),
        (["zzz=4"], "zzz: no such key; known: axes, batch_size, batch_tokens, batching, bytes_per_value, "),
        (["on=tiny"], "model=tiny: no such model"),
        (["on=tiny_ar", "model@draft=tiny_ar", "method=speculative"], "model@draft=tiny_ar: calls of a draft would be"),
        (["batching=continuous", "batch_size=4"], "batching=continuous: cost prices batches of fixed rows"),
        (["batching=continuous", "batch_tokens=64"], "batch_tokens=64: cost prices batches of fixed rows"),
        (["batch_size=5000"], "batch_size=5000: cost decodes at most 4096 rows at once"),
        (["batch_size=4", "task.samples=2"], "batch_size=4: only 2 samples of task=list_copy would be decoded"),
        (["batch_size=1,0"], "batch_size=0: must be at least 1"),
        (["--figure", "/proc/zz"], "--figure=/proc/zz: cannot be written"),
        (["serving", "context=none"], "context=none: write context=8192, or several: context=8192,32768"),
        (["serving", "device=h20"], "device=h20: write context=8192"),
    ],
)
def test_what_cannot_be_priced_ends_in_one_line(
    call_decbench: RunDecbench, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
):
    """Guards names and numbers that cannot be, refused before anything is decoded."""
    monkeypatch.setattr(cost, "decode", pytest.fail)
    done = call_decbench("cost", *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def table_of(file: Path) -> list[dict[str, str]]:
    """Return the rows of a csv."""
    with file.open() as opened:
        return [*csv.DictReader(opened)]


def test_where_time_goes_is_drawn_as_it_is_told(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the figure: its parts are those of the rows and add up to what a token takes; a bar per cache."""
    pytest.importorskip("matplotlib")
    words = ("method=llada", "method.block_length=8", "method/cache=none,dual", f"--figure={tmp_path}", *ONE)
    rows = costs(call_decbench, *words)
    assert len(rows) == 4
    drawn = table_of(tmp_path / "time_parts.csv")
    assert [*dict.fromkeys(row["decoding"] for row in drawn)] == [
        "llada cache=none",
        "llada cache=dual",
        "causal, same shape",
    ]
    for row, name in zip((rows[0], rows[2], rows[1]), dict.fromkeys(row["decoding"] for row in drawn), strict=True):
        told = {part.removeprefix("predicted_ms_of_"): ms for part, ms in row.items() if "_ms_of_" in part}
        assert sum(told.values()) == pytest.approx(1000 / row["predicted_tokens_per_s"])
        shown = [one for one in drawn if one["decoding"] == name]
        assert {one["part"]: float(one["ms_per_token"]) for one in shown} == pytest.approx(told, rel=1e-5)
        assert sum(float(one["share"]) for one in shown) == pytest.approx(1, rel=1e-5)
    assert rows[0]["predicted_ms_of_filling"] == 0 < rows[2]["predicted_ms_of_filling"]
    assert {file.suffix for file in tmp_path.iterdir()} == {".svg", ".pdf", ".png", ".csv"}
    assert "llada_8b_instruct" in (tmp_path / "time_parts.svg").read_text()


def test_break_even_is_drawn_as_it_is_told(call_decbench: RunDecbench, tmp_path: Path):
    """Guards lines and markers: those of the rows, and tokens over calls that decide, of no causal runs."""
    pytest.importorskip("matplotlib")
    store = Store(root=tmp_path / "raw")
    add_run(store, "a", nfe=(4, 2), batch_size=4, tokens_out=8.0, nfe_cache=1.0)
    add_run(store, "b", nfe=(1, 1), batch_size=4, tokens_out=8.0, nfe_cache=0.0, task="sort")
    add_run(store, "c", model="causal", family="autoregressive", tokens_out=8.0)
    words = ("break_even", "name=synthetic", f"results_dir={tmp_path / 'raw'}", "--figure", str(tmp_path))
    rows = costs(call_decbench, *words)
    assert [row["batch_size"] for row in rows] == [*range(1, 65)]
    expected = break_even(shape_of(SHAPES["llada_8b_instruct"]), 8, Lengths(), machine("h200"))
    assert {cache: rows[7][cache] for cache in expected} == pytest.approx(expected)
    drawn = table_of(tmp_path / "break_even.csv")
    lines = {(row["group"], int(row["x"])): row["y"] for row in drawn if row["kind"] == "line"}
    assert len(lines) == 4 * 64 and lines["none", 64] == ""
    assert float(lines["dual", 8]) == pytest.approx(rows[7]["dual"], rel=1e-5)
    (mark,) = [row for row in drawn if row["kind"] == "reached"]
    assert [float(mark[one]) for one in ("x", "y", "low", "high")] == pytest.approx([4, 16 / 3, 4, 8])
    assert mark["runs"].split() == ["a", "b"]


def test_a_table_of_break_even_needs_no_store(call_decbench: RunDecbench):
    """Guards the printed table: a row per doubling of the batch, a blank where nothing is fast enough."""
    done = call_decbench("cost", "break_even", "model=dream_7b_instruct", "gen_length=64")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["batch_size", "1", "2", "4", "8", "16", "32", "64"]
    assert len(lines[1].split()) == 6 > len(lines[-1].split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure"], "--figure: needs a value"),
        (["serving", "--figure", "f"], "--figure: serving draws nothing; leave it out"),
        (["break_even", "block_length=7"], "block_length=7: must divide gen_length=256; choose another of the two"),
        (["break_even", "gen_length=0"], "gen_length=0: must be a whole number from 1 to "),
        (["break_even", "prompt_length=-1"], "prompt_length=-1: must be a whole number from 1 to "),
        (["break_even", "gen_length=65536"], "gen_length=65536: model=llada_8b_instruct has 4096 positions for prompt"),
        (["break_even", "prompt_length=4096"], "prompt_length=4096: model=llada_8b_instruct has 4096 positions"),
        (["break_even", "model=llada"], "model=llada: no such model; "),
        (["break_even", "device=h100"], "device=h100: no such machine is known; known: h200, "),
        (["break_even", "task=list_sort"], "task=list_sort: stored runs are drawn, not printed; add --figure FOLDER"),
        (
            ["break_even", "tsak=list_sort", "--figure=f"],
            "tsak=list_sort: runs have no column tsak; did you mean task?",
        ),
        (["break_even", "task=none", "results_dir=empty", "--figure=f"], "break_even: no run in empty has family="),
        (["break_even", "--figrue=f"], "--figrue=f: no such option; did you mean --figure?"),
    ],
)
def test_figures_that_cannot_be_end_in_one_line(
    call_decbench: RunDecbench, words: list[str], message: str, tmp_path: Path
):
    """Guards lengths, names and folders that cannot be."""
    pytest.importorskip("matplotlib")
    done = call_decbench("cost", *words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not [*tmp_path.iterdir()]
