"""Tasks that are a set of questions: chosen, worded by a protocol, read and graded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import DataError
from tasks import rows, settings
from tasks.asking import Fields, Style, Turns, Words, Worked, check, cut, fill, pose
from tasks.task import Encoder, Grading, Sample, Score
from tasks.wording import Reader, Wording, load


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question: `words` fill the templates of every style, `gold` is what its grader compares with."""

    id: str
    words: Words
    gold: Any


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows of one set are: the file of the package, and the data set on the hub if there is one.

    `keep` chooses rows of the file of the package; None keeps all.
    """

    file: str
    keep: Callable[[rows.Row], bool] | None = None
    hub: tuple[str, str | None, str] | None = None


Shots = Callable[[Sequence[Problem], int], Iterator[Sequence[Words]]]
"""From the problems asked and a number of examples: the examples of each problem in turn."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What sets one task of questions apart.

    `problem(set, row, number)` reads a row, raising DataError without its place; `fields` are those that rows of a
    file must have, `words` those that templates may name. `readings` find an answer in a text and grade it. `shots`
    are the sources of worked examples, `shot_files` the files of the package that these read; the source `head` takes
    the first problems of the set itself, which are then not asked. `wordings` read published sentences for a style
    from a checkout of the code that has them. Raises ValueError for a template that cannot be filled.
    """

    folder: Path
    sets: Mapping[str, Origin]
    fields: rows.Fields
    problem: Callable[[str, rows.Row, int], Problem]
    words: Fields
    styles: Mapping[str, Style]
    readings: Mapping[str, Callable[[str, Problem], Score]]
    shots: Mapping[str, Shots] = field(default_factory=dict)
    shot_files: Mapping[str, str] = field(default_factory=dict)
    wordings: Mapping[str, Reader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.styles, self.words)


@dataclass(frozen=True, kw_only=True)
class QuestionTask:
    """A set of questions under a protocol, which gives every setting that the protocol's paper fixed.

    `template` is a wording, `turns` says who says it (text, one, many), `shots` worked examples from `shots_from`
    come first, the answer is cut at the first of `stop` and read by `reading`. `samples` problems are asked: the
    first ones, or those with the smallest digest (`subset` first, hash), so that fewer are always a part of more.
    `data` is a file of JSON lines, a folder that the package datasets saved, or `hub` for a filled cache of the hub,
    which `download` lets be filled. `wording` is a checkout of the evaluation code, whose sentences replace ours in the
    template. `known_as` is the name under which the protocols list the task. Raises ConfigError, and DataError for a
    file of that checkout.
    """

    name: str
    template: str
    reading: str
    known_as: str = ""
    protocol: str = "own"
    set: str = "test"
    summary: str = ""
    turns: str = "many"
    shots: int = 0
    shots_from: str = "head"
    stop: list[str] = field(default_factory=list)
    samples: int | None = None
    subset: str = "hash"
    gen_length: int = 256
    data: str | None = None
    download: bool = False
    wording: str | None = None

    subject: ClassVar[Subject]

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The wordings that exist."""
        return tuple(self.subject.styles)

    def sources(self) -> list[Path | str]:
        """Return the file of the package or what stands in its place, that of examples, and the digest of a wording."""
        origin = self.subject.sets[self.set]
        wording = [] if self.published is None else [self.published.digest]
        if self.data == rows.HUB and origin.hub is not None:
            folder = rows.downloaded(origin.hub[0])
            return [*([Path(folder)] if folder else []), *wording]
        asked = self.subject.folder / origin.file if self.data is None else Path(self.data)
        shown = self.subject.shot_files.get(self.shots_from) if self.shots else None
        return [asked, *([self.subject.folder / shown] if shown else []), *wording]

    @cached_property
    def published(self) -> Wording | None:
        """Return the wording read from a checkout, if there is one; DataError naming the file that cannot be used."""
        if self.wording is None:
            return None
        style, known = self.subject.styles[self.template], self.subject
        return load(self.wording, self.template, known.wordings, style, known.words)

    @property
    def style(self) -> Style:
        """The templates in use."""
        return self.subject.styles[self.template] if self.published is None else self.published.style

    def instances(self) -> list[Sample]:
        """Return the samples in the order of the data; DataError where a row cannot be used."""
        problems = self._read()
        held_out = self.shots if self.shots_from == "head" else 0
        asked, style = problems[held_out:], self.style
        if self.samples is not None and self.samples > len(asked):
            raise DataError(f"task.samples={self.samples}: {self.data or self.set} has {len(asked)} problems to ask")
        # The examples of a problem may depend on its place among all, so they are drawn before problems are chosen.
        shown, turns = list(self._examples(problems[:held_out], asked)), Turns(self.turns)
        return [
            Sample(
                id=asked[i].id,
                prompt=pose(style, turns, shown[i], asked[i].words),
                instance=asked[i],
            )
            for i in self._chosen([problem.id for problem in asked])
        ]

    def score(self, sample: Sample, text: str) -> Score:
        """Grade an answer: cut it at the first stop string, find the answer in it, compare."""
        return self.subject.readings[self.reading](cut(text, self.stop), sample.instance)

    def grading(self) -> Grading:
        """Return whose words ask, and warn of words that are our own under the name of a published protocol."""
        if self.published is not None:
            files = dict(self.published.files)
            return Grading(facts={"wording": "checkout", "wording_files": files, "wording_id": self.published.digest})
        if not self.style.reconstructed:
            return Grading()
        warning = f"protocol={self.protocol}: the wording of task.template={self.template} is a reconstruction"
        return Grading(facts={"wording": "reconstruction"}, warnings=(warning,))

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest worked answer of the data, end token included."""
        answer = self.style.answer
        return 1 + max(len(tokenizer.encode(fill(answer, p.instance.words))) for p in self.instances())

    def _examples(self, head: Sequence[Problem], asked: Sequence[Problem]) -> Iterator[Sequence[Worked]]:
        if self.published is not None and self.published.worked:
            return iter([self.published.worked[: self.shots]] * len(asked))
        if self.shots and self.shots_from != "head":
            drawn = self.subject.shots[self.shots_from](asked, self.shots)
        else:
            drawn = iter([[problem.words for problem in head]] * len(asked))
        return ([self.style.worked(words) for words in shown] for shown in drawn)

    def _chosen(self, ids: list[str]) -> list[int]:
        count = len(ids) if self.samples is None else self.samples
        return rows.by_digest(ids, count) if self.subset == "hash" else list(range(count))

    def _read(self) -> list[Problem]:
        origin, where = self.subject.sets[self.set], self.data or self.subject.sets[self.set].file
        if self.data is None:
            found = [r for r in rows.shipped(self.subject.folder, origin.file) if origin.keep is None or origin.keep(r)]
        elif self.data == rows.HUB and origin.hub is not None:
            found = rows.from_hub(*origin.hub, self.subject.fields, download=self.download)
        elif Path(self.data).is_dir():
            split = origin.hub[2] if origin.hub is not None else self.set
            found = rows.from_folder(self.data, split, self.subject.fields)
        else:
            found = rows.from_file(self.data, self.subject.fields)
        problems: dict[str, Problem] = {}
        for number, row in enumerate(found, start=1):
            try:
                problem = self.subject.problem(self.set, row, number)
            except DataError as error:
                raise DataError(f"{where}, row {number}: {error}") from error
            if problem.id in problems:
                raise DataError(f"{where}, row {number}: id {problem.id!r} stands in an earlier row")
            problems[problem.id] = problem
        return list(problems.values())

    def _problems(self) -> Iterator[tuple[str, str]]:
        choices = {
            "set": self.subject.sets,
            "template": self.subject.styles,
            "reading": self.subject.readings,
            "turns": tuple(turns.value for turns in Turns),
            "subset": ("hash", "first"),
            "shots_from": ("head", *self.subject.shots),
        }
        yield from settings.unknown(self, choices)
        yield from settings.below_one(self, "samples", "gen_length")
        if self.shots < 0:
            yield "shots", "must be at least 0"
        if self.data == rows.HUB and self.subject.sets[self.set].hub is None:
            yield "data", f"set {self.set} is not on the hub; leave task.data out to use the copy in the package"
        if self.download and self.data != rows.HUB:
            yield "download", "fetches data sets of the hub only; add task.data=hub"
        # Read here, so that a checkout without the sentences is refused before a model is loaded.
        spelled = self.published.worked if self.published is not None else ()
        if spelled and self.shots > len(spelled):
            yield "shots", f"{self.wording} spells out {len(spelled)} examples"
        if any(not stop for stop in self.stop):
            yield "stop", "an empty stop string would cut everything"
