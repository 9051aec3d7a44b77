"""Decode prompts with whatever method a config describes: together, or as many at once as there is room."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from harness.engine import own_sampler
from harness.engine.autoregressive import loop as draft_verify
from harness.engine.diffusion import loop as diffusion
from harness.engine.diffusion.canvas import Canvas
from harness.engine.families import Method
from harness.engine.shared.drafts import Drafting
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel, Models
from harness.engine.shared.records import Asked, Counts, ForwardRecord, Ledger, Loads
from harness.errors import DataError
from harness.models.pool import LoadedModel
from harness.results import metrics
from harness.results.canonical import canonical_json
from harness.runs.measure import Measure, Moment, Stopwatch, stopwatch
from harness.runs.room import Room
from harness.runs.trace import DiffusionTrace, RoundTrace, Work

Reader = Callable[[int, Sequence[int]], bool]


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Times of one row: from its entry to its end, and until its first response position was final."""

    latency_s: float
    ttft_s: float | None
    cpu_s: float
    forward_s: float | None

    @property
    def rest_s(self) -> float | None:
        """The rest of the time: policies, caches, counting."""
        return None if self.forward_s is None else self.latency_s - self.forward_s


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Results of rows: generations, counts, positions of padding, trace rows, and times where they are measured.

    `rows` are their places among the prompts; `drafting` is None of those whose method drafts nothing, `asked` is what
    models by further roles were asked. `calls` are all calls of models so far, `watch` tells the time of all rows
    together once they are done.
    `room` is the number of response positions that every row had, however early it ended; 0 where rows tell it.
    """

    rows: Sequence[int]
    generations: list[Generation]
    counts: list[Counts]
    loads: list[Loads]
    drafting: list[Drafting | None]
    asked: list[Mapping[str, Asked]]
    padded: list[int]
    steps: list[dict[str, object]]
    calls: list[ForwardRecord]
    watch: Stopwatch
    room: int
    seconds: list[Seconds] | None

    def counters(self, stop_ids: Collection[int]) -> Iterator[dict[str, Any]]:
        """Yield the counters of every row, under the names of the samples table; None for what cannot be known."""
        rows = zip(self.generations, self.counts, self.loads, self.drafting, self.asked, strict=True)
        for made, counts, loads, drafting, asked in rows:
            drafted = dict.fromkeys(Drafting.__dataclass_fields__) if drafting is None else vars(drafting)
            told = {
                "nfe_idle": made.idle,
                "tokens_out": metrics.tokens_out(made.answer, stop_ids),
                "tokens_canvas": max(len(made.tokens), self.room),
                "tokens_generated": made.tokens_generated,
                "forced": made.forced,
                "remasked": made.remasked,
            }
            counted = vars(counts) | vars(loads) | drafted | _told(asked, timed=self.seconds is not None) | told
            yield counted if made.outside is None else made.outside.over(counted)


def _told(asked: Mapping[str, Asked], *, timed: bool) -> dict[str, str | None]:
    """Return what models by further roles were asked as columns: counts, and apart from them seconds."""
    names = ("calls", "query_tokens", "layer_loads")
    counts = {role: {name: getattr(one, name) for name in names} for role, one in asked.items()}
    seconds = {role: one.seconds for role, one in asked.items()}
    return {
        "asked": canonical_json(counts) if asked else None,
        "asked_s": canonical_json(seconds) if asked and timed else None,
    }


def with_room(loaded: LoadedModel, ids: list[int], *, gen_length: int, where: str, model: str) -> list[int]:
    """Return the ids of a prompt; raise DataError, beginning with `where`, if there are none or no room is left."""
    if not ids:
        raise DataError(f"{where}: the prompt is empty; give it at least one token")
    longest, named = loaded.model.spec.max_length, f"model={model}"
    target = loaded.model.target if isinstance(loaded.model, Models) else loaded.model
    for role, one in loaded.beside.items():
        if one.model.spec.max_length == longest < target.spec.max_length:
            named = f"model@{role}={one.model.spec.name}"
    if len(ids) + gen_length > longest:
        raise DataError(
            f"{where}: {len(ids)} prompt tokens and gen_length={gen_length} exceed the {longest} "
            f"positions of {named}; shorten the prompt or lower gen_length"
        )
    return ids


def decode_batch(
    model: LanguageModel,
    method: Method,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    gen_length: int,
    measure: Measure,
    readable: Reader = lambda row, tokens: True,
) -> Decoded:
    """Decode prompts together; a row's result does not depend on the others.

    `readable` says of the place of a prompt and of tokens whether they answer it, where a method asks that.
    """
    told = {"gen_length": gen_length, "measure": measure, "readable": readable}
    rows = _Rows(model=model, prompts=prompts, seeds=seeds, **told)
    rows.decode(method, Room(rows=len(prompts)))
    return rows.decoded(range(len(prompts)))


def decode_stream(
    model: LanguageModel,
    method: Method,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    gen_length: int,
    measure: Measure,
    room: Room,
    tell: Callable[[Decoded], None],
    readable: Reader = lambda row, tokens: True,
) -> float:
    """Decode prompts, as many at once as there is `room`, and return the seconds of all.

    A row begins as another ends; what a model makes by itself is decoded one part of the prompts after the other.
    `tell` is told of rows that are done: soon, or, where seconds count, when all are.
    """
    given: dict[str, Any] = {"gen_length": gen_length, "measure": measure, "readable": readable}
    if not isinstance(method, own_sampler.OwnSamplerMethod):
        told: list[Sequence[int]] = []
        rows = _Rows(model=model, prompts=prompts, seeds=seeds, **given)
        rows.on_finished = told.append if measure.timed else lambda some: tell(rows.decoded(some))
        rows.decode(method, room)
        for some in told:
            tell(rows.decoded(some))
        return rows.watch.wall_s
    seconds, first = 0.0, 0
    while first < len(prompts):
        part = slice(first, first + room.beside(0, 0, [len(prompt) + gen_length for prompt in prompts[first:]]))
        made = decode_batch(model, method, prompts[part], seeds=seeds[part], **given)
        tell(replace(made, rows=range(*part.indices(len(prompts)))))
        first, seconds = part.stop, seconds + made.watch.wall_s
    return seconds


@dataclass(kw_only=True)
class _Rows:
    """Rows on their way through a loop; prompts from `begun` on wait."""

    model: LanguageModel
    prompts: Sequence[Sequence[int]]
    seeds: Sequence[int]
    gen_length: int
    measure: Measure
    readable: Reader = lambda row, tokens: True
    watch: Stopwatch = field(default_factory=Stopwatch)
    on_finished: Callable[[Sequence[int]], None] = lambda rows: None
    ledger: Ledger = field(init=False)
    made: dict[int, Generation] = field(default_factory=dict)
    begun: int = 0
    _steps: list[dict[str, Any]] = field(default_factory=list)
    _entered_at: dict[int, int] = field(default_factory=dict)
    _calls: int = 0
    _length: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(timed=self.measure.timed, traced=self.measure.traced)

    def decode(self, method: Method, room: Room) -> None:
        """Decode all prompts, and tell the time; loops that take no rows in decode them together."""
        with torch.inference_mode(), stopwatch(self.model.device, quiet=self.measure.timed) as self.watch:
            self._decode(method, room)

    def _decode(self, method: Method, room: Room) -> None:
        if isinstance(method, diffusion.DiffusionMethod):
            self._diffuse(method, room)
            return
        self._length = self.gen_length
        given = {"gen_length": self.gen_length, "seeds": self.seeds, "ledger": self.ledger}
        if isinstance(method, own_sampler.OwnSamplerMethod):
            self._finish(own_sampler.decode(self.model, method, self.prompts, on_progress=self.watch.mark, **given))
            return
        trace = RoundTrace(Work(self.ledger), self._steps)
        draft_verify.decode(
            self.model,
            method,
            self.prompts,
            observers=[trace] if self.measure.traced else [],
            on_progress=self._mark,
            on_finished=self._finish,
            readable=self.readable,
            begins=lambda going_on, width: len(self._beginning(room, going_on, width)),
            **given,
        )

    def _diffuse(self, method: diffusion.DiffusionMethod, room: Room) -> None:
        trace = DiffusionTrace(Work(self.ledger), drafts=method.drafts, rows=self._steps)
        watched = {"observers": [trace], "on_verified": trace.on_verified, "on_drafts": trace.on_drafts}
        first = self._arriving(room, 0, 0)
        assert first is not None
        diffusion.decode(
            self.model,
            method,
            first,
            self.ledger,
            on_progress=self._mark,
            arrivals=partial(self._arriving, room),
            on_finished=self._finish,
            **(watched if self.measure.traced else {}),
        )

    def _beginning(self, room: Room, going_on: int, width: int) -> range:
        """Return which prompts begin beside so many rows that go on, and note when."""
        first, waiting = self.begun, self.prompts[self.begun : self.begun + room.rows]
        self.begun += room.beside(going_on, width, [len(prompt) + self.gen_length for prompt in waiting])
        self._entered_at |= dict.fromkeys(range(first, self.begun), self._calls)
        return range(first, self.begun)

    def _arriving(self, room: Room, going_on: int, width: int) -> Canvas | None:
        some = self._beginning(room, going_on, width)
        if not some:
            return None
        spec = self.model.spec
        assert spec.mask_id is not None
        canvas = Canvas.from_prompts(
            self.prompts[some.start : some.stop],
            gen_length=self.gen_length,
            mask_id=spec.mask_id,
            pad_id=spec.pad_id,
            stop_ids=spec.stop_ids,
            seeds=self.seeds[some.start : some.stop],
            device=self.model.device,
        )
        return replace(canvas, sample_B=canvas.sample_B + some.start)

    def _mark(self, finished: int, calls: int) -> None:
        self._calls = calls
        self.watch.mark(calls)

    def _finish(self, made: Sequence[Generation]) -> None:
        rows = [one.sample for one in made]
        self.made |= dict(zip(rows, made, strict=True))
        self.on_finished(rows)

    def decoded(self, rows: Sequence[int]) -> Decoded:
        """Return what has come of some rows, which have ended."""
        return Decoded(
            rows=rows,
            generations=[self.made[row] for row in rows],
            counts=self.ledger.counts(rows),
            loads=self.ledger.loads(rows),
            drafting=self.ledger.drafting(rows),
            asked=self.ledger.asked(rows),
            padded=self.ledger.padded(rows),
            steps=self._take_steps(rows),
            calls=self.ledger.records,
            watch=self.watch,
            room=self._length,
            seconds=self._seconds(rows) if self.measure.timed else None,
        )

    def _seconds(self, rows: Sequence[int]) -> list[Seconds]:
        forward_s = self.ledger.seconds_of(rows)
        return [self._of(self.made[row], seconds) for row, seconds in zip(rows, forward_s, strict=True)]

    def _take_steps(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the steps of some rows, in their order; none is looked at again, or many rows would take long."""
        several = frozenset(rows)
        taken = [step for step in self._steps if step["sample"] in several]
        self._steps[:] = [step for step in self._steps if step["sample"] not in several]
        return taken

    def _of(self, made: Generation, forward_s: float | None) -> Seconds:
        """Return the times of a row: those of all rows where its loop does not say when it ended."""
        entered = self._entered_at.get(made.sample, 0)
        began = self.watch.at(entered)
        told = made.calls or not self._length
        ended = self.watch.at(entered + made.calls) if told else Moment(self.watch.wall_s, self.watch.cpu_s)
        first = self.watch.at(entered + made.first_call + 1) if made.first_call >= 0 else None
        return Seconds(
            latency_s=ended.wall_s - began.wall_s,
            ttft_s=None if first is None else first.wall_s - began.wall_s,
            cpu_s=ended.cpu_s - began.cpu_s,
            forward_s=forward_s,
        )
