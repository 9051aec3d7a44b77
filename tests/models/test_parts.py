"""A part of a model: a range of layers, some of their halves, states in place of tokens, and states on their way."""

import pytest
import torch
from torch import Tensor

from harness.engine.shared.model import NORMED, Blend, ForwardRequest, Part, Taps, runs_parts
from harness.models.closed_form import ClosedForm, ClosedFormModel
from harness.models.embedded import EmbeddedModel
from harness.models.transformer import Block
from tests.engine.causal import random_causal

LAYERS = 6
MODEL = random_causal(layers=LAYERS)
TOKENS_BT = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])


def states(model: EmbeddedModel = MODEL, **part: object) -> dict[int, Tensor]:
    """Return hidden states at every depth that a part passes."""
    taps = Taps(range(LAYERS + 1))
    model.forward(ForwardRequest(TOKENS_BT, part=Part(taps=taps, **part)))  # type: ignore[arg-type]
    return taps.states


@pytest.mark.parametrize("cut", range(LAYERS + 1))
@pytest.mark.parametrize("stored", [False, True])
def test_two_ranges_are_the_whole(cut: int, stored: bool) -> None:
    """Guards what verification relies on: states that go on give what one call does, to the bit."""
    whole, parts = (MODEL.new_store(2, 5) if stored else None for _ in range(2))
    places_BT = torch.arange(5).expand(2, -1) if stored else None
    taps = Taps([cut])
    expected = MODEL.forward(ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=whole))
    MODEL.forward(ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=parts, part=Part(end=cut, taps=taps)))
    behind = Part(first=cut, states_BTC=taps.states[cut])
    # What tokens there are is told by the states.
    nothing_BT = torch.zeros_like(TOKENS_BT)
    made = MODEL.forward(ForwardRequest(nothing_BT, positions_BT=places_BT, kv=parts, part=behind))
    assert torch.equal(made, expected)
    if whole is not None and parts is not None:
        for one, other in zip([*whole.keys, *whole.values], [*parts.keys, *parts.values], strict=True):
            assert torch.equal(one, other)


def test_states_are_those_behind_each_layer() -> None:
    """Guards depths against being one off: 0 is the embedding, and the head reads the last."""
    seen = states()
    assert [*seen] == [*range(LAYERS + 1)]
    assert torch.equal(seen[0], MODEL.transformer.embedding(TOKENS_BT))
    last = MODEL.transformer.read(seen[LAYERS])
    normed = Taps([NORMED])
    MODEL.forward(ForwardRequest(TOKENS_BT, part=Part(taps=normed)))
    assert torch.equal(normed.states[NORMED], MODEL.transformer.norm(seen[LAYERS])) and [*normed.states] == [NORMED]
    assert torch.equal(last, MODEL.forward(ForwardRequest(TOKENS_BT)))
    for depth in range(LAYERS):
        assert not torch.equal(seen[depth], seen[depth + 1])
    assert [*states(first=2, end=4, states_BTC=seen[2])] == [2, 3, 4]


def test_a_blend_is_weighed_embeddings() -> None:
    """Guards tokens that are fed as several: their states stand in front of the first layer, whatever the token is."""
    other_BT = TOKENS_BT.flip(1)
    blend = Blend(tokens_BTM=torch.stack([TOKENS_BT, other_BT], 2), weights_BTM=torch.full((2, 5, 2), 0.5))
    blended, embed = states(blend=blend), MODEL.transformer.embedding
    assert torch.equal(blended[0], (embed(TOKENS_BT) + embed(other_BT)) / 2)
    by_states = states(states_BTC=blended[0])
    assert all(torch.equal(blended[depth], by_states[depth]) for depth in range(LAYERS + 1))


def _attended(block: Block, x_BTC: Tensor) -> Tensor:
    tables = MODEL.transformer.rotary.tables(torch.arange(5).expand(2, -1), x_BTC.dtype)
    slots_BT = torch.arange(5).expand(2, -1)
    return block.attention(block.attention_norm(x_BTC), tables, None, slots_BT, 5, None, True, None)


def _fed(block: Block, x_BTC: Tensor) -> Tensor:
    return block.feed_forward(block.feed_forward_norm(x_BTC))


def _blocks() -> list[Block]:
    return [block for block in MODEL.transformer.blocks if isinstance(block, Block)]


@torch.no_grad()
def test_skipped_halves_leave_the_states_alone() -> None:
    """Guards the numbers of halves, 2l of attention and 2l + 1 of the feed-forward part, against a plain reading."""
    skipped = frozenset({2, 5, 8, 9})
    x_BTC = MODEL.transformer.embedding(TOKENS_BT)
    for layer, block in enumerate(_blocks()):
        if layer not in (1, 4):
            x_BTC = x_BTC + _attended(block, x_BTC)
        if layer not in (2, 4):
            x_BTC = x_BTC + _fed(block, x_BTC)
    torch.testing.assert_close(states(skipped=skipped)[LAYERS], x_BTC, rtol=0, atol=1e-12)
    assert Part(skipped=skipped).loads(LAYERS) == 4
    assert Part(end=2, skipped=skipped).loads(LAYERS) == 1.5
    store = MODEL.new_store(2, 5)
    places_BT = torch.arange(5).expand(2, -1)
    MODEL.forward(ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=store, part=Part(skipped=skipped)))
    assert [layer for layer in range(LAYERS) if not bool(store.keys[layer].any())] == [1, 4]


@torch.no_grad()
@pytest.mark.parametrize("abreast", [2, 3, 4, 9])
def test_layers_abreast_read_the_same_states(abreast: int) -> None:
    """Guards EasySpec's grouping: the ends alone, attention of a group from one input, the rest in turn."""
    x_BTC, blocks = MODEL.transformer.embedding(TOKENS_BT), _blocks()
    groups = [
        [0],
        *([*range(one, min(one + abreast, LAYERS - 1))] for one in range(1, LAYERS - 1, abreast)),
        [LAYERS - 1],
    ]
    for group in groups:
        read = [_attended(blocks[layer], x_BTC) for layer in group]
        for layer, attended_BTC in zip(group, read, strict=True):
            x_BTC = x_BTC + attended_BTC
            x_BTC = x_BTC + _fed(blocks[layer], x_BTC)
    torch.testing.assert_close(states(abreast=abreast)[LAYERS], x_BTC, rtol=0, atol=1e-12)
    assert Part(abreast=abreast).loads(LAYERS) == LAYERS
    assert torch.equal(states(abreast=1)[LAYERS], states()[LAYERS])


def test_models_without_layers_refuse_parts() -> None:
    """Guards an answer of the whole that was taken for one of a part."""
    constants = ClosedForm(vocab_size=12, mask_id=11, eos_id=0, a1=4, f1=1.3, a2=0, f2=0, f3=0)
    model = ClosedFormModel(constants)
    assert runs_parts(MODEL) and not runs_parts(model)
    with pytest.raises(AssertionError, match="no layers"):
        model.forward(ForwardRequest(TOKENS_BT, part=Part(end=1)))
