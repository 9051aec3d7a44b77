"""Columns of drafts on a run's way into the store: there where something is drafted, null where nothing is."""

from pathlib import Path
from typing import Any

import pytest

from harness.config.composition import compose
from harness.errors import DataError
from harness.results.schemas import COUNTED, COUNTERS, LOADS
from harness.results.store import Store
from harness.runs.runner import run

OF_DRAFTS = {*COUNTED} - {*COUNTERS, *LOADS, "head_tokens"}
TIMED = ("measure=timed", "measure.repetitions=1")
OF_RUNS = ("accepted_length", "draft_length", "acceptance_rate", "acceptance_at")


def made(folder: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a run of four samples, and theirs."""
    row = run(compose([*words, "task=list_copy", "task.samples=4", "batch_size=4", f"results_dir={folder}"])).row
    return row, Store(root=folder).read("samples", [row["run_id"]]).to_pylist()


@pytest.mark.parametrize("words", ["tiny_mdm method=threshold", "tiny_ar method=ar_greedy", "tiny_ar method=beam"])
def test_nothing_is_said_of_drafts_where_there_are_none(words: str, results_dir: Path) -> None:
    """Guards tables against zeros of methods that draft nothing, in both loops; layers are loaded by all."""
    row, samples = made(results_dir, *f"model={words}".split())
    assert {name: row[name] for name in OF_RUNS} == dict.fromkeys(OF_RUNS)
    for sample in samples:
        assert {name: sample[name] for name in OF_DRAFTS} == dict.fromkeys(OF_DRAFTS)
        assert sample["layer_loads"] == sample["critical_depth"] == 4 * sample["nfe"] > 0


@pytest.mark.parametrize("drafter", ["model@draft=tiny_ar_draft method=speculative", "method=prompt_lookup"])
def test_what_a_run_says_is_what_its_samples_say(drafter: str, results_dir: Path) -> None:
    """Guards the way of the columns through the store, and what a reader can check of them."""
    row, samples = made(results_dir, "model=tiny_ar", *drafter.split())
    lengths = [length for sample in samples for length in sample["accept_lens"]]
    assert row["accepted_length"] == pytest.approx(sum(lengths) / len(lengths)) and max(lengths) > 1
    for sample in samples:
        assert sample["rounds"] == len(sample["accept_lens"]) == sample["nfe"] - 1 == max(sample["decided_at"])
        assert sum(sample["accept_lens"]) >= sample["tokens_out"] - 1 > 0
        assert sample["tokens_generated"] == sample["draft_tokens"] + sample["rounds"] + 1
        assert sample["accepted_at"] == [
            sum(length - 1 > place for length in sample["accept_lens"]) for place in range(len(sample["tried_at"]))
        ]
        assert sample["layer_loads_draft"] == (2 if "draft" in drafter else 0) * sample["nfe_draft"]
        assert sample["layer_loads"] == 4 * sample["nfe"] + sample["layer_loads_draft"]
    assert row["draft_s"] is None
    assert 0 < row["acceptance_at"][0] <= 1 and row["waste"] == pytest.approx(
        1 - sum(one["tokens_out"] for one in samples) / sum(one["tokens_generated"] for one in samples)
    )


def test_seconds_of_drafts_are_apart(results_dir: Path) -> None:
    """Guards the columns of time: what drafts took is part of what calls took, and nothing where none was made."""
    speculative = ["model=tiny_ar", "model@draft=tiny_ar_draft", "method=speculative", *TIMED]
    row, samples = made(results_dir, *speculative)
    assert all(0 < one["draft_s"] < one["forward_s"] for one in samples) and 0 < row["draft_s"] < row["forward_s"]
    assert made(results_dir, "model=tiny_ar", "method=prompt_lookup", *TIMED)[0]["draft_s"] == 0
    assert made(results_dir, "model=tiny_ar", "method=ar_greedy", *TIMED)[0]["draft_s"] is None


def test_a_prompt_that_fills_the_drafts_positions_names_the_draft(results_dir: Path) -> None:
    """Guards a line that sent its reader to the target, which has room."""
    drafted = ["model=tiny_ar", "model@draft=random_dflash", "method=dflash", "gen_length=30"]
    with pytest.raises(DataError, match=r"exceed the 40 positions of model@draft=random_dflash; shorten the prompt or"):
        made(results_dir, *drafted, "draft.max_length=40")
