"""Rows of the steps table, taken down by an observer of a loop."""

from dataclasses import dataclass, field
from math import isnan
from typing import Any

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Round
from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.generation import known_margin
from harness.engine.shared.prediction import Candidates
from harness.engine.shared.records import Ledger


@dataclass
class Work:
    """Positions that calls have computed and reused for each sample since its last step.

    Positions count as cached if every one of these calls took them from a cache; None where a call cannot tell.
    """

    ledger: Ledger
    _seen: int = 0
    _waiting: dict[int, tuple[int, int, set[int] | None]] = field(default_factory=dict)

    def of(self, sample: int, start: int, end: int) -> dict[str, object]:
        """Return the work that led to a step of a sample whose response lies in [start, end), as columns of steps."""
        for record in self.ledger.records[self._seen :]:
            assert record.reused_B is not None, "a traced run has a traced ledger"
            columns = (record.sample_B, record.query_B, record.reused_B)
            for row, (at, query, reused) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
                cached = None if record.cached_BL is None else {*record.cached_BL[row].nonzero().squeeze(1).tolist()}
                before = self._waiting.get(at, (0, 0, cached))
                both = None if cached is None or before[2] is None else before[2] & cached
                self._waiting[at] = before[0] + query, before[1] + reused, both
        self._seen = len(self.ledger.records)
        computed, reused, cached = self._waiting.pop(sample, (0, 0, set()))
        inside = None if cached is None else sorted(one - start for one in cached if start <= one < end)
        return {"n_computed": computed, "n_reused": reused, "cached": inside}


@dataclass
class DiffusionTrace:
    """One row per step of every sample; tracing copies to the host and therefore perturbs timing.

    Of a method that `drafts`, a step that a draft had made before says so of its positions; drafts that led nowhere
    stand, rejected, at the last step that came of one, else at the step that was made in their place.
    """

    work: Work
    drafts: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    _rejected: dict[int, list[int]] = field(default_factory=dict)
    _last: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Take down what one step committed, took back and replaced."""
        committed_BL = before.undecided_BL & ~after.undecided_BL
        remasked_BL = before.committed_BL & after.undecided_BL
        edited_BL = before.committed_BL & after.committed_BL & (before.tokens_BL != after.tokens_BL)
        # What is decided counts as it stands: models are trained to predict masked positions only.
        best_BL = candidates.tokens_BL.masked_fill(candidates.score_BL == -torch.inf, -1)
        predicted_BL = torch.where(before.undecided_BL, best_BL, before.tokens_BL)
        moved_B, margins = after.layout_B != before.layout_B, after.margins.settled
        # Rows that are only held revise without anything undecided; those that wait for others make no step.
        for row in torch.nonzero(after.clock_B != before.clock_B).squeeze(1).tolist():
            places = committed_BL[row].nonzero().squeeze(1)
            window = before.window_BL[row].nonzero().squeeze(1)
            start, end = int(before.prompt_length_B[row]), int(before.length_B[row])
            sample, moved = int(before.sample_B[row]), bool(moved_B[row])
            self.rows.append(
                {
                    "sample": sample,
                    "step": int(before.clock_B[row]),
                    "window": [int(window[0]) - start, int(window[-1]) + 1 - start] if len(window) else None,
                    "n_open": int(before.open_BL[row].sum()),
                    "n_committed": len(places),
                    "positions": (places - start).tolist(),
                    "tokens": after.tokens_BL[row, places].tolist(),
                    "predicted": predicted_BL[row, start:end].tolist(),
                    "scores": candidates.confidence_BL[row, places].tolist(),
                    "entropy": _entropies(candidates.entropy_BL, row, places),
                    "remasked": None if moved else (remasked_BL[row].nonzero().squeeze(1) - start).tolist(),
                    "edited": None if moved else (edited_BL[row].nonzero().squeeze(1) - start).tolist(),
                    "token_margin": known_margin(float(margins.step_token_B[row])),
                    "choice_margin": known_margin(float(margins.step_choice_B[row])),
                    **self._drafted([], self._rejected.pop(sample, [])),
                    **self.work.of(sample, start, end),
                }
            )

    def on_verified(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Take down a step that a draft had made before."""
        first = len(self.rows)
        self(before, candidates, after)
        for row in self.rows[first:]:
            row |= self._drafted(row["positions"], [])
            self._last[row["sample"]] = row

    def on_drafts(self, stepped: Canvas, drafts: Canvas, reached: Canvas) -> None:
        """Take down which of the drafts that a call evaluated beyond the step of each row led nowhere."""
        known, stands = _committed(stepped), _committed(reached)
        for sample, places in _committed(drafts).items():
            rejected = sorted(places - known[sample] - stands[sample])
            last = self._last.pop(sample, None)
            if last is None:
                self._rejected[sample] = rejected
            else:
                last |= self._drafted(last["positions"], rejected)

    def _drafted(self, accepted: list[int], rejected: list[int]) -> dict[str, object]:
        if not self.drafts:
            return {}
        places = accepted + rejected
        return {"drafted": places, "n_drafted": len(places), "n_accepted": len(accepted)}


def _committed(canvas: Canvas) -> dict[int, set[int]]:
    """Return the decided places of every sample's response, in any of its rows."""
    found: dict[int, set[int]] = {}
    rows = zip(canvas.sample_B.tolist(), canvas.prompt_length_B.tolist(), canvas.committed_BL, strict=True)
    for sample, start, committed_L in rows:
        found.setdefault(sample, set()).update((committed_L.nonzero().squeeze(1) - start).tolist())
    return found


@dataclass
class RoundTrace:
    """One row per round of every sample of the draft-verify loop; of several rows of a sample, the first."""

    work: Work
    rows: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, completed: Round) -> None:
        """Take down what one round drafted, accepted and committed."""
        before, after, entropy_BL = completed.before, completed.after, completed.along.entropy()
        drafted, accepted = completed.n_drafted_B.tolist(), completed.n_accepted_B.tolist()
        samples = before.sample_B.tolist()
        for sample, row in sorted({sample: row for row, sample in reversed([*enumerate(samples)])}.items()):
            first, end = int(before.length_B[row]), int(after.length_B[row])
            start = int(before.prompt_length_B[row])
            places = torch.arange(first, end, device=entropy_BL.device)
            self.rows.append(
                {
                    "sample": sample,
                    "step": int(before.rounds_B[row]),
                    "n_committed": end - first,
                    "positions": (places - start).tolist(),
                    "tokens": after.tokens_BL[row, first:end].tolist(),
                    "entropy": _entropies(entropy_BL, row, places),
                    "token_margin": known_margin(float(completed.token_margin_B[row])),
                    "drafted": [first - start + place for place in completed.drafted_places(row)],
                    "n_drafted": drafted[row],
                    "n_accepted": accepted[row],
                    **self.work.of(sample, start, end),
                }
            )


def _entropies(entropy_BL: Tensor | None, row: int, places: Tensor) -> list[float | None] | None:
    if entropy_BL is None:
        return None
    return [None if isnan(one) else one for one in entropy_BL[row, places].tolist()]
