"""Wordings: every field arrives, no name of one does, and a template that cannot ask is refused when it is loaded."""

import dataclasses
import re

import pytest

from tasks.asking import Fields, Style, Turns, check, named, pose
from tasks.code import HumanEval, Mbpp
from tasks.math import Gsm8k, Math500
from tasks.puzzles import Countdown, Sudoku
from tasks.questions import QuestionTask
from tasks.task import Prompt

TASKS: dict[str, type[QuestionTask]] = {
    "gsm8k": Gsm8k,
    "math500": Math500,
    "countdown": Countdown,
    "sudoku": Sudoku,
    "humaneval": HumanEval,
    "mbpp": Mbpp,
}
WORDINGS = [(task, name) for task, made in TASKS.items() for name in made.subject.styles]
FIELDS = Fields(shown=(("text",), ("long", "short")), allowed=("name",), solved=("answer",))
GOOD = Style(question="{text} {short}")


class Sentinels(dict[str, str]):
    """A value for whatever field is asked for, with braces in it; the fields that were asked for are kept."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def __missing__(self, name: str) -> str:
        return self.setdefault(name, f"<{self.mark} of {name} {{{name}}} {{}} {{0}} {{{{>")


def text_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)


@pytest.mark.parametrize("turns", list(Turns))
@pytest.mark.parametrize(("task", "name"), WORDINGS)
def test_every_part_is_filled(task: str, name: str, turns: Turns) -> None:
    """Guards prompts that hold `{header}`: a prefix, a closed turn or a worked answer that nobody fills in."""
    style = TASKS[task].subject.styles[name]
    asked, shown = Sentinels("asked"), Sentinels("shown")
    text = text_of(pose(style, turns, [style.worked(shown)], asked))
    assert set(asked) == named(style.question) | named(style.prefix) | named(style.closed)
    assert set(shown) == named(style.question) | named(style.prefix) | named(style.answer)
    for sentinel in (*asked.values(), *shown.values()):
        assert sentinel in text
        text = text.replace(sentinel, "")
    fields = {"answer", *(field for one in TASKS[task].subject.styles.values() for field in fields_of(one))}
    assert not [field for field in fields if f"{{{field}}}" in text]


def fields_of(style: Style) -> set[str]:
    parts = (getattr(style, part.name) for part in dataclasses.fields(style))
    return {field for part in parts if isinstance(part, str) for field in named(part)}


def test_braces_of_a_problem_are_text() -> None:
    """Guards a second filling: a dictionary in a solution is no field."""
    words = {"text": "d = {x}", "short": "{text}{{", "answer": "{0} {} {answer}"}
    assert pose(GOOD, Turns.TEXT, [GOOD.worked(words)], words) == "d = {x} {text}{{ {0} {} {answer}\n\nd = {x} {text}{{"


def test_worked_answers_begin_as_the_asked_one_does() -> None:
    """Guards examples that show another form than the one that is asked for, and the fields of each its own."""
    style = Style(question="{text}", prefix="[{text}] ", answer="{answer}!")
    prompt = pose(style, Turns.MANY, [style.worked({"text": "a", "answer": "1"})], {"text": "b"})
    assert [turn["content"] for turn in prompt] == ["a", "[a] 1!", "b", "[b] "]  # type: ignore[index]


def test_a_closed_turn_stands_before_the_answer() -> None:
    """Guards the form of OpenCompass: the last turn is closed, and the model begins a new one."""
    style = Style(question="{text}", closed="say {text}", prefix="")
    asked = {"text": "b"}
    prompt = pose(style, Turns.MANY, [], asked)
    assert [(turn["role"], turn["content"]) for turn in prompt] == [  # type: ignore[index]
        ("user", "b"),
        ("assistant", "say b"),
        ("assistant", ""),
    ]
    assert pose(dataclasses.replace(style, prefix="and"), Turns.ONE, [], asked)[-1]["content"] == "and"  # type: ignore[index]
    assert pose(style, Turns.TEXT, [], asked) == "b say b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": "{txt} {short}"}, "template t, question: no field {txt}; it may name long, name, short, text"),
        ({"question": "{text}"}, "template t, question: must show {long} or {short}"),
        ({"question": "{short} {name}"}, "template t, question: must show {text}"),
        ({"question": "{text} {short} {answer}"}, "template t, question: no field {answer}; it may name long, name"),
        ({"prefix": "{answer}"}, "template t, prefix: no field {answer}"),
        ({"closed": "{header}"}, "template t, closed: no field {header}"),
        ({"answer": "{solution}"}, "template t, answer: no field {solution}"),
        ({"prefix": "{}"}, "template t, prefix: {} is no field; a brace that is text is written twice"),
        ({"prefix": "{0}"}, "template t, prefix: {0} is no field"),
        ({"prefix": "{text.upper}"}, "template t, prefix: {text.upper} is no field"),
        ({"prefix": "{text:>9}"}, "template t, prefix: {text} is no field"),
        ({"answer": "\\boxed{answer"}, "template t, answer: "),
    ],
)
def test_templates_that_cannot_ask_are_refused(changes: dict[str, str], message: str) -> None:
    """Guards against a fault that shows only in a run's prompts, 164 times."""
    check({"t": GOOD, "u": Style(question="{text} {long} {name}", answer="{{x}} {answer}")}, FIELDS)
    with pytest.raises(ValueError, match=re.escape(message)):
        check({"t": dataclasses.replace(GOOD, **changes)}, FIELDS)
