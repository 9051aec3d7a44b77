"""Decoding with caches: models in float64, where reuse that is exact changes no token, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from harness.config.build import build_method, build_task, load_model
from harness.config.compatibility import reason_against
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelSpec
from harness.engine.shared.records import Counts, Ledger, Role
from harness.models import random as random_models
from harness.models.embedded import EmbeddedModel

PROMPTS = [[2, 30 + i, *range(76, 76 + i), 4] for i in range(1, 9)]
LENGTH = 16
APART = (slice(0, 1), slice(1, 4), slice(4, 8))
"""Rows of the prompts, alone and in batches of three and four."""
STEPWISE = ("method=threshold", "method.threshold=1.1")
PARALLEL = ("method=threshold", "method.threshold=0.3", "method.block_length=8")


@dataclass(frozen=True, kw_only=True)
class Made:
    """Generations and counts by row; logits, query tokens of all rows, and positions of the first row, by call."""

    generations: list[Generation]
    counts: list[Counts]
    logits: list[Tensor]
    queries: list[int]
    positions: list[list[int]]

    @property
    def tokens(self) -> list[tuple[int, ...]]:
        """Response tokens of every row."""
        return [one.tokens for one in self.generations]

    @property
    def decided(self) -> list[tuple]:
        """Tokens and the step of each."""
        return [(one.tokens, one.decided_at) for one in self.generations]


@dataclass
class Listening:
    """A model that remembers the logits it gave, calls for none apart, and what it computed of the first row."""

    model: LanguageModel
    heard: list[Tensor]
    computed: list[list[int]]

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def device(self) -> torch.device:
        return self.model.device

    def new_store(self, rows: int, slots: int):
        return self.model.new_store(rows, slots)

    def forward(self, request: ForwardRequest) -> Tensor:
        logits = self.model.forward(request)
        self.computed.append(request.places_BT()[0].tolist())
        if len(logits):
            self.heard.append(logits.clone())
        return logits


@dataclass
class Positions:
    """A model that remembers which positions of the first row its calls with keys and values compute."""

    model: LanguageModel
    computed: list[list[int]]

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def device(self) -> torch.device:
        return self.model.device

    def new_store(self, rows: int, slots: int):
        return self.model.new_store(rows, slots)

    def forward(self, request: ForwardRequest) -> Tensor:
        if request.kv is not None:
            self.computed.append(request.places_BT()[0].tolist())
        return self.model.forward(request)


@cache
def random_model(kind: str = "masked_diffusion", shift: int = 0, layers: int = 3) -> EmbeddedModel:
    """Return random weights in float64; with `shift` its logits predict the next position."""
    block = 8 if kind == "block_diffusion" else None
    loaded = random_models.load(
        name="random", kind=kind, seed=3, layers=layers, max_length=64, block_length=block, dtype=torch.float64
    )
    assert isinstance(loaded.model, EmbeddedModel)
    return EmbeddedModel(loaded.model.transformer, replace(loaded.model.spec, shift=shift))


@cache
def trained_model(name: str = "tiny_mdm", samples: int = 2) -> tuple[EmbeddedModel, tuple[tuple[int, ...], ...]]:
    """Return a trained model in float64, and prompts that it knows the answers of."""
    cfg = compose([f"model={name}", "device.dtype=float64", "task=list_shuffle", f"task.samples={samples}"])
    loaded = load_model(cfg)
    assert isinstance(loaded.model, EmbeddedModel)
    prompts = [loaded.tokenizer.encode(str(sample.prompt)) for sample in build_task(cfg).instances()]
    return loaded.model, tuple(tuple(prompt) for prompt in prompts)


@cache
def method_of(*overrides: str) -> DiffusionMethod:
    """Build a diffusion method, once: it holds parameters only."""
    made = build_method(compose(["model=random_mdm", *overrides, f"gen_length={LENGTH}"]))
    assert isinstance(made, DiffusionMethod)
    return made


def run(*overrides: str, model: EmbeddedModel | None = None, prompts=PROMPTS, length: int = LENGTH) -> Made:
    """Decode prompts together."""
    return decode_with(method_of(*overrides), random_model() if model is None else model, prompts, length)


def queries_per_call(ledger: Ledger) -> list[int]:
    """Return the query tokens of every recorded call, all rows together."""
    return [int(record.query_B.sum()) for record in ledger.records if record.role is not Role.HEAD]


def decode_with(
    method: DiffusionMethod, model: LanguageModel, prompts, length: int = LENGTH, first_seed: int = 0
) -> Made:
    """Decode prompts together with a method that is built already; their seeds are consecutive."""
    spec, ledger, listening = model.spec, Ledger(), Listening(model, [], [])
    assert spec.mask_id is not None
    canvas = Canvas.from_prompts(
        prompts, gen_length=length, mask_id=spec.mask_id, pad_id=spec.pad_id, stop_ids=spec.stop_ids,
        seeds=range(first_seed, first_seed + len(prompts)),
    )  # fmt: skip
    with torch.inference_mode():
        generations = decode(listening, method, canvas, ledger)
    return Made(
        generations=generations,
        counts=ledger.counts(range(len(prompts))),
        logits=listening.heard,
        queries=queries_per_call(ledger),
        positions=listening.computed,
    )


def models() -> list[tuple[EmbeddedModel, Sequence[Sequence[int]]]]:
    """Return random weights, a shifted model, the trained one, and block-causal models, and prompts for each."""
    blocks = (random_model("block_diffusion"), PROMPTS[::4])
    full = [(random_model(), PROMPTS[::3]), (random_model(shift=1), PROMPTS[::3])]
    return [*full, trained_model(), blocks, trained_model("tiny_block")]


@cache
def without_cache(which: int, method: tuple[str, ...]) -> Made:
    """Decode with one of `models` as it is."""
    model, prompts = models()[which]
    return run(*method, model=model, prompts=prompts)


def same_decoding(*cache: str, method: tuple[str, ...] = STEPWISE, compare_logits: bool = True) -> bool:
    """Return whether a cache changes no token, step (and logit), on random and on trained weights that it suits."""
    suited = 0
    for which, (model, prompts) in enumerate(models()):
        built = method_of(*method, *cache)
        if reason_against(built, model.spec.kind) is not None:
            continue
        suited += 1
        with_cache, without = run(*method, *cache, model=model, prompts=prompts), without_cache(which, method)
        if with_cache.decided != without.decided:
            return False
        for one, other in zip(with_cache.logits, without.logits, strict=True) if compare_logits else ():
            torch.testing.assert_close(one, other, atol=1e-9, rtol=0)
    return suited > 1
