"""Tables with their best values and ties."""

from pathlib import Path
from typing import Any

import pytest

from harness.results import tables
from harness.results.figures.definition import read_definition
from harness.results.figures.selected import select
from harness.results.store import Store
from tests.results.factory import add_run

N = 12
TABLE = {"kind": "table", "y": ["accuracy", "nfe"], "groups": ["model", "setting"], "panels": "task"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Store `best`, right on all 12, `near` on all but 5, `bad` on all but 7, and another model that is never right."""
    store = Store(root=tmp_path)
    wrong = {"best": 0, "near": 5, "bad": 7}
    calls = {"best": [4] * N, "near": [1, 2] * (N // 2), "bad": [2, 1] * (N // 2)}
    for at, (name, count) in enumerate(wrong.items()):
        correct = [sample >= count for sample in range(N)]
        add_run(store, name, setting=name, correct=correct, nfe=calls[name], latency_s=[0.1] * N, minutes=at)
    add_run(store, "no", model="other", setting="no", correct=[False] * N, nfe=[4] * N, latency_s=[0.1] * N)
    return store


def frame_of(store: Store, **option: Any):
    """Return the cells of a table."""
    return tables.data(select(store, read_definition(TABLE | option, "table")))


def marks(frame, column: str) -> dict[str, str]:
    """Return what a quantity's cells are marked with, by group."""
    cells = frame[frame["column"] == column]
    return {
        one.group: "best" if one.best else "tie" if one.tie else "none" if one.tie is not None else "untold"
        for one in cells.itertuples()
    }


def test_the_best_is_of_a_model_and_ties_are_not_significantly_worse(store: Store):
    """Guards both tests: 5 lost and none gained of 12 has an exact p of 0.0625, 7 of 0.0156, which is 0.031 among two;
    equal means of calls tie although they differ sample by sample, four calls do not.
    """
    frame = frame_of(store)
    assert marks(frame, "accuracy") == {
        "tiny · best": "best", "tiny · near": "tie", "tiny · bad": "none", "other · no": "best",
    }  # fmt: skip
    assert marks(frame, "nfe") == {
        "tiny · best": "none", "tiny · near": "best", "tiny · bad": "best", "other · no": "best",
    }  # fmt: skip


def test_ties_are_told_among_all_that_are_compared(store: Store):
    """Guards Holm's rule: 7 lost of 12 are p = 0.0156, significant among two and not among four."""
    for at, name in enumerate(("c", "d")):
        add_run(store, name, setting=name, correct=[sample >= 7 for sample in range(N)], nfe=[4] * N,
                latency_s=[0.1] * N, minutes=9 + at)  # fmt: skip
    assert {*marks(frame_of(store, runs={"model": "tiny"}), "accuracy").values()} == {"best", "tie"}


def test_seeds_are_no_further_samples(store: Store):
    """Guards n, and ties: what 4 lost answers do not show, the same 4 under another seed do not show either."""
    for setting, wrong in (("first", 0), ("four", 4)):
        for seed in (0, 1):
            add_run(store, f"{setting}{seed}", setting=setting, correct=[at >= wrong for at in range(N)], nfe=[4] * N,
                    latency_s=[0.1] * N, minutes=9, seed=seed)  # fmt: skip
    frame = frame_of(store, runs={"setting": ["first", "four"]}, groups="setting")
    cells = frame[frame["column"] == "accuracy"]
    assert [*zip(cells["group"], cells["n"], cells["tie"], strict=True)] == [("first", N, True), ("four", N, True)]


def test_other_samples_tell_no_tie(store: Store):
    """Guards against a claim about runs that were asked something else."""
    add_run(store, "short", setting="short", correct=[True] * 3 + [False], nfe=[4] * 4, latency_s=[0.1] * 4)
    assert marks(frame_of(store), "accuracy")["tiny · short"] == "untold"


def test_markdown_has_bold_and_daggers(store: Store):
    """Guards the table in a pull request: percent, one digit, a gap where nothing was run, the caption below."""
    add_run(
        store, "sorted", setting="best", task="sort", correct=[True] * N, nfe=[4] * N, latency_s=[0.1] * N, minutes=9
    )
    frame = frame_of(store, runs={"model": "tiny"})
    head, rule, *rows, blank, caption, note = tables.as_markdown(frame, "Caption.").splitlines()
    quantities = "accuracy, % | {0} model calls per sample"
    assert head == f"|  | copy {quantities.format('copy')} | sort {quantities.format('sort')} |"
    assert rule == "| --- | ---: | ---: | ---: | ---: |"
    assert rows == [
        "| best | **100.0** | 4.0 | **100.0** | **4.0** |",
        "| near | 58.3† | **1.5** | - | - |",
        "| bad | 41.7 | **1.5** | - | - |",
    ]
    assert (blank, caption) == ("", "Caption.") and "not significantly worse" in note


def test_latex_has_the_rules_of_booktabs(store: Store):
    """Guards what a paper includes: headings over blocks, escaped names, marks in mathematics."""
    add_run(
        store, "sorted", setting="b_1", task="sort", correct=[True] * N, nfe=[4] * N, latency_s=[0.1] * N, minutes=9
    )
    lines = tables.as_latex(frame_of(store, runs={"model": "tiny"}), "5 %.").splitlines()
    assert lines[0] == r"% needs \usepackage{booktabs}"
    assert lines[2].startswith(r"\caption{5 \%. Bold")
    assert lines[3:9] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r" & \multicolumn{2}{c}{copy} & \multicolumn{2}{c}{sort} \\",
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}",
        r" & accuracy, \% & model calls per sample & accuracy, \% & model calls per sample \\",
        r"\midrule",
    ]
    assert r"near & 58.3$^{\dagger}$ & \textbf{1.5} & -- & -- \\" in lines
    assert r"b\_1 & -- & -- & \textbf{100.0} & \textbf{4.0} \\" in lines
    assert lines[-3:] == [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
