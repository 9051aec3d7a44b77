"""What methods need of text: ids of the marks that their policies name, answers read in a row's text, and votes.

Decoding knows no text; this is where a tokenizer and a task's reader meet it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, runtime_checkable

from harness.engine.families import Method
from harness.engine.shared.generation import Generation
from harness.models.tokenizer import SymbolTokenizer
from tasks.task import Sample, Task


@runtime_checkable
class Extracts(Protocol):
    """A task that reads answers without grading them."""

    def extract(self, sample: Sample, text: str) -> str | None:
        """Return the answer in a text, so that equal answers are equal; None where there is none to be read."""
        ...


def in_tokens(method: Method, tokenizer: Any) -> Method:
    """Return a method whose policies know the tokens of the texts that they name (`in_tokens` of a policy)."""
    worded = {f.name: part for f in fields(method) if hasattr(part := getattr(method, f.name), "in_tokens")}
    if not worded:
        return method
    size = tokenizer.vocab_size if isinstance(tokenizer, SymbolTokenizer) else len(tokenizer.inner)
    pieces = [tokenizer.decode([token]) for token in range(size)]
    return replace(method, **{slot: part.in_tokens(tokenizer.encode, pieces) for slot, part in worded.items()})


def answer_of(method: Method, text: str) -> str:
    """Return the answer in what a row said: all of it, unless a revision that had it say more knows which part."""
    read = getattr(getattr(method, "revision", None), "answer", None)
    return text if read is None else read(text)


def answer_in(task: Task, sample: Sample, text: str) -> str | None:
    """Return the answer that a task reads in a text, None for none."""
    return task.extract(sample, text) if isinstance(task, Extracts) else task.score(sample, text).extracted


def plurality(answers: Sequence[str | None], lengths: Sequence[int]) -> int:
    """Return the place of the answer that most others equal: the shortest that says so, the first of equals.

    Between equally many votes the one with the shortest supporter wins; who says nothing has no vote. 0 if nobody does.
    """
    supporters: dict[str, list[int]] = defaultdict(list)
    for place, answer in enumerate(answers):
        if answer is not None:
            supporters[answer].append(place)
    if not supporters:
        return 0
    shortest = {answer: min(places, key=lambda at: (lengths[at], at)) for answer, places in supporters.items()}
    return min((-len(supporters[one]), lengths[at], at) for one, at in shortest.items())[2]


def of_drafts(made: Generation, correct: bool | None, task: Task, sample: Sample, tokenizer: Any) -> Mapping[str, int]:
    """Return how many answers a sample asked for, distinct ones of them, and right ones; nothing where it has one.

    `correct` is the verdict on the first of them. How many are right is left out where nobody can tell.
    """
    if not made.beside:
        return {}
    texts = [tokenizer.decode(one.answer) for one in (made, *made.beside)]
    verdicts = [correct, *(task.score(sample, text).correct for text in texts[1:])]
    told = {"drafts": len(texts), "drafts_distinct": len(set(texts))}
    return told if None in verdicts else told | {"drafts_correct": sum(map(bool, verdicts))}


def elected(made: Generation, task: Task, sample: Sample, tokenizer: Any) -> Generation:
    """Return a generation with the answer that its rows vote for, as it is where it has one row."""
    if not made.others:
        return made
    rows = [made, *made.others]
    answers = [answer_in(task, sample, tokenizer.decode(row.answer)) for row in rows]
    chosen = rows[plurality(answers, [len(row.tokens) for row in rows])]
    return replace(chosen, tokens_generated=made.tokens_generated, calls=made.calls)
