"""The experiments that reproduce papers make the runs that their tables ask for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config.composition import compose, resolved
from harness.config.job import by_role
from harness.results.published import PublishedTable, passing, read_paper
from harness.runs.runner import setting
from harness.runs.sweep import expand

FOLDER = Path(__file__).parents[2] / "conf" / "published"
NOT_HERE = ("MATH", "BBH", "consistency", "few steps: ")
"""Rows and columns that nothing here can measure, or that no table gives a value for."""


def rows_of(experiment: str) -> list[dict[str, Any]]:
    """Return what the store would hold of the runs of an experiment, before they are run."""
    rows = []
    for overrides in expand([f"experiment={experiment}"]).jobs:
        cfg = compose(overrides)
        plain = by_role(resolved(cfg))
        told: Mapping[str, Any] = {"model": cfg.model.name, "method": cfg.method.name, "task": cfg.task.name}
        named = {"setting": setting(plain, overrides), "protocol": cfg.protocol.name, "gen_length": cfg.gen_length}
        run_id = " ".join(overrides)
        rows.append(
            {**told, **named, "config": json.dumps(plain), "setting_id": run_id, "run_id": run_id, "device": ""}
        )
    return rows


def tables() -> list[PublishedTable]:
    """Return the tables that name an experiment."""
    papers = [read_paper(yaml.safe_load(file.read_text()), file.stem) for file in sorted(FOLDER.glob("*.yaml"))]
    return [table for paper in papers for table in paper.tables if table.experiment]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted({table.experiment for table in tables() if table.experiment}))
def test_every_cell_has_its_run_and_every_run_its_cell(experiment: str):
    """Guards filters: a cell without a run stays empty for ever, and one with two is a mean of different things."""
    runs, seen = rows_of(experiment), set()
    for table in (one for one in tables() if one.experiment == experiment):
        for row, column in table.cells:
            found = passing(runs, table, row, column)
            if any(word in f"{row}: {column}" for word in NOT_HERE) or (table.name, row) == ("table_2", "few steps"):
                assert not found
                continue
            if experiment == "paper_fast_dllm" and table.name == "table_2":
                continue
            assert [one["run_id"] for one in found][1:] == [] and found, (table.name, row, column)
            seen.add(found[0]["run_id"])
    assert {one["run_id"] for one in runs} == seen
