"""The closed-form model of the reference trajectories: no weights, no random numbers, float64.

With a(j) = token + 1 at positions that exist and are not masked, else 0, and positions i from 0:
h_i = sum over d in {-3..3} without 0 of a(i + d)(d + 4), and
z[i, v] = a1 cos(f1 (i+1)(v+1)) + a2 cos(f2 h_i + f3 v) (+ eos_bias for the end token), z[i, mask] = -30.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine.canvas import GIVEN
from harness.engine.model import AttentionObserver, LayerPlan, ModelKind, ModelSpec, Store
from harness.models.oracle import TokenStore

_REACH = (-3, -2, -1, 1, 2, 3)
_MASK_LOGIT = -30.0


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Constants of one model; `shifted` emits r[i] = z[i + 1], the last row repeated."""

    vocab_size: int
    mask_id: int
    eos_id: int
    a1: float
    f1: float
    a2: float
    f2: float
    f3: float
    eos_bias: float = 0.0
    shifted: bool = False


class ClosedFormModel:
    """A `LanguageModel` whose logits are a formula of the canvas; in place of keys and values it stores tokens."""

    def __init__(self, constants: ClosedForm, end_of_turn_id: int | None = None) -> None:
        self.constants = constants
        self.spec = ModelSpec(
            name="closed_form",
            kind=ModelKind.MASKED_DIFFUSION,
            vocab_size=constants.vocab_size,
            max_length=1 << 20,
            layers=1,
            stop_ids=(constants.eos_id,) + (() if end_of_turn_id is None else (end_of_turn_id,)),
            pad_id=constants.eos_id,
            mask_id=constants.mask_id,
            shift=int(constants.shifted),
        )

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def new_store(self, rows: int, slots: int) -> TokenStore:
        """Allocate a store of masks."""
        return TokenStore(
            tokens_BS=torch.full((rows, slots), self.constants.mask_id),
            positions_BS=torch.arange(slots).repeat(rows, 1),
            decided_at_BS=torch.full((rows, slots), GIVEN),
        )

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        slots_BT: Tensor | None = None,
        kv: Store | None = None,
        end: int | None = None,
        visible_BTS: Tensor | None = None,
        structured: bool = True,
        select_N: Tensor | None = None,
        decided_at_BT: Tensor | None = None,
        observe: AttentionObserver | None = None,
        plan: LayerPlan | None = None,
    ) -> Tensor:
        """Return raw logits; keys hidden by `visible_BTS` do not exist.

        With a store, whose slots are positions, queries see the tokens of earlier calls as they were then.
        """
        assert observe is None and plan is None, "neither attention nor layers"
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT)
        tokens_BS = tokens_BT
        if kv is not None:
            assert isinstance(kv, TokenStore) and decided_at_BT is not None
            window = TokenStore(tokens_BS=tokens_BT, positions_BS=positions_BT, decided_at_BS=decided_at_BT)
            kv.write(positions_BT if slots_BT is None else slots_BT, window)
            tokens_BS = kv.tokens_BS[:, :end]
        exists_BS = torch.ones_like(tokens_BS, dtype=torch.bool) if visible_BTS is None else visible_BTS[:, 0]
        logits_BSV = self._aligned(tokens_BS, exists_BS)
        target_BT = (positions_BT + self.spec.shift).clamp(max=tokens_BS.shape[1] - 1)
        logits_BTV = logits_BSV[torch.arange(len(tokens_BT))[:, None], target_BT]
        return logits_BTV if select_N is None else logits_BTV.flatten(0, 1)[select_N]

    def _aligned(self, tokens_BT: Tensor, exists_BT: Tensor) -> Tensor:
        c, T = self.constants, tokens_BT.shape[1]
        a_BT = (tokens_BT + 1.0).double().masked_fill((tokens_BT == c.mask_id) | ~exists_BT, 0.0)
        padded = torch.nn.functional.pad(a_BT, (3, 3))
        h_BT = sum(padded[:, 3 + d : 3 + d + T] * (d + 4) for d in _REACH)
        assert isinstance(h_BT, Tensor)
        v = torch.arange(c.vocab_size, dtype=torch.float64)
        i_T1 = torch.arange(1, T + 1, dtype=torch.float64)[:, None]
        logits_BTV = c.a1 * (c.f1 * i_T1 * (v + 1)).cos() + c.a2 * (c.f2 * h_BT[..., None] + c.f3 * v).cos()
        logits_BTV[..., c.eos_id] += c.eos_bias
        logits_BTV[..., c.mask_id] = _MASK_LOGIT
        return logits_BTV
