"""Parts of transformers classes: what a call of some layers gives, beside the class's own forward with hooks in it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod, EmptyDrafter
from harness.engine.shared.model import (
    NORMED,
    Blend,
    ForwardRequest,
    Models,
    Part,
    Taps,
    experts_of,
    runs_parts,
)
from harness.engine.shared.records import Ledger
from harness.engine.shared.routing import Routing, Twins
from harness.errors import ConfigError
from harness.models.hf_causal import CausalModel
from harness.models.hf_layers import routed
from harness.models.slots import SlotStore
from methods.autoregressive.dynamic_exit import DynamicExit
from methods.autoregressive.easyspec import LayersAbreast
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.swift import Swift
from methods.autoregressive.unified_skip import UnifiedSkip
from tests.engine.causal import PROMPTS, run, with_drafts
from tests.methods.self_drafts import same_for_every_batch
from tests.models import test_hf_causal as checkpoints

LAYERS = 6
TOKENS_BT = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
CHANGES: dict[str, dict[str, Any]] = {
    "Llama": {"num_hidden_layers": LAYERS},
    "Qwen2": {"num_hidden_layers": LAYERS},
    "GPT2": {"n_layer": LAYERS},
}
OTHERS = ("Gemma2", "GPTNeoX")


def made(folder: Path, name: str, dtype: torch.dtype = torch.float64) -> CausalModel:
    checkpoints.write(folder, name, **CHANGES.get(name, {}))
    return checkpoints.loaded(folder, dtype)


@pytest.fixture(scope="module", params=CHANGES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    """Return a random model of a class, in float64."""
    return made(tmp_path_factory.mktemp(request.param), request.param)


def parts_of(model: CausalModel) -> list[dict[str, Any]]:
    """Return the modules of every layer of its class: norm and attention, norm and feed-forward part."""
    if hasattr(model.inner, "model"):
        names = {"norm": "input_layernorm", "attention": "self_attn", "feed_forward": "mlp"}
        layers = model.inner.model.layers
    else:
        names, layers = {"norm": "ln_1", "attention": "attn", "feed_forward": "mlp"}, model.inner.transformer.h
    return [{"whole": layer} | {key: getattr(layer, name) for key, name in names.items()} for layer in layers]


def plain(model: CausalModel) -> Tensor:
    with torch.no_grad():
        return model.inner(input_ids=TOKENS_BT, use_cache=False).logits


@pytest.mark.parametrize("cut", [0, 1, 4, LAYERS])
@pytest.mark.parametrize("stored", [False, True])
def test_two_ranges_are_the_whole(model: CausalModel, cut: int, stored: bool) -> None:
    """Guards what verification relies on: states that go on give what the class gives, and the same keys."""
    whole, cut_store = (model.new_store(2, 5) if stored else None for _ in range(2))
    places_BT = torch.arange(5).expand(2, -1) if stored else None
    taps = Taps([cut])
    expected = model.forward(ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=whole))
    model.forward(ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=cut_store, part=Part(end=cut, taps=taps)))
    behind = Part(first=cut, states_BTC=taps.states[cut])
    # What tokens there are is told by the states.
    request = ForwardRequest(torch.zeros_like(TOKENS_BT), positions_BT=places_BT, kv=cut_store, part=behind)
    torch.testing.assert_close(model.forward(request), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(expected, plain(model), rtol=0, atol=1e-12)
    if whole is not None and cut_store is not None:
        pairs = zip([*whole.keys, *whole.values], [*cut_store.keys, *cut_store.values], strict=True)
        for one, other in pairs:
            assert one is not None and other is not None
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_states_are_those_behind_each_layer(model: CausalModel) -> None:
    """Guards depths against being one off, places of GPT-2 in the embedding, and chosen positions of the head."""
    taps = Taps([*range(LAYERS + 1), NORMED])
    select_N = torch.tensor([3, 8, 0])
    logits_NV = model.forward(ForwardRequest(TOKENS_BT, part=Part(taps=taps), select_N=select_N))
    with torch.no_grad():
        seen = model.inner(input_ids=TOKENS_BT, use_cache=False, output_hidden_states=True).hidden_states
    # What these classes call the last hidden state is behind the norm.
    for depth in (*range(LAYERS), NORMED):
        torch.testing.assert_close(taps.states[depth], seen[depth], rtol=0, atol=1e-12)
    assert model.layers is not None and [*taps.states] == [*range(LAYERS + 1), NORMED]
    torch.testing.assert_close(model.layers.read(taps.states[LAYERS]), plain(model), rtol=0, atol=1e-12)
    torch.testing.assert_close(logits_NV, plain(model).flatten(0, 1)[select_N], rtol=0, atol=1e-12)


def test_skipped_halves_leave_the_states_alone(model: CausalModel) -> None:
    """Guards the numbers of halves, against a class whose modules of these halves add nothing."""
    skipped, hooks = frozenset({2, 5, 8, 9}), []
    for half in skipped:
        part = parts_of(model)[half // 2]["feed_forward" if half % 2 else "attention"]
        nothing = (lambda *seen: 0 * seen[2]) if half % 2 else (lambda *seen: (0 * seen[2][0], None))
        hooks.append(part.register_forward_hook(nothing))
    expected = plain(model)
    for hook in hooks:
        hook.remove()
    store = model.new_store(2, 5)
    places_BT = torch.arange(5).expand(2, -1)
    request = ForwardRequest(TOKENS_BT, positions_BT=places_BT, kv=store, part=Part(skipped=skipped))
    torch.testing.assert_close(model.forward(request), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(expected, plain(model))
    assert [layer for layer in range(LAYERS) if store.keys[layer] is None] == [1, 4]


@pytest.mark.parametrize("abreast", [2, 3, 9])
def test_layers_abreast_read_the_same_states(model: CausalModel, abreast: int) -> None:
    """Guards EasySpec's grouping, against a class whose norms are given what entered the first layer of their group."""
    entered: dict[str, Tensor] = {}
    hooks, inner = [], range(1, LAYERS - 1)
    for layer, modules in enumerate(parts_of(model)):
        if layer not in inner or (layer - 1) % abreast == 0:
            hooks.append(modules["whole"].register_forward_pre_hook(lambda _, given: entered.update(x=given[0])))
        if layer in inner:
            hooks.append(modules["norm"].register_forward_pre_hook(lambda *_: (entered["x"],)))
    expected = plain(model)
    for hook in hooks:
        hook.remove()
    made = model.forward(ForwardRequest(TOKENS_BT, part=Part(abreast=abreast)))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(expected, plain(model))


def test_a_blend_is_weighed_embeddings(model: CausalModel) -> None:
    """Guards a blend against being taken for its tokens, and places of GPT-2, which are not weighed."""
    other_BT = (TOKENS_BT + 3) % 9
    blend = Blend(tokens_BTM=torch.stack([TOKENS_BT, other_BT], 2), weights_BTM=torch.full((2, 5, 2), 0.5))
    embed = model.inner.get_input_embeddings()
    with torch.no_grad():
        blended_BTC = (embed(TOKENS_BT) + embed(other_BT)) / 2
        expected = model.inner(inputs_embeds=blended_BTC, use_cache=False).logits
    made = model.forward(ForwardRequest(TOKENS_BT, part=Part(blend=blend)))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(made, plain(model))


METHODS = {
    "layer_skip": with_drafts(Greedy(), EarlyExit(exit=4), 3),
    "swift": with_drafts(Greedy(), Swift(r=0.3, threshold=0.0, context_window=2, bayes_interval=0), 3),
    "del": with_drafts(Greedy(), DynamicExit(gamma_max=4), 4),
    "easyspec": with_drafts(Greedy(), LayersAbreast(N=2), 3),
}


@pytest.mark.parametrize("name", METHODS)
def test_no_part_changes_a_token(model: CausalModel, name: str) -> None:
    """Guards methods that run parts, on any class: greedy answers, rows alone and together, some drafts that stood."""
    models = Models(model, model) if name == "easyspec" else model
    greedy = [one.tokens for one in run(model, with_drafts(Greedy(), EmptyDrafter()), PROMPTS)]
    assert same_for_every_batch(models, METHODS[name]) == greedy


@pytest.mark.parametrize("name", ["layer_skip", "swift", "del"])
def test_keys_and_values_behind_a_round_are_those_of_a_fresh_forward(model: CausalModel, name: str) -> None:
    """Guards slots that drafts wrote to in some layers, and that verification goes on from or writes over."""
    stood: list[int] = []

    def check(completed: Round) -> None:
        after = completed.after
        assert isinstance(after.store, SlotStore)
        for row, end in enumerate((after.length_B - 1).tolist()):
            fresh = model.new_store(1, after.store.slots)
            if end:
                places = torch.arange(end)[None]
                model.forward(
                    ForwardRequest(after.tokens_BL[row : row + 1, :end], positions_BT=places, kv=fresh, end=end)
                )
                pairs = zip([*after.store.keys, *after.store.values], [*fresh.keys, *fresh.values], strict=True)
                for kept, again in pairs:
                    assert kept is not None and again is not None
                    torch.testing.assert_close(kept[row, :, :end], again[0, :, :end], rtol=0, atol=1e-5)
        stood.append(int(completed.n_accepted_B.sum()))

    run(model, METHODS[name], PROMPTS, observers=[check])
    assert sum(stood) > 3


def test_skipping_layers_costs_what_is_left(model: CausalModel) -> None:
    """Guards the count, and that no layer runs that is skipped: prompts pass all, tokens behind them the kept ones."""
    ledger, seen = Ledger(), []
    hooks = [part["attention"].register_forward_hook(lambda *_: seen.append(1)) for part in parts_of(model)]
    method = AutoregressiveMethod(acceptor=Greedy(), layers=UnifiedSkip(speedup=2))
    run(model, method, PROMPTS[1:2], 5, ledger=ledger)
    for hook in hooks:
        hook.remove()
    assert [record.layers for record in ledger.records] == [LAYERS] + 4 * [LAYERS // 2]
    assert len(seen) == sum(int(record.layers) for record in ledger.records)


@pytest.mark.parametrize(("name", "normalised"), [("Mixtral", True), ("Qwen3Moe", True), ("Olmoe", False)])
def test_mixtures_of_a_class_take_the_experts_of_other_ranks(name: str, normalised: bool, tmp_path: Path) -> None:
    """Guards the class's own choice, which is ranks 0 and 1; weights of one expert; and routers that are left alone."""
    mixtral = {"num_local_experts": 4, "num_experts_per_tok": 2}
    classes = checkpoints.CLASSES | {"Mixtral": checkpoints.SHAPE | mixtral}
    changes = {} if name == "Mixtral" else {"norm_topk_prob": normalised}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "CLASSES", classes)
        checkpoints.write(tmp_path, name, **changes)
    model = checkpoints.loaded(tmp_path)
    own, said = plain(model), {}
    for ranks in ((0, 1), (1,), (3,)):
        said[ranks] = model.forward(ForwardRequest(TOKENS_BT, part=Part(routing=Routing(ranks=ranks))))
    assert experts_of(model) == 4
    torch.testing.assert_close(said[0, 1], own, rtol=0, atol=1e-4)
    assert not torch.allclose(said[1,], own, atol=1e-2) and not torch.allclose(said[1,], said[3,], atol=1e-2)
    torch.testing.assert_close(plain(model), own, rtol=0, atol=0)
    twins = Twins(own=Routing(), twin=Routing(ranks=(1,)), width=TOKENS_BT.shape[1])
    both = model.forward(ForwardRequest(TOKENS_BT.repeat_interleave(2, 0), part=Part(routing=twins)))
    torch.testing.assert_close(both[0::2], own, rtol=0, atol=1e-4)
    torch.testing.assert_close(both[1::2], said[1,], rtol=0, atol=1e-4)
    numbers_BTL = torch.full((*TOKENS_BT.shape, model.spec.layers), 0.3)
    drawn = model.forward(ForwardRequest(TOKENS_BT, part=Part(routing=Routing(uniform_BTL=numbers_BTL))))
    assert torch.allclose(drawn, said[1,], atol=1e-4) is normalised, "a drawn expert has the weight 1"
    weights: list[Tensor] = []
    gate = model.inner.model.layers[0].mlp.gate
    with routed([gate], Routing(ranks=(1,))):
        weights.append(gate(torch.randn(7, 32))[1])
    assert bool((weights[0] == 1).all()) is normalised


@pytest.mark.parametrize("name", OTHERS)
def test_classes_that_are_built_otherwise_refuse_parts(name: str, tmp_path: Path) -> None:
    """Guards classes whose layers add up otherwise, by modules that are not known: refused in one line."""
    model = made(tmp_path, name)
    assert not runs_parts(model)
    with pytest.raises(ConfigError, match=r"^model=mine: runs all of its layers or none, and the drafter"):
        run(model, METHODS["layer_skip"], PROMPTS[:1])
    with pytest.raises(TypeError, match="does not show its attention and layers"):
        model.forward(ForwardRequest(TOKENS_BT, part=Part(end=1)))
    # All of it runs as ever, and shows the states that the class itself keeps.
    taps, own = Taps({0, 1, NORMED}), model.inner(TOKENS_BT, output_hidden_states=True)
    shown = model.forward(ForwardRequest(TOKENS_BT, part=Part(taps=taps)))
    torch.testing.assert_close(shown, own.logits, rtol=0, atol=1e-12)
    for depth, x_BTC in taps.states.items():
        torch.testing.assert_close(x_BTC, own.hidden_states[depth], rtol=0, atol=1e-12)


def test_a_class_that_scales_what_it_adds_is_not_taken_at_its_names(tmp_path: Path) -> None:
    """Guards classes with Llama's modules and another sum, such as Granite's: their layers are compared and refused."""
    import transformers

    shape = checkpoints.SHAPE | {"residual_multiplier": 0.5, "embedding_multiplier": 3.0}
    config = transformers.GraniteConfig(**shape)
    transformers.GraniteForCausalLM(config).save_pretrained(tmp_path)
    checkpoints.miniature.write_tokenizer(tmp_path, checkpoints.KINDS["llada"])
    assert not runs_parts(checkpoints.loaded(tmp_path, torch.float64))


@pytest.mark.parametrize("name", CHANGES)
def test_layers_that_a_checkpoint_does_not_have_are_refused_before_it_loads(name: str, tmp_path: Path) -> None:
    """Guards bad input: the message names key, value, model and what would do; nothing is read but config.json."""
    checkpoints.write(tmp_path, name, **CHANGES[name])
    (tmp_path / "model.safetensors").write_bytes(b"")
    asked = ["model=hf_causal", f"model.path={tmp_path}", "method=layer_skip", "task.renderer=chat"]
    fit_decoding(compose([*asked, "method.exit=6"]), build.Builder())
    with pytest.raises(ConfigError, match=r"^method\.exit=7: must be from 1 to 6.*\(model=hf_causal\)$"):
        fit_decoding(compose([*asked, "method.exit=7"]), build.Builder())
    fit_decoding(compose(["model=hf_causal", "method=layer_skip", "method.exit=7"]), build.Builder())
