"""Numbers are shown as they were typed, wherever a run is named, and name the same run however they are typed."""

import json
from pathlib import Path

import pytest

from harness.results.canonical import canonical_setting
from harness.runs.plan import Plan, plan
from harness.runs.sweep import expand
from tests.conftest import RunDecbench

SMALL = ("model=random_mdm", "task.samples=1", "gen_length=4")
ADDED = ["method=llada", "method/finish=predict_eos", "method.finish.confidence=0.50"]


def planned(*overrides: str) -> Plan:
    """Plan a small sweep."""
    return plan(expand([*SMALL, *overrides]))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["method=threshold", "method.threshold=0.80,1e-1"], ["threshold threshold=0.80", "threshold threshold=1e-1"]),
        (["method=threshold", "method.threshold=choice(0.80,.5)"],
         ["threshold threshold=0.80", "threshold threshold=.5"]),
        (["method=threshold", "method.threshold=0.80, 0.50"], ["threshold threshold=0.80", "threshold threshold=0.50"]),
        (["method=prophet", "method.gap_thresholds=[7.50, 5.0, 1],[3.0,1e0,.5]"],
         ["prophet gap_thresholds=[7.50,5.0,1]", "prophet gap_thresholds=[3.0,1e0,.5]"]),
        (ADDED, ["llada finish=predict_eos finish.confidence=0.50"]),
        (["points=['method.temperature=5e-1','method.temperature=0.70']"],
         ["llada temperature=5e-1", "llada temperature=0.70"]),
        (["method.temperature=range(0.1,0.3,0.1)"], ["llada temperature=0.1", "llada temperature=0.2"]),
    ],
)  # fmt: skip
def test_a_job_is_named_as_it_was_typed(typed: list[str], shown: list[str]):
    """Guards plans, progress and tables, whose readers look for what they wrote."""
    assert [one.label for one in planned(*typed).jobs] == [f"random_mdm {name} list_copy" for name in shown]


def test_however_it_is_typed_it_is_the_same_run():
    """Guards names against spelling."""
    named = [planned("method=threshold", f"method.threshold={typed}").jobs[0].job for typed in ("0.8", "0.80", "8e-1")]
    assert len({one.setting_id for one in named}) == len({one.run_id for one in named}) == 1


def test_axes_are_shown_as_their_file_has_them(tmp_path: Path, call_decbench: RunDecbench):
    """Guards experiments, whose numbers YAML reads."""
    folder = tmp_path / "parts" / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [override /method: threshold]\n"
        "axes:\n  method.threshold: [0.80, 1e-1, 1]\n  task: [list_copy]\n"
    )
    told = call_decbench("plan", "experiment=mine", *SMALL, "--config-dir", "parts", "--json")
    assert told.returncode == 0, told.stderr
    names = [one["setting"] for one in json.loads(told.stdout)["jobs"]]
    assert names == ["threshold threshold=0.80", "threshold threshold=1e-1", "threshold threshold=1"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("threshold threshold=0.80", "threshold threshold=8e-1"),
        ("prophet a=[7.5, 1] b=2", "prophet a=[7.50,1.0] b=2.0"),
    ],
)
def test_spelling_does_not_tell_settings_apart(one: str, other: str):
    """Guards rows of tables: one per setting."""
    assert canonical_setting(one) == canonical_setting(other) != canonical_setting(f"{one} x=1")


def test_a_table_has_one_row_for_one_setting(call_decbench: RunDecbench):
    """Guards a sweep that takes runs from the store which somebody spelled otherwise: its own spelling is shown."""
    asked = ("run", *SMALL, "method=threshold", "results_dir=store")
    call_decbench(*asked, "method.threshold=0.80", "task=list_sort")
    said = call_decbench(*asked, "method.threshold=8e-1", "task=list_sort,list_copy", "--json")
    told = json.loads(said.stdout.splitlines()[-1])
    assert [(one["setting"], one["n"]) for one in told["summary"]["overall"]] == [("threshold threshold=8e-1", 2)]
    assert [one["resumed"] for one in told["runs"]] == [True, False]
    listed = call_decbench("results", "list", "setting=threshold threshold=0.8", "results_dir=store", "--json").stdout
    assert {one["setting"] for one in json.loads(listed)} == {"threshold threshold=0.80", "threshold threshold=8e-1"}
