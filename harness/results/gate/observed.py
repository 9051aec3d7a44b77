"""What the gate looks at: settings with their samples and, of traced runs, their steps, read from a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.results.parts import as_rows
from harness.results.schemas import COUNTERS
from harness.results.store import Store

Row = Mapping[str, Any]

_DIGITS = 3
_PROMPT = 12
_RUN_COLUMNS = ("status", "error", "family", "model", "method", "setting", "task", "dtype")
_SAMPLE_COLUMNS = ("sample_id", "repetition", "prompt_sha256", "output_ids", "decided_at", "correct",
                   "token_margin", "choice_margin", *COUNTERS)  # fmt: skip
_STEP_COLUMNS = ("sample_id", "repetition", "step", "positions", "tokens", "remasked", "edited",
                 "n_accepted", "n_computed", "token_margin", "choice_margin")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decoding step: response positions committed with their tokens, taken back and replaced.

    `accepted` counts draft tokens (None where nothing drafts), `computed` query positions since the step before.
    `margin` is the smaller of its two margins, None where nothing was compared.
    """

    at: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    remasked: tuple[int, ...] = ()
    edited: tuple[int, ...] = ()
    accepted: int | None = None
    computed: int | None = None
    margin: float | None = None

    @property
    def decision(self) -> tuple[object, ...]:
        """What it did to the response."""
        return self.at, self.tokens, self.remasked, self.edited

    @property
    def work(self) -> tuple[object, ...]:
        """What it cost."""
        return self.accepted, self.computed


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One decoding of one sample; `steps` are empty unless the run was traced.

    `drawn` says that a token was drawn at a temperature: nothing tells then how near it was to another one.
    """

    sample: str
    repetition: int
    prompt: str
    tokens: tuple[int, ...]
    decided_at: tuple[int, ...]
    correct: bool | None
    counters: Mapping[str, int | None]
    margin: float | None
    drawn: bool
    steps: tuple[Step, ...] = ()

    @property
    def name(self) -> tuple[str, int]:
        """What joins it with the baseline's."""
        return self.sample, self.repetition

    @property
    def decisions(self) -> tuple[object, ...]:
        """What was decided, and in which order."""
        return self.tokens, self.decided_at, tuple(step.decision for step in self.steps)

    @property
    def work(self) -> tuple[object, ...]:
        """What that cost."""
        return tuple(sorted(self.counters.items())), tuple(step.work for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A run of a setting, or its baseline; `failure` says why there are no answers, None where there are."""

    setting_id: str
    model: str | None
    method: str | None
    setting: str
    task: str | None
    dtype: str | None
    failure: str | None = None
    answers: tuple[Answer, ...] = ()

    @property
    def label(self) -> str:
        """What a reader knows it by."""
        return " ".join(word for word in (self.model, self.setting, self.task) if word)


def observe(store: Store, run_ids: Sequence[str]) -> list[Setting]:
    """Return what stored runs did, in the order given; a run whose file cannot be read is left out.

    Of millions of samples those of these runs are read, a few runs at a time.
    """
    chosen = store.chosen(run_ids)
    steps = {one.run_id: part for one, part in chosen.parts("steps", _STEP_COLUMNS) if part.num_rows}
    runs = {row["run_id"]: row for row in as_rows(chosen.table("runs", _RUN_COLUMNS))}
    found: dict[str, Setting] = {}
    for one, part in chosen.parts("samples", _SAMPLE_COLUMNS):
        if one.run_id in runs:
            traced = steps[one.run_id].to_pylist() if one.run_id in steps else []
            found[one.run_id] = setting_of(runs[one.run_id], part.to_pylist(), traced)
    wanted = [run_id for run_id in dict.fromkeys(run_ids) if run_id in runs]
    return [found.get(run_id) or setting_of(runs[run_id], [], []) for run_id in wanted]


def setting_of(run: Row, samples: Sequence[Row], steps: Sequence[Row]) -> Setting:
    """Return what a run did, of its row and those of its samples and steps."""
    by_sample: dict[tuple[str, int], list[Row]] = {}
    for row in steps:
        by_sample.setdefault((row["sample_id"], row["repetition"]), []).append(row)
    ours = run["family"] != "own_sampler"
    return Setting(
        **{name: run[name] for name in ("setting_id", "model", "method", "setting", "task", "dtype")},
        failure=None if run["status"] == "ok" else f"{run['status']}: {run['error']}",
        answers=tuple(_answer(row, by_sample.get((row["sample_id"], row["repetition"]), []), ours) for row in samples),
    )


def _answer(row: Row, steps: Sequence[Row], ours: bool) -> Answer:
    ordered = sorted(steps, key=lambda step: step["step"])
    return Answer(
        sample=row["sample_id"],
        repetition=row["repetition"],
        prompt=(row["prompt_sha256"] or "")[:_PROMPT],
        tokens=tuple(row["output_ids"] or ()),
        decided_at=tuple(row["decided_at"] or ()),
        correct=row["correct"],
        counters={name: row[name] for name in COUNTERS},
        margin=_margin(row),
        # What is not ours tells no margins of tokens that were not drawn, either.
        drawn=ours and row["token_margin"] is None and bool(row["tokens_generated"]),
        steps=tuple(_step(step) for step in ordered),
    )


def _step(row: Row) -> Step:
    lists = {name: tuple(row[column] or ()) for name, column in _LISTS.items()}
    return Step(**lists, accepted=row["n_accepted"], computed=row["n_computed"], margin=_margin(row))


_LISTS = {"at": "positions", "tokens": "tokens", "remasked": "remasked", "edited": "edited"}


def _margin(row: Row) -> float | None:
    known = [value for value in (row["token_margin"], row["choice_margin"]) if value is not None]
    # Rounded as the baseline is written, so that a margin is the same wherever it comes from.
    return float(f"{min(known):.{_DIGITS}g}") if known else None
