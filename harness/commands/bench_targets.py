"""`decbench bench --targets [key=value ...]`: what the loops cost beside the model, against the bars of the project.

A decoding is timed in turns with bare forwards: the very calls that it made, with the same positions, logits and
stores, and nothing around them. Each number is the median over `rounds` of the ratio of CPU times in one process,
tokens being equal by construction; calls and query tokens stand beside it. One line of JSON ends the output.

Decoders of whole canvases, caches and FreeDave run on `tiny_mdm` and on random transformers of width 256 with 4 layers
(`random_V`, V tokens); greedy causal decoding on `tiny_ar`, and beside transformers' own `generate` on the shapes of
GPT-2 and Llama.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from harness.commands.bench_options import memory_for, parsed, require_known, require_memory
from harness.errors import ConfigError, listed

if TYPE_CHECKING:
    from harness.engine.diffusion.method import DiffusionMethod
    from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelSpec, Store

_LENGTHS = {"tiny": (20, 16, 16), "random": (48, 32, 16), "causal": (24, 32)}
"""Positions of a prompt, of a response, and of a block."""
_WIDE = 32768
_BESIDE_LARGE = ("llada", "threshold")
_CACHED = ("threshold method/cache=prefix", "threshold method/cache=dual", "threshold method/cache=dkv_decode")
_DRAFTING = (
    *("freedave", "threshold method/verifier=freedave"),
    *("freedave method/cache=dual", "freedave method/cache=dual method.drafts=tree"),
)
_GENERATE = ("gpt2", "llama")
_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line may say; `decoders` empty takes all, among the models that are asked for."""

    models: tuple[str, ...] = ("tiny_mdm", "random_512", "random_32768", "random_126464", "tiny_ar", *_GENERATE)
    decoders: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 4, 16)
    rounds: int = 7


@dataclass(frozen=True, kw_only=True)
class Target:
    """A ratio of CPU times and its bar; `calls` and `query_tokens` are those of one decoding."""

    name: str
    bar: float
    value: float
    calls: int
    query_tokens: int

    @property
    def passed(self) -> bool:
        """Whether the bar holds."""
        return self.value <= self.bar


@dataclass
class Recorder:
    """A model that takes down the calls that are made of it."""

    model: "LanguageModel"
    calls: "list[ForwardRequest]" = field(default_factory=list)

    @property
    def spec(self) -> "ModelSpec":
        """That of the model."""
        return self.model.spec

    @property
    def device(self) -> torch.device:
        """That of the model."""
        return self.model.device

    def new_store(self, rows: int, slots: int) -> "Store":
        """Return a store of the model."""
        return self.model.new_store(rows, slots)

    def forward(self, request: "ForwardRequest") -> torch.Tensor:
        """Call the model."""
        # A copy of the store, which keeps the rows that it has now; the memory is shared.
        self.calls.append(replace(request, kv=copy.copy(request.kv)))
        return self.model.forward(request)

    @torch.inference_mode()
    def again(self) -> None:
        """Make the same calls once more."""
        for request in self.calls:
            self.model.forward(request)


def main(words: Sequence[str]) -> int:
    """Measure, print a line per target as it is known, and all of them as JSON; 0 whether or not they are reached."""
    asked = options(words)
    torch.set_num_threads(1)
    found = []
    for one in targets(asked):
        found.append(one)
        verdict = "ok" if one.passed else "missed"
        sys.stdout.write(
            f"{one.name:64} {one.value:6.3f}  bar {one.bar:.2f} {verdict:6}  {one.calls} calls, "
            f"{one.query_tokens} query tokens\n"
        )
        sys.stdout.flush()
    sys.stdout.write(json.dumps({"targets": [asdict(one) | {"passed": one.passed} for one in found]}) + "\n")
    return 0


def options(words: Sequence[str]) -> Options:
    """Return what a command line says; raise ConfigError naming the key and the value that cannot be."""
    values = parsed(words, Options.__dataclass_fields__)
    o, models = Options(**values), values.get("models", ())
    require_known("models", models, Options().models, "no such model")
    require_known("decoders", o.decoders, [*plain_decoders(), *_CACHED, *_DRAFTING, "ar_greedy"], "no such decoder")
    runs = planned(o)
    for name in models:
        if name not in dict(runs):
            raise ConfigError(
                f"models={name}: is not measured with decoders={','.join(o.decoders)}; "
                f"{name} has {listed(_decoders(name), _NAMED)}"
            )
    for name in o.decoders:
        if name not in {decoder for _, decoder in runs}:
            others = [model for model in Options().models if name in _decoders(model)]
            raise ConfigError(
                f"decoders={name}: is not measured on models={','.join(o.models)}; it is on {', '.join(others)}"
            )
    _require_memory(o)
    return o


def _require_memory(o: Options) -> None:
    """Raise ConfigError where the logits of the responses of a batch are more than this machine holds."""
    for name in o.models:
        kind, _, vocabulary = name.partition("_")
        if kind == "random":
            asked, length = max(o.batches), _LENGTHS["random"][1]
            require_memory(f"batches={asked} models={name}", 4 * asked * length * int(vocabulary))


def plain_decoders() -> list[str]:
    """Return the diffusion methods that compute whole canvases and take one step per call."""
    from harness.config.matrix import decoders
    from harness.engine.diffusion.method import NoCache
    from harness.engine.shared.model import ModelKind

    return [
        name
        for name, kind, method in decoders()
        if kind is ModelKind.MASKED_DIFFUSION and not method.drafts and isinstance(method.cache, NoCache)
    ]


def planned(o: Options) -> list[tuple[str, str]]:
    """Return the models and decoders that were asked for, as far as they are measured with each other."""
    return [(model, one) for model in o.models for one in _decoders(model) if not o.decoders or one in o.decoders]


def _decoders(model: str) -> list[str]:
    """Return what is measured on a model."""
    if model in ("tiny_ar", *_GENERATE):
        return ["ar_greedy"]
    return [*(_BESIDE_LARGE if _is_wide(model) else plain_decoders()), *_CACHED, *_DRAFTING]


def _is_wide(model: str) -> bool:
    return model.startswith("random") and int(model.partition("_")[2]) >= _WIDE


def targets(o: Options) -> Iterator[Target]:
    """Yield every target that was asked for."""
    for model, words in planned(o):
        for batch in o.batches:
            with memory_for(f"batches={batch} models={model}"):
                if model in _GENERATE:
                    yield _beside_generate(model, batch, o)
                elif model == "tiny_ar":
                    yield _causal(batch, o)
                else:
                    yield _diffusion(model, words, batch, _is_wide(model), o)


def _bar(words: str, batch: int, wide: bool) -> float:
    """Return how much of the bare forwards' time a decoding may take."""
    if words in _DRAFTING:
        return 1.25
    if words in _CACHED:
        return 1.20 if batch > 1 else 1.35
    return 1.05 if wide else 1.10 if batch > 1 else 1.20


def _diffusion(name: str, words: str, batch: int, wide: bool, o: Options) -> Target:
    from harness.engine.diffusion.canvas import Canvas
    from harness.engine.diffusion.loop import decode
    from harness.engine.shared.records import Ledger

    prompt, length, block = _LENGTHS["tiny" if name == "tiny_mdm" else "random"]
    model, method = model_named(name), method_of(words, length, block)
    spec = model.spec
    assert spec.mask_id is not None
    canvas = Canvas.from_prompts(
        prompts_of(batch, prompt, spec.vocab_size), gen_length=length, mask_id=spec.mask_id, pad_id=spec.pad_id,
        stop_ids=spec.stop_ids, seeds=range(batch),
    )  # fmt: skip

    def decoded(called: "LanguageModel", ledger: Ledger) -> None:
        decode(called, method, canvas, ledger)

    with torch.inference_mode():
        return _measured(f"{name} {words} batch={batch}", _bar(words, batch, wide), model, decoded, o)


def _causal(batch: int, o: Options) -> Target:
    from harness.engine.autoregressive.loop import decode
    from harness.engine.shared.records import Ledger

    prompt, length = _LENGTHS["causal"]
    model, method = model_named("tiny_ar"), _greedy()
    prompts = prompts_of(batch, prompt, model.spec.vocab_size)

    def decoded(called: "LanguageModel", ledger: Ledger) -> None:
        decode(called, method, prompts, gen_length=length, seeds=range(batch), ledger=ledger)

    return _measured(f"tiny_ar ar_greedy batch={batch}", 1.05, model, decoded, o)


def _measured(name: str, bar: float, model: "LanguageModel", decoded: Callable[..., None], o: Options) -> Target:
    """Return a decoding beside its own calls."""
    from harness.engine.shared.records import Ledger

    recorder, ledger = Recorder(model), Ledger()
    decoded(recorder, ledger)
    value = ratio_of(lambda: decoded(model, Ledger()), recorder.again, o.rounds)
    queries = sum(int(record.query_B.sum()) for record in ledger.records)
    return Target(name=name, bar=bar, value=value, calls=len(recorder.calls), query_tokens=queries)


def _beside_generate(shape: str, batch: int, o: Options) -> Target:
    """Return greedy decoding by our loop over that by transformers, with the same weights."""
    from harness.engine.autoregressive.loop import decode
    from harness.engine.shared.records import Ledger

    prompt, length = _LENGTHS["causal"]
    model, method = _of_transformers(shape), _greedy()
    prompts, ledger = prompts_of(batch, prompt, model.spec.vocab_size), Ledger()
    ids_BT = torch.tensor(prompts)
    mask_BT = torch.ones_like(ids_BT)

    def ours(ledger: Ledger) -> list[list[int]]:
        made = decode(model, method, prompts, gen_length=length, seeds=range(batch), ledger=ledger)
        return [[*one.tokens] for one in made]

    def theirs() -> list[list[int]]:
        told = {"max_new_tokens": length, "do_sample": False, "pad_token_id": 0}
        return model.inner.generate(ids_BT, attention_mask=mask_BT, **told)[:, prompt:].tolist()

    assert ours(ledger) == theirs(), "the same weights gave other tokens"
    value = ratio_of(lambda: ours(Ledger()), theirs, o.rounds)
    queries = sum(int(record.query_B.sum()) for record in ledger.records)
    name = f"{shape} ar_greedy over transformers' generate batch={batch}"
    return Target(name=name, bar=1.0, value=value, calls=len(ledger.records), query_tokens=queries)


def ratio_of(decoded: Callable[[], object], bare: Callable[[], object], rounds: int) -> float:
    """Return the median of the ratios of CPU times; each round measures both twice, in turns."""
    from harness.runs.measure import settled_heap

    ratios = []
    decoded()
    bare()
    with settled_heap():
        for _ in range(rounds):
            first, second, third, fourth = (_seconds(one) for one in (decoded, bare, bare, decoded))
            ratios.append((first + fourth) / (second + third))
    return statistics.median(ratios)


def _seconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def prompts_of(rows: int, length: int, vocab: int) -> list[list[int]]:
    """Return prompts that hold no end, padding or mask."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(16, min(vocab, 140), (rows, length), generator=generator).tolist()


def method_of(words: str, length: int, block: int) -> "DiffusionMethod":
    """Return the decoder of some words of a command line, with blocks of that length where it has blocks."""
    from harness.config.build import build_method
    from harness.config.catalogue import read
    from harness.config.composition import compose
    from harness.engine.diffusion.method import DiffusionMethod

    blocks = [f"method.block_length={block}"] if "block_length" in read("method", words.split()[0]) else []
    made = build_method(compose(["model=tiny_mdm", *f"method={words}".split(), *blocks, f"gen_length={length}"]))
    assert isinstance(made, DiffusionMethod)
    return made


def _greedy() -> Any:
    from harness.config.build import build_method
    from harness.config.composition import compose

    return build_method(compose(["model=tiny_ar", "method=ar_greedy"]))


@cache
def model_named(name: str) -> Any:
    """Return an embedded model, or a random one of `random_V` tokens; made once for all decoders."""
    from harness.models import embedded

    if not name.startswith("random_"):
        return embedded.load(name=name).model
    from harness.engine.shared.model import ModelKind
    from harness.models import random

    return random.load(
        name=name, kind=ModelKind.MASKED_DIFFUSION.value, vocab_size=int(name.partition("_")[2]), layers=4, width=256,
        heads=4, kv_heads=4, feed_forward_width=768, max_length=128,
    ).model  # fmt: skip


@cache
def _of_transformers(shape: str) -> Any:
    """Return a causal model of width 256 with 4 layers and 512 tokens, of a class of transformers."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    from harness.engine.shared.model import ModelKind, ModelSpec
    from harness.models.hf_causal import CausalModel

    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 1, "attn_implementation": "sdpa"}
    if shape == "gpt2":
        config: Any = GPT2Config(n_embd=256, n_layer=4, n_head=4, n_positions=128, **common)
    else:
        config = LlamaConfig(
            hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, intermediate_size=768,
            max_position_embeddings=128, **common,
        )  # fmt: skip
    inner = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    spec = ModelSpec(
        name=shape, kind=ModelKind.CAUSAL, vocab_size=512, max_length=128, layers=4, stop_ids=(1,), pad_id=0, shift=1
    )
    return CausalModel(inner, spec)
