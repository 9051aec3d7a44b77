"""Dream's sampler: one window, a timestep schedule, four ways to choose (arXiv:2508.15487; DreamLM/Dream sampler).

Symbol -> knob: S -> steps (default: gen_length), eps, alg, alg_temp, temperature, top_p, top_k.
Deviation from the authors' code: the quota is each row's own (there it is the batch mean, which can overwrite
decided tokens); steps whose quota is 0 are not run but counted as idle.
Invariants: NFE + idle = steps; quotas sum to the number of masks for every steps.
"""

from enum import Enum
from functools import lru_cache

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.largest import at_largest, two_largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, top
from harness.engine.shared.sampling import invert, keep_top
from harness.errors import FieldError, at_least


class Algorithm(Enum):
    """Dream's `alg`: what orders positions (`origin`: nothing does, every mask closes with a given probability)."""

    origin = "origin"
    maskgit_plus = "maskgit_plus"
    topk_margin = "topk_margin"
    entropy = "entropy"


@lru_cache
def _closing(steps: int, eps: float, device: torch.device) -> Tensor:
    """Return 1 - s/t of every step in float32, 1 of the last; the same tensor to all: nobody may write to it."""
    with torch.inference_mode(False):
        times = torch.linspace(1, eps, steps + 1, dtype=torch.float32, device=device)
        share = 1 - times[1:] / times[:-1]
        share[-1] = 1
        return share


def _closing_share(canvas: Canvas, steps: int, eps: float) -> Tensor:
    """Return 1 - s/t of each row's step."""
    step_B = canvas.window_clock_B.clamp(max=steps - 1)
    return _closing(steps, eps, step_B.device).index_select(0, step_B)


def _coins(canvas: Canvas, steps: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return the draw of every position less the probability to close, and the open positions where it is below 0."""
    drawn_BL = canvas.uniforms("order")

    def toss(*_: Tensor) -> tuple[Tensor, Tensor]:
        coin_BL = drawn_BL - _closing_share(canvas, steps, eps)[:, None]
        return coin_BL, canvas.open_BL & (coin_BL < 0)

    return canvas.once((_coins, steps, eps), (drawn_BL, canvas.clock_B, canvas.opened_at_B, canvas.open_BL), toss)


@policy("method/schedule", "dream")
class DreamQuota:
    """Close floor(masks * (1 - s/t)) positions, in float32 as the reference does; the last step closes the rest."""

    steps: int | None
    gen_length: int
    eps: float = 1e-3
    alg: Algorithm = Algorithm.entropy

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        if not 0 <= self.eps < 1:
            raise FieldError("eps", self.eps, "lie in [0, 1)")

    @property
    def total(self) -> int:
        """Number of steps."""
        return self.steps or self.gen_length

    def quota(self, canvas: Canvas) -> Tensor:
        """Return the truncated quota; for `origin` the number of coins that fell."""
        if self.alg is Algorithm.origin:
            return _coins(canvas, self.total, self.eps)[1].sum(1)
        masks_B = canvas.num_open_B.float()
        return (masks_B * _closing_share(canvas, self.total, self.eps)).long()

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return the steps that are left."""
        return (self.total - canvas.window_clock_B).clamp(min=0)


@policy("method/scorer", "dream")
class DreamScore:
    """Token and score from temperature-scaled, filtered probabilities (order: temperature, top-p, top-k).

    The confidence equals the score: p of the token, top-1 minus top-2, or sum of p ln(p + 1e-10).
    """

    alg: Algorithm = Algorithm.entropy
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, temperature=self.temperature)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise FieldError("top_p", self.top_p, "lie in (0, 1]")
        at_least(1, top_k=self.top_k)

    @property
    def gives(self) -> Gives:
        """Candidates are steady if nothing is drawn."""
        return Gives(steady=self.temperature == 0)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        if self.temperature > 0:
            logits_NV = logits_NV / self.temperature
        p_NV = keep_top(logits_NV, top_p=self.top_p, top_k=self.top_k).softmax(-1)
        if self.temperature > 0:
            tokens_N = invert(p_NV, prediction.gather(canvas.uniforms("token")))
        else:
            tokens_N = at_largest(p_NV)
        score_BL, drawn = prediction.scatter(self._score(p_NV, tokens_N), -torch.inf), self.temperature > 0
        return Candidates(
            tokens_BL=prediction.scatter(tokens_N, 0),
            score_BL=score_BL,
            confidence_BL=score_BL,
            # What a uniform number hits is not decided by two tokens' order.
            token_gap_BL=torch.full_like(score_BL, torch.inf) if drawn else prediction.token_gap(tokens_N, logits_NV),
        )

    def _score(self, p_NV: Tensor, tokens_N: Tensor) -> Tensor:
        if self.alg is Algorithm.topk_margin:
            best_N2 = two_largest(p_NV)
            return best_N2[:, 0] - best_N2[:, 1]
        if self.alg is Algorithm.entropy:
            return (p_NV * (p_NV + 1e-10).log()).sum(-1)
        return p_NV.gather(-1, tokens_N[:, None])[:, 0]


@policy("method/selector", "dream")
class DreamSelect:
    """Take the best `quota` positions, draw them by softmax(score / alg_temp), or (`origin`) flip a coin each."""

    steps: int | None
    gen_length: int
    eps: float = 1e-3
    alg: Algorithm = Algorithm.entropy
    alg_temp: float | None = None

    # The quota counts coins that fell at positions which a cache may leave out.
    gives = Gives(decides_if_read=True)
    needs = Needs(beside={"schedule": ("dream",)})

    def __post_init__(self) -> None:
        at_least(0, alg_temp=self.alg_temp)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit."""
        assert quota_B is not None, "Dream's selector goes with Dream's schedule"
        if self.alg is Algorithm.origin:
            coin_BL, fallen_BL = _coins(canvas, self.steps or self.gen_length, self.eps)
            canvas.note(bounds=(coin_BL, open_BL))
            return fallen_BL
        score_BL = candidates.score_BL
        if self.alg_temp:
            # The largest of score/T + Gumbel noise are draws without replacement from softmax(score/T).
            score_BL = score_BL / self.alg_temp - (-canvas.uniforms("order").log()).log()
        chosen_BL = top(score_BL, open_BL, quota_B)
        canvas.note(rankings=(score_BL, chosen_BL, open_BL))
        return chosen_BL
