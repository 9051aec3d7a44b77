"""What a cache is asked for, and the call that answers it.

Shapes: B rows, L positions of the canvas, T positions of a call, N read positions, V vocabulary.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import AttentionObserver, ForwardRequest, LanguageModel, LayerPlan
from harness.engine.shared.places import Places
from harness.engine.shared.records import Charge, Ledger, Role


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Asks for aligned logits [N, V] of the positions of a canvas that are its `places`, in their order.

    What `model` computes for them is charged to `ledger`, as the work of a draft where that is the `role`. `observe` is
    shown the attention of whole canvases; only a cache that gives `attention` is asked for it.
    """

    ledger: Ledger
    model: LanguageModel
    canvas: Canvas
    places: Places
    observe: AttentionObserver | None = None
    role: Role = Role.TARGET

    @property
    def row_N(self) -> Tensor:
        """The row of each position."""
        return self.places.row_N

    @property
    def position_N(self) -> Tensor:
        """Each position in its row."""
        return self.places.position_N

    @cached_property
    def source_N(self) -> Tensor:
        """Positions whose raw logits are those of the read positions: one before, for shifted models."""
        return self.model.spec.sources(self.position_N)

    @cached_property
    def select_N(self) -> Tensor:
        """The same, counted through all rows."""
        if not self.model.spec.shift:
            return self.places.flat_N
        return self.row_N * self.places.shape[1] + self.source_N

    @property
    def head_B(self) -> Tensor:
        """Number of positions of each row whose logits are computed."""
        return self.places.count_B

    def call(self, request: ForwardRequest, charge: Charge) -> Tensor:
        """Call the model."""
        return self.ledger.call(self.model, request, charge)

    def forward_whole(self, plan: LayerPlan | None = None) -> Tensor:
        """Return aligned logits [N, V] of the read positions from whole rows, whose layers a plan may run."""
        canvas = self.canvas
        whole = ForwardRequest(
            canvas.tokens_BL,
            visible_BTS=canvas.padding_mask(),
            select_N=self.select_N,
            decided_at_BT=canvas.decided_at_BL,
            observe=self.observe,
            plan=plan,
        )
        charge = Charge(
            role=self.role,
            sample_B=canvas.sample_B,
            query_B=canvas.length_B if plan is None else None,
            keys_B=canvas.length_B,
            head_B=self.head_B,
        )
        return self.call(whole, charge)
