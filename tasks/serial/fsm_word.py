"""Word problems: carry out moves one after the other and say where they lead (after arXiv:2310.07923).

The answer writes the state after every `stride` moves, so `length / stride` serial steps are left to decoding and
`stride` moves must be composed inside one. Accuracy against steps, or against the forward calls of a decoder that
fills the same slots in parallel, shows how much serial work the task keeps.
"""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks import settings
from tasks.lists.generator import stream
from tasks.lists.splits import SPLITS, split_of
from tasks.serial.groups import GROUPS, Group, State, numbering
from tasks.task import Encoder, Grading, Message, Prompt, Sample, Score

SYMBOLS = string.digits + string.ascii_uppercase + string.ascii_lowercase
LONGEST_TINY = 16

TEMPLATES = {
    "own-1": "There is a {title}: {start}. Two moves can be made:\nA: {A}.\nB: {B}.\nMake these moves, one after the "
    "other: {word}\n{task}",
    "own-2": "Moves: {word}\n\nCarry them out from left to right, beginning with the {title} {start}. A means: {A}. "
    "B means: {B}.\n{task}",
}
_TASKS = {
    True: "Write the {title} at the end and nothing else.",
    False: "Write the {title} after every {stride} moves, each on a line of its own, and nothing else.",
}


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word and the states that its answer consists of, the last of them the result."""

    letters: str
    states: tuple[State, ...]


@dataclass(frozen=True, kw_only=True)
class FsmWord:
    """Words of `length` random moves of `group` (s5, a5, s3, c60, parity), states written every `stride` moves.

    Renderer `chat` puts it in words; `tiny` writes `<bos> fsm_word #(states - 1) <none> <arg> moves <sep>`, a state
    as one symbol (two for s5, whose 120 states outnumber the symbols). An answer is correct if its last state is.
    Raises ConfigError.
    """

    name: str
    group: str = "s5"
    length: int = 16
    stride: int = 1
    summary: str = ""
    samples: int = 500
    split: str = "test"
    seed: int = 0
    renderer: str = "chat"
    template: str = "own-1"
    gen_length: int = 128

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The wordings that exist for this renderer."""
        return ("fixed",) if self.renderer == "tiny" else tuple(TEMPLATES)

    def sources(self) -> list[Path]:
        """Return nothing: problems are drawn."""
        return []

    def instances(self) -> list[Sample]:
        """Return the samples: number i is the same whatever their count."""
        words = (self._draw(number) for number in range(self.samples))
        return [
            Sample(id=f"{self.group}-n{self.length}-{self.split}-s{self.seed}-{i}", prompt=self._ask(w), instance=w)
            for i, w in enumerate(words)
        ]

    def score(self, sample: Sample, text: str) -> Score:
        """Grade the last state; `strict` wants every state, and `state_accuracy` is the share of right ones."""
        wanted = [self._write(state) for state in sample.instance.states]
        found = self._read(text)
        correct = bool(found) and found[-1] == wanted[-1]
        right = sum(one == other for one, other in zip(found, wanted, strict=False))
        return Score(
            correct=correct,
            strict=found == wanted,
            detail="" if correct else "wrong state" if found else "no state found",
            extracted=found[-1] if found else None,
            measures={"state_accuracy": right / len(wanted)},
        )

    def grading(self) -> Grading:
        """Return nothing: verdicts rest on the texts alone."""
        return Grading()

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest answer, end token included."""
        return 1 + max(len(tokenizer.encode(self.answer(sample))) for sample in self.instances())

    def answer(self, sample: Sample) -> str:
        """Return the right answer, without the end."""
        return (" " if self.renderer == "tiny" else "\n").join(map(self._write, sample.instance.states))

    @property
    def _group(self) -> Group:
        return GROUPS[self.group]

    def _draw(self, number: int) -> Word:
        rng = stream("fsm_word", self.group, self.length, self.split, self.seed, number)
        while True:
            letters = "".join(rng.choice("AB") for _ in range(self.length))
            if split_of(list(letters)) == self.split:
                return Word(letters=letters, states=tuple(self._group.run(letters)[self.stride - 1 :: self.stride]))

    def _ask(self, word: Word) -> Prompt:
        if self.renderer == "tiny":
            return " ".join(
                ["<bos>", "fsm_word", f"#{len(word.states) - 1}", "<none>", "<arg>", *word.letters, "<sep>"]
            )
        fields = {letter: move.words for letter, move in self._group.moves.items()}
        fields |= {"title": self._group.title, "start": self._group.write(self._group.start)}
        task = _TASKS[self.stride == self.length].format(title=self._group.title, stride=self.stride)
        text = TEMPLATES[self.template].format(**fields, word=" ".join(word.letters), task=task)
        return [Message(role="user", content=text)]

    def _write(self, state: State) -> str:
        if self.renderer == "chat":
            return self._group.write(state)
        number, size = numbering(self.group)[state], len(SYMBOLS)
        symbols = [SYMBOLS[number % size]]
        return " ".join([SYMBOLS[number // size], *symbols] if self._width == 2 else symbols)

    def _read(self, text: str) -> list[str]:
        if self.renderer == "chat":
            return re.findall(self._group.pattern, text)
        symbols = text.partition("<eos>")[0].split()
        return [" ".join(symbols[i : i + self._width]) for i in range(0, len(symbols), self._width)]

    @property
    def _width(self) -> int:
        return 1 if len(numbering(self.group)) <= len(SYMBOLS) else 2

    def _problems(self) -> Iterator[tuple[str, str]]:
        renderers = ("chat", "tiny")
        choices = {"group": GROUPS, "split": SPLITS, "renderer": renderers, "template": self.templates}
        yield from settings.unknown(self, choices)
        yield from settings.below_one(self, "samples", "gen_length", "length", "stride")
        yield from settings.too_many(self)
        if self.length % self.stride:
            divisors = [d for d in range(1, self.length + 1) if self.length % d == 0]
            yield "stride", f"must divide task.length={self.length}; {', '.join(map(str, divisors))} do"
        if self.length < 8:
            yield "length", "must be at least 8: shorter words are too few for separate splits"
        if self.renderer == "tiny" and self.length > LONGEST_TINY:
            yield "length", f"must be at most {LONGEST_TINY} for renderer tiny"
