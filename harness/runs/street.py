"""The way of every sample: prompt ids, batch, loop, text, score, row. Nothing on it is visited twice."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from harness.engine.families import Method
from harness.engine.shared.generation import DecodeError, Generation
from harness.engine.shared.randomness import sample_seed
from harness.engine.shared.shortage import out_of_memory
from harness.errors import DataError, RunFailed, one_line
from harness.models.pool import LoadedModel
from harness.results.canonical import canonical_json, prompt_digest
from harness.results.schemas import BUDGET, COUNTED, SAMPLES, STEPS, without_names
from harness.runs.decode_batch import Decoded, Seconds, decode_batch, decode_stream, with_room
from harness.runs.measure import Measure
from harness.runs.progress import Progress
from harness.runs.room import Room
from harness.runs.votes import answer_in, answer_of, elected, of_drafts
from tasks.task import Sample, Task

Row = dict[str, Any]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that have been finished together: of the samples with the numbers `places`, in one repetition.

    `warnings` say what a reader of the run should know of how they were decoded.
    """

    repetition: int
    places: Sequence[int]
    samples: list[Row]
    steps: list[Row]
    warnings: Sequence[str] = ()


class Keeper(Protocol):
    """Keeps finished batches, so that a run that is stopped goes on behind them."""

    def take_over(self, sample_ids: Sequence[str]) -> Sequence[Batch]:
        """Return what is finished already, each sample of a repetition once."""
        ...

    def keep(self, batch: Batch) -> None:
        """Note a finished batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Walked:
    """What all samples have come to: rows, the seconds of their decoding if it was timed, and what to know of it."""

    samples: list[Row]
    steps: list[Row]
    seconds: float | None
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class Street:
    """What all samples of a run have in common. `seed` is the run's; `model` names the model in messages.

    There is `room` for so many rows at once: batch after batch, in the order of the samples, or `continuous`, where a
    row begins as another ends, the shortest first, so that neighbours are about as long.
    """

    task: Task
    method: Method
    loaded: LoadedModel
    measure: Measure
    room: Room
    gen_length: int
    seed: int
    model: str
    progress: Progress
    continuous: bool = False

    def walk(self, keeper: Keeper) -> Walked:
        """Decode what the keeper has not, and return the rows of all samples."""
        walk = Walk.of(self, keeper)
        walk.warm_up()
        self.progress.start(len(walk.samples) * self.measure.repetitions)
        for batch in walk.done:
            self.progress.advance(batch.samples)
        for repetition, places in self.groups(walk.prompts):
            walk.decode(repetition, places)
        return walk.walked()

    def walk_piece(self, keeper: Keeper, piece: int, pieces: int) -> None:
        """Have every `pieces`-th group kept, or `pieces`-th sample of each, from the number `piece` on."""
        walk = Walk.of(self, keeper)
        groups = list(self.groups(walk.prompts))
        if self.continuous:
            groups = [(repetition, places[piece::pieces]) for repetition, places in groups]
        else:
            groups = groups[piece::pieces]
        for repetition, places in groups:
            walk.decode(repetition, places)

    def decodings(self) -> Iterator[tuple[list[list[int]], Decoded]]:
        """Decode every batch once, without grading or rows; yield the ids of its prompts, and what came of it."""
        samples = self.task.instances()
        prompts = [self.prompt(sample) for sample in samples]
        for first in range(0, len(samples), self.room.rows):
            part = range(first, min(len(samples), first + self.room.rows))
            yield prompts[part.start : part.stop], self.decode_together(samples, prompts, part, 0)

    def groups(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield the repetition and the samples that are decoded after each other, in order."""
        every = range(len(prompts))
        for repetition in range(self.measure.repetitions):
            if self.continuous:
                yield repetition, sorted(every, key=lambda at: len(prompts[at]))
            else:
                yield from ((repetition, every[at : at + self.room.rows]) for at in every[:: self.room.rows])

    def prompt(self, sample: Sample) -> list[int]:
        return with_room(
            self.loaded,
            self.loaded.tokenizer.encode_prompt(sample.prompt),
            gen_length=self.gen_length,
            where=f"task={self.task.name}, sample {sample.id}",
            model=self.model,
        )

    def refuse_small_budget(self, samples: Sequence[Sample], prompts: Sequence[Sequence[int]]) -> None:
        """Raise DataError where the positions that a call may have are fewer than those of one row."""
        longest = max(range(len(prompts)), key=lambda at: len(prompts[at]))
        needed = len(prompts[longest]) + self.gen_length
        if self.room.tokens is not None and self.room.tokens < needed:
            raise DataError(
                f"batch_tokens={self.room.tokens}: task={self.task.name}, sample {samples[longest].id} alone takes "
                f"{needed} positions, gen_length={self.gen_length} of them; use at least batch_tokens={needed}"
            )

    def _seeds(self, samples: Sequence[Sample], repetition: int) -> list[int]:
        return [sample_seed(self.seed, self.task.name, s.id, repetition) for s in samples]

    def decode_together(
        self, samples: Sequence[Sample], prompts: list[list[int]], places: Sequence[int], repetition: int
    ) -> Decoded:
        """Decode some samples in one batch."""
        with self._named(samples, places):
            return decode_batch(self.loaded.model, self.method, **self._asked(samples, prompts, places, repetition))

    def decode_as_room_is(
        self,
        samples: Sequence[Sample],
        prompts: list[list[int]],
        places: Sequence[int],
        repetition: int,
        room: Room,
        tell: Callable[[Decoded], None],
    ) -> float:
        """Decode some samples, as many at once as there is room, and return the seconds that took."""
        asked = self._asked(samples, prompts, places, repetition)
        with self._named(samples, places):
            return decode_stream(self.loaded.model, self.method, **asked, room=room, tell=tell)

    def _asked(
        self, samples: Sequence[Sample], prompts: list[list[int]], places: Sequence[int], repetition: int
    ) -> dict[str, Any]:
        return {
            "prompts": [prompts[at] for at in places],
            "seeds": self._seeds([samples[at] for at in places], repetition),
            "gen_length": self.gen_length,
            "measure": self.measure,
            "readable": partial(self._readable, [samples[at] for at in places]),
        }

    def _readable(self, samples: Sequence[Sample], row: int, tokens: Sequence[int]) -> bool:
        return answer_in(self.task, samples[row], self.loaded.tokenizer.decode(tokens)) is not None

    @contextmanager
    def _named(self, samples: Sequence[Sample], places: Sequence[int]) -> Iterator[None]:
        """Have an error of decoding name the sample."""
        try:
            yield
        except DecodeError as error:
            if error.sample is None:
                raise
            raise DecodeError(f"sample {samples[places[error.sample]].id}: {error}", sample=error.sample) from error

    def rows(
        self, samples: Sequence[Sample], prompts: list[list[int]], decoded: Decoded, repetition: int
    ) -> Iterator[Row]:
        """Yield the rows of decoded samples, graded."""
        stop_ids = self.loaded.model.spec.stop_ids
        seeds = self._seeds(samples, repetition)
        times = decoded.seconds or [None] * len(samples)
        for sample, ids, seed, first, counters, padded, took in zip(
            samples, prompts, seeds, decoded.generations, decoded.counters(stop_ids), decoded.padded, times, strict=True
        ):
            made = elected(first, self.task, sample, self.loaded.tokenizer)
            text = self.loaded.tokenizer.decode(made.answer)
            score = self.task.score(sample, answer_of(self.method, text))
            beside = of_drafts(made, score.correct, self.task, sample, self.loaded.tokenizer)
            row = dict.fromkeys(without_names(SAMPLES)) | {name: counters[name] for name in COUNTED}
            row |= {
                "sample_id": sample.id,
                "repetition": repetition,
                "seed": seed,
                "prompt_sha256": prompt_digest(ids),
                "prompt_tokens": len(ids),
                "output_ids": list(made.tokens),
                "output_text": text,
                "correct": score.correct,
                "correct_strict": score.strict,
                "detail": score.detail,
                "extracted": score.extracted,
                "extraction": score.path,
                "reader": score.reader,
                "measures": canonical_json({**score.measures, **beside}),
                "decided_at": list(made.decided_at),
                "token_margin": made.token_margin,
                "choice_margin": made.choice_margin,
                "padded_tokens": padded,
                **_columns(took),
                "finish_reason": _finish_reason(made, stop_ids),
                "unseen": list(made.outside.unseen) if made.outside is not None else [],
            }
            yield row if made.outside is None else made.outside.over(row)


def _columns(took: Seconds | None) -> dict[str, float | None]:
    if took is None:
        return dict.fromkeys(("latency_s", "ttft_s", "cpu_s", "forward_s", "rest_s"))
    return asdict(took) | {"rest_s": took.rest_s}


def _finish_reason(made: Generation, stop_ids: Collection[int]) -> str:
    if made.out_of_budget:
        return BUDGET
    return "stop" if any(token in stop_ids for token in made.tokens) else "length"


def step_row(samples: Sequence[Sample], repetition: int, step: Row) -> Row:
    """Return the row of a step of one of `samples`."""
    known = {k: v for k, v in step.items() if k != "sample"}
    return dict.fromkeys(without_names(STEPS)) | {
        "sample_id": samples[step["sample"]].id,
        "repetition": repetition,
        **known,
    }


@dataclass(kw_only=True)
class Walk:
    """The samples of a run on their way: `done` are finished batches, `room` is what is left of the street's."""

    street: Street
    samples: Sequence[Sample]
    prompts: list[list[int]]
    keeper: Keeper
    room: Room
    done: list[Batch]
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    _known: set[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._known = {(batch.repetition, at) for batch in self.done for at in batch.places}

    @classmethod
    def of(cls, street: Street, keeper: Keeper) -> "Walk":
        """Begin, with what the keeper has."""
        samples = street.task.instances()
        prompts = [street.prompt(sample) for sample in samples]
        street.refuse_small_budget(samples, prompts)
        done = list(keeper.take_over([sample.id for sample in samples]))
        return cls(street=street, samples=samples, prompts=prompts, keeper=keeper, room=street.room, done=done)

    def warm_up(self) -> None:
        """Decode some samples for nobody: as many at once as will be, so that shapes are those that are timed."""
        asked = self.street.measure.warmup
        some, warm = range(min(len(self.samples), max(asked, self.room.rows)) if asked else 0), set[int]()
        while left := [at for at in some if at not in warm]:
            self._decoded(0, left, partial(_note_places, warm, left))

    def decode(self, repetition: int, places: Sequence[int]) -> None:
        """Decode those of some samples that are not done."""
        while waiting := self._waiting(repetition, places):
            self.seconds += self._decoded(repetition, waiting, partial(self._take, repetition, waiting))

    def _decoded(self, repetition: int, waiting: Sequence[int], tell: Callable[[Decoded], None]) -> float:
        """Decode some of the samples that wait, tell of them, and return the seconds; without memory make less room."""
        given = (self.samples, self.prompts)
        try:
            if self.street.continuous:
                return self.street.decode_as_room_is(*given, waiting, repetition, self.room, tell)
            decoded = self.street.decode_together(*given, waiting[: self.room.rows], repetition)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self._halve(error)
            return 0.0
        tell(decoded)
        return decoded.watch.wall_s

    def _halve(self, error: RuntimeError) -> None:
        """Go on with half the room, once; raise RunFailed where there is less than memory is short of."""
        before, rows = self.room, self.street.room.rows
        if before != self.street.room or rows == 1:
            half = f", nor for {before.rows}" if before != self.street.room else ""
            less = "a smaller gen_length, or a device with more" if before.rows == 1 else "batch_size=1"
            raise RunFailed(
                f"batch_size={rows}: no memory for {rows} rows at once{half} ({one_line(error)}); use {less}"
            ) from error
        self.room = before.halved()
        told = f"out of memory with {rows} rows at once: went on with {self.room.rows}"
        self.warnings.append(told)
        _LOG.warning(told)
        torch.cuda.empty_cache()

    def _waiting(self, repetition: int, places: Sequence[int]) -> list[int]:
        return [at for at in places if (repetition, at) not in self._known]

    def _take(self, repetition: int, waiting: Sequence[int], decoded: Decoded) -> None:
        """Grade what is decoded of the samples that waited, and keep it."""
        places = [waiting[row] for row in decoded.rows]
        samples, prompts = [self.samples[at] for at in places], [self.prompts[at] for at in places]
        of_all = [self.samples[at] for at in waiting]
        batch = Batch(
            repetition=repetition,
            places=places,
            samples=list(self.street.rows(samples, prompts, decoded, repetition)),
            steps=[step_row(of_all, repetition, step) for step in decoded.steps],
            warnings=tuple(self.warnings),
        )
        self.done.append(batch)
        self._known.update((repetition, at) for at in places)
        self.keeper.keep(batch)
        self.street.progress.advance(batch.samples)

    def walked(self) -> Walked:
        """Return the rows of all samples, in their order."""
        ordered = sorted(self.done, key=lambda batch: (batch.repetition, min(batch.places)))
        placed = [
            (batch.repetition, at, row)
            for batch in ordered
            for at, row in zip(batch.places, batch.samples, strict=True)
        ]
        return Walked(
            samples=[row for _, _, row in sorted(placed, key=lambda one: one[:2])],
            steps=[step for batch in ordered for step in batch.steps],
            seconds=self.seconds if self.street.measure.timed else None,
            warnings=list(dict.fromkeys(told for batch in ordered for told in batch.warnings)),
        )


def _note_places(places: set[int], waiting: Sequence[int], decoded: Decoded) -> None:
    places.update(waiting[row] for row in decoded.rows)
