"""What the runner sees of a task: prompts out, texts in, scores back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict


class Message(TypedDict):
    """One turn of a chat, as chat templates take it; `role` is user or assistant.

    A last turn of the assistant is the beginning of the answer: the model goes on from it. An empty one says that the
    turn before it, the assistant's too, is closed.
    """

    role: str
    content: str


Prompt = str | list[Message]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One problem: an id unique within its task, and a prompt.

    A string is the whole prompt and is tokenised as it stands; messages go through the chat template of the
    model. `instance` is the task's own; nobody else looks into it.
    """

    id: str
    prompt: Prompt
    instance: Any


@dataclass(frozen=True, kw_only=True)
class Score:
    """The verdict on one answer text; `strict` is None where the task has a single way of reading it.

    `correct` is None where the verdict cannot be had on this machine, and so is each of `measures`; `detail` says why.
    `detail` says in a few words why an answer is wrong and is empty otherwise. `extracted` is the answer as it was
    found in the text, and `path` names the rule that found it: a shift of paths between decoders is a sign of
    quality. `reader` names what decided where several can: text, math_verify. `measures` holds further numbers about
    the same text, such as the verdicts of other graders (0 or 1).
    """

    correct: bool | None
    strict: bool | None = None
    detail: str = ""
    extracted: str | None = None
    path: str = ""
    reader: str = ""
    measures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Grading:
    """What verdicts rest on besides the code of the task: `facts` to be kept, `warnings` for whoever reads them."""

    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __or__(self, other: "Grading") -> "Grading":
        return Grading(facts={**self.facts, **other.facts}, warnings=(*self.warnings, *other.warnings))


class Encoder(Protocol):
    """The part of a tokenizer that tasks need."""

    def encode(self, text: str) -> Sequence[int]:
        """Return the token ids of `text`."""
        ...


class Task(Protocol):
    """A set of problems and their grader; equal settings give equal samples in equal order.

    `template` names the wording in use, one of `templates`; `gen_length` is the default number of answer tokens.
    """

    @property
    def name(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def templates(self) -> tuple[str, ...]: ...
    @property
    def gen_length(self) -> int: ...

    def sources(self) -> Sequence[Path | str]:
        """Return what problems are read from, in a fixed order: files and folders, or digests of what is in none."""
        ...

    def instances(self) -> Sequence[Sample]:
        """Return all samples; raise DataError where a file of the task cannot be used."""
        ...

    def score(self, sample: Sample, text: str) -> Score:
        """Grade the decoded answer canvas of `sample`."""
        ...

    def grading(self) -> Grading:
        """Say what grading rests on here; raise ConfigError, naming the key, where answers cannot be graded."""
        ...

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the length in tokens, end token included, of the longest correct answer that is known."""
        ...
