"""Fast-dLLM's caches: all is computed where a window opens, then only the window (arXiv:2505.22618, section 3.2).

`prefix` computes the window and all that is behind it, `dual` the window alone; keys and values of the rest are those
of the call that opened the window, in which it was still masked. The opening call commits, too, so that caching costs
no call. Use: `method=threshold method/cache=dual`. Query positions of a window [s, e) that takes T calls, for a row of
L: `prefix` L + (T - 1)(L - s), `dual` L + (T - 1)(e - s).
A window whose positions are not contiguous counts from its first to its last.
Ours: `refresh_interval` computes everything in every so many calls of a window (null, as published: in the first).
What masks of the window are predicted from, and what policies read elsewhere, is computed as well: in models whose
logits are shifted that is the position before the window, as long as the first one of the window is masked. A row in
which a token outside of the computed part has changed (masked again, edited, filled) or positions have moved is
computed whole. A window that only moves or ends elsewhere (AdaBlock, sliding blocks) is not opened by that.
Deviations from the authors' code: on shifted models, the position before the window in place of committing the first
position of every window unseen; a complete window gets no further call.
Invariants: refresh_interval = 1 equals no cache; so does a window that covers the row.
"""

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives
from harness.engine.diffusion.positional import last_marked
from harness.engine.diffusion.reuse import compute, compute_again, recall, renews, up_to_date
from harness.engine.shared.policy import policy
from harness.errors import at_least


@policy("method/cache", "prefix")
class PrefixCache:
    """Keep what is before the window."""

    refresh_interval: int | None = None

    def __post_init__(self) -> None:
        _check_interval(self.refresh_interval)

    @property
    def gives(self) -> Gives:
        """Drafts are served unless the age of what is kept counts."""
        return Gives(drafts=self.refresh_interval is None, shared=True)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        active_BL = canvas.once(PrefixCache, (canvas.window_BL,), lambda _: canvas.window_place_BL >= 0)
        return _evaluate(request, active_BL, self.refresh_interval)


@policy("method/cache", "dual")
class DualCache:
    """Keep what is before and behind the window."""

    refresh_interval: int | None = None

    def __post_init__(self) -> None:
        _check_interval(self.refresh_interval)

    @property
    def gives(self) -> Gives:
        """Drafts are served unless the age of what is kept counts."""
        return Gives(drafts=self.refresh_interval is None, shared=True)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        active_BL = canvas.once(DualCache, (canvas.window_BL,), lambda _: _from_first_to_last(canvas))
        return _evaluate(request, active_BL, self.refresh_interval)


def _from_first_to_last(canvas: Canvas) -> Tensor:
    return (canvas.window_place_BL >= 0) & (canvas.position_L <= last_marked(canvas.window_BL))


def _check_interval(interval: int | None) -> None:
    at_least(1, refresh_interval=interval)


def _evaluate(
    request: EvaluationRequest,
    active_BL: Tensor,
    interval: int | None,
) -> Tensor:
    """Compute `active_BL` and what is read, or the whole row where it is time or the rest has changed."""
    canvas = request.canvas
    if interval is None and (logits_NV := compute_again(request, active_BL)) is not None:
        return logits_NV
    past = recall(canvas)
    whole_B = (past.calls_B == 0) | (past.changed_BL(canvas) > active_BL).any(1)
    if interval is not None:
        whole_B = whole_B | (past.calls_B % interval == 0)
    logits_NV = compute(request, active_BL | whole_B[:, None], past)
    renews(request, lambda: ~active_BL)
    up_to_date(canvas)
    return logits_NV
