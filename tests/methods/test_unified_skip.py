"""Unified layer skipping: the published sets of layers, and answers of nothing but these."""

import pytest
import torch

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.model import ForwardRequest, Part
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, FieldError
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.unified_skip import UnifiedSkip, kept
from tests.engine.causal import PROMPTS, run
from tests.methods.self_drafts import LAYERS, answers, same_for_every_batch, target


def skipping(speedup: float) -> AutoregressiveMethod:
    """Return the method."""
    return AutoregressiveMethod(acceptor=Greedy(), layers=UnifiedSkip(speedup=speedup))


@pytest.mark.parametrize(
    ("layers", "speedup", "expected"),
    [
        (30, 2, [*range(0, 27, 2), 29]),
        (30, 3, [*range(0, 25, 3), 29]),
        (30, 5, [0, 6, 12, 18, 24, 29]),
        (30, 10, [0, 15, 29]),
        (8, 2, [0, 2, 4, 7]),
        (8, 4, [0, 7]),
        (8, 1, [*range(8)]),
    ],
)
def test_the_layers_are_those_of_the_published_code(layers: int, speedup: float, expected: list[int]) -> None:
    """Guards the rule against the sets that the released code makes."""
    assert kept(layers, speedup) == expected


def test_answers_are_those_of_the_kept_layers() -> None:
    """Guards prompts that pass all layers and tokens that pass few, by an argmax loop over a store of its own."""
    model, part, expected = target(), Part(skipped=frozenset({2, 3, 6, 7, 10, 11, 12, 13})), []
    for prompt in PROMPTS:
        store, tokens = model.new_store(1, 32), list(prompt)
        places = torch.arange(len(prompt))[None]
        request = ForwardRequest(torch.tensor([prompt]), positions_BT=places, kv=store, end=len(prompt))
        tokens.append(int(model.forward(request)[0, -1].argmax()))
        for _ in range(11):
            at = torch.tensor([[len(tokens) - 1]])
            request = ForwardRequest(torch.tensor([tokens[-1:]]), positions_BT=at, kv=store, end=len(tokens), part=part)
            tokens.append(int(model.forward(request)[0, -1].argmax()))
        expected.append(tuple(tokens[len(prompt) :]))
    assert same_for_every_batch(model, skipping(2)) == expected != answers()


def test_nothing_skipped_is_greedy_decoding() -> None:
    """Guards the end of the range."""
    assert same_for_every_batch(target(), skipping(1)) == answers()


@pytest.mark.parametrize(("speedup", "left"), [(1, LAYERS), (2, 4), (4, 2)])
def test_a_step_loads_the_kept_layers(speedup: float, left: int) -> None:
    """Guards the count: the prompt passes all layers, each token behind it the kept ones."""
    ledger = Ledger()
    run(target(), skipping(speedup), PROMPTS[1:2], ledger=ledger)
    assert [(r.role, r.layers) for r in ledger.records] == [(Role.PREFILL, LAYERS)] + 11 * [(Role.TARGET, left)]
    assert ledger.counts([0])[0].layer_tokens == 3 * LAYERS + 11 * left


def test_a_speedup_that_leaves_no_two_layers_is_refused() -> None:
    """Guards bad input before a model loads: the message names key, value, model and what would do."""
    with pytest.raises(FieldError, match=r"speedup=0.5: must be at least 1"):
        UnifiedSkip(speedup=0.5)
    cfg = compose(["model=tiny_ar", "method=unified_skip", "method.speedup=3"])
    with pytest.raises(ConfigError, match=r"^method\.speedup=3\.0: must leave two of 4 layers.*2 \(model=tiny_ar\)$"):
        fit_decoding(cfg, build.Builder())
    with pytest.raises(ConfigError, match=r"^model=oracle_ar: runs all of its layers or none.* use .*tiny_ar"):
        fit_decoding(compose(["model=oracle_ar", "method=unified_skip"]), build.Builder())


@pytest.mark.parametrize("method", ["layer_skip", "del", "adadec", "cntp"])
def test_what_runs_whole_layers_by_itself_is_refused(method: str) -> None:
    """Guards drafts that have passed layers which verification would skip, and rollouts of another model."""
    with pytest.raises(ConfigError, match="works with method/layers=all alone, and not with UnifiedSkip"):
        build.build_method(compose(["model=tiny_ar_exits", f"method={method}", "method/layers=unified_skip"]))


def test_a_weak_pass_of_all_layers_is_refused() -> None:
    """Guards the contrast, which would be of two depths by two calls and of one by one."""
    words = ["model=tiny_moe", "method=scmoe", "method/layers=unified_skip"]
    with pytest.raises(ConfigError, match="works with method/layers=all or routing alone"):
        build.build_method(compose(words))
