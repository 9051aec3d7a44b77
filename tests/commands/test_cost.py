"""`decbench cost`: the calls of a small model, priced for a large one; no number of it was measured."""

import json
from typing import Any

import pytest

from harness.models.cost.machine import machine
from harness.models.cost.shape import shape_of
from harness.models.cost.work import Call, seconds_of
from harness.models.public.synthetic import SHAPES
from tests.conftest import RunDecbench

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
        (["on=tiny"], "model=tiny: no such model"),
        (["serving", "context=none"], "context=none: write context=8192, or several: context=8192,32768"),
        (["serving", "device=h20"], "device=h20: write context=8192"),
    ],
)
def test_what_cannot_be_priced_ends_in_one_line(call_decbench: RunDecbench, words: list[str], message: str):
    """Guards names and numbers that cannot be."""
    done = call_decbench("cost", *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
