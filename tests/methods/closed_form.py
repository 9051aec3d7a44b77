"""Decoding on the closed-form model of the golden tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.prediction import Candidates
from harness.engine.shared.records import Counts, Ledger
from harness.models.closed_form import ClosedForm, ClosedFormModel

PROMPT = [3, 1, 4, 1, 5]
MASK_ID = 11
PROFILE = [0.95, 0.80, 0.99, 0.70, 0.60, 0.92, 0.50, 0.76, 0.88, 0.30, 0.74, 0.97]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What one decoding did."""

    ids: str
    calls: int
    steps: str
    counts: Counts


def replay(*overrides: str, eos_bias: float = 0.0, shifted: bool = False, length: int = 16) -> Replay:
    """Decode `length` positions behind the golden prompt with the method that `overrides` describe."""
    swapped = any(override.startswith("method/scorer=") for override in overrides)
    score_dtype = f"method.{'scorer.' if swapped else ''}score_dtype=float64"
    method = build_method(compose([*overrides, f"gen_length={length}", score_dtype]))
    assert isinstance(method, DiffusionMethod)
    constants = ClosedForm(
        vocab_size=12, mask_id=MASK_ID, eos_id=0, a1=4, f1=1.3, a2=1.5, f2=0.9, f3=2.1, eos_bias=eos_bias,
        shifted=shifted,
    )  # fmt: skip
    model = ClosedFormModel(constants, end_of_turn_id=1)
    canvas = Canvas.from_prompts([PROMPT], gen_length=length, mask_id=MASK_ID, pad_id=0, seeds=[0])
    ledger = Ledger()
    (made,) = decode(model, method, canvas, ledger)
    counts = ledger.counts([0])[0]
    return Replay(
        ids=" ".join(map(str, made.tokens)),
        calls=counts.nfe + made.idle,
        steps=" ".join(map(str, made.decided_at)),
        counts=counts,
    )


def candidates(confidences: Sequence[float], score: Sequence[float] | None = None) -> tuple[Candidates, Tensor, Canvas]:
    """Return candidates of a hand-written row, all of it open, and a canvas of its size."""
    confidence_BL = torch.tensor([list(confidences)], dtype=torch.float64)
    score_BL = confidence_BL if score is None else torch.tensor([list(score)], dtype=torch.float64)
    length = confidence_BL.shape[1]
    canvas = Canvas.from_prompts([[]], gen_length=length, mask_id=MASK_ID, pad_id=0, seeds=[0])
    made = Candidates(
        tokens_BL=torch.zeros(1, length, dtype=torch.int64), score_BL=score_BL, confidence_BL=confidence_BL
    )
    return made, torch.ones(1, length, dtype=torch.bool), canvas


def chosen(selector, confidences: Sequence[float], quota: int | None = None, **kwargs) -> list[int]:
    """Return the positions that a selector closes."""
    made, open_BL, canvas = candidates(confidences, **kwargs)
    quota_B = None if quota is None else torch.tensor([quota])
    return selector(made, open_BL, quota_B, canvas)[0].nonzero().squeeze(1).tolist()
