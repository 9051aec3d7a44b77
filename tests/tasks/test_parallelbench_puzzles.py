"""The puzzle sets of ParallelBench: the published rows bit for bit, and the published verdicts."""

from collections.abc import Iterator
from itertools import pairwise, permutations, product

import pytest

from harness.config.build import build_task
from harness.config.composition import compose
from harness.errors import ConfigError
from tasks.lists.parity import digest, facts
from tasks.puzzles import ParallelPuzzle
from tasks.puzzles.parallelbench import PUZZLES, STYLES, is_latin, puzzles, row_of


def task(puzzle: str, **settings: object) -> ParallelPuzzle:
    return ParallelPuzzle(**{"name": puzzle, "puzzle": puzzle} | settings)


def squares(symbols: str) -> Iterator[str]:
    """Enumerate the Latin squares over four symbols by their columns' sets, apart from the grader."""
    for lines in product(permutations(symbols), repeat=4):
        if all(len(set(column)) == 4 for column in zip(*lines, strict=True)):
            yield "\n".join(",".join(line) for line in lines)


@pytest.mark.parametrize("name", PUZZLES)
def test_sets_are_the_published_ones(name: str) -> None:
    """One draw more or less, another example, another field: the digest of all rows changes."""
    rows = [row_of(name, puzzle, example) for puzzle, example in puzzles(name)]
    assert len(rows) == facts()[f"puzzle/{name}"]["rows"]
    assert digest(rows) == facts()[f"puzzle/{name}"]["sha256"]


@pytest.mark.parametrize("name", PUZZLES)
@pytest.mark.parametrize("template", ["own-1", "own-2"])
def test_prompts_show_one_example_and_ask(name: str, template: str) -> None:
    """Guards the turns: the example is solved, the question is not, and it says all that it must."""
    for sample in task(name, template=template).instances():
        example, answer, question = sample.prompt
        assert [turn["role"] for turn in sample.prompt] == ["user", "assistant", "user"]
        assert all(word in question["content"] for word in sample.instance.words.values())
        assert answer["content"].count("\n") == 3 and example["content"] != question["content"]
    assert {len(sample.prompt) for sample in task(name, examples=0).instances()} == {1}
    assert STYLES[name]["own-1"] != STYLES[name]["own-2"]


@pytest.mark.parametrize("name", PUZZLES)
def test_shipped_answers_are_right_and_others_wrong(name: str) -> None:
    """Guards the graders, with the answer of the next puzzle as the wrong one."""
    asked = task(name)
    samples = asked.instances()
    assert all(asked.score(s, s.instance.answer).correct for s in samples)
    assert all(asked.score(s, f"Sure:\n{s.instance.answer}\nDone.").correct for s in samples)
    assert not any(asked.score(s, "").correct for s in samples)
    assert not any(asked.score(s, other.instance.answer).correct for s, other in pairwise(samples))


def test_every_latin_square_is_right() -> None:
    """Guards against a grader that knows cyclic squares only: there are 576, of which the set shows few."""
    found = list(squares("AB12"))
    assert len(found) == 576 and all(is_latin(square, "AB12") for square in found)


@pytest.mark.parametrize(
    ("text", "published", "ours"),
    [
        ("A,B,C,D\nB,C,D,A\nC,D,A,B\nD,A,B,C", True, True),
        ("A, B, C, D\n\nB,C,D,A\nhm\nC,D,A,B\nD,A,B,C\nA,A,A,A", True, True),
        ("A,B,C,D,A\nB,C,D,A\nC,D,A,B\nD,A,B,C", True, False),
        ("A,B,C,D,A\nB,C,D,A,A\nC,D,A,B,A\nD,A,B,C,A", False, False),
        ("A,B,C,D,A\nB,C,D,A,B\nC,D,A,B,C\nD,A,B,C,D", True, False),
        ("A,B,C,D\nB,C,D,A\nC,D,A,B", False, False),
        ("A,B,C,D\nA,B,C,D\nC,D,A,B\nD,A,B,C", False, False),
        ("A,B,C,E\nB,C,E,A\nC,E,A,B\nE,A,B,C", False, False),
        ("A,A,A,A\nB,B,B,B\nC,C,C,C\nD,D,D,D", False, False),
    ],
)
def test_latin_grader_as_published_and_ours(text: str, published: bool, ours: bool) -> None:
    """Guards the one known difference: the published grader passes a row of five cells."""
    assert is_latin(text, "ABCD", compat=True) is published
    assert is_latin(text, "ABCD") is ours


def test_strict_reading_of_grids() -> None:
    """Guards the second verdict: words around the grid cost it."""
    asked = task("sudoku_n4_12")
    sample = asked.instances()[0]
    score = asked.score(sample, f"Output:\n{sample.instance.answer}")
    assert (score.correct, score.strict) == (True, False)
    assert asked.score(sample, sample.instance.answer).strict is True


def test_digits_of_a_line_count_wherever_they_stand() -> None:
    """Guards the published reading: a grid in a table, in a list or in brackets is the same grid."""
    asked = task("sudoku_n4_12")
    sample = asked.instances()[0]
    lines = sample.instance.answer.split("\n")
    for form in ("{}|{}|{}|{}", "- {}{}{}{}", "[{}, {}, {}, {}]", "| {} | {} | {} | {} |"):
        score = asked.score(sample, "\n".join(form.format(*line) for line in lines))
        assert (score.correct, score.strict) == (True, False)


@pytest.mark.parametrize("name", PUZZLES)
def test_configs_make_the_whole_set(name: str) -> None:
    """Guards the files of the group task."""
    made = build_task(compose([f"task={name}"]))
    assert made.name == name and len(made.instances()) == facts()[f"puzzle/{name}"]["rows"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"puzzle": "latin"}, r"task.puzzle=latin: must be one of latin_square_n4, sudoku_n4_12"),
        ({"template": "x"}, r"task.template=x: must be one of own-1, own-2"),
        ({"examples": 2}, r"task.examples=2: must be 0 or 1"),
        ({"samples": 109}, r"task.samples=109: must be from 1 to 108"),
        ({"gen_length": 0}, r"task.gen_length=0"),
    ],
)
def test_unusable_settings_name_key_and_value(setting: dict[str, object], message: str) -> None:
    """Guards against a setting that is found out only in the middle of a run."""
    with pytest.raises(ConfigError, match=message):
        task(**{"puzzle": "sudoku_n4_12"} | setting)
