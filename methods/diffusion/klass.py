"""KLASS: close together what is sure and has stopped changing (arXiv:2511.05664, Algorithm 1; shkim0116/KLASS).

Symbol -> knob: tau (0.6), epsilon_KL -> eps (0.015; both GSM8K's for LLaDA), history length n -> H (2), block_length
(64; longer than the response means the response), S -> steps (default: gen_length).
A position is stable when KL(p_t || p_{t-1}) stayed below eps in the last H steps; before the H-th step of a block
none is. All stable open positions with p > tau close; where there is none, LLaDA's quota does by confidence.
Deviations from the authors' code: their loop leaves a block after its last step with masks in it (a step may close
fewer ready positions than its quota), ours goes on with the last quota; where fewer masks are left than the quota,
their top-k takes decided positions as well and overwrites them, ours closes the masks alone; of their strategies there
is `all`, not `single`; probabilities are those of the un-noised logits at temperature > 0; of the undecided response
only the probabilities of the last step are kept, [places, vocabulary] numbers per row in `score_dtype`, and the length
of the present calm instead of H divergences.
Invariants: never more steps than the schedule with one token per step; tau >= 1 equals LLaDA.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.drawing import draw
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, top
from harness.errors import FieldError, at_least

_BEFORE, _CALM = "klass.before_BRV", "klass.calm_BL"
_CALM_MARGIN, _BREAK_MARGIN = "klass.calm_margin_BL", "klass.break_margin_BL"
_FLOOR = 1e-12


@policy("method/scorer", "stability")
class Stability:
    """Most probable token by its probability; counts for the selector how long each position has been calm."""

    # A block's first comparison is with the step before it opened.
    needs = Needs(positions=lambda canvas: canvas.undecided_BL)

    eps: float = 0.015
    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise FieldError("eps", self.eps, "be above 0")
        at_least(0, temperature=self.temperature)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        tokens_N, log_p_N, behind_N = draw(logits_NV, prediction, canvas, self.temperature)
        self._compare(logits_NV.softmax(-1), prediction, canvas)
        return prediction.candidates(tokens_N, log_p_N, log_p_N.exp(), behind_N)

    def _compare(self, p_NV: Tensor, prediction: Prediction, canvas: Canvas) -> None:
        """Remember these probabilities, and since when they hardly change; the first ones are never calm."""
        entry = (prediction.row_N, prediction.gather(canvas.place_BL))
        if _BEFORE in canvas.memory:
            before_NV, before_BRV = canvas.memory[_BEFORE][entry], torch.zeros_like(canvas.memory[_BEFORE])
        else:
            places = int((canvas.length_B - canvas.prompt_length_B).max())
            before_NV, before_BRV = torch.zeros_like(p_NV), p_NV.new_zeros(canvas.num_rows, places, p_NV.shape[1])
        divergence_N = (p_NV * ((p_NV + _FLOOR).log() - (before_NV + _FLOOR).log())).sum(-1)
        calm_BL = prediction.scatter((divergence_N < self.eps).long(), 0)
        self._remember_margins(prediction.scatter(self.eps - divergence_N, 0), calm_BL > 0, canvas)
        canvas.memory[_CALM] = (canvas.memory.get(_CALM, 0) + calm_BL) * calm_BL
        before_BRV[entry] = p_NV
        canvas.memory[_BEFORE] = before_BRV

    def _remember_margins(self, slack_BL: Tensor, calm_BL: Tensor, canvas: Canvas) -> None:
        """Keep how nearly the present calm was broken, and how nearly the last step that broke one was calm."""
        slack_BL = slack_BL.double()
        calmest_BL = canvas.memory.get(_CALM_MARGIN, torch.full_like(slack_BL, torch.inf))
        broken_BL = canvas.memory.get(_BREAK_MARGIN, torch.zeros_like(slack_BL))
        canvas.memory[_CALM_MARGIN] = torch.where(calm_BL, torch.minimum(calmest_BL, slack_BL), torch.inf)
        canvas.memory[_BREAK_MARGIN] = torch.where(calm_BL, broken_BL, slack_BL)


@policy("method/selector", "stability")
class StableAndSure:
    """Close the positions that were calm for `H` steps and are surer than `tau`; where there is none, the quota."""

    gives = Gives(decides=True)
    needs = Needs(beside={"scorer": ("stability",)})

    tau: float = probability(0.6)
    H: int = 2

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau)
        at_least(1, H=self.H)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit; without a schedule the quota is 1."""
        assert _CALM in canvas.memory, "KLASS's selector goes with KLASS's scorer"
        stable_BL = (canvas.memory[_CALM] >= self.H) & (canvas.window_clock_B >= self.H - 1)[:, None]
        ready_BL = open_BL & stable_BL & (candidates.confidence_BL > self.tau)
        usual_BL = top(candidates.score_BL, open_BL, 1 if quota_B is None else quota_B)
        canvas.note(bounds=(self._slack(candidates.confidence_BL, stable_BL, canvas), open_BL))
        by_calm_B1 = ready_BL.any(1, keepdim=True)
        canvas.note(rankings=(candidates.score_BL, usual_BL, open_BL & ~by_calm_B1))
        return torch.where(by_calm_B1, ready_BL, usual_BL)

    def _slack(self, confidence_BL: Tensor, stable_BL: Tensor, canvas: Canvas) -> Tensor:
        """Return by how much positions are ready, both in confidence and in calm, or (negative) not."""
        calm_BL = torch.where(stable_BL, canvas.memory[_CALM_MARGIN], canvas.memory[_BREAK_MARGIN])
        # Before the H-th step of a block nothing can be calm enough.
        calm_BL = calm_BL.masked_fill((canvas.window_clock_B < self.H - 1)[:, None], -torch.inf)
        return torch.minimum(confidence_BL.double() - self.tau, calm_BL)
