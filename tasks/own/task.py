"""A task without a class: a file of JSON lines, a prompt that names fields of its rows, and a grader."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.references import is_reference
from tasks import rows, settings
from tasks.asking import Style, Turns, cut, named, pose
from tasks.own.graders import OURS, Grader, Limits, grader_of
from tasks.task import Encoder, Grading, Sample, Score


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A row of the file, and what its answer is compared with."""

    row: rows.Row
    gold: Any


@dataclass(frozen=True, kw_only=True)
class JsonlTask:
    """The rows of `data`, JSON lines that may end in .gz, asked by `prompt`, whose braces name fields of a row.

    `answer` is the field that `grader` compares with: exact, contains, number, math, code (the field holds tests), or
    a function `package.module:name` of the text and the field. A field `id` names a row, else its place does. The
    answer is cut at the first of `stop`. `turns` says who speaks (text: no chat; one, many: a user turn); `samples`
    rows are asked, the `subset` first or hash. `renderer` and `max_items` say of prompts in the symbols of the
    embedded models how they are laid out. Raises ConfigError, and DataError for a row that cannot be used.
    """

    name: str
    data: str | None
    prompt: str = "{question}"
    answer: str = "answer"
    grader: str = "exact"
    summary: str = ""
    template: str = "own"
    turns: str = "one"
    stop: list[str] = field(default_factory=list)
    samples: int | None = None
    subset: str = "first"
    gen_length: int = 256
    renderer: str | None = None
    max_items: int | None = None
    sandbox: str = "safe"
    wall_s: float = 30.0
    cpu_s: int = 10

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The one wording, that of `prompt`."""
        return ("own",)

    def sources(self) -> list[Path | str]:
        """Return the file."""
        return [Path(str(self.data))]

    def instances(self) -> list[Sample]:
        """Return the samples in the order of the file; DataError naming the row that cannot be used."""
        found, style = self._read(), Style(question=self.prompt)
        if self.samples is not None and self.samples > len(found):
            raise DataError(f"task.samples={self.samples}: {self.data} has {len(found)} rows")
        count, ids = self.samples or len(found), list(found)
        chosen = rows.by_digest(ids, count) if self.subset == "hash" else range(count)
        return [
            Sample(
                id=ids[i], prompt=pose(style, Turns(self.turns), [], self._words(found[ids[i]])), instance=found[ids[i]]
            )
            for i in chosen
        ]

    def score(self, sample: Sample, text: str) -> Score:
        """Grade an answer, cut at the first stop string; DataError naming the sample that a grader cannot judge."""
        try:
            return self._grader.grade(cut(text, self.stop), sample.instance.gold, sample.instance.row)
        except DataError as error:
            raise DataError(f"{error} (sample {sample.id})") from error

    def grading(self) -> Grading:
        """Return what the grader rests on; raise ConfigError where it cannot work here."""
        return self._grader.grading()

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest answer field, end token included."""
        return 1 + max(len(tokenizer.encode(str(one.row[self.answer]))) for one in self._read().values())

    @cached_property
    def _grader(self) -> Grader:
        return grader_of(self.grader, Limits(sandbox=self.sandbox, wall_s=self.wall_s, cpu_s=self.cpu_s))

    def _words(self, asked: Asked) -> dict[str, str]:
        return {name: str(asked.row[name]) for name in named(self.prompt)}

    def _read(self) -> dict[str, Asked]:
        """Return the rows by id."""
        fields = dict.fromkeys([*sorted(named(self.prompt)), self.answer], object)
        assert self.data is not None
        found: dict[str, Asked] = {}
        for number, row in enumerate(rows.from_file(self.data, fields), start=1):
            where = f"{self.data}, row {number}: field"
            for name in named(self.prompt):
                if isinstance(row[name], bool) or not isinstance(row[name], str | int | float):
                    raise DataError(f"{where} {name!r}: {row[name]!r} cannot be put into the prompt; give a text")
            try:
                gold = self._grader.read(row[self.answer])
            except ValueError as error:
                raise DataError(f"{where} {self.answer!r}: {row[self.answer]!r} {error}") from None
            known = str(row.get("id", f"{Path(self.data).name.split('.')[0]}-{number}"))
            if known in found:
                raise DataError(f"{where} 'id': {known!r} stands in an earlier row; give every row its own")
            found[known] = Asked(row=row, gold=gold)
        return found

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.data is None:
            yield "data", "name a file of JSON lines, one object per line"
        yield from self._problems_of_prompt()
        choices = {
            "turns": [turns.value for turns in Turns],
            "subset": ("first", "hash"),
            "sandbox": ("safe", "unsafe"),
        }
        yield from settings.unknown(self, choices | {"template": self.templates})
        if not is_reference(self.grader):
            for key, problem in settings.unknown(self, {"grader": OURS}):
                yield key, f"{problem}; or name a function as package.module:function"
        yield from settings.below_one(self, "samples", "gen_length")
        for key in ("wall_s", "cpu_s"):
            if getattr(self, key) <= 0:
                yield key, "must be more than 0 seconds"
        if any(not stop for stop in self.stop):
            yield "stop", "an empty stop string would cut everything"
        # Looked up here, so that code that is not there is refused before a model is loaded.
        assert self._grader

    def _problems_of_prompt(self) -> Iterator[tuple[str, str]]:
        try:
            shown = named(self.prompt)
        except ValueError as error:
            yield "prompt", str(error)
            return
        if not shown:
            yield "prompt", "shows no field of a row; write {question}, or whatever the field is called"
        if self.answer in shown:
            yield "prompt", f"shows the field {self.answer!r}, which holds the answer"
