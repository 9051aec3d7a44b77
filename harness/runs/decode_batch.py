"""Decode one batch of prompts with whatever method a config describes."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from harness.engine import own_sampler
from harness.engine.autoregressive import loop as draft_verify
from harness.engine.diffusion import loop as diffusion
from harness.engine.diffusion.canvas import Canvas
from harness.engine.families import Method
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.records import Counts, ForwardRecord, Ledger
from harness.errors import DataError
from harness.models.pool import LoadedModel
from harness.results import metrics
from harness.runs.measure import Measure, Stopwatch, stopwatch
from harness.runs.trace import DiffusionTrace, RoundTrace, Work


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Results of a batch, by row: generations, counts, trace rows, its model calls, and the time of the whole batch.

    `room` is the number of response positions that every row had, however early it ended; 0 where rows tell it.
    `forward_s` is the time of the batch's model calls on the device's clock, None where it is not known.
    """

    generations: list[Generation]
    counts: list[Counts]
    steps: list[dict[str, object]]
    calls: list[ForwardRecord]
    watch: Stopwatch
    room: int
    forward_s: float | None

    def counters(self, stop_ids: Collection[int]) -> Iterator[dict[str, Any]]:
        """Yield the counters of every row, under the names of the samples table; None for what cannot be known."""
        for made, counts in zip(self.generations, self.counts, strict=True):
            counted = asdict(counts) | {
                "nfe_idle": made.idle,
                "tokens_out": metrics.tokens_out(made.answer, stop_ids),
                "tokens_canvas": max(len(made.tokens), self.room),
                "tokens_generated": made.tokens_generated,
                "forced": made.forced,
                "remasked": made.remasked,
            }
            yield counted if made.outside is None else made.outside.over(counted)


def with_room(loaded: LoadedModel, ids: list[int], *, gen_length: int, where: str, model: str) -> list[int]:
    """Return the ids of a prompt; raise DataError, beginning with `where`, if there are none or no room is left."""
    if not ids:
        raise DataError(f"{where}: the prompt is empty; give it at least one token")
    longest = loaded.model.spec.max_length
    if len(ids) + gen_length > longest:
        raise DataError(
            f"{where}: {len(ids)} prompt tokens and gen_length={gen_length} exceed the {longest} "
            f"positions of model={model}; shorten the prompt or lower gen_length"
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
) -> Decoded:
    """Decode prompts together; a row's result does not depend on the others."""
    ledger = Ledger(timed=measure.timed, traced=measure.traced)
    work = Work(ledger)

    def mark(finished: int, calls: int) -> None:
        watch.mark(calls)

    with torch.inference_mode(), stopwatch(model.device, quiet=measure.timed) as watch:
        if isinstance(method, diffusion.DiffusionMethod):
            assert model.spec.mask_id is not None
            trace = DiffusionTrace(work, drafts=method.drafts)
            canvas = Canvas.from_prompts(
                prompts,
                gen_length=gen_length,
                mask_id=model.spec.mask_id,
                pad_id=model.spec.pad_id,
                stop_ids=model.spec.stop_ids,
                seeds=seeds,
                device=model.device,
            )
            watched = {"observers": [trace], "on_verified": trace.on_verified, "on_drafts": trace.on_drafts}
            told = watched if measure.traced else {}
            generations = diffusion.decode(model, method, canvas, ledger, on_progress=mark, **told)
        elif isinstance(method, own_sampler.OwnSamplerMethod):
            trace = RoundTrace(work)
            generations = own_sampler.decode(
                model, method, prompts, gen_length=gen_length, seeds=seeds, ledger=ledger, on_progress=watch.mark
            )
        else:
            trace = RoundTrace(work)
            generations = draft_verify.decode(
                model,
                method,
                prompts,
                gen_length=gen_length,
                seeds=seeds,
                ledger=ledger,
                observers=[trace] if measure.traced else [],
                on_progress=mark,
            )
    return Decoded(
        generations=generations,
        counts=ledger.counts(range(len(prompts))),
        steps=trace.rows,
        calls=ledger.records,
        watch=watch,
        forward_s=ledger.seconds(),
        room=0 if isinstance(method, diffusion.DiffusionMethod) else gen_length,
    )
