"""What each decoder may cost beside the model's calls: counted, never timed, and no more than it has come down to.

Bars lie in golden/hot_path.json; `--update-golden` writes what is counted now.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.autoregressive import loop as rounds
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelSpec, Store
from harness.engine.shared.records import Ledger
from tests.caches.decoding import random_model
from tests.engine.causal import random_causal
from tests.engine.operations import Aside, Operations, counted, peak_bytes

FILE = Path(__file__).parent / "golden" / "hot_path.json"
METHODS = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
CACHES = ("prefix", "dual", "dkv_decode", "d2cache", "dllm_cache")
DRAFTED = [
    f"freedave method/cache={cache} method.drafts={drafts}"
    for cache in ("prefix", "dual")
    for drafts in ("batch", "tree")
]
ROUNDS = ["ar_greedy", "ar_sample", "prompt_lookup"]
CASES = [*METHODS, *(f"threshold method/cache={name}" for name in CACHES), *DRAFTED, *ROUNDS]
LENGTH = 16
PROMPTS = [[2, 30, 76, 4], [2, 31, 77, 4], [2, 32, 78, 4]]


@cache
def method_of(words: str) -> tuple[str, DiffusionMethod]:
    """Build a decoder with blocks of half the response, on the first kind of model that it runs on."""
    option = read("method", words.split()[0])
    (kind, *_), blocks = option["models"], ["method.block_length=8"] if "block_length" in option else []
    model = "tiny_block" if kind == "block_diffusion" else "random_mdm"
    made = build_method(compose([f"model={model}", *f"method={words}".split(), *blocks, f"gen_length={LENGTH}"]))
    assert isinstance(made, DiffusionMethod)
    return kind, made


def laid_out(kind: str) -> Canvas:
    """Lay out the prompts for a model of a kind."""
    spec = random_model(kind).spec
    assert spec.mask_id is not None
    return Canvas.from_prompts(
        PROMPTS, gen_length=LENGTH, mask_id=spec.mask_id, pad_id=spec.pad_id, stop_ids=spec.stop_ids,
        seeds=range(len(PROMPTS)),
    )  # fmt: skip


def decoding(words: str) -> tuple[LanguageModel, Callable[[LanguageModel], object]]:
    """Return a random model that a decoder runs on, and what decodes the prompts with it."""
    if words not in ROUNDS:
        kind, method = method_of(words)
        canvas = laid_out(kind)
        return random_model(kind), lambda model: decode(model, method, canvas, Ledger())
    made = build_method(compose(["model=tiny_ar", f"method={words}"]))
    assert isinstance(made, AutoregressiveMethod)
    prompts, told = [[4, 5, 6, 4], [5, 6, 7, 5], [6, 7, 8, 6]], {"gen_length": LENGTH, "seeds": range(3)}
    return random_causal(), lambda model: rounds.decode(model, made, prompts, ledger=Ledger(), **told)


@cache
def looked_at(words: str) -> tuple[Aside, Operations]:
    """Return what a decoder does beside the model's calls, and what each call found done."""
    model, act = decoding(words)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as monkeypatch:
        # Constants that decoders share are made by the first one.
        act(model)
        with counted(model, monkeypatch) as (aside, operations):
            act(aside)
    return aside, operations


def counts_of(words: str) -> dict[str, float]:
    """Return what a decoder does per call of the model, rounded up to a tenth."""
    aside, operations = looked_at(words)
    kinds = {"operations": operations.made, "reads": operations.reads, "copies": operations.whole}
    return {name: math.ceil(10 * found.total() / len(aside.waits)) / 10 for name, found in kinds.items()}


@pytest.mark.parametrize("words", CASES)
def test_a_decoder_does_no_more_beside_its_calls_than_it_did(words: str, request: pytest.FixtureRequest):
    """Guards the loop against operations, waits of the host and copies of all logits that come back unseen."""
    found = counts_of(words)
    bars = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption("--update-golden"):
        bars[words] = found
        lines = [f"{json.dumps(name)}: {json.dumps(bars[name])}" for name in sorted(bars)]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert all(found[name] <= bar for name, bar in bars[words].items()), (found, bars[words])


@pytest.mark.parametrize(
    ("words", "first", "opening"),
    [("llada", 1, 2), ("threshold", 1, 2), ("klass", 2, 2), ("prophet", 1, 2), ("wino", 1, 3)],
)
def test_the_host_waits_once_per_step(words: str, first: int, opening: int, monkeypatch: pytest.MonkeyPatch):
    """Guards the stream of a device: one transfer per step, and one more where the windows that open next decide.

    KLASS asks once how long responses are, and WINO with every window how wide its shadow is.
    """
    kind, method = method_of(words)
    canvas = laid_out(kind)
    with torch.inference_mode(), counted(random_model(kind), monkeypatch) as (aside, _):
        decode(aside, method, canvas, Ledger())
    steps = [later - earlier for earlier, later in pairwise(aside.waits)]
    assert steps[0] == first
    windows = LENGTH // 8 - 1
    assert steps[1:].count(1) == len(steps) - 1 - windows and steps.count(opening) == windows + (first == opening)


def test_the_host_waits_once_per_token(monkeypatch: pytest.MonkeyPatch):
    """Guards plain autoregressive decoding: what ends rows is all that a round asks the device."""
    model, act = decoding("ar_greedy")
    with counted(model, monkeypatch) as (aside, _):
        act(aside)
    assert {later - earlier for earlier, later in pairwise(aside.waits)} == {1}


def operations_of_steps(words: str) -> list[int]:
    """Return what a decoder does between any two calls of the model."""
    return [later - earlier for earlier, later in pairwise(looked_at(words)[0].made)]


@pytest.mark.parametrize("words", ["llada", "threshold"])
def test_a_plain_step_takes_forty_operations(words: str):
    """Guards small models: what is done between two calls, but for the last and the first step of a window."""
    steps, windows = operations_of_steps(words), LENGTH // 8
    assert sum(made > 40 for made in steps) <= 2 * windows - 1, steps


@pytest.mark.parametrize("words", [name for name in METHODS if not method_of(name)[1].drafts])
def test_most_steps_of_any_plain_method_take_a_hundred_operations(words: str):
    """Guards the same for every method that takes one step per call."""
    steps = operations_of_steps(words)
    assert sum(made > 100 for made in steps) <= len(steps) // 3, steps


@dataclass
class Wide:
    """A model with many tokens, whose only cost are the logits it gives."""

    spec: ModelSpec
    table_LV: Tensor
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def new_store(self, rows: int, slots: int) -> Store:
        raise AssertionError("no cache was asked for")

    def forward(self, request: ForwardRequest) -> Tensor:
        assert request.select_N is not None
        return self.table_LV.index_select(0, request.select_N % request.tokens_BT.shape[1])


@pytest.mark.parametrize("words", ["llada method.steps=4", "threshold method.threshold=0.5"])
def test_scoring_takes_little_memory_beside_the_logits(words: str):
    """Guards large vocabularies: no copy of the logits, nor the last step's beside those of the next."""
    positions, vocab = 64, 8192
    spec = replace(random_model().spec, name="wide", vocab_size=vocab)
    model = Wide(spec, torch.randn(positions + 1, vocab, generator=torch.Generator().manual_seed(0)))
    made = build_method(compose(["model=random_mdm", *f"method={words}".split(), f"gen_length={positions}"]))
    assert isinstance(made, DiffusionMethod) and spec.mask_id is not None
    canvas = Canvas.from_prompts([[4]], gen_length=positions, mask_id=spec.mask_id, pad_id=spec.pad_id, seeds=[0])
    with torch.inference_mode():
        peak = peak_bytes(lambda: decode(model, made, canvas, Ledger()))
    assert peak <= 1.3 * positions * vocab * 4


def test_every_bar_belongs_to_a_decoder():
    """Guards against bars of what is gone."""
    assert sorted(json.loads(FILE.read_text())) == sorted(CASES)
