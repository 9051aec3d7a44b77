"""A run that was stored before belongs to every sweep that asks for it: in tables, in figures, and in W&B."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.errors import DataError
from harness.results.requests import read_requests
from harness.results.store import Store
from tests.conftest import RunDecbench

RUN = ("run", "model=random_mdm", "task.samples=1", "gen_length=4", "results_dir=store")


class Wandb(ModuleType):
    """Writes down what a program tells W&B."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.told: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def init(self, **named: Any) -> "Wandb":
        """Begin a run."""
        self.told.append(named)
        return self

    def log(self, values: dict[str, Any]) -> None:
        """Take a table of samples."""
        self.told[-1] |= values

    def finish(self, exit_code: int = 0) -> None:
        """End the run."""
        self.told[-1]["exit_code"] = exit_code

    Settings = staticmethod(dict)
    Table = staticmethod(lambda columns, data: len(data))
    Image = staticmethod(str)


def test_a_resumed_run_has_the_name_of_whoever_asked(tmp_path: Path, call_decbench: RunDecbench):
    """Guards tables and lists of a sweep whose runs others have made."""
    call_decbench(*RUN, "name=first", "seed=0,1")
    said = json.loads(call_decbench(*RUN, "name=second", "seed=1,2", "--json").stdout.splitlines()[-1])
    rows = read_requests(Store(root=tmp_path / "store")).rows
    assert [(row["name"], row["resumed"]) for row in rows] == [
        ("first", False), ("first", False), ("second", True), ("second", False),
    ]  # fmt: skip
    assert len({row["sweep_id"] for row in rows}) == 2 and {row["status"] for row in rows} == {"ok"}
    listed = json.loads(call_decbench("results", "list", "name=second", "results_dir=store", "--json").stdout)
    assert {row["run_id"] for row in listed} == {run["run_id"] for run in said["runs"]}
    assert {*said["summary"]["overall"][0]["run_ids"]} == {run["run_id"] for run in said["runs"]}
    assert (tmp_path / "store" / "figures" / "second.md").exists()


def test_a_resumed_run_appears_in_the_new_group(
    tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards W&B reports: complete under every name, each once, with what rows are chosen and believed by."""
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb())
    wandb_run = (*RUN, "tracker=wandb")
    for name in ("first", "first", "the second"):
        assert call_decbench(*wandb_run, f"name='{name}'").returncode == 0
    (run_id,) = Store(root=tmp_path / "store").read("runs")["run_id"].to_pylist()
    runs = [one for one in wandb.told if one["job_type"] == "run"]
    named = [(one["id"], one["group"]) for one in runs]
    assert named == [(f"{run_id}-1", "first"), (f"{run_id}-1-the_second", "the second")]
    for one in runs:
        assert one["tags"] == ["random_mdm", "llada", "list_copy", "counts", "ok"]
        assert (one["config"]["setting"], one["config"]["attempt"], one["samples"]) == ("llada", 1, 1)
        assert len(one["config"]["git_commit"]) == 40 and "threads" in one["config"]["device"]
    assert {one["group"] for one in wandb.told if one["job_type"] == "figure"} == {"first", "the second"}


def test_a_store_that_is_only_read_is_no_error(
    tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards results on a disk that cannot be written: all is taken, and nobody is told who asked."""

    def refuse(*_: object) -> None:
        raise DataError("results_dir=store: cannot be written")

    call_decbench(*RUN)
    monkeypatch.setattr("harness.runs.announcement.write_requests", refuse)
    said = call_decbench(*RUN)
    assert said.returncode == 0 and "not noted" in said.stdout
    assert call_decbench(*RUN, "seed=1").returncode == 2
