"""DAWN: commit together what does not depend on each other, by the attention graph (rules of its released code).

Symbol -> knob: sink (0.01; Dream 0.03), edge (0.07; 0.10), induce (0.7; 0.75), low (0.7; 0.8), sure confidence -> tau
(0.9), block size -> block_length (32). A is the attention, mean over layers and heads, without the diagonal and without
the columns that all queries together attend to by more than `sink`; j depends on i where A[j, i] >= edge.
Closed are S1, the positions with a confidence of at least tau; S2, those of at least `induce` that depend on a decided
position, prompt included, whose own prediction is that sure; S3, of those of at least `low` that depend on none of the
former, a set without dependencies, gathered greedily by confidence.
Deviations from the authors' code: S3 avoids what depends on S1 or S2; theirs looks at positions in both, which
`conflict_compat` does; theirs writes to the first prompt token whenever S3 had to leave a position out, ours never.
Invariants: low > 1 and induce > 1 equals `threshold`.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound
from harness.engine.diffusion.needs import Needs
from harness.engine.diffusion.positional import last_marked
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, rank_descending
from harness.errors import at_least
from methods.diffusion.llada import Confidence

_ATTENTION = "dawn.attention_BLL"


def decided_before_end(canvas: Canvas) -> Tensor:
    """Return all decided positions up to the last one of the window."""

    def make(window_BL: Tensor, undecided_BL: Tensor) -> Tensor:
        return (canvas.position_L <= last_marked(window_BL)) & ~undecided_BL

    return canvas.once(decided_before_end, (canvas.window_BL, canvas.undecided_BL), make)


@policy("method/scorer", "attentive")
class Attentive:
    """Most probable token by its probability, also of what is decided up to the window's end; keeps the attention."""

    needs = Needs(positions=decided_before_end, attention=True)

    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        Confidence(temperature=self.temperature)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        assert prediction.attention_BLL is not None
        canvas.memory[_ATTENTION] = prediction.attention_BLL
        return Confidence(temperature=self.temperature, score_dtype=self.score_dtype)(prediction, canvas)


@policy("method/selector", "dependency")
class Dependency:
    """Close sure positions, those that sure ones induce, and a set of independent others."""

    needs = Needs(beside={"scorer": ("attentive",)})

    tau: float = probability(0.9)
    sink: float = 0.01
    edge: float = 0.07
    induce: float = 0.7
    low: float = 0.7
    conflict_compat: bool = False

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau, sink=self.sink, edge=self.edge, induce=self.induce, low=self.low)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the three sets; the loop adds the best position where they are empty."""
        assert _ATTENTION in canvas.memory, "DAWN's selector goes with DAWN's scorer"
        confidence_BL = candidates.confidence_BL
        weight_BLL, kept_BLL = self._weights(canvas)
        edge_BLL = torch.where(kept_BLL, weight_BLL, 0) >= self.edge
        anchors_BL = confidence_BL >= self.tau
        sure_BL, anchor_BL = open_BL & anchors_BL, decided_before_end(canvas) & anchors_BL
        inducible_BL = open_BL & (confidence_BL >= self.induce)
        induced_BL = inducible_BL & _reached(anchor_BL, edge_BLL)
        first_BL = sure_BL | induced_BL
        avoided_BL = sure_BL & induced_BL if self.conflict_compat else first_BL
        rest_BL = open_BL ^ first_BL
        free_BL = rest_BL & (confidence_BL >= self.low)
        node_BL = free_BL > _reached(avoided_BL, edge_BLL)
        self._note_margins(confidence_BL, open_BL, rest_BL, canvas)
        looked_at_BLL = anchor_BL[:, :, None] & (inducible_BL > sure_BL)[:, None, :]
        looked_at_BLL = looked_at_BLL | ((avoided_BL | node_BL)[:, :, None] & free_BL[:, None, :])
        slack_BLL = (weight_BLL - self.edge).abs()
        canvas.note_choice(torch.where(looked_at_BLL & kept_BLL, slack_BLL, torch.inf).amin((1, 2)))
        return first_BL | _independent(confidence_BL, node_BL, edge_BLL | edge_BLL.transpose(1, 2))

    def _note_margins(self, confidence_BL: Tensor, open_BL: Tensor, rest_BL: Tensor, canvas: Canvas) -> None:
        """Note how near confidences were to their bounds."""
        known_BL = decided_before_end(canvas) & (confidence_BL > -torch.inf)
        for bound, among_BL in ((self.tau, open_BL | known_BL), (self.induce, open_BL), (self.low, rest_BL)):
            canvas.note(later=(Bound(bound), (confidence_BL, among_BL)))

    def _weights(self, canvas: Canvas) -> tuple[Tensor, Tensor]:
        """Return how much j attends to i, and where that counts, both [B, i, j]."""
        attention_BLL = canvas.memory[_ATTENTION]
        real_BL = canvas.whole_BL
        real_BLL = attention_BLL if canvas.padding_mask() is None else attention_BLL * real_BL[:, :, None]
        mean_BL = real_BLL.sum(1) / canvas.length_B[:, None]
        at_L = canvas.position_L
        apart_BLL = canvas.once(Dependency, (real_BL,), lambda real_BL: real_BL[:, :, None] & (at_L[:, None] != at_L))
        kept_BLL = apart_BLL & (mean_BL <= self.sink)[:, None, :]
        return attention_BLL.transpose(1, 2), kept_BLL.transpose(1, 2)


def _reached(from_BL: Tensor, edge_BLL: Tensor) -> Tensor:
    """Return which positions depend on one of `from_BL`."""
    return (from_BL[:, :, None] & edge_BLL).any(1)


def _independent(score_BL: Tensor, node_BL: Tensor, conflict_BLL: Tensor) -> Tensor:
    """Return a set of nodes without a conflict, gathered greedily by descending score."""
    most = int(node_BL.sum(1).max())
    if most < 2:
        return node_BL
    rank_BL = rank_descending(torch.where(node_BL, score_BL, -torch.inf))
    taken_BL = torch.zeros_like(node_BL)
    for rank in range(most):
        next_BL = node_BL & (rank_BL == rank)
        taken_BL = taken_BL | (next_BL & ~_reached(taken_BL, conflict_BLL))
    return taken_BL
