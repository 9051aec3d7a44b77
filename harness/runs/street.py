"""The way of every sample: prompt ids, batch, loop, text, score, row. Nothing on it is visited twice."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

from harness.engine.families import Method
from harness.engine.shared.generation import DecodeError, Generation
from harness.engine.shared.randomness import sample_seed
from harness.models.pool import LoadedModel
from harness.results.canonical import canonical_json, prompt_digest
from harness.results.schemas import BUDGET, COUNTERS, SAMPLES, STEPS, without_names
from harness.runs.decode_batch import Decoded, decode_batch, with_room
from harness.runs.measure import Measure
from harness.runs.progress import Progress
from tasks.task import Sample, Task

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of a finished batch, named by its repetition and the index of its first sample; `seconds` if timed."""

    repetition: int
    first: int
    samples: list[Row]
    steps: list[Row]
    seconds: float = 0.0


class Keeper(Protocol):
    """Keeps finished batches, so that a run that is stopped goes on behind them."""

    def take_over(self, sample_ids: Sequence[str], batch_size: int) -> Mapping[tuple[int, int], Batch]:
        """Return what is finished already, by repetition and index of the first sample."""
        ...

    def keep(self, batch: Batch) -> None:
        """Note a finished batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Street:
    """What all samples of a run have in common. `seed` is the run's; `model` names the model in messages."""

    task: Task
    method: Method
    loaded: LoadedModel
    measure: Measure
    batch_size: int
    gen_length: int
    seed: int
    model: str
    progress: Progress

    def walk(self, keeper: Keeper) -> tuple[list[Row], list[Row], float | None]:
        """Return rows of the samples and steps tables, and the seconds of all batches (None if not timed)."""
        samples = self.task.instances()
        prompts = [self._prompt(sample) for sample in samples]
        rows, steps, seconds = [], [], 0.0
        finished = keeper.take_over([sample.id for sample in samples], self.batch_size)
        warmup = self.measure.warmup
        if warmup:
            self._decode(samples[:warmup], prompts[:warmup], 0)
        self.progress.start(len(samples) * self.measure.repetitions)
        for repetition, first in self._places(len(samples)):
            batch = finished.get((repetition, first))
            if batch is None:
                batch = self._batch(samples, prompts, repetition, first)
                keeper.keep(batch)
            rows += batch.samples
            steps += batch.steps
            seconds += batch.seconds
            self.progress.advance(batch.samples)
        return rows, steps, seconds if self.measure.timed else None

    def walk_piece(self, keeper: Keeper, piece: int, pieces: int) -> None:
        """Have every `pieces`-th batch kept, from the one with the number `piece`, that is not finished already."""
        samples = self.task.instances()
        prompts = [self._prompt(sample) for sample in samples]
        finished = keeper.take_over([sample.id for sample in samples], self.batch_size)
        for place in self._places(len(samples))[piece::pieces]:
            if place not in finished:
                keeper.keep(self._batch(samples, prompts, *place))

    def decodings(self) -> Iterator[tuple[list[list[int]], Decoded]]:
        """Decode every batch once, without grading or rows; yield the ids of its prompts, and what came of it."""
        samples = self.task.instances()
        prompts = [self._prompt(sample) for sample in samples]
        for first in range(0, len(samples), self.batch_size):
            part = slice(first, first + self.batch_size)
            yield prompts[part], self._decode(samples[part], prompts[part], 0)

    def _places(self, samples: int) -> list[tuple[int, int]]:
        """Return the repetition and the first sample of every batch, in order."""
        return [*product(range(self.measure.repetitions), range(0, samples, self.batch_size))]

    def _batch(self, samples: Sequence[Sample], prompts: list[list[int]], repetition: int, first: int) -> Batch:
        part = slice(first, first + self.batch_size)
        decoded = self._decode(samples[part], prompts[part], repetition)
        return Batch(
            repetition=repetition,
            first=first,
            samples=list(self._rows(samples[part], prompts[part], decoded, repetition)),
            steps=[_step(samples[part], repetition, step) for step in decoded.steps],
            seconds=decoded.watch.wall_s,
        )

    def _prompt(self, sample: Sample) -> list[int]:
        return with_room(
            self.loaded,
            self.loaded.tokenizer.encode_prompt(sample.prompt),
            gen_length=self.gen_length,
            where=f"task={self.task.name}, sample {sample.id}",
            model=self.model,
        )

    def _seeds(self, samples: Sequence[Sample], repetition: int) -> list[int]:
        return [sample_seed(self.seed, self.task.name, s.id, repetition) for s in samples]

    def _decode(self, samples: Sequence[Sample], prompts: list[list[int]], repetition: int) -> Decoded:
        try:
            return decode_batch(
                self.loaded.model,
                self.method,
                prompts,
                seeds=self._seeds(samples, repetition),
                gen_length=self.gen_length,
                measure=self.measure,
            )
        except DecodeError as error:
            if error.sample is None:
                raise
            raise DecodeError(f"sample {samples[error.sample].id}: {error}", sample=error.sample) from error

    def _rows(
        self, samples: Sequence[Sample], prompts: list[list[int]], decoded: Decoded, repetition: int
    ) -> Iterator[Row]:
        stop_ids = self.loaded.model.spec.stop_ids
        seeds = self._seeds(samples, repetition)
        watch = decoded.watch if self.measure.timed else None
        for sample, ids, seed, made, counters in zip(
            samples, prompts, seeds, decoded.generations, decoded.counters(stop_ids), strict=True
        ):
            text = self.loaded.tokenizer.decode(made.answer)
            score = self.task.score(sample, text)
            row = dict.fromkeys(without_names(SAMPLES)) | {name: counters[name] for name in COUNTERS}
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
                "measures": canonical_json(dict(score.measures)),
                "decided_at": list(made.decided_at),
                "token_margin": made.token_margin,
                "choice_margin": made.choice_margin,
                "latency_s": watch.wall_s if watch else None,
                "ttft_s": watch.marks_s[made.first_call] if watch and made.first_call >= 0 else None,
                "cpu_s": watch.cpu_s if watch else None,
                "forward_s": decoded.forward_s,
                "rest_s": watch.wall_s - decoded.forward_s if watch and decoded.forward_s is not None else None,
                "finish_reason": _finish_reason(made, stop_ids),
                "unseen": list(made.outside.unseen) if made.outside is not None else [],
            }
            yield row if made.outside is None else made.outside.over(row)


def _finish_reason(made: Generation, stop_ids: Collection[int]) -> str:
    if made.out_of_budget:
        return BUDGET
    return "stop" if any(token in stop_ids for token in made.tokens) else "length"


def _step(samples: Sequence[Sample], repetition: int, step: Row) -> Row:
    known = {k: v for k, v in step.items() if k != "sample"}
    return dict.fromkeys(without_names(STEPS)) | {
        "sample_id": samples[step["sample"]].id,
        "repetition": repetition,
        **known,
    }
