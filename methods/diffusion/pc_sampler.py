"""PC-Sampler: earlier places and rarer tokens first (arXiv:2508.13021, section 3; NEUIR/PC-Sampler).

Symbol -> knob: lambda -> lam (default 0.25; 0 for Sudoku, 0.5 to 1 for Countdown), alpha (10), block_length (default:
the whole response), S -> steps (default: one token per step), background frequencies p_D'(x) -> f_bg or counts_file.
score = exp(-lam * place in the block) * min(-p * ln(f_bg[token] + 1e-9), alpha), LLaDA's quota of the best close.
f_bg is one frequency per token; counts_file names a JSON list of token counts in a background corpus instead, one
per token (frequency: count / total, of an unseen token 1 / total). Without either every token is as frequent as any
other, 1 / vocabulary, and the method is confidence weighted by place.
Deviations from the authors' code: none known beside LLaDA's; with lam = 0 what is clamped at alpha ties, and ties go
to the lowest position.
Invariants: NFE + idle = steps; without frequencies and with lam = 0 it equals LLaDA while nothing is clamped
and no p rounds to 1.
"""

from pathlib import Path

import torch
from torch import Tensor

from harness import files
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.drawing import draw
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import FieldError, at_least

_FLOOR = 1e-9


@policy("method/scorer", "calibrated")
class Calibrated:
    """Most probable token, ordered by place in the window and by how much it tells; the confidence is its p."""

    lam: float = 0.25
    alpha: float = 10.0
    f_bg: list[float] | None = None
    counts_file: str | None = None
    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, lam=self.lam, temperature=self.temperature)
        if not self.alpha > 0:
            raise FieldError("alpha", self.alpha, "be above 0")
        if self.counts_file is not None:
            if self.f_bg is not None:
                raise FieldError("counts_file", self.counts_file, "be left out beside f_bg, which says the same")
            object.__setattr__(self, "f_bg", _read_counts(self.counts_file))
        elif self.f_bg is not None:
            object.__setattr__(self, "f_bg", [float(f) for f in self.f_bg])
            if not all(0 <= f <= 1 for f in self.f_bg):
                raise FieldError("f_bg", self.f_bg, "hold frequencies in [0, 1]; for counts there is counts_file")

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions; raise DecodeError for a table of another vocabulary."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        tokens_N, log_p_N, behind_N = draw(logits_NV, prediction, canvas, self.temperature)
        p_N = log_p_N.exp()
        told_N = -p_N * (self._frequencies(logits_NV)[tokens_N] + _FLOOR).log()
        place_N = prediction.gather(canvas.window_place_BL).to(p_N.dtype)
        score_N = (-self.lam * place_N).exp() * told_N.clamp(max=self.alpha)
        return prediction.candidates(tokens_N, score_N, p_N, behind_N)

    def _frequencies(self, logits_NV: Tensor) -> Tensor:
        size = logits_NV.shape[1]
        if self.f_bg is None:
            return logits_NV.new_full((size,), 1 / size)
        if len(self.f_bg) != size:
            raise DecodeError(f"the table of token frequencies has {len(self.f_bg)} entries, the vocabulary {size}")
        return torch.tensor(self.f_bg, dtype=logits_NV.dtype, device=logits_NV.device)


def _read_counts(file: str) -> list[float]:
    try:
        counts = [float(count) for count in files.parsed(files.text(Path(file)))]
    except (OSError, ValueError, TypeError) as error:
        raise FieldError("counts_file", file, f"name a JSON list of token counts: {error}") from error
    total = sum(counts)
    if total <= 0 or min(counts) < 0:
        raise FieldError("counts_file", file, "hold counts of at least 0, and something must have been counted")
    return [max(count, 1.0) / total for count in counts]
