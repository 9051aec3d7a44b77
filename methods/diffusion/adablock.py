"""AdaBlock: blocks end where the model expects a delimiter (arXiv:2509.26432, section 4; `compute_block_length`).

Symbol -> knob: threshold on the delimiter's probability -> theta_d (0.3 for LLaDA, 0.5 for Dream), share of the
response that is looked at -> frac (0.25), default block size -> block_length (32), threshold of the selection -> tau
(0.9). delimiters: token ids; LLaDA's newline is 198. null means the model's end tokens, which is what ends the one
sentence that the embedded models know.
The first prediction of a block decides its end: of the next frac * gen_length positions whose best token is a
delimiter, the most probable one, if it reaches theta_d; else block_length. The same prediction then commits, by any
scorer; beside caches it is the block's first call.
Deviation from the authors' code: delimiters are compared by log probability. Theirs compares probabilities in the
model's dtype, where several round to 1 and the first of them ends the block.
Invariants: theta_d > 1 equals `threshold` where no token of the response is given (a block has `block_length` positions
from the first undecided one on, not from a multiple of it); block ends never leave the response.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, log_probability
from harness.errors import FieldError, at_least

_NEW = "adablock.new_B"


@policy("method/window", "adaptive")
class Adaptive:
    """Open blocks of `length` from the first undecided position on; a block's first prediction may end it elsewhere."""

    gives = Gives(waits=True)

    length: int
    gen_length: int
    theta_d: float = 0.3
    frac: float = 0.25
    delimiters: tuple[int, ...] | None = None
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(1, length=self.length)
        at_least(0, theta_d=self.theta_d)
        if not 0 <= self.frac <= 1:
            raise FieldError("frac", self.frac, "lie in [0, 1]")

    def update(self, canvas: Canvas) -> None:
        """Open a block of the default length where the present one is complete."""
        new_B = canvas.undecided_BL.any(1) > canvas.open_BL.any(1)
        canvas.open_window(new_B, self._from_first(canvas, self.length))
        canvas.memory[_NEW] = new_B | canvas.memory.get(_NEW, torch.zeros_like(new_B))

    @property
    def needs(self) -> Needs:
        """What `reads` returns."""
        return Needs(positions=self.reads)

    def reads(self, canvas: Canvas) -> Tensor | None:
        """Return what a new block looks at; nothing where no row has one."""
        if _NEW not in canvas.memory:
            return None
        looked_at_BL = canvas.undecided_BL & self._from_first(canvas, int(self.frac * self.gen_length))
        return looked_at_BL & canvas.memory[_NEW][:, None]

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> None:
        """End new blocks at their delimiter; no row has to be evaluated again."""
        looked_at_BL = self.reads(canvas)
        if looked_at_BL is None:
            return
        delimiters = torch.tensor(self.delimiters or canvas.stop_ids, device=canvas.tokens_BL.device)
        ends_BL = looked_at_BL & torch.isin(candidates.tokens_BL, delimiters)
        ends_B = ends_BL.any(1)
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        log_p_N = log_probability(logits_NV, prediction.gather(candidates.tokens_BL))
        log_p_BL = prediction.scatter(log_p_N, -torch.inf)
        # Probabilities would round to 1, and the first of several sure ends would win for being the first.
        best_B, end_B = log_p_BL.masked_fill(~ends_BL, -torch.inf).max(1)
        if candidates.token_gap_BL is not None:
            sure_BL = looked_at_BL & (log_p_BL.exp() >= self.theta_d)
            canvas.note(bounds=(candidates.token_gap_BL, sure_BL))
        p_B = best_B.exp()
        canvas.note_choice((p_B - self.theta_d).abs().double().masked_fill(~ends_B, torch.inf))
        surest_BL = ends_BL & (canvas.position_L == end_B[:, None])
        canvas.note(rankings=(log_p_BL, surest_BL, ends_BL))
        window_BL = self._from_first(canvas, canvas.tokens_BL.shape[1]) & (canvas.position_L <= end_B[:, None])
        canvas.move_window(ends_B & (p_B >= self.theta_d), window_BL)
        del canvas.memory[_NEW]

    def _from_first(self, canvas: Canvas, count: int) -> Tensor:
        """Return `count` positions of the response from the first undecided one on."""
        place_BL = canvas.place_BL - canvas.first_undecided_B[:, None]
        return canvas.response_BL & (place_BL >= 0) & (place_BL < count)
