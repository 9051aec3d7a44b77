"""A model beside target and draft, on its way from the command line into the store: charged under its own name."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.composition import compose
from harness.config.plugin_folders import VARIABLE
from harness.errors import ConfigError
from harness.results.schemas import COUNTED, COUNTERS, LOADS
from harness.results.store import Store
from harness.runs.runner import run
from tests.conftest import RunDecbench

JUDGES = Path(__file__).parents[1] / "plugged" / "judges"
DRAFTED = ["model=tiny_ar", "model@draft=tiny_ar_draft"]
JUDGED = [*DRAFTED, "model@judge=tiny_ar_draft", "method=judged"]
LAYERS, JUDGE_LAYERS = 4, 2


@pytest.fixture(autouse=True)
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the folder as a user does; digests are remembered apart."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, str(JUDGES))


def made(folder: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a run of four samples, and theirs."""
    row = run(compose([*words, "task=list_copy", "task.samples=4", f"results_dir={folder}"])).row
    return row, Store(root=folder).read("samples", [row["run_id"]]).to_pylist()


def judge_of(row: dict[str, Any]) -> dict[str, float]:
    """Return what the judge was asked; nobody else was."""
    (name, numbers), = json.loads(row["asked"]).items()  # fmt: skip
    assert name == "judge"
    return numbers


def test_a_judge_is_charged_under_its_own_name(results_dir: Path) -> None:
    """Guards what a third model costs against being lost, or taken for the target's or the draft's."""
    row, samples = made(results_dir, *JUDGED, "batch_size=4")
    for sample in samples:
        judge, ends = judge_of(sample), {}
        for place, number in enumerate(sample["decided_at"]):
            ends[number] = place + 1
        assert judge["layer_loads"] == JUDGE_LAYERS * judge["calls"] > 0
        assert sample["nfe"] == sample["rounds"] + 1 and judge["calls"] <= sample["rounds"]
        assert sample["layer_loads"] == sum((LAYERS * sample["nfe"], sample["layer_loads_draft"], judge["layer_loads"]))
        assert sample["asked_s"] is None
        # It reads text once, and every draft: what a draft's token was, it reads again when the text has it.
        last = max(number for number in ends if number < judge["calls"])
        assert judge["query_tokens"] == sample["prompt_tokens"] + ends[last] + sample["draft_tokens"]
    assert judge_of(row) == {
        name: sum(judge_of(sample)[name] for sample in samples) / 4 for name in judge_of(samples[0])
    }
    alone = made(results_dir, *JUDGED, "batch_size=1")[1]
    assert [one["asked"] for one in alone] == [one["asked"] for one in samples]
    assert row["setting"] == "judged draft=tiny_ar_draft judge=tiny_ar_draft"


def test_a_judge_that_nobody_hears_changes_no_other_number(results_dir: Path) -> None:
    """Guards the columns of target and draft: beside a judge they are what they are without."""
    _, plain = made(results_dir, *DRAFTED, "method=speculative")
    _, asked = made(results_dir, *JUDGED, "method.heard=false")
    both = {"query_tokens", "layer_tokens", "head_tokens", "nfe_total", *LOADS, "asked", "asked_s"}
    for one, other in zip(plain, asked, strict=True):
        judge = judge_of(other)
        assert one["output_ids"] == other["output_ids"] and one["asked"] is None
        assert {name: one[name] for name in {*COUNTED} - both} == {name: other[name] for name in {*COUNTED} - both}
        assert other["query_tokens"] - one["query_tokens"] == judge["query_tokens"]
        assert other["nfe_total"] - one["nfe_total"] == judge["calls"]
        for name in LOADS:
            assert other[name] - one[name] == judge["layer_loads"]
    assert {*COUNTERS} - both > {"nfe", "nfe_draft", "tokens_generated"}


def test_seconds_of_a_judge_are_apart(results_dir: Path) -> None:
    """Guards the time of a third model: part of what all calls took, and not of drafting."""
    row, samples = made(results_dir, *JUDGED, "measure=timed", "measure.repetitions=1")
    for one in (row, *samples):
        (seconds,) = json.loads(one["asked_s"]).values()
        assert 0 < seconds < one["forward_s"] - one["draft_s"]


def test_a_command_says_what_a_judge_cost(call_decbench: RunDecbench, results_dir: Path) -> None:
    """Guards the way through the command line: the table of drafts names the role, and `show` tells the column."""
    words = ["task=list_copy", "task.samples=2", f"results_dir={results_dir}", "name=judges"]
    done = call_decbench("run", "-m", *JUDGED, *words)
    said = f"{done.stdout}{done.stderr}"
    assert "asked beside target and draft, per sample: tiny_ar judged" in said and "judge: " in said
    (row,) = Store(root=results_dir).read("runs").to_pylist()
    assert judge_of(row)["calls"] > 0 and json.loads(row["config"])["models"]["judge"]["name"] == "tiny_ar_draft"


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ([*DRAFTED, "method=judged"], "model@judge=null: method=judged asks a judge; name one of the target's"),
        ([*JUDGED, "method=speculative"], "model@judge=tiny_ar_draft: method=speculative asks no judge; leave it out"),
        ([*JUDGED, "model@judge=tiny_mdm"], "model@judge=tiny_mdm: is masked_diffusion, and method=judged cannot"),
        (
            [*DRAFTED, "method=judged", "+judge.path=x"],
            "model@judge=null: no model is named, and judge.path is set",
        ),
        (["model=tiny_ar", *JUDGED[2:]], "model@draft=null: method=judged asks a model for its drafts; name one"),
    ],
)
def test_a_judge_that_does_not_fit_is_refused(words: list[str], refusal: str, results_dir: Path) -> None:
    """Guards one line that names the key, before a model is loaded."""
    with pytest.raises(ConfigError) as error:
        made(results_dir, *words)
    assert str(error.value).startswith(refusal)
