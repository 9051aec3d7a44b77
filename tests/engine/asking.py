"""What a cache is asked, and what it keeps, in one line of a test."""

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.shared.model import LanguageModel, Store
from harness.engine.shared.places import Places
from harness.engine.shared.records import Ledger


def asked(
    model: LanguageModel, canvas: Canvas, row_N: Tensor, position_N: Tensor, ledger: Ledger | None = None
) -> EvaluationRequest:
    """Return the request for logits of some positions, charged to `ledger` (default: to nobody)."""
    ledger = Ledger() if ledger is None else ledger
    places = Places.of(row_N, position_N, (canvas.num_rows, canvas.tokens_BL.shape[1]))
    return EvaluationRequest(ledger=ledger, model=model, canvas=canvas, places=places)


def empty_store(model: LanguageModel, canvas: Canvas) -> Store:
    """Return a store as wide as the canvas, and a last slot that takes what padded queries write."""
    return model.new_store(canvas.num_rows, canvas.tokens_BL.shape[1] + 1)
