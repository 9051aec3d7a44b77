"""`decbench results`, as a user types it, on a store of known numbers."""

import csv
import io
import json
from pathlib import Path

import pytest

from harness.results.requests import new_sweep, write_requests
from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_run, run_row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Store two runs on the same samples, one on another task, and one that failed."""
    store = Store(root=tmp_path / "store")
    add_run(store, "aa01", correct=[True, False], nfe=[4, 4], minutes=0)
    add_run(store, "aa02", correct=[True, True], nfe=[2, 2], method="fast", setting="fast k=2", minutes=1)
    add_run(store, "bb03", task="sort", minutes=2)
    store.write(run_row("cc04", status="failed", error="out of memory", minutes=3))
    return tmp_path


def listed(call: RunDecbench, *words: str) -> list[str]:
    """Return the names of the runs that `list` prints."""
    said = call("results", "list", *words, "results_dir=store", "--json")
    assert said.returncode == 0, said.stderr
    return [row["run_id"] for row in json.loads(said.stdout)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["aa01", "aa02", "bb03", "cc04"]),
        (["task=copy", "status=ok"], ["aa01", "aa02"]),
        (["method=fast,llada", "nfe=2"], ["aa02"]),
        (["n=null"], ["cc04"]),
        (["setting=fast k=2"], ["aa02"]),
        (["name=later"], ["aa01"]),
    ],
)
def test_runs_are_listed_by_what_they_are(folder: Path, call_decbench: RunDecbench, words: list[str], names: list[str]):
    """Guards filters: equal text or number, one of several, what is not known, and sweeps that took a stored run."""
    asked = {"name": "later", "setting_id": "of_aa01", "run_id": "aa01", "attempt": 1, "status": "ok", "resumed": True}
    created = Store(root=folder / "store").read("runs")["created"][0].as_py()
    write_requests(Store(root=folder / "store"), new_sweep(), [{**asked, "created": created}])
    assert listed(call_decbench, *words) == names


def test_attempts_are_listed_on_demand(folder: Path, call_decbench: RunDecbench):
    """Guards the newest attempt as the one that is meant, and the others as findable."""
    add_run(Store(root=folder / "store"), "aa01", minutes=9)
    assert listed(call_decbench, "task=copy", "method=llada", "status=ok") == ["aa01"]
    assert listed(call_decbench, "task=copy", "method=llada", "status=ok", "--all") == ["aa01", "aa01"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "aa"], "aa: begins the names of several runs, aa01, aa02; write more"),
        (["show", "aa1"], "aa1: no such run; nearest: aa01"),
        (["show"], "takes one run"),
        (["compare", "aa01"], "takes two runs"),
        (["compare", "aa01", "cc04"], "cc04: has no graded samples"),
        (["list", "taks=copy"], "taks=copy: runs have no column taks; did you mean task?"),
        (["list", "copy"], "copy: nothing is made of this"),
        (["list", "--jsn"], "--jsn: no such option; did you mean --json?"),
        (["export", "--format", "xls"], "--format=xls: no such format; known: csv, markdown, latex"),
        (["export", "--columns=taks"], "--columns=taks: runs have no such column; did you mean task?"),
        (["export", "--output", "no/such/file"], "--output=no/such/file: cannot be written"),
        (["delete"], "delete: needs runs, or filters"),
        (["delete", "aa01"], "nobody is there to be asked; add --yes"),
        (["lst"], "did you mean list?"),
    ],
)
def test_a_wrong_request_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks, and against guessing which run is meant."""
    said = call_decbench("results", *words, "results_dir=store")
    assert said.returncode == 2 and message in said.stderr and len(said.stderr.strip().splitlines()) == 1
    assert len(Store(root=folder / "store").attempts()) == 4


def test_a_file_is_no_store(call_decbench: RunDecbench, tmp_path: Path):
    """Guards against an empty list of what was looked for in the wrong place."""
    (tmp_path / "rows.jsonl").touch()
    said = call_decbench("results", "list", "results_dir=rows.jsonl")
    assert (said.returncode, said.stdout) == (2, "")
    assert "results_dir=rows.jsonl: is a file; give the folder that holds a store" in said.stderr


def test_a_run_is_shown_whole(folder: Path, call_decbench: RunDecbench):
    """Guards what a reader needs to believe a number."""
    said = call_decbench("results", "show", "cc", "results_dir=store")
    assert "out of memory" in said.stdout and "cc04" in said.stdout
    row = json.loads(call_decbench("results", "show", "aa02", "--json", "results_dir=store").stdout)
    assert (row["nfe"], row["attempts"], row["asked_for_by"]) == (2.0, [1], [])


def test_two_runs_are_compared_sample_by_sample(folder: Path, call_decbench: RunDecbench):
    """Guards the pairing: which samples differ, and what the second gains on them."""
    said = json.loads(call_decbench("results", "compare", "aa01", "aa02", "--json", "results_dir=store").stdout)
    assert (said["samples"], said["accuracy"], said["gained"], said["lost"]) == (2, "0.5000 / 1.0000", ["s1"], [])
    assert said["fewer calls, times"].startswith("2 [") and said["differ in"] == ["setting: llada / fast k=2"]
    text = call_decbench("results", "compare", "aa01", "aa02", "results_dir=store").stdout
    assert "gained                s1" in text


def test_runs_are_exported_for_other_programs(folder: Path, call_decbench: RunDecbench):
    """Guards numbers in full for programs, and tables that LaTeX takes."""
    said = call_decbench("results", "export", "task=copy", "status=ok", "results_dir=store").stdout
    rows = list(csv.DictReader(io.StringIO(said)))
    told = [(row["run_id"], float(row["accuracy"]), row["error"]) for row in rows]
    assert told == [("aa01", 0.5, ""), ("aa02", 1.0, "")]
    options = ("--columns", "setting,nfe", "results_dir=store", "--output", "table.tex")
    assert call_decbench("results", "export", "method=fast", "--format=latex", *options).stdout == ""
    assert (folder / "table.tex").read_text().splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r"setting & nfe \\", r"\midrule", r"fast k=2 & 2 \\", r"\bottomrule",
        r"\end{tabular}",
    ]  # fmt: skip
    words = ("--format=markdown", "--columns=setting,nfe")
    markdown = call_decbench("results", "export", "method=fast", *words, "results_dir=store").stdout
    assert markdown == "| setting | nfe |\n| --- | --- |\n| fast k=2 | 2 |\n"


def test_signs_of_latex_are_written_as_text():
    """Guards against a table that does not compile."""
    from harness.results.export import as_latex

    assert r"a\_b \& 5\% \textbackslash{}x \{\} \textasciitilde{}" in as_latex([{"t": r"a_b & 5% \x {} ~"}], ["t"])


def test_runs_are_deleted_and_packed(folder: Path, call_decbench: RunDecbench):
    """Guards that what goes is said, and that only that goes."""
    said = call_decbench("results", "delete", "status=failed", "--yes", "results_dir=store")
    assert said.stdout.splitlines() == ["cc04 attempt 1 (failed) of of_cc04", "1 attempts deleted"]
    assert call_decbench("results", "delete", "bb", "--yes", "results_dir=store").returncode == 0
    again = call_decbench("results", "delete", "status=failed", "--yes", "results_dir=store")
    assert again.stdout == "nothing to delete\n"
    assert call_decbench("results", "compact", "results_dir=store").stdout == "store: 4 files are now 3\n"
    assert listed(call_decbench) == ["aa01", "aa02"]


def test_an_empty_store_is_no_error(tmp_path: Path, call_decbench: RunDecbench):
    """Guards the first look, before anything was run."""
    assert listed(call_decbench) == []
    assert call_decbench("results", "compact", "results_dir=store").returncode == 0
    said = call_decbench("results", "migrate", "results_dir=store")
    assert said.stdout == "store: 0 runs of older columns migrated\n"
    assert not (tmp_path / "store").exists()
