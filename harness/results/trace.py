"""One sample's decoding, step by step: what stood where, and what each step did to it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import DataError

_GIVEN = -1
_TRACED = ("window", "scores", "entropy", "remasked", "edited", "predicted", "n_computed", "n_reused", "cached",
           "drafted", "n_accepted")  # fmt: skip

SAMPLE_COLUMNS = ("sample_id", "repetition", "prompt_sha256", "output_ids", "decided_at", "correct", "nfe")
"""What is read of a sample to show how it was decoded."""

STEP_COLUMNS = ("sample_id", "repetition", "step", "positions", "tokens", *_TRACED)
"""What is read of its steps."""


class Mark(Enum):
    """What a step did at a position; a value is how it is written."""

    COMMITTED = "+"
    REMASKED = "-"
    EDITED = "~"
    ACCEPTED = "="
    REJECTED = "!"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The response after a step: `tokens` has None where nothing is decided, `marks` what the step did, by position.

    `certainty` of committed tokens lies in [0, 1]: their score where it is a probability, else exp(-entropy).
    `computed` and `reused` count the positions of the step's calls; None where they were not taken down, 0 where the
    step is due to an earlier call. `cached` are the positions that these calls took from caches instead of computing
    them; None where that was not taken down. `moved` says that the canvas grew or shrank, so that positions before may
    be others.
    """

    number: int
    tokens: tuple[int | None, ...]
    marks: Mapping[int, Mark]
    certainty: Mapping[int, float]
    computed: int | None
    reused: int | None
    cached: tuple[int, ...] | None
    moved: bool


def first_decodings(rows: pa.Table) -> pa.Table:
    """Return the rows, of samples or their steps, of the first repetition of the measurement."""
    return rows.filter(pc.field("repetition") == 0)


def frames(sample: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[Frame]:
    """Return one frame per step of a sample, from its row and the rows of its steps.

    Without steps, as runs are stored that were not traced, when each position was committed for good is all that is
    known. Raises DataError where not even that is.
    """
    if not steps:
        steps = _known_without_trace(sample)
    final: Sequence[int] = sample["output_ids"] or []
    ordered = sorted(steps, key=lambda row: row["step"])
    standing: dict[int, int] = {p: final[p] for p, at in enumerate(sample["decided_at"] or ()) if at == _GIVEN}
    found = []
    for row, following in zip(ordered, [*ordered[1:], None], strict=True):
        marks, certainty = _marks(row), _certainties(row)
        standing |= dict(zip(row["positions"] or (), row["tokens"] or (), strict=True))
        shown = (following or {}).get("predicted") or final
        for position, mark in marks.items():
            if mark is Mark.REMASKED:
                standing.pop(position, None)
            elif mark is Mark.EDITED and position < len(shown):
                standing[position] = shown[position]
        length = max([len(final), *(p + 1 for p in (*standing, *marks))])
        found.append(
            Frame(
                number=row["step"] + 1,
                tokens=tuple(standing.get(at) for at in range(length)),
                marks=marks,
                certainty=certainty,
                computed=row["n_computed"],
                reused=row["n_reused"],
                cached=None if row["cached"] is None else tuple(row["cached"]),
                moved=row["window"] is not None and row["remasked"] is None,
            )
        )
    return found


def _marks(row: Mapping[str, Any]) -> dict[int, Mark]:
    drafted, accepted = row["drafted"] or [], row["n_accepted"] or 0
    marks = dict.fromkeys(drafted[accepted:], Mark.REJECTED)
    marks |= dict.fromkeys(row["positions"] or (), Mark.COMMITTED)
    marks |= dict.fromkeys(drafted[:accepted], Mark.ACCEPTED)
    marks |= dict.fromkeys(row["remasked"] or (), Mark.REMASKED)
    return marks | dict.fromkeys(row["edited"] or (), Mark.EDITED)


def _certainties(row: Mapping[str, Any]) -> dict[int, float]:
    positions = row["positions"] or []
    scores, entropies = (row[name] or [None] * len(positions) for name in ("scores", "entropy"))
    found = {}
    for position, score, entropy in zip(positions, scores, entropies, strict=True):
        if score is not None and 0 <= score <= 1:
            found[position] = float(score)
        elif entropy is not None:
            found[position] = math.exp(-entropy)
    return found


def _known_without_trace(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    decided, tokens = sample["decided_at"], sample["output_ids"]
    if not decided or max(decided) < 0:
        raise DataError(
            f"{sample['sample_id']}: nothing is stored of how it was decoded; run it again with measure=traced"
        )
    unknown = dict.fromkeys(_TRACED)
    return [
        unknown | {"step": step, "positions": places, "tokens": [tokens[place] for place in places]}
        for step in range(max(decided) + 1)
        if (places := [place for place, at in enumerate(decided) if at == step])
    ]
