"""How a question becomes a prompt: its words, worked examples before it, and the turns of a chat."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from string import Formatter

from tasks.task import Message, Prompt

Words = Mapping[str, str]
"""The fields of one question and, for a worked example, of its answer."""

Worked = tuple[str, str]
"""A solved example, its fields filled in: what is asked, and the whole answer."""


class Turns(Enum):
    """Who says what: `TEXT` has no turns, `ONE` puts everything into one user turn, `MANY` gives examples their own."""

    TEXT = "text"
    ONE = "one"
    MANY = "many"


@dataclass(frozen=True, kw_only=True)
class Style:
    """One wording: templates of a question and of a worked answer, filled with the fields of a problem.

    Without turns and within one turn, question, answer and next question follow each other with `between` and
    `joint` in the gaps. `prefix` begins every answer: the model goes on from it, and `answer` is what it should go on
    with. `closed` is a whole turn of the assistant before that answer, which opens a new one. Every part is a template.
    `reconstructed` marks a published prompt of which only the form is known here: its sentences are our own.
    """

    question: str
    answer: str = "{answer}"
    between: str = " "
    joint: str = "\n\n"
    prefix: str = ""
    closed: str = ""
    reconstructed: bool = False

    def worked(self, example: Words) -> Worked:
        """Return a solved example as question and whole answer."""
        return fill(self.question, example), fill(self.prefix, example) + fill(self.answer, example)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields that the templates of one task may name.

    Of every group in `shown` a question names at least one: without it, it asks for something unknown. It may name
    those in `allowed`, and those in `solved` belong into worked answers alone.
    """

    shown: tuple[tuple[str, ...], ...]
    allowed: tuple[str, ...] = ()
    solved: tuple[str, ...] = ()

    def problems(self, style: Style) -> Iterator[str]:
        """Yield what is wrong with a wording, one sentence each."""
        open_names = {*self.allowed, *(name for group in self.shown for name in group)}
        parts = {
            "question": (style.question, open_names),
            "prefix": (style.prefix, open_names),
            "closed": (style.closed, open_names),
            "answer": (style.answer, {*open_names, *self.solved}),
        }
        for part, (template, known) in parts.items():
            try:
                strange = sorted(named(template) - known)
            except ValueError as error:
                yield f"{part}: {error}"
                return
            if strange:
                yield f"{part}: no field {{{strange[0]}}}; it may name {', '.join(sorted(known))}"
        for group in self.shown:
            if not named(style.question) & set(group):
                yield f"question: must show {' or '.join(f'{{{name}}}' for name in group)}"


def check(styles: Mapping[str, Style], fields: Fields) -> None:
    """Raise ValueError naming the first wording that cannot be filled, or does not ask."""
    for name, style in styles.items():
        for problem in fields.problems(style):
            raise ValueError(f"template {name}, {problem}")


def named(template: str) -> set[str]:
    """Return the fields that a template names; raise ValueError for braces that enclose no plain name."""
    found = set()
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"{{{name}}} is no field; a brace that is text is written twice")
        found.add(name)
    return found


def fill(template: str, words: Words) -> str:
    """Return a template with its fields filled in; braces in the values are text."""
    return template.format_map(words)


def pose(style: Style, turns: Turns, solved: Sequence[Worked], asked: Words) -> Prompt:
    """Return the prompt that asks `asked` after solved examples.

    Messages whose last turn is the assistant's are to be continued by the model, without closing that turn.
    """
    question, closed, prefix = (fill(part, asked) for part in (style.question, style.closed, style.prefix))
    if turns is Turns.MANY:
        said = [turn for asking, answer in solved for turn in (_user(asking), _assistant(answer))]
        said.append(_user(question))
    else:
        whole = style.joint.join([*(f"{asking}{style.between}{answer}" for asking, answer in solved), question])
        if turns is Turns.TEXT:
            begun = closed + prefix
            return f"{whole}{style.between}{begun}" if begun else whole
        said = [_user(whole)]
    if closed:
        # The turn after a closed one has to be opened even where nothing is said in it yet.
        return [*said, _assistant(closed), _assistant(prefix)]
    return [*said, _assistant(prefix)] if prefix else said


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first of the stop strings in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _assistant(content: str) -> Message:
    return Message(role="assistant", content=content)
