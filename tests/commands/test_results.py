"""`decbench results`, as a user types it, on a store of known numbers."""

import csv
import io
import json
import os
from collections.abc import Callable
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
    config = '{"a": {"b": 0.5, "none": null}, "list": [1]}'
    add_run(
        store, "aa02", correct=[True, True], nfe=[2, 2], method="fast", setting="fast k=2", config=config, minutes=1
    )
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
    asked |= {"label": "tiny llada copy", "decodings": 2}
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
        (["compare"], "compare: takes two runs or more"),
        (["compare", "aa01"], "takes two runs or more, or filters"),
        (["compare", "aa01", "task=copy"], "compare task=copy: takes runs or filters, not both"),
        (["compare", "aa01,aa02", "bb03"], "aa01,aa02: llada and fast k=2 are two settings"),
        (["compare", "task=none"], "compare task=none: no graded run"),
        (["compare", "aa01", "aa02", "--k=0"], "--k=0: must be whole numbers from 1"),
        (["compare", "aa01", "cc04"], "cc04: has no graded samples"),
        (["list", "taks=copy"], "taks=copy: runs have no column taks; did you mean task?"),
        (["list", "copy"], "copy: nothing is made of this"),
        (["list", "--jsn"], "--jsn: no such option; did you mean --json?"),
        (["export", "--format", "xls"], "--format=xls: no such format; known: csv, markdown, latex"),
        (["export", "--columns=taks"], "--columns=taks: runs have no column taks; did you mean task?"),
        (["export", "--columns=config.a.bb"], "--columns: these runs have no config.a.bb; did you mean config.a.b?"),
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


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run_id=aa"], "run_id=aa: no run has it; did you mean aa01, aa02?"),
        (["task=copy", "setting=fsat k=2"], "setting=fsat k=2: no run has it; did you mean fast k=2?"),
        (["config.a.b=9"], "config.a.b=9: no run has it; runs have 0.5, null"),
        (["name=zz"], "name=zz: no run has it; runs have synthetic"),
    ],
)
@pytest.mark.parametrize("what", [["list"], ["export"], ["delete", "--yes"]], ids=lambda words: words[0])
def test_filters_that_find_nothing_say_what_there_is(
    folder: Path, call_decbench: RunDecbench, words: list[str], hint: str, what: list[str]
):
    """Guards the beginning of a run_id, and a typo in a value, against looking like a store without runs."""
    said = call_decbench("results", *what, *words, "results_dir=store")
    assert said.returncode == 0 and said.stderr == f"{hint}\n"
    both = call_decbench("results", *what, "task=sort", "method=fast", "results_dir=store")
    assert (both.returncode, both.stderr) == (0, "")


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "pipe"])
def test_what_is_no_folder_is_no_store(call_decbench: RunDecbench, tmp_path: Path, make: Callable[[Path], None]):
    """Guards against an empty list of what was looked for in the wrong place."""
    make(tmp_path / "rows.jsonl")
    said = call_decbench("results", "list", "results_dir=rows.jsonl")
    assert (said.returncode, said.stdout) == (2, "")
    assert "results_dir=rows.jsonl: is no folder; give the one that holds a store" in said.stderr


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_folder_may_stand_in_quotes(tmp_path: Path, call_decbench: RunDecbench, quote: str):
    """Guards folders with blanks, which `run` takes in quotes alone: the same words mean the same store."""
    add_run(Store(root=tmp_path / "s p%20#x"), "aa01")
    assert "aa01" in call_decbench("results", "list", f"results_dir={quote}s p%20#x{quote}").stdout


def test_names_that_people_gave_are_taken_as_they_are(tmp_path: Path, call_decbench: RunDecbench):
    """Guards a sweep against a deletion that names another: by letters of another size, numbers alike, or a comma."""
    store = Store(root=tmp_path / "store")
    for run_id, name in {"aa01": "Exp", "aa02": "0.50", "aa03": "a,b", "aa04": "a"}.items():
        add_run(store, run_id, name=name)
    for other in ("exp", "0.5", "b"):
        said = call_decbench("results", "delete", f"name={other}", "--yes", "results_dir=store")
        assert said.stdout == "nothing to delete\n"
    assert listed(call_decbench, "name=a,b") == ["aa03", "aa04"]
    assert listed(call_decbench, "name=Exp,0.50") == ["aa01", "aa02"]


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


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """Store two settings under three seeds each: of four samples, `llada` gets 4, 3, 2 right and `fast` 2, 1, 0."""
    store = Store(root=tmp_path / "store")
    for setting, most in (("llada", 4), ("fast", 2)):
        for seed in range(3):
            times = [(1 if setting == "fast" else 2) + 0.1 * at for at in range(4)]
            add_run(store, f"{setting}{seed}", setting=setting, method=setting, seed=seed, minutes=seed,
                    correct=[at < most - seed for at in range(4)], nfe=[4] * 4, latency_s=times)  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("words", [["llada0,llada1,llada2", "fast0,fast1,fast2"], ["llada0", "fast1", "--seeds"]])
def test_seeds_are_compared_as_one_setting(seeds: Path, call_decbench: RunDecbench, words: list[str]):
    """Guards clusters, by commas and by --seeds: 4 samples and not 12, 0.75 to 0.25, spread 0.25, all four less often
    right; every time of the second is below every time of the first.
    """
    said = json.loads(call_decbench("results", "compare", *words, "--k=1,3", "--json", "results_dir=store").stdout)
    assert (said["samples"], said["accuracy"], said["gained"]) == (4, "0.7500 / 0.2500", [])
    assert said["lost"] == ["s0", "s1", "s2", "s3"]
    assert said["p value"].startswith("0.0625 (sign test")
    first, second = said["accuracy over seeds"].split(" / ")
    assert "± 0.25 over 3, 0.5 to 1" in first and second.startswith("0.25 [")
    # Three answers of each sample, 3, 3, 2, 1 of them right: the mean is 0.75, and none is never right.
    assert said["pass@1"].startswith("0.75 [") and said["pass@3"].startswith("1 [")
    assert said["times ranked"].startswith("faster in 100 % of pairs of samples, p = 0.02857")


def test_several_runs_are_compared_with_the_first(seeds: Path, call_decbench: RunDecbench):
    """Guards the family of p-values: 4 lost of 4 are p = 1 / 8 less half, twice so among two."""
    said = json.loads(call_decbench("results", "compare", "llada0", "fast2", "llada2", "--json",
                                    "results_dir=store").stdout)  # fmt: skip
    assert [one["p value"] for one in said] == [
        "0.0625 (McNemar, mid-p); 0.125 among 2 (Holm)", "0.25 (McNemar, mid-p); 0.25 among 2 (Holm)",
    ]  # fmt: skip


def test_a_seed_of_nought_is_a_seed(seeds: Path, call_decbench: RunDecbench):
    """Guards numbers that are 0 against being told as nothing, and fixed batches, of which a row says nothing."""
    told = call_decbench("results", "compare", "llada0", "llada1", "--json", "results_dir=store").stdout
    assert json.loads(told)["differ in"] == ["seed: 0 / 1"]
    add_run(Store(root=seeds / "store"), "streamed", setting="llada", method="llada", batching="continuous")
    told = call_decbench("results", "compare", "llada0", "streamed", "--json", "results_dir=store").stdout
    assert "batching: fixed / continuous" in json.loads(told)["differ in"]


def test_counted_runs_have_no_ranked_times(seeds: Path, call_decbench: RunDecbench):
    """Guards against times of runs that were not made to be timed."""
    add_run(Store(root=seeds / "store"), "counted", setting="fast", method="fast", measure="counts", correct=[True] * 4,
            nfe=[4] * 4, latency_s=[1.0] * 4)  # fmt: skip
    said = json.loads(call_decbench("results", "compare", "llada0", "counted", "--json", "results_dir=store").stdout)
    assert "times ranked" not in said


def test_filters_compare_every_setting_with_its_baseline(seeds: Path, call_decbench: RunDecbench):
    """Guards the table for many settings: one line each, its seeds joined, pass@k last."""
    text = call_decbench("results", "compare", "task=copy", "--k=3", "results_dir=store").stdout
    head, _, fast, base = text.splitlines()
    assert head.endswith("| p | p (Holm) | x nfe | pass@3 |")
    assert base.startswith("| tiny | llada | copy | 4 | 3 | 75.0 [") and "| 1 | - | 1 [1, 1] |" in base
    assert fast.startswith("| tiny | fast | copy | 4 | 3 | 25.0 [") and "| 0.062 | 0.062 |" in fast


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


def test_places_of_a_configuration_are_exported(folder: Path, call_decbench: RunDecbench):
    """Guards `config.`: what chooses among runs can be read out of them; a null, and a run that lacks it, are empty."""
    words = ("--columns=run_id,config.a.b,config.a.none,config.list", "task=copy", "status=ok", "results_dir=store")
    said = call_decbench("results", "export", *words)
    assert said.stdout.splitlines() == ["run_id,config.a.b,config.a.none,config.list", "aa01,,,", "aa02,0.5,,[1]"]


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


def test_what_goes_says_which_sweeps_asked_for_it(folder: Path, call_decbench: RunDecbench):
    """Guards a run that a later sweep took from the store: who deletes what the sweep asked for sees whose it is."""
    asked = {"setting_id": "of_bb03", "run_id": "bb03", "attempt": 1, "status": "ok", "resumed": True, "label": "x"}
    created = Store(root=folder / "store").read("runs")["created"][0].as_py()
    for name in ("first", "later"):
        write_requests(
            Store(root=folder / "store"), new_sweep(), [{**asked, "name": name, "decodings": 2, "created": created}]
        )
    said = call_decbench("results", "delete", "name=later", "--yes", "results_dir=store")
    (line, _) = said.stdout.splitlines()
    assert line.startswith("bb03 attempt 1 (ok) of of_bb03, asked for by ")
    assert {*line.rpartition("by ")[2].split(", ")} == {"first", "later"}


def test_an_empty_store_is_no_error(tmp_path: Path, call_decbench: RunDecbench):
    """Guards the first look, before anything was run."""
    assert listed(call_decbench) == []
    assert call_decbench("results", "compact", "results_dir=store").returncode == 0
    said = call_decbench("results", "migrate", "results_dir=store")
    assert said.stdout == "store: 0 runs of older columns migrated\n"
    assert not (tmp_path / "store").exists()
