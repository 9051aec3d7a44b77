"""Claims: what a file may say, and how a verdict follows from numbers that can be checked by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from harness.errors import DataError
from harness.results.claims.claim import Check, Claim, Compare, Published, Side
from harness.results.claims.evidence import Cell, Missing, collect, of_side
from harness.results.claims.kept import read_kept, write_kept
from harness.results.claims.metrics import COLUMNS
from harness.results.claims.reading import read_claims
from harness.results.claims.verdict import Outcome, Verdict, judge
from harness.results.store import Store
from tests.results.factory import add_run

Sides = tuple[Side, ...]
FAST, SLOW = (Side(overrides=(f"method={name}",), tasks=("copy",)) for name in ("fast", "slow"))
TOLD = {"id": "c", "system": "S", "paper": "P", "place": "table"}


def cell(correct: Sequence[float], nfe: Sequence[float] | None = None, **changed: object) -> Cell:
    """Return a run whose samples have 8 query positions per call, 4 tokens each, and half a second."""
    n = len(correct)
    columns = {name: np.zeros(n) for name in COLUMNS} | {"correct": np.array(correct, float)}
    columns |= {"nfe": np.array(nfe or [4] * n, float), "tokens_out": np.full(n, 4.0), "latency_s": np.full(n, 0.5)}
    kept = {
        "run_id": "r",
        "setting_id": "s",
        "task": "copy",
        "model": "m",
        "conditions": {"device": "cuda NVIDIA A100", "batch_size": 1, "measure": "timed"},
        "made": {"created": None, "git_commit": None, "packages_sha256": None},
        "samples": tuple((f"s{i}", "p") for i in range(n)),
        "values_NC": np.stack([columns[name] for name in COLUMNS], axis=1),
        "answers": tuple(f"a{i}" for i in range(n)),
    }
    return Cell(**{**kept, **changed})  # type: ignore[arg-type]


def asked(compare: str, metric: str | None = "nfe", *, sides: Sides = (FAST, SLOW), **bounds: float) -> Claim:
    check = Check(compare=Compare(compare), metric=metric, sides=sides, **bounds)
    return Claim(**{**TOLD, "text": "t"}, checks=(check,))


def published(value: float, *, metric: str = "accuracy", **more: object) -> Claim:
    check = Check(compare=Compare.VALUE, metric=metric, sides=(FAST,))
    kept = {"value": value, "unit": "%", "tolerance": 0.5} | more
    return Claim(**{**TOLD, "text": "t"}, checks=(check,), published=Published(**kept))  # type: ignore[arg-type]


def verdict(claim: Claim, fast: Cell, slow: Cell | None = None) -> Verdict:
    return judge(claim, {FAST: [fast], SLOW: [slow or cell([1] * 8)]})


HALF = [1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("claim", "fast", "outcome", "says"),
    [
        # Eight answers, four of them right: 50 %, Wilson 21.5 to 78.5.
        (published(50.4), cell(HALF), "reproduced", "50.4 % published, 50 % [21.5, 78.5] measured"),
        (published(70), cell(HALF), "within interval", "70 % published, 50 % [21.5, 78.5] measured"),
        (published(90), cell(HALF), "differs", "by -40 %"),
        (published(40, bound="at_least"), cell(HALF), "reproduced", "at least 40 %"),
        (published(40, bound="at_most"), cell(HALF), "within interval", "at most 40 %"),
        (published(2, metric="tpf", unit="tokens/call"), cell(HALF, nfe=[2] * 8), "reproduced", "2 tokens/call"),
        (published(8, metric="tps", hardware="A100"), cell(HALF), "reproduced", "8 %"),
        (published(8, metric="tps", hardware="H800"), cell(HALF), "not comparable", "on H800, measured on cuda"),
        (asked("ratio", at_most=0.5), cell(HALF, nfe=[2] * 8), "mechanism holds", "nfe ratio 0.5 x [0.5, 0.5]"),
        (asked("saving", at_least=2), cell(HALF, nfe=[2] * 8), "mechanism holds", "nfe saved 2 x [2, 2], at"),
        (asked("saving", at_least=2.1), cell(HALF, nfe=[2] * 8), "mechanism fails", "at least 2.1 asked"),
        (asked("saving", at_least=2), cell(HALF, nfe=[1, 1, 1, 1, 3, 3, 3, 3]), "mechanism undecided", "nfe saved 2 x"),
        (asked("difference", "accuracy", at_least=-1), cell(HALF), "mechanism fails", "accuracy change -50 points"),
        (asked("difference", "accuracy", at_least=-90), cell(HALF), "mechanism holds", "accuracy change -50 points"),
        (asked("value", sides=(FAST,), at_least=4, at_most=4), cell(HALF), "mechanism holds", "nfe 4 calls [4, 4]"),
        (asked("falls", sides=(SLOW, FAST)), cell(HALF, nfe=[2] * 8), "mechanism holds", "nfe 4, 2"),
        (asked("falls", sides=(SLOW, FAST)), cell(HALF, nfe=[4] * 8), "mechanism holds", "nfe 4, 4"),
        (asked("rises", sides=(SLOW, FAST)), cell(HALF, nfe=[2] * 8), "mechanism fails", "nfe 4, 2"),
        (asked("falls", sides=(SLOW, FAST)), cell(HALF, nfe=[1] * 4 + [8] * 4), "mechanism undecided", "nfe 4, 4.5"),
        (asked("equal", None), cell(HALF), "mechanism holds", "all 8 answers are equal"),
        (asked("equal", None), cell(HALF, answers=("other", *"1234567")), "mechanism fails", "8 of 8 answers differ"),
    ],
)  # fmt: skip
def test_a_verdict_follows_from_the_numbers(claim: Claim, fast: Cell, outcome: str, says: str):
    """Guards every kind of look, on both sides of every border."""
    found = verdict(claim, fast)
    assert found.outcome.value == outcome
    assert says in found.because


def test_samples_that_agree_prove_no_more_than_their_number_can():
    """Guards against an interval of nothing: no loss in 384 answers leaves room for a point, in 256 for more."""
    claim = asked("difference", "accuracy", at_least=-1)
    for n, outcome in ((384, Outcome.HOLDS), (256, Outcome.UNDECIDED)):
        assert verdict(claim, cell([1] * n), cell([1] * n)).outcome is outcome


def test_tasks_weigh_equally_whatever_their_number_of_samples():
    """Guards the mean over tasks: 2 calls on one and 4 on the other are 3, however many samples each has."""
    two = Side(overrides=FAST.overrides, tasks=("copy", "sort"))
    claim = asked("value", sides=(two,), at_least=3, at_most=3)
    cells = [cell([1] * 2, nfe=[2] * 2), cell([1] * 6, nfe=[4] * 6)]
    assert judge(claim, {two: cells}).outcome is Outcome.HOLDS


def test_all_checks_of_a_claim_have_to_hold():
    """Guards a claim of speed at equal quality against a verdict on the speed alone."""
    speed, quality = asked("saving", at_least=1), asked("difference", "accuracy", at_least=-1)
    both = Claim(**{**TOLD, "text": "t"}, checks=(*speed.checks, *quality.checks))
    found = verdict(both, cell(HALF, nfe=[2] * 8))
    assert found.outcome is Outcome.FAILS
    assert found.because.startswith("nfe saved 2 x [2, 2], at least 1 asked; accuracy change -50 points")


def test_other_samples_and_other_conditions_are_not_compared():
    """Guards pairs: a ratio over other questions, or of times of two machines, is none."""
    other = cell(HALF, run_id="o", samples=tuple((f"x{i}", "p") for i in range(8)))
    found = verdict(asked("ratio", at_most=1), other)
    assert found.outcome is Outcome.NOT_COMPARABLE and "o and r were asked other samples" in found.because
    slow = cell([1] * 8, conditions={"device": "cpu", "batch_size": 1, "measure": "timed"})
    timed = verdict(asked("ratio", "tps", at_most=1), cell(HALF), slow)
    assert timed.outcome is Outcome.NOT_COMPARABLE and "timed under other conditions: device cuda" in timed.because
    assert verdict(asked("ratio", "nfe", at_most=1), cell(HALF), slow).outcome is Outcome.HOLDS


def test_what_is_not_counted_gives_no_verdict():
    """Guards against a mean over what is known: code that is not ours has no counts."""
    unknown = cell(HALF, nfe=[float("nan")] * 8)
    found = verdict(asked("ratio", at_most=1), unknown)
    assert (found.outcome, found.because) == (Outcome.NOT_COMPARABLE, "nfe is not known of every sample")


@pytest.mark.parametrize(
    ("claim", "lacking", "evidence", "because"),
    [
        (asked("ratio", at_most=1), [], {FAST: [cell(HALF)], SLOW: Missing(reason="no run")}, "no run"),
        (asked("ratio", at_most=1), [], {FAST: Missing(parts=("method fast",)), SLOW: Missing(reason="no weights")},
         "not built: method fast"),
        (asked("ratio", at_most=1), ["task math"], {FAST: Missing(parts=("method fast",)), SLOW: [cell(HALF)]},
         "not built: task math, method fast"),
        (Claim(**{**TOLD, "text": "t"}, needs={"command": ("cost",)}), ["command cost"], {}, "not built: command cost"),
    ],
)  # fmt: skip
def test_no_verdict_without_its_runs(claim: Claim, lacking: list[str], evidence: dict, because: str):
    """Guards against a verdict from half of the evidence; what is missing is said, what is not built first."""
    found = judge(claim, evidence, lacking)
    assert (found.outcome, found.because, found.run_ids, found.n) == (Outcome.NOT_RUN, because, (), 0)


def test_a_claim_that_cannot_be_compared_says_why_whatever_is_stored():
    """Guards against images that are reproduced by lists."""
    found = judge(Claim(**{**TOLD, "text": "t"}, not_comparable="images"), {})
    assert (found.outcome, found.because) == (Outcome.NOT_COMPARABLE, "images")


def test_the_newest_run_of_a_setting_is_taken_and_timed_ones_for_times(tmp_path: Path):
    """Guards which of several attempts is meant, and failed ones against being taken."""
    store = Store(root=tmp_path)
    add_run(store, "old", setting_id="s1", nfe=[4, 4], measure="timed")
    add_run(store, "new", setting_id="s1", nfe=[2, 2], measure="counts", latency_s=[0, 0])
    add_run(store, "bad", setting_id="s1", status="failed", minutes=9)
    cells = collect(store, ["s1", "s2"])
    assert [one.run_id for one in cells["s1"]] == ["new", "old"]
    (taken,), (timed,) = (of_side(cells, ["s1"], timed=one) for one in (False, True))
    assert (taken.run_id, timed.run_id) == ("new", "old")  # type: ignore[union-attr]
    assert taken.values_NC[:, COLUMNS.index("nfe")].tolist() == [2, 2]  # type: ignore[union-attr]
    assert taken.values_NC[:, COLUMNS.index("efe")].tolist() == [2, 2]  # type: ignore[union-attr]
    assert of_side(cells, ["s1", "s2"], timed=False) == Missing(reason="the store has no run for 1 of 2 settings")
    untimed = {"s1": cells["s1"][:1]}
    assert of_side(untimed, ["s1"], timed=True) == Missing(reason="the store has no timed run (measure=timed)")


def test_kept_evidence_is_what_was_collected(tmp_path: Path):
    """Guards the committed file: the same numbers, answers and names as in the store, unknown ones included."""
    store = Store(root=tmp_path / "store")
    add_run(store, "one", setting_id="s1", correct=[True, None])
    add_run(store, "two", setting_id="s2", nfe=[1, 3])
    cells = collect(store, ["s1", "s2"])
    write_kept(tmp_path / "kept.parquet", [one for found in cells.values() for one in found])
    kept = read_kept(tmp_path / "kept.parquet")
    assert kept.keys() == cells.keys()
    for name in cells:
        (before,), (after,) = cells[name], kept[name]
        np.testing.assert_array_equal(before.values_NC, after.values_NC)
        assert (before.samples, before.answers, before.run_id) == (after.samples, after.answers, after.run_id)
        assert dict(before.conditions) == dict(after.conditions) and dict(before.made) == dict(after.made)


def test_a_kept_file_that_is_none_is_named(tmp_path: Path):
    """Guards against a traceback of a reader of parquet."""
    (tmp_path / "kept.parquet").write_text("nothing")
    with pytest.raises(DataError, match=r"kept.parquet: holds no evidence of claims"):
        read_kept(tmp_path / "kept.parquet")
    with pytest.raises(DataError, match="cannot be written"):
        write_kept(tmp_path / "no" / "kept.parquet", [])


GOOD = {**TOLD, "claim": "t", "of": "method=fast task=copy", "metric": "nfe", "published": 3}


def read(tmp_path: Path, *entries: dict, **top: object) -> list[Claim]:
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump({"claims": list(entries), **top}))
    return read_claims(file)


def test_a_claim_is_read_with_what_it_shares(tmp_path: Path):
    """Guards the short forms: shared overrides, named tasks, one claim per task, units and tolerances."""
    entry = {**GOOD, "with": "tiny", "of": "method=fast", "against": "method=slow", "compare": "saving",
             "published": {"copy": 2, "sort": 4}}  # fmt: skip
    first, second = read(tmp_path, entry, settings={"tiny": "model=tiny gen_length=4"})
    assert (first.id, second.id, second.text) == ("c-copy", "c-sort", "t: sort")
    assert second.published == Published(value=4, unit="x", tolerance=0.2)
    tiny = ("model=tiny", "gen_length=4")
    sides = [Side(overrides=(*tiny, f"method={name}"), tasks=("sort",)) for name in ("fast", "slow")]
    assert list(second.sides) == sides
    assert sides[0].command == "decbench run model=tiny gen_length=4 method=fast task=sort"
    (accurate,) = read(tmp_path, {**GOOD, "metric": "accuracy"})
    assert accurate.published == Published(value=3, unit="%", tolerance=0.5)
    mechanism = {**TOLD, "claim": "t", "of": "method=fast", "tasks": "both", "holds_if": [
        {"compare": "equal", "against": "method=slow"}, {"compare": "value", "metric": "nfe", "at_most": 4},
    ]}  # fmt: skip
    (claim,) = read(tmp_path, mechanism, tasks={"both": ["copy", "sort"]})
    assert claim.published is None and [one.compare for one in claim.checks] == [Compare.EQUAL, Compare.VALUE]
    assert claim.sides[0].tasks == ("copy", "sort") and claim.checks[1].at_most == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"papre": "x"}, "c: papre: no such key; did you mean paper?"),
        ({"place": None}, "c: lacks place"),
        ({"metric": "nfee"}, "c: metric=nfee: did you mean nfe?"),
        ({"compare": "ratoi"}, "c: compare=ratoi: did you mean ratio?"),
        ({"compare": "ratio"}, "c: ratio lacks against"),
        ({"compare": "equal", "against": "method=slow task=copy"}, "c: compare=equal: gives no number"),
        ({"published": None}, "c: needs either a published value, or holds_if"),
        ({"published": "many"}, "c: published=many: must be a number"),
        ({"published": float("nan")}, "c: published=nan: must be a number"),
        ({"published": {"copy": True}, "of": "method=fast"}, "published.copy: published=True: must be a number"),
        ({"holds_if": [{"compare": "value", "at_most": 1}]}, "c: needs either a published value, or holds_if"),
        ({"published": None, "holds_if": []}, "c: holds_if=[]: must be a list of checks"),
        ({"published": None, "holds_if": ["nfe"]}, "c: holds_if: 'nfe': must be a mapping, such as {compare: ratio"),
        ({"published": {}}, "c: published={}: names no task"),
        ({"needs": ["deer"]}, "c: needs: ['deer']: must be a mapping, such as {method: [name]}"),
        ({"paper": 2505.22618}, "c: paper=2505.22618: must be a text"),
        ({"metric": ["nfe"]}, "c: metric=['nfe']: must be a text"),
        ({"with": ["tiny"]}, "c: with=['tiny']: must be a text"),
        ({"of": "method='fast task=copy"}, "cannot be read (No closing quotation)"),
        ({"of": "method=fast", "tasks": {"a": 1}}, "c: tasks={'a': 1}: must be a task, a list of tasks"),
        ({"published": None, "holds_if": [{"compare": "value"}]}, "c: holds_if: value needs at_least or at_most"),
        ({"published": None, "holds_if": [{"compare": "rises", "along": ["method=a"]}]}, "rises needs a list of two"),
        ({"bound": "most"}, "c: bound=most: must be at_least or at_most"),
        ({"of": "fast task=copy"}, "c: fast: is no override"),
        ({"of": "method=fast"}, "c: method=fast: needs its tasks once"),
        ({"tasks": "copy"}, "needs its tasks once"),
        ({"of": None}, "c: says neither of which setting (of), nor what it needs"),
        ({"with": "tin"}, "c: with=tin: did you mean tiny?"),
        ({"needs": {"method": "deer"}}, "c: needs.method=deer: must be a list of names"),
        ({"id": None}, "has no id"),
    ],
)  # fmt: skip
def test_a_wrong_claim_is_refused_in_one_line(changed: dict, message: str, tmp_path: Path):
    """Guards against a claim that is read as another one, or left out without a word."""
    with pytest.raises(DataError) as refused:
        read(tmp_path, {**GOOD, **changed}, settings={"tiny": "model=tiny"})
    assert message in str(refused.value) and "\n" not in str(refused.value) and "claims.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: [", "is no YAML"),
        ("claims: 3", "claims must be a list"),
        ("- a", "claims must be a list"),
        ("claims: []\nsetings: {}", "setings: no such key; did you mean settings?"),
        ("claims: [3]", "3 has no id"),
        ("claims: []\ntasks: [copy]", "tasks: ['copy']: must be a mapping"),
        ("claims: []\nsettings: tiny", "settings: 'tiny': must be a mapping"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, message: str, tmp_path: Path):
    """Guards the file as a whole."""
    file = tmp_path / "claims.yaml"
    file.write_text(text)
    with pytest.raises(DataError) as refused:
        read_claims(file)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_claims(tmp_path / "none.yaml")


def test_two_claims_of_one_name_are_refused(tmp_path: Path):
    """Guards `decbench claims ID`."""
    with pytest.raises(DataError, match="id=c: stands there twice"):
        read(tmp_path, GOOD, GOOD)
