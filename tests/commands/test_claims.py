"""`decbench claims`, as a user types it, on stores of known numbers."""

import json
from pathlib import Path

import pytest

from harness.commands.claims.naming import Namer
from harness.config.composition import compose
from harness.config.job import resolve
from harness.results.claims.claim import Side
from harness.results.claims.evidence import Missing
from harness.results.claims.kept import read_kept
from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_run

FAST = ("model=tiny_mdm", "gen_length=16", "task.samples=2", "method=threshold")
SLOW = (*FAST[:3], "method=llada")
FILE = """
settings: {tiny: model=tiny_mdm gen_length=16 task.samples=2}
claims:
- {id: speed, system: Fast-dLLM, paper: P, place: figure, claim: fewer calls, with: tiny, tasks: list_copy,
   of: method=threshold, against: method=llada, holds_if: [{compare: saving, metric: nfe, at_least: 2}]}
- {id: accuracy, system: Fast-dLLM, paper: P, place: table, claim: right, with: tiny, tasks: list_copy,
   of: method=threshold, metric: accuracy, published: 100}
- {id: drafts, system: Hidden Transfer, paper: P, place: table, claim: "fast | drafts", tasks: humaneval, metric: tpf,
   of: model=hf_causal model.hub_id=Qwen/Qwen3-4B method=hidden_transfer, published: 6.58}
- {id: weights, system: LLaDA, paper: P, place: table, claim: right, metric: accuracy, published: {gsm8k: 70},
   of: model=llada_8b_base protocol=llada_lmeval method=llada}
- {id: images, system: ReCAP, paper: P, place: abstract, claim: fast, published: 2.4, unit: x, not_comparable: no text}
"""


@pytest.fixture(scope="module")
def ids() -> dict[tuple[str, ...], str]:
    """Name the two settings of the file as a run would, once."""
    return {one: resolve(compose([*one, "task=list_copy"])).setting_id for one in (FAST, SLOW)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "claims.yaml").write_text(FILE)
    return tmp_path


def verdicts(call: RunDecbench, *words: str) -> dict[str, tuple[str, str]]:
    said = call("claims", "--json", "--file=claims.yaml", *words)
    assert said.returncode == 0, said.stderr
    return {one["id"]: (one["verdict"], one["because"]) for one in json.loads(said.stdout)}


def test_a_stored_number_makes_a_verdict_and_another_one_another(
    folder: Path, ids: dict[tuple[str, ...], str], call_decbench: RunDecbench
):
    """Guards the whole way: no verdict without runs, one from runs, another from other numbers of newer runs."""
    store = Store(root=folder / "store")
    before = verdicts(call_decbench, "results_dir=store")
    assert before["speed"] == ("not run", "the store has no run")
    assert before["accuracy"] == ("not run", "the store has no run")
    assert before["drafts"] == ("not run", "not built: method hidden_transfer")
    assert before["weights-gsm8k"] == ("not run", "weights: `hf download GSAI-ML/LLaDA-8B-Base`")
    assert before["images"] == ("not comparable", "no text")

    add_run(store, "f1", setting_id=ids[FAST], nfe=[2, 2])
    assert verdicts(call_decbench, "results_dir=store", "speed")["speed"][0] == "not run"
    add_run(store, "s1", setting_id=ids[SLOW], nfe=[4, 4])
    after = verdicts(call_decbench, "results_dir=store")
    assert after["speed"] == ("mechanism holds", "nfe saved 2 x [2, 2], at least 2 asked")
    assert after["accuracy"][0] == "reproduced"

    add_run(store, "f2", setting_id=ids[FAST], nfe=[3, 3], correct=[False, False])
    changed = verdicts(call_decbench, "results_dir=store")
    assert changed["speed"][0] == "mechanism fails" and changed["accuracy"][0] == "differs"


def test_kept_runs_answer_where_the_store_has_none(
    folder: Path, ids: dict[tuple[str, ...], str], call_decbench: RunDecbench
):
    """Guards committed evidence: written on demand, read beside the file, and never before a store of one's own."""
    store = Store(root=folder / "store")
    add_run(store, "f1", setting_id=ids[FAST], nfe=[2, 2])
    add_run(store, "s1", setting_id=ids[SLOW], nfe=[4, 4])
    add_run(store, "x1", setting_id="of another")
    verdicts(call_decbench, "results_dir=store", "--keep=claims.parquet")
    assert read_kept(folder / "claims.parquet").keys() == set(ids.values())
    assert verdicts(call_decbench, "speed")["speed"][0] == "mechanism holds"
    assert verdicts(call_decbench, "speed", "results_dir=empty")["speed"][0] == "not run"
    add_run(Store(root=folder / "results" / "raw"), "f3", setting_id=ids[FAST], nfe=[4, 4])
    assert verdicts(call_decbench, "speed")["speed"][0] == "mechanism fails"


def test_readers_get_lines_pages_and_one_claim_whole(folder: Path, call_decbench: RunDecbench):
    """Guards the three forms, and cells that would break a table."""
    lines = call_decbench("claims", "--file=claims.yaml", "results_dir=store").stdout.splitlines()
    assert lines[-1] == "1 not comparable, 4 not run" and lines[1].split()[0] == "speed"
    page = call_decbench("claims", "--file=claims.yaml", "results_dir=store", "--markdown", "Hidden Transfer").stdout
    assert (
        "## 27. Hidden Transfer" in page
        and r"fast \| drafts | P, table | 6.58 tokens/call | not run | not built: m" in page
    )
    whole = call_decbench("claims", "--file=claims.yaml", "results_dir=store", "speed").stdout
    assert "kind       mechanism" in whole
    assert "decbench run model=tiny_mdm gen_length=16 task.samples=2 method=threshold task=list_copy" in whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spead"], "spead: no such claim; did you mean speed?"),
        (["task=list_copy"], "task=list_copy: nothing is made of this"),
        (["--jsn"], "--jsn: no such option; did you mean --json?"),
        (["--file=none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_a_wrong_request_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks."""
    said = call_decbench("claims", "--file=claims.yaml", *words)
    assert said.returncode == 2 and message in said.stderr and len(said.stderr.splitlines()) == 1


def test_a_claim_of_nobody_is_refused(folder: Path, call_decbench: RunDecbench):
    """Guards the list of systems against a second spelling of one of them."""
    (folder / "claims.yaml").write_text(FILE.replace("system: ReCAP", "system: ReCapp"))
    said = call_decbench("claims", "--file=claims.yaml")
    assert said.returncode == 2 and "images: system=ReCapp: did you mean ReCAP?" in said.stderr


def test_settings_that_differ_in_their_task_are_named_as_their_runs_are():
    """Guards the short cut over tasks: what is composed once for all has the names that every run has."""
    side = Side(overrides=("model=tiny_mdm", "gen_length=16", "method=prophet"), tasks=("list_copy", "list_sort"))
    each = [resolve(compose([*side.overrides, f"task={task}"])).setting_id for task in side.tasks]
    assert Namer().name(side) == each
    wrong = Side(overrides=("model=tiny_mdm", "method=prophet", "method.steps=x"), tasks=("list_copy",))
    found = Namer().name(wrong)
    assert isinstance(found, Missing) and found.reason.startswith("method.steps=x: ")
