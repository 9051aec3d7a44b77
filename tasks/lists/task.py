"""The list task: which problems, in which words, graded how."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from harness.errors import DataError
from tasks import settings
from tasks.lists import parity
from tasks.lists.alphabets import ALPHABETS, DATA, LETTERS
from tasks.lists.chat import ChatRenderer
from tasks.lists.files import read_instances
from tasks.lists.generator import instance, instances, stream
from tasks.lists.instance import Example, ListInstance
from tasks.lists.operations import OPERATIONS
from tasks.lists.prompts import PROMPTS
from tasks.lists.splits import SPLITS
from tasks.lists.tiny import LARGEST_INDEX, TinyRenderer
from tasks.task import Encoder, Grading, Sample, Score

SHORTEST_LIST = 3
# Every answer of an operation but shuffle is looked at; the answers of shuffle hold the same items.
_ANSWERS_MEASURED = 16

TEMPLATES = {"tiny": ("fixed",), "chat": tuple(PROMPTS)}


@dataclass(frozen=True, kw_only=True)
class ListTask:
    """Do one operation on lists of distinct items; every valid answer counts as correct.

    Problems are drawn (`alphabet`, `split`, `seed`), regenerated (`parity`: a set of ParallelBench) or read
    (`data`: a file of JSON lines, all of its rows up to `samples`). `lengths` are the numbers of input items,
    from 3 to `max_items` (half of it for the repeat operations, whose answers are that long).
    Renderer `tiny` is for the embedded models; `chat` has `examples` worked examples. Raises ConfigError.
    """

    name: str
    operation: str
    lengths: list[int]
    summary: str = ""
    samples: int = 500
    split: str = "test"
    seed: int = 0
    renderer: str = "tiny"
    template: str = "fixed"
    alphabet: str = "letters"
    examples: int = 0
    max_items: int = 10
    gen_length: int = 16
    parity: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The wordings that exist for this renderer."""
        return TEMPLATES[self.renderer]

    def sources(self) -> list[Path]:
        """Return the file of problems, if one was given, and those of the package's names and words."""
        own = [] if self.data is None else [Path(self.data)]
        facts = {"names": "parity.json", "words": "words.json"}.get(self.alphabet)
        named = {"parity.json"} if self.parity is not None else set()
        return [*own, *(DATA / name for name in sorted(named | ({facts} if facts else set())))]

    def instances(self) -> list[Sample]:
        """Return the samples; DataError where a row of `data` does not fit the settings."""
        return [
            Sample(id=problem.id, prompt=self._renderer.prompt(problem, examples), instance=problem)
            for problem, examples in self._posed()
        ]

    def score(self, sample: Sample, text: str) -> Score:
        """Grade an answer text: the lenient reading counts, the strict one is reported beside it."""
        read = self._renderer.parse(text)
        strictly = self._renderer.parse(text, strict=True)
        accepts = sample.instance.accepts
        correct = read is not None and accepts(read)
        reason = "not a list of items" if read is None else "not a valid answer"
        return Score(
            correct=correct,
            strict=strictly is not None and accepts(strictly),
            detail="" if correct else reason,
        )

    def extract(self, sample: Sample, text: str) -> str | None:
        """Return the items that a text lists, one blank between two; None where it lists none."""
        read = self._renderer.parse(text)
        return None if read is None else " ".join(read)

    def grading(self) -> Grading:
        """Return nothing: verdicts rest on the texts alone."""
        return Grading()

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest valid answer, end token included."""
        answers = (islice(sample.instance.answers(), _ANSWERS_MEASURED) for sample in self.instances())
        texts = {self._renderer.write(answer) for some in answers for answer in some}
        end = 0 if self.renderer == "tiny" else 1
        return max(len(tokenizer.encode(text)) for text in texts) + end

    @property
    def _renderer(self) -> TinyRenderer | ChatRenderer:
        if self.renderer == "tiny":
            return TinyRenderer(max_items=self.max_items)
        return ChatRenderer(template=self.template)

    def _posed(self) -> Iterator[tuple[ListInstance, list[Example]]]:
        if self.parity is not None:
            rows = parity.problems(self.parity, self.operation)
            fitting = [row for row in rows if len(row[0].items) in self.lengths]
            yield from ((problem, [shown][: self.examples]) for problem, shown in fitting[: self.samples])
        elif self.data is not None:
            yield from ((problem, self._examples(problem, i)) for i, problem in enumerate(self._read()))
        else:
            drawn = instances(
                self.operation,
                self.lengths,
                self.split,
                self.seed,
                self.samples,
                self.alphabet,
                self.max_items,
            )
            yield from ((problem, self._examples(problem, i)) for i, problem in enumerate(drawn))

    def _examples(self, problem: ListInstance, number: int) -> list[Example]:
        """Solve training problems of the same length: never one of the split under test."""
        shown = (
            instance(
                self.operation,
                len(problem.items),
                "train",
                self.seed,
                number * self.examples + i,
                self.alphabet,
                self.max_items,
            )
            for i in range(self.examples)
        )
        return [Example(instance=e, answer=e.sample_answer(stream("example", e.id))) for e in shown]

    def _read(self) -> list[ListInstance]:
        assert self.data is not None
        rows = read_instances(self.data, self.operation)[: self.samples]
        for number, row in enumerate(rows, start=1):
            if len(row.items) not in self.lengths:
                problem = f"{len(row.items)} items, but task.lengths={self.lengths}; add the length there"
            elif len(row.items) * (row.count or 1) > self.max_items:
                problem = f"the answer is longer than task.max_items={self.max_items}"
            elif self.renderer == "tiny" and not {*row.items, row.word or "A"} <= set(LETTERS):
                problem = "renderer tiny knows the items A-Z and a-z only; use task.renderer=chat"
            else:
                continue
            raise DataError(f"{self.data}, row {number}: field 'items': {problem}")
        return rows

    def _problems(self) -> Iterator[tuple[str, str]]:
        choices = {
            "operation": OPERATIONS,
            "split": SPLITS,
            "renderer": TEMPLATES,
            "template": TEMPLATES.get(self.renderer, ()),
            "alphabet": ALPHABETS,
        }
        yield from settings.unknown(self, choices)
        yield from settings.below_one(self, "samples", "gen_length")
        yield from settings.too_many(self)
        yield from self._problems_of_sizes()
        yield from self._problems_of_source()

    def _problems_of_sizes(self) -> Iterator[tuple[str, str]]:
        roof = LARGEST_INDEX if self.renderer == "tiny" else ALPHABETS[self.alphabet].largest_draw - 1
        if not SHORTEST_LIST <= self.max_items <= roof:
            yield "max_items", f"must be from {SHORTEST_LIST} to {roof} for renderer {self.renderer}"
        longest = OPERATIONS[self.operation].longest_list(self.max_items)
        if not self.lengths or not all(SHORTEST_LIST <= length <= longest for length in self.lengths):
            limit = f"from {SHORTEST_LIST} to {longest} for {self.operation} with max_items={self.max_items}"
            yield "lengths", f"every length must be {limit}"
        if self.examples < 0 or (self.renderer == "tiny" and self.examples):
            yield "examples", "must be 0 for renderer tiny and at least 0 for chat"

    def _problems_of_source(self) -> Iterator[tuple[str, str]]:
        if self.renderer == "tiny" and self.alphabet != "letters":
            yield "alphabet", "renderer tiny writes letters; use alphabet=letters or renderer=chat"
        if self.parity is None:
            return
        yield from settings.unknown(self, {"parity": parity.SETS})
        yield from settings.unknown(self, {"operation": parity.operations(self.parity)})
        if self.renderer != "chat" or self.data is not None or self.examples > 1:
            yield "parity", "needs renderer=chat, no data file and at most one worked example"
