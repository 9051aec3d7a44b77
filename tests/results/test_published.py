"""Published numbers beside measured ones."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import ConfigError
from harness.results.published import Paper, beside, latex, markdown, read_paper
from harness.results.statistics import wilson
from harness.results.store import Store
from tests.results.factory import add_run
from tests.results.figures.traced import traced_store

FOLDER = Path(__file__).parents[2] / "conf" / "published"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
TABLE = {
    "name": "t1", "title": "A model", "source": "Table 1", "runs": {"model": "tiny"},
    "down": {"base": {"variant": "llada"}, "fast": {"variant": "fast"}},
    "across": {"copy": {"task": "copy"}, "sort": {"task": "sort"}}, "baseline": "base",
    "quantities": ["accuracy", "speedup_nfe", "accuracy_gain"],
    "cells": {"base": [[70, 1, 0], [60.5, 1, 0]], "fast": [[69, 3.4, None], [None, None, None]]},
}  # fmt: skip


def paper(**changes: Any) -> Paper:
    """Read a paper of one table."""
    return read_paper({"paper": "Somebody, 2025", "tables": [TABLE | changes]}, "some")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(root=tmp_path)
    add_run(store, "base")
    add_run(store, "fast", method="fast", setting="fast k=1", correct=[True, False], nfe=[1, 1])
    add_run(store, "elsewhere", model="other", correct=[False, False])
    return store


def test_a_cell_is_measured_by_the_runs_that_pass_its_filters(store: Store):
    """Guards values and ratios: 1 of 2 right in a quarter of the calls; nothing was run on sort."""
    one = paper()
    frame = beside(store, one.tables[0])
    half = wilson(1, 2)
    assert half.low is not None
    columns = ["row", "column", "quantity", "published", "measured", "low", "n", "runs"]
    found = frame[frame["row"] == "fast"][columns].astype(object).where(frame.notna(), None).to_numpy().tolist()
    assert found == [
        ["fast", "copy", "accuracy", 69, 50, pytest.approx(100 * half.low), 2, "fast"],
        ["fast", "copy", "speedup_nfe", 3.4, 4, None, 2, "fast"],
        ["fast", "copy", "accuracy_gain", None, -50, None, 2, "fast"],
        ["fast", "sort", "accuracy", None, None, None, None, ""],
        ["fast", "sort", "speedup_nfe", None, None, None, None, ""],
        ["fast", "sort", "accuracy_gain", None, None, None, None, ""],
    ]


def test_tables_have_a_gap_where_nothing_was_run(store: Store):
    """Guards the form of the paper: rows and columns as printed, published / measured."""
    one = paper(quantities=["accuracy"], cells={"base": [[70], [60.5]], "fast": [[69], [None]]})
    frame = beside(store, one.tables[0])
    caption, _, head, rule, base, fast = markdown(one, one.tables[0], frame).splitlines()
    assert len({line.count("|") for line in (head, rule, base, fast)}) == 1
    assert caption.startswith("A model (Somebody, 2025, Table 1). Cells: published / measured")
    assert head == "|  | copy: accuracy, % | sort: accuracy, % |"
    assert base == "| base | 70 / 100 [34.2, 100.0] | 60.5 / - |"
    assert fast == "| fast | 69 / 50 [9.5, 90.5] | - / - |"
    assert r"fast & 69 / 50 [9.5, 90.5] & - / - \\" in latex(one, one.tables[0], frame)


def test_a_ratio_without_its_baseline_is_a_gap(tmp_path: Path):
    """Guards against a speedup over nothing."""
    store = Store(root=tmp_path)
    add_run(store, "fast", method="fast", setting="fast")
    frame = beside(store, paper().tables[0])
    assert frame[frame["quantity"] == "speedup_nfe"]["measured"].isna().all()


def test_a_baseline_may_be_a_column(store: Store):
    """Guards tables with methods across."""
    one = paper(down=TABLE["across"], across=TABLE["down"],
                cells={"copy": [[1, 1, 1], [1, 1, 1]], "sort": [[1, 1, 1], [1, 1, 1]]})  # fmt: skip
    frame = beside(store, one.tables[0])
    cell = frame[(frame["row"] == "copy") & (frame["column"] == "fast") & (frame["quantity"] == "speedup_nfe")]
    assert cell["measured"].tolist() == [4]


def test_emergence_is_measured_in_traces(tmp_path: Path):
    """Guards Prophet's table: both answers stand from a quarter of the steps on."""
    one = paper(quantities=["emerged_25", "emerged_50"], down={"left": {"variant": "left"}}, across={"all": {}},
                baseline=None, cells={"left": [[7.9, 24.2]]})  # fmt: skip
    store = traced_store(tmp_path)
    # Counted later: nothing newer is known of its steps.
    add_run(store, "counted", setting_id="of_left", method="left", setting="left", measure="counts", minutes=9)
    assert beside(store, one.tables[0])["measured"].tolist() == [100, 100]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantities": ["speed"]}, "some: t1: speed: no such quantity; known: accuracy"),
        ({"baseline": "gone"}, "some: t1: baseline: gone: is no row and no column"),
        ({"cells": {"base": []}}, "some: t1: cells: must have the rows base, fast"),
        ({"cells": TABLE["cells"] | {"fast": [[1, 2, 3]]}}, "some: t1: fast: must have 2 cells of 3 values"),
        ({"down": {"base": {"taks": "a"}}}, "some: t1: base: runs have no column taks; did you mean task?"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes: dict[str, Any], message: str):
    """Guards against values that slipped into another cell."""
    with pytest.raises(ConfigError) as refusal:
        paper(**changes)
    assert message in str(refusal.value)


def test_the_papers_are_all_here():
    """Guards the list of papers."""
    assert NAMES == ["credit", "dparallel", "dream", "fast_dllm", "freedave", "llada", "local_leap", "prophet"]


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_numbers_fit_together(name: str):
    """Guards the files: read whole, and of every baseline the ratio to itself is one."""
    found = read_paper(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()), name)
    for table in found.tables:
        for cell, values in table.cells.items():
            for quantity, value in zip(table.quantities, values, strict=True):
                if table.baseline_of(*cell) == cell and quantity.startswith("speedup") and value is not None:
                    assert value == 1


def test_printed_ratios_agree_with_printed_throughputs():
    """Guards against mistyped numbers: Fast-dLLM's speedups are its tokens per second over the baseline's, rounded."""
    (table, *_) = read_paper(yaml.safe_load((FOLDER / "fast_dllm.yaml").read_text()), "fast_dllm").tables
    for (row, column), (_, tps, speedup) in table.cells.items():
        base = table.cells[row, "baseline"][1]
        assert tps is not None and base is not None
        assert speedup == pytest.approx(tps / base, rel=0.04), (row, column)
