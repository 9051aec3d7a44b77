"""SCMoE: a plain reading of its contrast, greedy decoding at the ends of its knobs, and keys that are kept apart."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import pytest
import torch

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.model import ForwardRequest, Part
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger, Role
from harness.engine.shared.routing import Routing
from harness.errors import ConfigError, FieldError
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.sample import KeyedSample
from methods.autoregressive.scmoe import STORE, Routed, SelfContrast, WeakRouting
from tests.engine.causal import MIXTURE, PROMPTS, random_causal, run
from tests.methods.self_drafts import same_for_every_batch

MODEL = random_causal(experts=MIXTURE, layers=3)
GREEDY = AutoregressiveMethod(acceptor=Greedy())


@cache
def greedily() -> list[tuple[int, ...]]:
    """Return what the model answers of itself."""
    return same_for_every_batch(MODEL, GREEDY)


@cache
def usually() -> list[tuple[int, ...]]:
    """Return what the method answers with the knobs that it has of itself."""
    return same_for_every_batch(MODEL, contrasted())


def contrasted(*, strong_ranks: tuple[int, ...] = (), **knobs: object) -> AutoregressiveMethod:
    """Return the method."""
    acceptor = SelfContrast(**knobs)  # type: ignore[arg-type]
    return AutoregressiveMethod(acceptor=acceptor, layers=Routed(ranks=strong_ranks))


@torch.inference_mode()
def logits(tokens: list[int], ranks: tuple[int, ...] | None) -> list[float]:
    """Return the logits behind tokens, by a full forward with some experts (None: the model's own choice)."""
    part = None if ranks is None else Part(routing=Routing(ranks=ranks))
    return MODEL.forward(ForwardRequest(torch.tensor([tokens]), part=part))[0, -1].tolist()


def reading(prompt: list[int], weak: tuple[int, ...], strong: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Return twelve tokens by the rule, token by token, with alpha 0.1 and beta 0.5."""
    tokens = list(prompt)
    for _ in range(12):
        z_s, z_w = logits(tokens, strong), logits(tokens, weak)
        valid = [v for v in range(len(z_s)) if z_s[v] >= max(z_s) + math.log(0.1)]
        tokens.append(max(valid, key=lambda v: 1.5 * z_s[v] - 0.5 * z_w[v]))
    return tuple(tokens[len(prompt) :])


def by_hand(tokens: list[int], weigh: object) -> list[float]:
    """Return the logits behind tokens where `weigh(layer, p_E)` says what each expert weighs, expert by expert."""
    transformer, layers = MODEL.transformer, []
    for layer, block in enumerate(transformer.blocks):
        mixture = block.feed_forward

        def mix(x_BTC: torch.Tensor, routing: object = None, mixture: object = mixture, layer: int = layer):
            out = []
            for place, x_C in enumerate(x_BTC[0]):
                w_E = weigh(layer, place, mixture.router(x_C).softmax(-1).tolist())  # type: ignore[operator,attr-defined]
                gates = [(torch.nn.functional.linear(x_C, up).chunk(2)) for up in mixture.gate_up]  # type: ignore[attr-defined]
                said = [
                    down @ (torch.nn.functional.silu(g) * u) for (g, u), down in zip(gates, mixture.down, strict=True)
                ]  # type: ignore[attr-defined]
                out.append(sum(w * one for w, one in zip(w_E, said, strict=True)))
            return torch.stack(out)[None]

        layers.append((mixture, mix))
    with pytest.MonkeyPatch.context() as patch:
        for mixture, mix in layers:
            patch.setattr(mixture, "forward", mix)
        return logits(tokens, None)


def fewest(mass: float) -> object:
    """Return how a position's experts are weighed that are together more probable than `mass`."""

    def weigh(layer: int, place: int, p_E: list[float]) -> list[float]:
        kept: list[int] = []
        for expert in sorted(range(len(p_E)), key=lambda e: -p_E[e]):
            kept.append(expert)
            if sum(p_E[e] for e in kept) > mass:
                break
        total = sum(p_E[e] for e in kept)
        return [p / total if e in kept else 0.0 for e, p in enumerate(p_E)]

    return weigh


def drawn(seed: int) -> object:
    """Return how a position's expert is weighed that its numbers fall on, counted from the best."""

    def weigh(layer: int, place: int, p_E: list[float]) -> list[float]:
        u = float(uniforms(torch.tensor([seed]), torch.tensor([place]), "experts", 3)[0, layer])
        order = sorted(range(len(p_E)), key=lambda e: -p_E[e])
        return [float(e == order[int(u * len(p_E))]) for e in range(len(p_E))]

    return weigh


@pytest.mark.parametrize(
    ("routing", "knobs"), [("dynamic", {}), ("dynamic", {"dynamic_threshold": 0.9}), ("random", {})]
)
def test_other_routings_are_those_of_a_plain_reading(routing: str, knobs: dict) -> None:
    """Guards experts that differ in number and are drawn, position by position, and rows alone and together."""
    method = contrasted(weak_routing=WeakRouting(routing), **knobs)
    made = same_for_every_batch(MODEL, method)
    for row in (1, 2):
        weigh = drawn(100 + row) if routing == "random" else fewest(knobs.get("dynamic_threshold", 0.6))
        tokens = list(PROMPTS[row])
        for _ in range(5):
            z_s, z_w = logits(tokens, None), by_hand(tokens, weigh)
            valid = [v for v in range(len(z_s)) if z_s[v] >= max(z_s) + math.log(0.1)]
            tokens.append(max(valid, key=lambda v: 1.5 * z_s[v] - 0.5 * z_w[v]))
        assert made[row][:5] == tuple(tokens[len(PROMPTS[row]) :])


def test_a_routing_chooses_the_fewest_experts_or_the_drawn_one() -> None:
    """Guards the edge, where a sum equal to the threshold is not above it, and the ends of the numbers."""
    p_NE = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.9, 0.05, 0.03, 0.02]], dtype=torch.float64)
    weights_NK, ranks_NK = Routing(mass=0.75).among(p_NE, 2)
    assert weights_NK.tolist() == [[0.5, 0.25, 0.125], [0.9, 0.0, 0.0]] and ranks_NK.tolist() == [[0, 1, 2]] * 2
    numbers_BTL = torch.tensor([[[0.0, 0.999], [0.26, 0.5]]])
    for layer, ranks in ((0, [[0], [1]]), (1, [[3], [2]])):
        weights_N1, ranks_N1 = Routing(uniform_BTL=numbers_BTL).at(layer).among(p_NE, 2)
        assert (weights_N1.tolist(), ranks_N1.tolist()) == ([[1.0], [1.0]], ranks)


def test_nearly_all_experts_are_the_model_itself() -> None:
    """Guards weights: a mixture that uses all of its experts is not told from one routed to nearly all mass."""
    full = random_causal(experts=replace(MIXTURE, active=4), layers=3)
    method = AutoregressiveMethod(acceptor=SelfContrast(weak_routing=WeakRouting.dynamic, dynamic_threshold=1 - 1e-12))
    assert same_for_every_batch(full, method) == same_for_every_batch(full, GREEDY)


@pytest.mark.parametrize("weak", [(1,), (3,), (2, 0), (0, 1, 2, 3)])
def test_answers_are_those_of_a_plain_reading(weak: tuple[int, ...]) -> None:
    """Guards the mask, the contrast, and a weak pass with keys of its own; rows alone and together."""
    assert same_for_every_batch(MODEL, contrasted(weak_ranks=weak)) == [reading(prompt, weak) for prompt in PROMPTS]


def test_the_strong_routing_can_be_chosen() -> None:
    """Guards ranks of the loop's own calls."""
    made = same_for_every_batch(MODEL, contrasted(strong_ranks=(2, 3)))
    assert made == [reading(prompt, (1,), (2, 3)) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "knobs",
    [{"beta": 0.0}, {"alpha": 1.0}, {"weak_ranks": (0, 1)}, {"strong_ranks": (0, 1), "beta": 0.0}],
    ids=str,
)
def test_the_ends_of_the_knobs_are_greedy_decoding(knobs: dict) -> None:
    """Guards a contrast of nothing, of one token, of equal routings; and ranks that are the model's own choice."""
    assert same_for_every_batch(MODEL, contrasted(**knobs)) == greedily()
    assert usually() != greedily()


def test_one_call_of_each_routing_makes_a_token() -> None:
    """Guards the cost: two calls, one after the other, for the prompt as well."""
    ledger = Ledger()
    (made,) = run(MODEL, contrasted(), PROMPTS[1:2], 5, ledger=ledger)
    assert [record.role for record in ledger.records] == [Role.PREFILL] * 2 + [Role.TARGET] * 8
    (counts,) = ledger.counts([0])
    assert (counts.nfe, counts.nfe_prefill, counts.query_tokens) == (10, 2, 2 * (3 + 4))
    assert made.tokens_generated == 5


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"weak_ranks": (2, 0, 3)},
        {"weak_routing": WeakRouting.random},
        {"weak_routing": WeakRouting.dynamic},
        {"strong_ranks": (2, 3)},
        {"sample": True},
    ],
    ids=str,
)
def test_both_passes_in_one_call_say_what_two_calls_do(knobs: dict) -> None:
    """Guards twins: their own keys and experts, rows that leave, alone and together; and that rows are as apart."""
    made = same_for_every_batch(MODEL, contrasted(batched=True, **knobs))
    assert made == same_for_every_batch(MODEL, contrasted(**knobs))
    assert knobs or made != greedily()


def test_one_call_of_two_rows_makes_a_token() -> None:
    """Guards the cost of the pair: T calls of two rows, all of whose positions count, and T tokens."""
    ledger = Ledger()
    (made,) = run(MODEL, contrasted(batched=True), PROMPTS[1:2], 5, ledger=ledger)
    assert [record.role for record in ledger.records] == [Role.PREFILL] + [Role.TARGET] * 4
    (counts,) = ledger.counts([0])
    assert (counts.nfe, counts.nfe_prefill, counts.nfe_total, counts.query_tokens) == (5, 1, 10, 2 * (3 + 4))
    assert [record.sample_B.tolist() for record in ledger.records] == [[0, 0]] * 5
    assert made.tokens_generated == 5


def test_rows_begin_beside_others_with_their_twins() -> None:
    """Guards keys of rows that join, in stores of more slots, and twins that stay with their rows."""
    method = contrasted(batched=True)
    made = run(MODEL, method, PROMPTS, begins=lambda going_on, width: 2 if going_on < 3 else 0)
    assert [one.tokens for one in made] == same_for_every_batch(MODEL, method)


def test_the_passes_do_not_share_keys() -> None:
    """Guards the strong pass against what the weak one stores: scrambled, it changes the contrast alone."""

    def scramble(completed: object) -> None:
        store = completed.after.stores[STORE]  # type: ignore[attr-defined]
        for kept in (*store.keys, *store.values):
            kept.normal_()

    for beta, same in ((0.0, True), (0.5, False)):
        plain = run(MODEL, contrasted(beta=beta), PROMPTS)
        spoiled = run(MODEL, contrasted(beta=beta), PROMPTS, observers=[scramble])
        assert ([one.tokens for one in plain] == [one.tokens for one in spoiled]) is same


def test_a_draw_of_no_contrast_is_sampling() -> None:
    """Guards the numbers that are drawn: with beta 0 and all tokens valid they are those of `ar_sample`."""
    made = run(MODEL, contrasted(beta=0.0, alpha=1e-30, sample=True), PROMPTS)
    plain = run(MODEL, AutoregressiveMethod(acceptor=KeyedSample()), PROMPTS)
    assert [one.tokens for one in made] == [one.tokens for one in plain]


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"alpha": 0.0}, r"alpha=0.0: must lie in \(0, 1\]"),
        ({"beta": -1.0}, "beta=-1.0: must be at least 0"),
        ({"weak_ranks": ()}, r"weak_ranks=\[\]: must name at least one"),
        ({"weak_ranks": (1, 1)}, r"weak_ranks=\[1, 1\]: must be different ranks"),
        ({"weak_temperature": 0.0}, "weak_temperature=0.0: must be above 0"),
        ({"dynamic_threshold": 1.0}, r"dynamic_threshold=1.0: must lie in \(0, 1\); 1 would take all experts"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict, told: str) -> None:
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        SelfContrast(**knobs)


def test_a_model_without_these_experts_is_refused() -> None:
    """Guards bad input before a model loads, and at the latest when it decodes."""
    with pytest.raises(ConfigError, match=r"^method\.weak_ranks=\[8\]: must be ranks from 0 to 7.*\(model=tiny_moe\)$"):
        fit_decoding(compose(["model=tiny_moe", "method=scmoe", "method.weak_ranks=[8]"]), build.Builder())
    with pytest.raises(ConfigError, match=r"method\.weak_ranks=\[1\]: must be empty.*use model=tiny_moe.*=tiny_ar\)$"):
        fit_decoding(compose(["model=tiny_ar", "method=scmoe"]), build.Builder())
    with pytest.raises(ConfigError, match=r"method\.weak_routing=random: must be of a model with a mixture of experts"):
        fit_decoding(compose(["model=tiny_ar", "method=scmoe", "method.weak_routing=random"]), build.Builder())
    with pytest.raises(ConfigError, match=r"method\.acceptor\.weak_ranks=\[1\].*\(model=random\)$"):
        run(random_causal(), contrasted(), PROMPTS)


@dataclass(frozen=True)
class Merged:
    """A feed of which all tokens of a round share a slot."""

    merges: ClassVar[bool] = True

    def blend(self, sequences: Sequences) -> None:
        return None


def test_twins_are_fed_tokens() -> None:
    """Guards a line in place of a failed assertion; two calls, one after the other, are fed what there is."""
    with pytest.raises(ConfigError, match=r"^feed=Merged: SelfContrast has each row computed twice in one call"):
        AutoregressiveMethod(acceptor=SelfContrast(batched=True), feed=Merged())
    AutoregressiveMethod(acceptor=SelfContrast(), feed=Merged())


@pytest.mark.parametrize("words", ["method=scmoe", "method=scmoe method.batched=true", "method=cntp", "method=adadec"])
def test_rows_with_calls_of_their_own_are_refused(words: str) -> None:
    """Guards counts of calls: what an acceptor asks, it asks for all rows in one call."""
    more = ["method/branching=samples", "method.branching.synchronous=false"]
    with pytest.raises(ConfigError, match="use synchronous=true"):
        build.build_method(compose(["model=tiny_moe", *words.split(), *more]))
