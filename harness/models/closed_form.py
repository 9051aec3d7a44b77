"""The closed-form model of the reference trajectories: no weights, no random numbers, float64.

With a(j) = token + 1 of keys that a query sees and that are not masked, else 0, and positions i from 0:
h_i = sum over the keys at i + d, d in {-3..3} without 0, of a (d + 4), and
z[i, v] = a1 cos(f1 (i+1)(v+1)) + a2 cos(f2 h_i + f3 v) (+ eos_bias for the end token), z[i, mask] = -30.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.engine.shared.generation import GIVEN
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.models.oracle import TokenStore

_REACH = 3
_MASK_LOGIT = -30.0


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Constants of one model; `shifted` emits r[i] = z[i + 1], the last row repeated.

    With `attention` (a, f) position i attends to j by softmax over j of a cos(f (i+1)(j+2)).
    """

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
    attention: tuple[float, float] | None = None


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

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits; keys hidden by `visible_BTS` do not exist.

        With a store, queries see the tokens of earlier calls as they were then.
        """
        assert request.plan is None and request.part is None, "this model has no layers"
        tokens_BT, positions_BT, kv = request.tokens_BT, request.places_BT(), request.kv
        keys = (tokens_BT, positions_BT)
        if kv is not None:
            assert isinstance(kv, TokenStore)
            kv.write(request)
            keys = (kv.tokens_BS[:, : request.end], kv.positions_BS[:, : request.end])
        visible_BTS = request.visible_BTS
        visible_BTS = torch.ones(1, 1, 1, dtype=torch.bool) if visible_BTS is None else visible_BTS
        if request.observe is not None:
            request.observe(0, self._attention(positions_BT, visible_BTS))
        target_BT = (positions_BT + self.spec.shift).clamp(max=int(keys[1].max()))
        logits_BTV = self._aligned(*keys, target_BT, visible_BTS)
        return request.selected(logits_BTV)

    def _attention(self, positions_BT: Tensor, visible_BTS: Tensor) -> Tensor:
        assert self.constants.attention is not None, "these constants give no attention"
        a, f = self.constants.attention
        scores_BTS = a * (f * (positions_BT[:, :, None] + 1.0).double() * (positions_BT[:, None, :] + 2)).cos()
        return scores_BTS.masked_fill(~visible_BTS, -torch.inf).softmax(-1)

    def _aligned(self, tokens_BS: Tensor, places_BS: Tensor, positions_BT: Tensor, visible_BTS: Tensor) -> Tensor:
        c = self.constants
        a_BS = (tokens_BS + 1.0).double().masked_fill(tokens_BS == c.mask_id, 0.0)
        offset_BTS = places_BS[:, None, :] - positions_BT[:, :, None]
        near_BTS = visible_BTS & (offset_BTS != 0) & (offset_BTS.abs() <= _REACH)
        h_BT = (a_BS[:, None, :] * (offset_BTS + 4) * near_BTS).sum(-1)
        v = torch.arange(c.vocab_size, dtype=torch.float64)
        i_BT1 = positions_BT[..., None].double() + 1
        logits_BTV = c.a1 * (c.f1 * i_BT1 * (v + 1)).cos() + c.a2 * (c.f2 * h_BT[..., None] + c.f3 * v).cos()
        logits_BTV[..., c.eos_id] += c.eos_bias
        logits_BTV[..., c.mask_id] = _MASK_LOGIT
        return logits_BTV


class Output(NamedTuple):
    """What a call returns, by the name that published samplers know."""

    logits: Tensor


class ClosedFormModule(nn.Module):
    """The same formula as published samplers call a model: `model(input_ids).logits`; other arguments are ignored."""

    def __init__(self, model: ClosedFormModel) -> None:
        super().__init__()
        self.model, self.device = model, model.device

    def forward(self, input_ids: Tensor, *others: object, **named: object) -> Output:
        """Return the logits of whole rows, shifted as the constants say."""
        return Output(logits=self.model.forward(ForwardRequest(input_ids)))
