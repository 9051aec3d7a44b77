"""Logits that are asked for are those of a whole call, and what nobody reads of the last layer is not computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.engine.shared.model import NORMED, ForwardRequest, Part, Taps
from harness.engine.shared.routing import Routing
from harness.models.feed_forward import Experts, Router
from harness.models.transformer import Attention, Transformer
from tests.models.shapes import random_model, tokens

MIXED = Experts(count=4, active=2, width=12, router=Router.SOFTMAX, normalised=True)
TOKENS_BT, SELECT_N = tokens(3, 7), torch.tensor([2, 6, 13, 20])
MODELS = {
    "full": random_model(dtype=torch.float64),
    "causal": random_model(dtype=torch.float64, attention=Attention.CAUSAL, qkv_bias=True, qk_norm=True),
    "experts": random_model(dtype=torch.float64, experts=MIXED),
}


def part(**fields: object) -> Part:
    """Return a part of a model with three layers."""
    return Part(**fields)  # type: ignore[arg-type]


PARTS = {
    "everything": None,
    "an exit": part(end=2),
    "no layer": part(end=0),
    "without the last attention": part(skipped=frozenset({4})),
    "without the last feed-forward part": part(skipped=frozenset({5})),
    "without the last layer": part(skipped=frozenset({4, 5})),
    "layers abreast": part(abreast=3),
    "other experts": part(routing=Routing(ranks=(1, 3))),
    "drawn experts": part(routing=Routing(uniform_BTL=torch.rand(3, 7, 3, generator=torch.Generator().manual_seed(1)))),
}


@pytest.mark.parametrize("stored", [False, True], ids=["alone", "stored"])
@pytest.mark.parametrize("run", PARTS)
@pytest.mark.parametrize("name", MODELS)
def test_selected_logits_are_those_of_all(name: str, run: str, stored: bool) -> None:
    """Guards every part of a model, its keys and values too, against positions that the last layer leaves out."""
    model, places_BT = MODELS[name], torch.arange(7).expand(3, -1) if stored else None
    whole, narrow = (model.new_store(3, 7) if stored else None for _ in range(2))
    expected = model.logits(ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=whole, part=PARTS[run]))
    request = ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=narrow, part=PARTS[run], select_N=SELECT_N)
    torch.testing.assert_close(model.logits(request), expected.flatten(0, 1)[SELECT_N], rtol=0, atol=1e-12)
    if whole is not None and narrow is not None:
        for one, other in zip([*whole.keys, *whole.values], [*narrow.keys, *narrow.values], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("depth", [0, 2, 3, NORMED])
def test_taps_see_every_position(depth: int) -> None:
    """Guards states that a drafter reads: of all positions, wherever logits are asked for."""
    whole, narrow = Taps([depth]), Taps([depth])
    MODELS["full"].logits(ForwardRequest(TOKENS_BT, part=Part(taps=whole)))
    MODELS["full"].logits(ForwardRequest(TOKENS_BT, part=Part(taps=narrow), select_N=SELECT_N))
    torch.testing.assert_close(narrow.states[depth], whole.states[depth], rtol=0, atol=1e-12)


def _operations(model: Transformer, request: ForwardRequest) -> int:
    with FlopCounterMode(display=False) as counter:
        model.logits(request)
    return counter.get_total_flops()


def test_the_last_layer_is_computed_for_those_who_read_it() -> None:
    """Guards the saving: projection and feed-forward part of the last layer, and the head, of selected positions."""
    model = MODELS["full"]
    c, unread = model.config, TOKENS_BT.numel() - len(SELECT_N)
    inside = c.heads * c.head_width * c.width + 3 * c.width * c.feed_forward_width
    asked = [_operations(model, ForwardRequest(TOKENS_BT, select_N=one)) for one in (None, SELECT_N)]
    assert asked[0] - asked[1] == 2 * unread * (inside + c.width * c.vocab_size)
