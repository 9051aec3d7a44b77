"""The mutation test's own rules: what is drawn, which tests come first, and what counts as a survivor."""

from pathlib import Path

import pytest
from cosmic_ray.commands import init
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import WorkItem, WorkResult
from coverage import CoverageData

from tests.mutation.covering import Coverage, passed
from tests.mutation.judge import is_known, judged
from tests.mutation.report import REASONS, Change, outcome, outdated, reasons, report
from tests.mutation.sample import draw

SOURCE = """\
from dataclasses import dataclass

DROP = 5

@dataclass(frozen=True)
class Rule:
    width: int | None = 3

    def wide(self, n):
        return n > self.width
"""
KILLED = WorkResult(worker_outcome="normal", test_outcome="killed")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one module, one test that sees its comparison, and one that is broken anyway."""
    (tmp_path / "tree/tests").mkdir(parents=True)
    (tmp_path / "tree/rule.py").write_text(SOURCE)
    test = "from rule import Rule\n\ndef test_wide():\n    assert Rule().wide(4) and not Rule().wide(2)\n"
    (tmp_path / "tree/tests/test_rule.py").write_text(test)
    return tmp_path / "tree"


@pytest.fixture
def mutants(tree: Path, monkeypatch: pytest.MonkeyPatch) -> list[WorkItem]:
    """Every mutant of the module."""
    monkeypatch.chdir(tree)
    with use_db(tree.parent / "all.sqlite") as database:
        init([Path("rule.py")], database, {})
        return list(database.work_items)


def coverage(tree: Path, contexts: dict[str, list[int]], seconds: dict[str, float]) -> Coverage:
    """Say by hand which test runs which lines."""
    data = CoverageData(no_disk=True)
    for test, lines in contexts.items():
        data.set_context(f"{test}|run" if test else "")
        data.add_lines({"rule.py": lines})
    return Coverage(tree=tree, data=data, tests=seconds)


def test_one_mutant_is_drawn_at_each_place_and_none_in_a_declaration(tree: Path, mutants: list[WorkItem]) -> None:
    """Without the rule a third of a sample is `int + None` and `frozen=False`, and most of the rest is arithmetic."""
    drawn = draw(mutants, tree, seed=0, size=100)
    places = sorted((m.mutations[0].start_pos, m.mutations[0].operator_name.split("_")[0]) for m in drawn)
    number, comparison = "core/NumberReplacer", "core/ReplaceComparisonOperator"
    assert places == [((3, 7), number), ((5, 0), "core/RemoveDecorator"), ((7, 24), number), ((10, 17), comparison)]


def test_a_sample_hangs_on_its_seed_and_survives_edits_elsewhere(tree: Path, mutants: list[WorkItem]) -> None:
    """Results are kept by job id, so the same mutant must have the same one after lines were added above it."""
    drawn = [mutant.job_id for mutant in draw(mutants, tree, seed=0, size=3)]
    assert drawn[:2] == [mutant.job_id for mutant in draw(mutants, tree, seed=0, size=2)]
    assert len({tuple(m.job_id for m in draw(mutants, tree, seed=s, size=3)) for s in range(8)}) > 1
    Path("rule.py").write_text(f"import os\n{SOURCE}")
    with use_db(tree.parent / "moved.sqlite") as database:
        init([Path("rule.py")], database, {})
        assert drawn == [mutant.job_id for mutant in draw(database.work_items, tree, seed=0, size=3)]


def test_the_nearest_tests_come_first_and_other_functions_before_other_cases(tree: Path) -> None:
    """The line's tests, then the class's, then the module's; the first case of a function before the second of any."""
    ran = {"": [1, 3, 5, 6, 7, 9], "t::far": [3], "t::a[1]": [10], "t::a[2]": [10], "t::b": [10], "t::failed": [10]}
    known = coverage(tree, ran, {"t::a[1]": 1.0, "t::a[2]": 2.0, "t::b": 3.0, "t::far": 0.5})
    assert known.of("rule.py", 10, seconds=10) == ["t::a[1]", "t::b", "t::a[2]", "t::far"]
    assert known.of("rule.py", 10, seconds=4) == ["t::a[1]", "t::b"]
    assert known.of("rule.py", 10, seconds=0) == ["t::a[1]"]
    assert known.of("rule.py", 3, seconds=0) == ["t::far"]


def test_what_runs_on_import_is_tried_on_all_tests_of_its_scope(tree: Path) -> None:
    """A field's default is evaluated in whichever test imports the module first, which says nothing about it."""
    known = coverage(tree, {"t::importer": [1, 3, 5], "t::user": [10]}, {"t::importer": 0.1, "t::user": 1.0})
    assert known.of("rule.py", 7, seconds=9) == ["t::user", "t::importer"]


def test_what_only_holds_data_is_tried_on_the_tests_of_its_importers(tree: Path) -> None:
    """A table of words runs when it is imported, in whichever test came first; its readers have tests of their own."""
    (tree / "words.py").write_text("WORDS = ['a', 'b']\n")
    (tree / "rule.py").write_text(f"from words import WORDS\n{SOURCE}")
    known = coverage(tree, {"": [1], "t::user": [11]}, {"t::user": 1.0})
    assert known.of("words.py", 1, seconds=9) == ["t::user"]


def test_only_tests_that_passed_are_read_from_a_report(tmp_path: Path) -> None:
    """A test that fails anyway would kill every mutant."""
    cases = ['name="good[a]" time="0.5"/>', 'name="bad" time="1"><failure/></testcase>']
    text = "".join(f'<testcase classname="tests.a.test_b" {case}' for case in cases)
    text += '<testcase classname="tests.test_readme" name="next[command]" time="0.1"/>'
    (tmp_path / "junit.xml").write_text(f"<testsuites>{text}</testsuites>")
    assert passed(tmp_path / "junit.xml") == {"tests/a/test_b.py::good[a]": 0.5}


def test_a_mutant_whose_killers_are_gone_is_tried_again() -> None:
    """A test that is not tried any more has killed none; one that could not begin names no test."""
    killed = WorkResult(
        worker_outcome="normal", test_outcome="killed", output="FAILED t.py::a[x] - assert\nFAILED t.py::b"
    )
    assert is_known(killed, {"t.py::a[x]": 1.0}) and is_known(killed, {"t.py::b": 1.0})
    assert not is_known(killed, {"t.py::c": 1.0}) and is_known(KILLED, {})


@pytest.mark.slow
def test_mutants_are_tried_in_copies(tree: Path, mutants: list[WorkItem]) -> None:
    """The comparison is noticed, the constant that nothing reads is not, and the tree stays as it was."""
    test = "tests/test_rule.py::test_wide"
    known = coverage(tree, {test: [3, 10]}, {test: 0.1})
    chosen = [m for m in mutants if m.mutations[0].operator_name.endswith(("_Gt_LtE", "NumberReplacer"))][:3]
    results = {m.mutations[0].start_pos[0]: r for m, r in judged(chosen, known, workers=2, seconds=9)}
    assert {line: outcome(result) for line, result in results.items()} == {3: "survived", 10: "killed"}
    assert Change.of(Path("rule.py"), results[10].diff or "") == Change(
        "rule.py", "return n > self.width", "return n <= self.width"
    )
    assert (tree / "rule.py").read_text() == SOURCE


def test_a_change_is_told_without_the_blank_lines_around_it() -> None:
    """A reason would be called outdated for blanks that no line holds."""
    diff = "--- a/rule.py\n+++ b/rule.py\n@@ -3,5 +3,2 @@\n-\n-\n-@dataclass(frozen=True)\n class Rule:\n"
    assert Change.of(Path("rule.py"), diff) == Change("rule.py", "@dataclass(frozen=True)", "")


def test_more_than_five_percent_without_a_reason_is_a_fault(
    mutants: list[WorkItem], capsys: pytest.CaptureFixture[str]
) -> None:
    """A survivor with a reason, an unexplained one, and one that was never judged, among twenty."""
    survived = WorkResult(worker_outcome="normal", test_outcome="survived", diff="--- a\n+++ b\n-DROP = 5\n+DROP = 6")
    sample = [WorkItem.single(str(n), mutants[0].mutations[0]) for n in range(20)]
    results = dict.fromkeys(map(str, range(20)), KILLED) | {"0": survived}
    assert report(sample, results, {}) == []
    assert 'after = "DROP = 6"' in capsys.readouterr().out
    assert report(sample, results | {"1": survived}, {}) == [
        "10.0% survive without a reason in survivors.toml, more than 5%"
    ]
    reason = '[[survivor]]\nfile = "rule.py"\nbefore = "DROP = 5"\nafter = "DROP = 6"\nreason = "{}"\n'
    assert report(sample, results | {"1": survived}, reasons(reason.format("nothing reads it"))) == []
    assert report(sample, {**results, "2": WorkResult(worker_outcome="exception")}, {}) == [
        "1 mutants are not judged: run again"
    ]
    with pytest.raises(ValueError, match="has no reason"):
        reasons(reason.format(" "))


def test_every_reason_is_for_a_line_that_is_there() -> None:
    """Guards against reasons that outlive their code, and would explain what they were not written for."""
    assert outdated(reasons(REASONS.read_text()), REASONS.parents[2]) == []
