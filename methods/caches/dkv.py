"""dKV-Cache: keep keys and values of a token one step after it was decided (arXiv:2505.15781, section 3).

Symbol -> knob: refresh interval -> R (default 8; the authors use 8 for LLaDA and 4 for Dream). With i the calls since
the row's window opened, a call is full if i <= 1 or i % R == 0; otherwise masks are computed, and the tokens that
were decided by the last step, for the first time as themselves. `dkv_pd` computes the prompt once and refreshes the
response alone; `dkv_prefill` computes the whole response in every call.
Use: `method/cache=dkv_decode method.cache.R=4`.
Deviations from the authors' code: a position is kept as long as its token is the one it was computed with, so that
re-masked and edited tokens are computed again; rows are ragged and not topped up; of the variants for shifted models
there is the plain one, which also computes the positions before those that are read.
Reconstruction: `dkv_prefill` is described, not specified; its first call is full.
Invariants: R = 1 equals no cache (`dkv_decode`), or `dkv_prefill` (`dkv_pd`).
"""

from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.model import AttentionObserver, LanguageModel
from harness.engine.policies import DiffusionMethod
from harness.engine.policy import policy
from harness.engine.records import Ledger
from harness.engine.reuse import (
    compute,
    recall,
    refuse_misfits,
)


@policy("method/cache", "dkv_decode")
class DelayedCache:
    """Keep decided tokens, the prompt included; compute everything every `R` calls of a window."""

    R: int = 8

    def __post_init__(self) -> None:
        _check_interval(self.R)

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse other rows than the canvas's, drafts, and attention."""
        refuse_misfits(method, "dkv_decode")

    def evaluate(
        self,
        ledger: Ledger,
        model: LanguageModel,
        canvas: Canvas,
        row_N: Tensor,
        position_N: Tensor,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """Return aligned logits of the read positions."""
        return _evaluate(ledger, model, canvas, row_N, position_N, _full_B(canvas, self.R)[:, None])


@policy("method/cache", "dkv_pd")
class DelayedCacheBehindPrompt:
    """Compute the prompt once; keep decided tokens, and compute the response every `R` calls of a window."""

    R: int = 8

    def __post_init__(self) -> None:
        _check_interval(self.R)

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse other rows than the canvas's, drafts, and attention."""
        refuse_misfits(method, "dkv_pd")

    def evaluate(
        self,
        ledger: Ledger,
        model: LanguageModel,
        canvas: Canvas,
        row_N: Tensor,
        position_N: Tensor,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """Return aligned logits of the read positions."""
        refresh_BL = _full_B(canvas, self.R)[:, None] & canvas.response_BL
        return _evaluate(ledger, model, canvas, row_N, position_N, refresh_BL)


@policy("method/cache", "dkv_prefill")
class PromptCache:
    """Compute the prompt once and the response in every call."""

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse other rows than the canvas's, drafts, and attention."""
        refuse_misfits(method, "dkv_prefill")

    def evaluate(
        self,
        ledger: Ledger,
        model: LanguageModel,
        canvas: Canvas,
        row_N: Tensor,
        position_N: Tensor,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """Return aligned logits of the read positions."""
        return _evaluate(ledger, model, canvas, row_N, position_N, canvas.response_BL)


def _check_interval(interval: int) -> None:
    if interval < 1:
        raise ValueError(f"R must be at least 1, got {interval}")


def _full_B(canvas: Canvas, interval: int) -> Tensor:
    calls_B = recall(canvas).calls_B
    return (calls_B <= 1) | (calls_B % interval == 0)


def _evaluate(
    ledger: Ledger, model: LanguageModel, canvas: Canvas, row_N: Tensor, position_N: Tensor, refresh_BL: Tensor
) -> Tensor:
    """Compute masks, what changed, and `refresh_BL`."""
    query_BL = canvas.undecided_BL | recall(canvas).changed_BL(canvas) | refresh_BL
    return compute(ledger, model, canvas, query_BL, row_N, position_N)
