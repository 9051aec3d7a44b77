"""`decbench replay`: its rows against stored runs of the same settings, and what it cannot replay."""

import json

import pytest

from harness.config.composition import compose
from harness.runs.runner import run
from tests.conftest import RunDecbench

TASK = ("task=list_replace_random", "task.samples=8", "gen_length=16")


def rows(call_decbench: RunDecbench, *words: str) -> list[dict]:
    """Return the rows of a command that succeeds."""
    done = call_decbench("replay", *words, *TASK, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["replay"]


@pytest.mark.parametrize(
    ("setting", "knob"),
    [
        ("model=tiny_ar model@draft=tiny_ar_draft method=speculative", "method.K"),
        ("model=tiny_ar_exits method=layer_skip method.exit=2", "method.num_speculations"),
        ("model=tiny_ar method=prompt_lookup", "method.num_tokens"),
    ],
)
def test_rows_are_what_runs_measure(setting: str, knob: str, call_decbench: RunDecbench, results_dir) -> None:
    """Guards the way from options to rules: two lengths at once, each as its own run counts it."""
    found = rows(call_decbench, *setting.split(), "--lengths=1,3")
    assert [one["rule"] for one in found] == ["up to 1", "up to 3"]
    for row, length in zip(found, (1, 3), strict=True):
        words = [*setting.split(), *TASK, f"{knob}={length}", "batch_size=8", f"results_dir={results_dir}"]
        made = run(compose(words)).row
        for column, stored in (("tau", "accepted_length"), ("drafted", "draft_length"), ("stand", "acceptance_rate")):
            assert row[column] == pytest.approx(made[stored])
        for column, stored in (("nfe", "nfe"), ("nfe_draft", "nfe_draft"), ("loads", "layer_loads")):
            assert row[column] == pytest.approx(made[stored])
        assert row["x loads"] == pytest.approx(4 * made["tokens_out"] / made["layer_loads"])


def test_the_cheapest_rule_is_marked(call_decbench: RunDecbench) -> None:
    """Guards the table: thresholds and schedules beside lengths, exits beside each other, the fewest layers marked."""
    words = ("model=tiny_ar_exits", "method=layer_skip", "method.exit=1,2", *TASK, "--lengths=2", "--thresholds=0.5")
    done = call_decbench("replay", *words, "--heuristic")
    lines = [line for line in done.stdout.splitlines() if line.startswith("tiny_ar_exits")]
    assert done.returncode == 0 and len(lines) == 6
    assert sum(line.rstrip().endswith("*") for line in lines) == 1
    assert sum("heuristic from 2" in line for line in lines) == 2
    assert sum("up to 2, none behind p < 0.5" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model=tiny_ar method=lookahead", "method=lookahead: drafts nothing that hangs on the text alone"),
        ("model=tiny_mdm method=threshold", "method=threshold: drafts nothing that hangs on the text alone"),
        ("model=tiny_ar method=swift method.bayes_interval=0", "method=swift: its drafts hang on earlier rounds"),
        ("model=tiny_ar method=layer_skip method.temperature=1.0", "greedy verification alone is replayed"),
        ("model=tiny_ar method=prompt_lookup --thresholds=0.5", "--thresholds: PromptLookup does not draft token by"),
        ("model=tiny_ar model@draft=tiny_mdm method=deer --lengths=2", "--lengths: what DiffusionDrafter drafts"),
        ("model=tiny_ar method=prompt_lookup --lengths=-1", "--lengths=-1: must be whole numbers from 0"),
        ("model=tiny_ar method=prompt_lookup --thresholds=2", "--thresholds=2: must be numbers in (0, 1]"),
    ],
)
def test_what_cannot_be_replayed_is_refused(words: str, said: str, call_decbench: RunDecbench) -> None:
    """Guards bad input: one line, before a model is loaded."""
    done = call_decbench("replay", *words.split(), *TASK)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
