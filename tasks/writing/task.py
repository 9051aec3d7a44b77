"""Text writing of ParallelBench (arXiv:2510.04767): sentences from words, summaries, paraphrases.

The rows belong to others and are not in the package: `data` is the user's own checkout of the benchmark, or one file of
it. An answer is correct if LanguageTool finds no mistake in it, which is the number that the paper reports; a sentence
must hold its words, too. Measures that cannot be computed here are null, with the reason in the detail of the sample.
Deviation: words must stand whole and in any case (`compat`: the published test, a substring in the very case).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from tasks import rows, settings
from tasks.asking import Fields, Style, Turns, check, pose
from tasks.task import Encoder, Grading, Sample, Score
from tasks.writing import metrics

WORDS, SUMMARY, PARAPHRASE = KINDS = ("words", "summary", "paraphrase")
STYLES: dict[str, dict[str, Style]] = {
    WORDS: {
        "own-1": Style(question="Write one natural sentence that uses the words {words}."),
        "own-2": Style(question="Words: {words}\n\nPut all of them into a single sentence that reads well."),
    },
    SUMMARY: {
        "own-1": Style(question="Summarise this conversation. Output the summary only.\n\n{text}\n\nSummary:"),
        "own-2": Style(question="{text}\n\nWhat was said above? Answer with a short summary and nothing else."),
    },
    PARAPHRASE: {
        "own-1": Style(
            question="Say this sentence in other words. Output the result only.\n\nSentence: {text}\n\nParaphrase:"
        ),
        "own-2": Style(
            question="{text}\n\nRewrite the sentence above so that it keeps its meaning. Reply with it alone."
        ),
    },
}
for _kind in KINDS:
    check(STYLES[_kind], Fields(shown=(("words" if _kind == WORDS else "text",),), solved=("answer",)))
_FIELDS = {WORDS: {"words": list}, SUMMARY: {"text": str, "summary": str}, PARAPHRASE: {"text": str}}


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is to be written: `words` to use, or a `text` to work on; `summary` is the reference summary."""

    words: tuple[str, ...] = ()
    text: str = ""
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class WritingTask:
    """One text-writing set: `file` names it within the checkout `data`, `kind` is words, summary or paraphrase.

    `language_tool` is the address of a LanguageTool server that the user runs; without it verdicts are null.
    Raises ConfigError.
    """

    name: str
    kind: str
    file: str
    summary: str = ""
    data: str | None = None
    language_tool: str | None = None
    template: str = "own-1"
    samples: int | None = None
    plural: bool = False
    compat: bool = False
    gen_length: int = 64

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The wordings that exist."""
        return tuple(STYLES[self.kind])

    def grading(self) -> Grading:
        """Try the server and the packages; ConfigError without rows, or where a server that was named is not there."""
        if self.data is None:
            raise ConfigError(
                f"task={self.name}: its rows are not in the package; give task.data=FOLDER, your checkout of "
                f"ParallelBench, or task.data=FILE"
            )
        if self.kind != WORDS:
            metrics.require()
        if self.language_tool is None:
            return Grading(facts={"grammar": None}, warnings=(f"grammar and verdicts are null: {metrics.NO_SERVER}",))
        metrics.mistakes("This is a sentence.", self.language_tool)
        return Grading(facts={"grammar": "LanguageTool"})

    def sources(self) -> list[Path]:
        """Return the file of rows, once it was named."""
        return [] if self.data is None else [_find(self.data, self.file)]

    def instances(self) -> list[Sample]:
        """Return the samples in the order of the file; DataError names file, row and field that cannot be used."""
        path, fields = _find(self.data or "", self.file), {"answer": dict}
        assignments = [
            self._assignment(f"{path}, row {number}", row["answer"])
            for number, row in enumerate(rows.from_file(path, fields), start=1)
        ]
        if self.samples is not None and self.samples > len(assignments):
            raise DataError(f"task.samples={self.samples}: {path} has {len(assignments)} rows")
        style = STYLES[self.kind][self.template]
        return [
            Sample(id=f"{self.file}/{number}", prompt=pose(style, Turns.MANY, (), _words_of(one)), instance=one)
            for number, one in enumerate(assignments[: self.samples])
        ]

    def score(self, sample: Sample, text: str) -> Score:
        """Grade one text; `measures` has every number of the published table, null where it is not known."""
        grammar = None if self.language_tool is None else metrics.grammatical(text, self.language_tool)
        numbers, unknown = self._measured(sample.instance, text)
        product = None if unknown or grammar is None else float(grammar) * _product(self.kind, numbers)
        correct = None if grammar is None else grammar and (self.kind != WORDS or numbers["inclusion"] == 1.0)
        reasons = [*([f"grammar: {metrics.NO_SERVER}"] if grammar is None else []), *unknown]
        return Score(
            correct=correct,
            detail="; ".join(reasons) or ("" if correct else "a mistake, or a word is missing"),
            extracted=text.strip(),
            measures={**numbers, "grammar": None if grammar is None else float(grammar), "score": product},
        )

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest known answer, end token included: reference summary, text, or words."""
        known = (one.summary or one.text or " ".join(one.words) for one in (s.instance for s in self.instances()))
        return 1 + max(len(tokenizer.encode(text)) for text in known)

    def _measured(self, one: Assignment, text: str) -> tuple[dict[str, float | None], list[str]]:
        if self.kind == WORDS:
            return {"inclusion": float(metrics.includes(text, one.words, plural=self.plural, compat=self.compat))}, []
        if self.kind == SUMMARY:
            return dict(metrics.rouge(text, one.summary)), []
        numbers = {"inverse_bleu": metrics.inverse_bleu(text, one.text), "bertscore": None}
        return numbers, [f"bertscore: {metrics.NO_BERTSCORE}"]

    def _assignment(self, where: str, answer: rows.Row) -> Assignment:
        for name, kind in _FIELDS[self.kind].items():
            if not isinstance(answer.get(name), kind) or not answer[name]:
                raise DataError(f"{where}: field 'answer.{name}' must be a {kind.__name__} that is not empty")
        if self.kind == WORDS:
            return Assignment(words=tuple(map(str, answer["words"])))
        return Assignment(text=answer["text"], summary=str(answer.get("summary", "")))

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from settings.unknown(self, {"kind": KINDS})
        yield from settings.unknown(self, {"template": self.templates})
        if self.language_tool is not None and not self.language_tool.startswith(("http://", "https://")):
            yield "language_tool", "must be an address such as http://localhost:8081"
        yield from settings.below_one(self, "samples", "gen_length")


def _words_of(one: Assignment) -> Mapping[str, str]:
    *first, last = one.words or ("",)
    listed = f"{', '.join(first)}{',' if len(first) > 1 else ''} and {last}" if first else last
    return {"words": listed, "text": one.text}


def _product(kind: str, numbers: Mapping[str, float | None]) -> float:
    wanted: Sequence[str] = {WORDS: ("inclusion",), SUMMARY: ("rougeL",)}.get(kind, ("inverse_bleu", "bertscore"))
    product = 1.0
    for name in wanted:
        product *= numbers[name] or 0.0
    return product


def _find(data: str, file: str) -> Path:
    """Return the file of a set in a checkout, wherever its revision keeps the rows of the test."""
    place = Path(data)
    if not place.is_dir():
        return place
    found = sorted(path for path in place.rglob(f"{file}.jsonl") if "train" not in path.relative_to(place).parts)
    if len({path.read_bytes() for path in found}) != 1:
        named = ", ".join(str(path) for path in found[:3]) or "none"
        raise DataError(f"{place}: files of the name {file}.jsonl: {named}; name the right one with task.data=FILE")
    return found[0]
