"""The page from a store: what is in it, how much, and that it is the same for the same store."""

import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, MissingDependency
from harness.results.figures.scatter import TheoryPoint
from harness.results.html import libraries
from harness.results.html import page as making
from harness.results.html.packing import unpacked
from harness.results.html.page import Page, Shown, page
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep
from tests.results.figures.traced import traced_store

for package in ("jinja2", "plotly", "itables"):
    pytest.importorskip(package)

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028"


def spelling(config: Any) -> Any:
    return lambda token: f"t{token}"


def made(store: Store, filters: dict[str, set[str]] | None = None, shown: Shown | None = None) -> Page:
    return page(store, filters or {}, spelling, shown or Shown())


def chunk(html: str, name: str) -> Any:
    (text,) = re.findall(rf'id="chunk-{name}">([^<]*)<', html)
    return unpacked(text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(root=tmp_path)
    add_sweep(store)
    return store


def test_every_run_is_there_with_its_reason(store: Store):
    """Guards against a page that leaves out what failed."""
    html = made(store).html
    board = chunk(html, "board")
    assert {run["run_id"]: run["status"] for run in board["runs"]}["bad"] == "failed"
    bad = chunk(html, "run-bad")
    row = chunk(html, f"about-{bad['about']}")["bad"]["row"]
    assert (row["error"], bad["samples"]["rows"]) == ("logits are NaN in sample s1", [])
    assert {one["setting"] for one in board["standings"]} == {"llada", "fast step=4", "ar_greedy"}
    assert board["columns"]["latency_s"] == ["s", "mean wall time of generation"]


def test_samples_are_listed_with_the_columns_that_they_have(store: Store):
    """Guards the page of a run: no column of nothing."""
    samples = chunk(made(store).html, "run-fast-sort")["samples"]
    assert samples["columns"] == ["sample_id", "correct", "correct_strict", "nfe", "query_tokens", "tokens_out",
                                  "latency_s", "finish_reason"]  # fmt: skip
    assert samples["rows"] == [["s0", True, True, 1, 16, 4, 0.1, "stop"], ["s1", False, False, 1, 16, 4, 0.1, "stop"]]


def test_traced_samples_can_be_played(tmp_path: Path):
    """Guards films: what was traced step by step, spelled, and named in the list of runs."""
    html = made(traced_store(tmp_path), shown=Shown(films=1)).html
    details = chunk(html, "run-two")
    (film,) = details["films"]
    assert (film["sample"], film["traced"], len(film["frames"])) == ("s0", True, 2)
    assert details["words"] == {"0": "t0", "1": "t1", "2": "t2", "3": "t3"}
    assert {run["run_id"]: run["films"] for run in chunk(html, "board")["runs"]}["two"] == ["s0"]


def test_what_samples_were_asked_is_there_once(tmp_path: Path):
    """Guards prompts: those of samples that can be played, shared by all runs that asked them, or none."""

    def asked(run: Any, samples: Any) -> Any:
        known = [] if run["run_id"] == "drafts" else samples
        return {row["sample_id"]: [("user", f"{HOSTILE} {row['sample_id']}")] for row in known}

    html = made(traced_store(tmp_path), shown=Shown(films=1, asked=asked)).html
    assert chunk(html, "prompts") == {"p0": [["user", f"{HOSTILE} s0"]]}
    films = {run: chunk(html, f"run-{run}")["films"] for run in ("left", "two", "drafts")}
    assert {run: [film["prompt"] for film in of] for run, of in films.items()} == {
        "left": ["p0"], "two": ["p0"], "drafts": [None]}  # fmt: skip
    assert "onerror" not in html


def test_what_tasks_allow_stands_beside_what_was_reached(store: Store):
    """Guards the line of theory, asked of good runs alone, and areas of methods on each task and over both."""

    def theory(runs: Any) -> list[TheoryPoint]:
        assert {run["status"] for run in runs} == {"ok"}
        return [TheoryPoint(task="copy", kind="fewest", nfe=1, accuracy=1)]

    board = chunk(made(store, shown=Shown(theory=theory)).html, "board")
    assert board["theory"] == [{"task": "copy", "kind": "fewest", "nfe": 1, "accuracy": 1}]
    assert {one["task"] for one in board["areas"]} == {None, "copy", "sort"}


def test_runs_that_were_not_traced_are_decoded_again_if_asked(store: Store):
    """Guards traces=N: the samples that are to be played, of good runs alone, and that the page says so."""
    asked = []

    def decode(run: Any, samples: Any) -> Any:
        asked.append((run["run_id"], [row["sample_id"] for row in samples]))
        nothing = dict.fromkeys(("window", "scores", "entropy", "remasked", "edited", "predicted", "drafted",
                                 "n_accepted", "n_computed", "n_reused", "cached"))  # fmt: skip
        return {row["sample_id"]: [nothing | {"step": 0, "positions": [0], "tokens": [1]}] for row in samples}

    html = made(store, {"task": {"sort"}}, Shown(films=1, decode=decode)).html
    assert sorted(asked) == [("ar-sort", ["s0"]), ("base-sort", ["s0"]), ("fast-sort", ["s0"])]
    (film,) = chunk(html, "run-fast-sort")["films"]
    assert film["again"] and film["frames"][0]["set"] == [[0, 1]]


def test_a_setting_that_was_also_traced_is_compared_once(tmp_path: Path):
    """Guards the leaderboard against the same answers twice, and keeps what was only traced."""
    store = Store(root=tmp_path)
    add_run(store, "counted", setting_id="same", measure="counts")
    add_run(store, "traced", setting_id="same", measure="traced")
    assert [one["runs"] for one in chunk(made(store).html, "board")["standings"]] == [["counted"]]
    add_run(store, "other", setting="llada steps=2", nfe=[2, 2], measure="traced")
    assert len(chunk(made(store).html, "board")["standings"]) == 3


def test_the_same_store_gives_the_same_page(store: Store):
    """Guards pages that are committed."""
    assert made(store).html == made(store).html


def test_nothing_in_a_store_becomes_markup(tmp_path: Path):
    """Guards readers: names, settings and outputs may hold whatever a model or a user wrote."""
    store = Store(root=tmp_path)
    add_run(store, "base")
    before = made(store).html.count("<script")
    add_run(store, "hostile", model=HOSTILE, setting=HOSTILE, task=HOSTILE, error=HOSTILE)
    html = made(store).html
    assert html.count("<script") == before + 1
    assert "onerror" not in html
    assert chunk(html, "about-0")["hostile"]["row"]["setting"] == HOSTILE


def test_nothing_is_fetched(store: Store):
    """Guards readers without a network: no address of another place but in texts of libraries."""
    html = made(store).html
    own = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)', own)
    assert "default-src 'none'" in html and "connect-src" not in html


def test_as_many_samples_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards the bound: the page is thinned and says so; what is asked for by number is refused instead."""
    store, many = Store(root=tmp_path), 400
    add_run(store, "base", correct=[True] * many, nfe=[*range(many)], latency_s=[1 / (one + 3) for one in range(many)])
    whole = len(made(store).html)
    monkeypatch.setattr(making, "LARGEST_BYTES", whole - 3000)
    found = made(store)
    kept, all_of_them = chunk(found.html, "run-base")["listed"]
    assert 0 < kept < all_of_them == many
    assert found.notes == (f"the first {kept} of {many} samples of a run are listed",)
    with pytest.raises(ConfigError, match=r"samples=400: the page .* leave samples= out for as many as fit"):
        made(store, shown=Shown(samples=400))
    monkeypatch.setattr(making, "LARGEST_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"the page of these runs takes .* choose fewer runs, such as task=NAME"):
        made(store)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"task": {"gone"}}, "task=gone: no run is like this; decbench results list"),
        ({"status": {"failed"}}, "status=failed: none of 1 runs is good"),
    ],
)
def test_a_page_of_nothing_is_refused(store: Store, filters: dict[str, set[str]], message: str):
    """Guards against an empty page."""
    with pytest.raises(ConfigError, match=message):
        made(store, filters)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    """Guards installations without the extra."""
    monkeypatch.setitem(libraries._FILES, "plotly", ("no_such_package", "x.js"))
    with pytest.raises(MissingDependency, match=r"reports need no_such_package .* pip install 'decbench\[report\]'"):
        libraries.library("plotly")
