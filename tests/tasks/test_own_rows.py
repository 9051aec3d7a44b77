"""A task of a user's own: a file, a prompt and a grader, without a class, and a line for everything that is wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import build_task
from harness.config.composition import compose
from harness.config.job import resolve
from harness.errors import ConfigError, DataError
from harness.results.store import Store
from harness.runs.runner import run
from tasks.own import JsonlTask

ROW = {"question": "1 {+} 1?", "answer": "2"}
ADD = "assert add(1, 2) == 3"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, whose modules can be named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def task(folder: Path, *found: Any, **settings: Any) -> JsonlTask:
    """Write rows and return the task on them."""
    file = folder / "mine.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    return JsonlTask(**{"name": "mine", "data": str(file)} | settings)


def verdict(made: JsonlTask, text: str) -> tuple[bool | None, str]:
    """Grade a text as the answer to the first row."""
    score = made.score(made.instances()[0], text)
    return score.correct, score.detail


def test_rows_become_prompts(tmp_path: Path):
    """Guards fields, braces in values and in the wording, ids, order and parts of a file."""
    rows = [ROW, {"id": "b", "question": 7, "answer": ["x", "y"]}]
    first, second = task(tmp_path, *rows, prompt="{{Q}} {question}").instances()
    assert (first.id, first.prompt) == ("mine-1", [{"role": "user", "content": "{Q} 1 {+} 1?"}])
    assert (second.id, second.prompt) == ("b", [{"role": "user", "content": "{Q} 7"}])
    (only,) = task(tmp_path, *rows, turns="text", samples=1).instances()
    assert only.prompt == "1 {+} 1?"
    assert [one.id for one in task(tmp_path, *rows, subset="hash", samples=1).instances()] == ["mine-1"]


GRADED = [
    ("exact", "Paris", " Paris\n", True, ""),
    ("exact", ["Paris", "paris"], "paris", True, ""),
    ("exact", "Paris", "Paris.", False, "another text"),
    ("exact", 3, "3", True, ""),
    ("contains", "Paris", "It is Paris.", True, ""),
    ("contains", ["a", "Rome"], "It is Oslo", False, "does not stand in the text"),
    ("number", "1,200", r"So the answer is \boxed{1200.0}.", True, ""),
    ("number", 0.5, "1/2", True, ""),
    ("number", 3, "it is 4", False, "wrong number"),
    ("number", 3, "none", False, "no number found"),
    ("math", r"\frac{1}{2}", r"\boxed{0.5}", True, ""),
    ("math", "x+1", r"\boxed{1+x}", True, ""),
    ("math", "x+1", r"\boxed{x}", False, "another expression"),
    ("code", ADD, "```python\ndef add(a, b):\n    return a + b\n```", True, ""),
    ("code", ADD, "def add(a, b):\n    return a + b", True, ""),
]


@pytest.mark.parametrize(("grader", "answer", "text", "correct", "detail"), GRADED)
def test_answers_are_graded(tmp_path: Path, grader: str, answer: Any, text: str, correct: bool, detail: str):
    """Guards every grader of ours, with one answer and with several that count."""
    assert verdict(task(tmp_path, ROW | {"answer": answer}, grader=grader), text) == (correct, detail)


def test_a_program_that_fails_its_tests_is_wrong(tmp_path: Path):
    """Guards the sandbox behind the grader, and that what grading rests on is told."""
    made = task(tmp_path, ROW | {"answer": ADD}, grader="code")
    correct, detail = verdict(made, "def add(a, b):\n    return a")
    assert (correct, detail) == (False, "wrong_answer")
    assert "sandbox_tier" in made.grading().facts


def test_an_answer_is_cut_before_it_is_graded(tmp_path: Path):
    """Guards stop strings."""
    assert verdict(task(tmp_path, ROW, stop=["\nQ:"]), "2\nQ: 2 + 2?") == (True, "")


def test_a_function_of_the_users_own_grades(here: Path):
    """Guards every verdict that it may give, and the row for those that ask for it."""
    (here / "own_grader.py").write_text(
        "from tasks.task import Score\n"
        "def same(text, answer): return text == answer\n"
        "def share(text, answer, row): return len(text) / row['most']\n"
        "def whole(text, answer): return Score(correct=True, detail='')\n"
        "def nothing(text, answer): pass\n"
        "def much(text, answer): return 1.5\n"
        "def fails(text, answer): return answer.no\n"
    )

    def graded(name: str):
        made = task(here, ROW | {"most": 4}, grader=f"own_grader:{name}")
        return made.score(made.instances()[0], "2")

    assert graded("same").correct is True and graded("whole").correct is True
    assert (graded("share").correct, graded("share").measures) == (False, {"score": 0.25})
    for name, message in {
        "nothing": r"own_grader:nothing: returned None; return True or False, .* \(sample mine-1\)",
        "much": "returned 1.5",
        "fails": r"raised AttributeError: 'str' object has no attribute 'no' \(own_grader.py, line 7\)",
    }.items():
        with pytest.raises(DataError, match=message):
            graded(name)


BROKEN = [
    ([{"question": "?"}], {}, r"mine\.jsonl, row 1: field 'answer' is missing; a row has question, answer"),
    ([ROW, {"answer": "2"}], {}, r"row 2: field 'question' is missing"),
    ([ROW, 3], {}, r"row 2: int instead of an object"),
    ([], {}, r"mine\.jsonl: no rows"),
    ([ROW | {"question": ["a"]}], {}, r"row 1: field 'question': \['a'\] cannot be put into the prompt"),
    ([ROW | {"question": True}], {}, r"row 1: field 'question': True cannot be put into the prompt"),
    ([ROW | {"answer": ""}], {}, r"row 1: field 'answer': '' must be a text or a number, or a list of those"),
    ([ROW | {"answer": []}], {}, r"row 1: field 'answer': \[\] must be a text or a number"),
    ([ROW | {"answer": ["a", None]}], {}, r"row 1: field 'answer': .* must be a text or a number"),
    ([ROW, ROW | {"answer": "none"}], {"grader": "number"}, r"row 2: field 'answer': 'none' must be a number"),
    ([ROW | {"answer": 4}], {"grader": "code"}, r"row 1: field 'answer': 4 must be Python that fails unless"),
    ([ROW | {"id": 1}, ROW | {"id": "1"}], {}, r"row 2: field 'id': '1' stands in an earlier row"),
    ([ROW], {"samples": 2}, r"task\.samples=2: .*mine\.jsonl has 1 rows"),
]


@pytest.mark.parametrize(("found", "settings", "message"), BROKEN)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, found: list[Any], settings: Any, message: str):
    """Guards file, row, field and what would do."""
    with pytest.raises(DataError, match=message):
        task(tmp_path, *found, **settings).instances()


REFUSED = {
    "task.data=null": "task.data=None: name a file of JSON lines",
    "task.prompt=Why?": "task.prompt=Why?: shows no field of a row; write {question}",
    "task.prompt={question} {": "task.prompt={question} {: ",
    "task.prompt={answer}": "task.prompt={answer}: shows the field 'answer', which holds the answer",
    "task.prompt={a.b}": "{a.b} is no field; a brace that is text is written twice",
    "task.grader=exct": "task.grader=exct: must be one of exact, contains, number, math, code; did you mean exact?",
    "task.grader=no_such_package:f": "task.grader=no_such_package:f: no module no_such_package",
    "task.grader=json:dum": "task.grader=json:dum: json has no dum; did you mean dump?",
    "task.turns=two": "task.turns=two: must be one of text, one, many",
    "task.stop=['']": "an empty stop string would cut everything",
    "task.wall_s=0": "task.wall_s=0.0: must be more than 0 seconds",
    "task.promt=x": "task.promt: no such key; did you mean task.prompt",
}


@pytest.mark.parametrize("override", REFUSED)
def test_settings_that_cannot_be_are_refused(override: str):
    """Guards key, value and what would do, before a file is read."""
    with pytest.raises(ConfigError) as refused:
        build_task(compose(["task=jsonl", "task.data=mine.jsonl", override]))
    assert REFUSED[override] in str(refused.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{question}", "{question}"),
        ("Q: {question}, it's\nA: \\", "Q: {question}, it's\nA: \\"),
        ("'{question}'", "{question}"),
        ('"{question}"', "{question}"),
        ("null", "null"),
    ],
)
def test_a_prompt_is_taken_as_a_shell_hands_it_over(written: str, meant: str):
    """Guards braces, commas and quotes, which are grammar everywhere else on the command line."""
    assert compose(["task=jsonl", f"task.prompt={written}"]).task.prompt == meant


def test_a_run_grades_rows_and_is_named_by_them(here: Path):
    """Guards the whole street, and run ids: another row is another setting, other code of a grader another run."""
    (here / "rows.jsonl").write_text('{"list": "A C B", "answer": "A B C"}\n{"list": "B A", "answer": "A B"}\n')
    (here / "lines.py").write_text("def right(text, answer): return True\n")
    symbols = ["task.renderer=tiny", "task.max_items=10", "task.turns=text", "gen_length=8", "model=random_mdm"]
    asked = ["task=jsonl", "task.data=rows.jsonl", "task.prompt=<bos> sort {list} <sep>", "task.grader=lines:right"]
    cfg = compose([*asked, *symbols, f"results_dir={here / 'store'}"])
    assert run(cfg).row["accuracy"] == 1
    assert [row["sample_id"] for row in Store(root=here / "store").read("samples").to_pylist()] == ["rows-1", "rows-2"]
    first = resolve(cfg)
    (here / "lines.py").write_text("def right(text, answer): return 1 == 1\n")
    second = resolve(cfg)
    (here / "rows.jsonl").write_text('{"list": "A C B", "answer": "A B C"}\n')
    third = resolve(cfg)
    assert first.setting_id == second.setting_id != third.setting_id and first.run_id != second.run_id
