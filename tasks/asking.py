"""How a question becomes a prompt: its words, worked examples before it, and the turns of a chat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tasks.task import Message, Prompt

Words = Mapping[str, str]
"""The fields of one question and, for a worked example, of its answer."""


class Turns(Enum):
    """Who says what: `TEXT` has no turns, `ONE` puts everything into one user turn, `MANY` gives examples their own."""

    TEXT = "text"
    ONE = "one"
    MANY = "many"


@dataclass(frozen=True, kw_only=True)
class Style:
    """One wording: templates of a question and of a worked answer, filled with the fields of a problem.

    Without turns and within one turn, question, answer and next question follow each other with `between` and
    `joint` in the gaps. `prefix` begins the answer: the model goes on from it, and it is part of what is graded.
    `reconstructed` marks a published prompt of which only the form is known here: its sentences are our own.
    """

    question: str
    answer: str = "{answer}"
    between: str = " "
    joint: str = "\n\n"
    prefix: str = ""
    reconstructed: bool = False


def pose(style: Style, turns: Turns, examples: Sequence[Words], asked: Words) -> Prompt:
    """Return the prompt that asks `asked` after the solved `examples`.

    Messages whose last turn is the assistant's are to be continued by the model, without closing that turn.
    """
    question = style.question.format_map(asked)
    solved = [(style.question.format_map(e), style.answer.format_map(e)) for e in examples]
    if turns is Turns.MANY:
        said = [turn for asking, answer in solved for turn in (_user(asking), _assistant(answer))]
        said.append(_user(question))
    else:
        parts = [f"{asking}{style.between}{answer}" for asking, answer in solved]
        whole = style.joint.join([*parts, question])
        if turns is Turns.TEXT:
            return f"{whole}{style.between}{style.prefix}" if style.prefix else whole
        said = [_user(whole)]
    return [*said, _assistant(style.prefix)] if style.prefix else said


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first of the stop strings in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _assistant(content: str) -> Message:
    return Message(role="assistant", content=content)
