"""`decbench run experiment=iso_quality` and `decbench iso_quality`, on a model whose optimum is known, and refused."""

import csv
import io
import json
from pathlib import Path

import pytest

from harness.results import iso_quality
from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_run

pytest.importorskip("optuna")

# The exact law of copying leaves nothing to guess: one step for all positions is as good as one token per step.
SEARCH = "run experiment=iso_quality model=oracle method=llada task=list_copy task.samples=16 batch_size=16".split()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["margin=0"], "margin=0: must be percentage points above 0"),
        (["margin=-1"], "margin=-1: must be percentage points above 0"),
        (["objective=speed"], "objective=speed: cannot be made small; known: nfe, query_tokens, latency_s"),
        (["objective=latency_s"], "objective=latency_s: needs times, and measure=counts has none; measure=timed"),
        (["trials=0"], "trials=0: must be at least 1"),
        (["method=oracle"], "method=oracle: has no knobs to search"),
        (["method=threshold", "method.threshold=0.5"], "method=threshold: has no knobs to search"),
        (["search.split=a"], "search.split=a: must be a whole number"),
        (["search.knobs.threshold={method.threshold: 3}"], "must be a list of values, or {low:"),
    ],
)
def test_a_search_that_cannot_be_ends_in_one_line(
    tmp_path: Path, call_decbench: RunDecbench, words: list[str], message: str
):
    """Guards against runs that are made before the mistake is told."""
    said = call_decbench("run", "experiment=iso_quality", "task.samples=4", "results_dir=store", *words)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1), said.stderr
    assert message in said.stderr and not (tmp_path / "store").exists()


def test_a_search_without_ranges_is_none(call_decbench: RunDecbench):
    """Guards against an objective that nothing reads."""
    said = call_decbench("run", "objective=nfe", "results_dir=store")
    assert (
        said.returncode == 2 and "objective=nfe: nothing is searched here; experiment=iso_quality does" in said.stderr
    )


def test_the_fastest_setting_is_found_kept_and_shown_from_the_store(tmp_path: Path, call_decbench: RunDecbench):
    """Guards the whole way: five settings and the baseline are stored runs, one call is the best, a second search takes
    all from the store, and what is shown follows from the runs; 8 samples per half show no margin of a point.
    """
    words = [*SEARCH, "results_dir=store", "--json"]
    first = json.loads(call_decbench(*words).stdout.splitlines()[-1])
    (row,) = first["rows"]
    assert (row["setting"], row["cost"], row["n"], row["trials"]) == ("llada steps=1", 1, 8, 5)
    assert (row["verdict"], row["difference"]) == ("undecided", 0) and row["shown_margin"] > 30
    files = sorted(file.name for file in (tmp_path / "store" / "runs").glob("*.parquet"))
    assert len(files) in (5, 6)  # steps=16 may be the baseline, spelled out
    again = call_decbench(*words)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == first
    assert sorted(file.name for file in (tmp_path / "store" / "runs").glob("*.parquet")) == files
    made = {file.suffix for file in (tmp_path / "store" / "figures").iterdir()}
    assert made == {".md", ".csv", ".svg", ".pdf", ".png"}
    shown = call_decbench("iso_quality", "results_dir=store").stdout
    assert "| oracle | llada steps=1 | undecided | 1 |" in shown and "Too few samples for a margin of 1 points" in shown
    assert "on the other (split by sample, seed 0)" in shown
    table = call_decbench("iso_quality", "iso_quality", "--format=csv", "results_dir=store").stdout
    assert next(csv.DictReader(io.StringIO(table)))["runs"] == row["runs"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Store a search by hand: of 2,000 samples `k=2` loses none in half the calls, `k=4` a tenth in a quarter."""
    store, n = Store(root=tmp_path / "store"), 2000
    for name, calls, lost in (("base", 4, 0), ("two", 2, 0), ("four", 1, 200)):
        correct = [at % 1000 >= lost / 2 for at in range(n)]
        add_run(store, name, setting=f"fast {name}", correct=correct, nfe=[calls] * n, latency_s=[0.1] * n)
    trials = tuple(iso_quality.Trial(knobs=(f"k={name}",), runs=(name,)) for name in ("two", "four", "gone"))
    subject = iso_quality.Subject(name="fast", baseline=("base",), trials=trials)
    iso_quality.write_search(store, iso_quality.Search(
        search_id="abc", name="mine", created="2025-01-01T00:00:00", objective="nfe", margin=1.0, split=0,
        subjects=(subject,),
    ))  # fmt: skip
    return store


def rows(store: Store) -> list[dict]:
    """Return what a search says now."""
    search = iso_quality.read_search(store, "mine")
    return iso_quality.rows_of(search, iso_quality.found_of(store, search))


def test_verdicts_come_from_the_runs(store: Store):
    """Guards against a verdict without its runs: `two` is chosen, a run that is gone is not, and as its stored answers
    change, the verdict does.
    """
    (row,) = rows(store)
    assert (row["setting"], row["verdict"], row["times_less"], row["n"], row["trials"]) == (
        "fast two",
        "yes",
        2,
        1000,
        2,
    )
    # `two` now loses a tenth, in the half that is reported as in the other.
    n = 2000
    add_run(store, "two", setting="fast two", correct=[at % 1000 >= 100 for at in range(n)], nfe=[2] * n,
            latency_s=[0.1] * n, minutes=9)  # fmt: skip
    (row,) = rows(store)
    assert row["verdict"] == "no" and row["high"] < -1


def test_the_half_that_is_reported_chooses_nothing(store: Store):
    """Guards the split: with `two` wrong on all of the other half, it is chosen as before, and reported as lost."""
    search = iso_quality.read_search(store, "mine")
    half = iso_quality.halves(iso_quality.load(store, ["base"]), search.split)
    add_run(store, "two", setting="fast two", correct=[("copy", f"s{at}") in half.search for at in range(2000)],
            nfe=[2] * 2000, latency_s=[0.1] * 2000, minutes=9)  # fmt: skip
    (row,) = rows(store)
    assert (row["setting"], row["search_difference"], row["difference"]) == ("fast two", 0, -100)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["other"], "other: no such search is stored; known: mine"),
        (["--format=xls"], "--format=xls: no such format; known: markdown, csv"),
        (["a", "b"], "takes the name of one search"),
    ],
)
def test_what_is_not_stored_is_told(store: Store, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards the command's mistakes."""
    said = call_decbench("iso_quality", *words, "results_dir=store")
    assert said.returncode == 2 and message in said.stderr


def test_a_record_that_is_broken_is_named(store: Store, call_decbench: RunDecbench, tmp_path: Path):
    """Guards against a traceback from a file that somebody edited."""
    (tmp_path / "store" / "searches" / "abc.json").write_text("{}")
    said = call_decbench("iso_quality", "results_dir=store")
    assert said.returncode == 2 and "abc.json: is no record of a search" in said.stderr
