"""dKV-Cache: keep keys and values of a token one step after it was decided (arXiv:2505.15781, section 3).

Symbol -> knob: refresh interval -> R (default 8; the authors use 8 for LLaDA and 4 for Dream). With i the calls since
the row's window opened, a call is full if i <= 1 or i % R == 0; otherwise masks are computed, and the tokens that
were decided by the last step, for the first time as themselves. `dkv_pd` computes the prompt once and refreshes the
response alone; `dkv_prefill` computes the whole response in every call.
`dkv_greedy` (R: default 2) makes full calls if i % R == 0, and otherwise computes what is decided next, which has to be
drawn beforehand: in random order, the only one that it supports. With that go the tokens decided by the last step, and
the masks within w // 2 of what is decided next (window -> w, default 4).
Use: `method/cache=dkv_decode method.cache.R=4`.
Deviations from the authors' code: a position is kept as long as its token is the one it was computed with, so that
re-masked and edited tokens are computed again; rows are ragged and not topped up; of the variants for shifted models
there is the plain one, which also computes the positions before those that are read.
Reconstruction: `dkv_prefill` is described, not specified; its first call is full. `dkv_greedy`'s calls count from the
row's window, and its neighbours are those of every position of the quota.
Invariants: R = 1 equals no cache (`dkv_decode`, `dkv_greedy`), or `dkv_prefill` (`dkv_pd`).
"""

from torch import Tensor
from torch.nn.functional import max_pool1d

from harness.engine.canvas import Canvas
from harness.engine.method import DiffusionMethod, Unscheduled
from harness.engine.model import AttentionObserver, LanguageModel
from harness.engine.policy import policy
from harness.engine.prediction import top
from harness.engine.records import Ledger
from harness.engine.reuse import (
    compute,
    recall,
    refuse_misfits,
)
from methods.diffusion.llada import Confidence, Order, random_order

_NEXT = "dkv_greedy.next_BL"


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


@policy("method/cache", "dkv_greedy")
class GreedyDelayedCache:
    """Compute what is decided next in random order, what the last step decided, and near masks; all every `R` calls."""

    R: int = 2
    w: int = 4

    def __post_init__(self) -> None:
        _check_interval(self.R)
        if self.w < 0:
            raise ValueError(f"w must be at least 0, got {self.w}")

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse other rows than the canvas's, drafts, attention, any other order, and steps without a quota."""
        refuse_misfits(method, "dkv_greedy", narrows=True)
        drawn = isinstance(method.scorer, Confidence) and method.scorer.order is Order.random
        if not drawn or isinstance(method.schedule, Unscheduled):
            raise ValueError(
                "the cache dkv_greedy computes what is decided next, which only a random order with a quota tells; "
                "use method=llada method.remasking=random"
            )

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the positions of which the scorer's draws are the largest: as many as the step will close."""
        assert quota_B is not None, "`fit` asks for a schedule"
        next_BL = top(random_order(canvas), canvas.open_BL, quota_B.clamp(min=1))
        canvas.memory[_NEXT] = next_BL
        return read_BL & next_BL

    def evaluate(
        self,
        ledger: Ledger,
        model: LanguageModel,
        canvas: Canvas,
        row_N: Tensor,
        position_N: Tensor,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """Return aligned logits of the read positions, which `narrow` has chosen."""
        past, next_BL = recall(canvas), canvas.memory[_NEXT]
        reach = self.w // 2
        near_BL = max_pool1d(next_BL.double()[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0
        full_B = past.calls_B % self.R == 0
        query_BL = next_BL | (near_BL & canvas.undecided_BL) | past.changed_BL(canvas) | full_B[:, None]
        return compute(ledger, model, canvas, query_BL, row_N, position_N)


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
