"""Rows of the steps table, taken down by an observer of a loop."""

from dataclasses import dataclass, field

import torch

from harness.engine.canvas import Canvas
from harness.engine.drafting import Round
from harness.engine.generation import known_margin
from harness.engine.prediction import Candidates


@dataclass
class DiffusionTrace:
    """One row per step of every sample; tracing copies to the host and therefore perturbs timing."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Take down what one step committed."""
        committed_BL = before.undecided_BL & ~after.undecided_BL
        # What is decided counts as it stands: models are trained to predict masked positions only.
        best_BL = candidates.tokens_BL.masked_fill(candidates.score_BL == -torch.inf, -1)
        predicted_BL = torch.where(before.undecided_BL, best_BL, before.tokens_BL)
        for row in torch.nonzero(before.undecided_BL.any(1)).squeeze(1).tolist():
            places = committed_BL[row].nonzero().squeeze(1)
            window = before.window_BL[row].nonzero().squeeze(1)
            start, end = int(before.prompt_length_B[row]), int(before.length_B[row])
            self.rows.append(
                {
                    "sample": int(before.sample_B[row]),
                    "step": int(before.clock_B[row]),
                    "window": [int(window[0]) - start, int(window[-1]) + 1 - start] if len(window) else None,
                    "n_open": int(before.open_BL[row].sum()),
                    "n_committed": len(places),
                    "positions": (places - start).tolist(),
                    "tokens": after.tokens_BL[row, places].tolist(),
                    "predicted": predicted_BL[row, start:end].tolist(),
                    "scores": candidates.confidence_BL[row, places].tolist(),
                    "token_margin": known_margin(float(after.step_token_margin_B[row])),
                    "choice_margin": known_margin(float(after.step_choice_margin_B[row])),
                }
            )


@dataclass
class RoundTrace:
    """One row per round of every sample of the draft-verify loop."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, completed: Round) -> None:
        """Take down what one round drafted and accepted."""
        samples = completed.before.sample_B.tolist()
        drafted, accepted = completed.n_drafted_B.tolist(), completed.n_accepted_B.tolist()
        margins = map(known_margin, completed.token_margin_B.tolist())
        for sample, n_drafted, n_accepted, margin in zip(samples, drafted, accepted, margins, strict=True):
            row = {"sample": sample, "step": completed.index, "token_margin": margin}
            self.rows.append({**row, "n_drafted": n_drafted, "n_accepted": n_accepted})
