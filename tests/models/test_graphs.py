"""Calls of few shapes: the same answers and counts as plain calls, buffers that stay where they are, and why not."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.config.matrix import decoders
from harness.engine.autoregressive import loop as causal
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.families import Method
from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelKind, Models
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from harness.models import random as random_models
from harness.models.graphs import GRAPH, PADDED, Shape, StaticModel, why_not
from harness.models.static_store import bucket
from harness.results.store import Store
from harness.runs.runner import run
from tests.engine.causal import alike, random_causal
from tests.engine.operations import Operations

PROMPTS = [[2, 30 + i, *range(76, 76 + i), 4] for i in range(1, 6)]
CACHES = ("none", "prefix", "dual", "dkv_decode")
OBSERVING = "observe of the request: what runs depends on more than tokens"
PLANNED = "plan of the request: what runs depends on more than tokens"


def model_of(kind: str = "masked_diffusion", **changed: Any) -> LanguageModel:
    told = {"kv_heads": 4, "dtype": torch.float64, "logit_deviation": 4.0} | changed
    blocks = {"block_length": 4} if kind == "block_diffusion" else {}
    return random_models.load(name="r", kind=kind, seed=0, **blocks, **told).model


def made(model: LanguageModel, *words: str, prompts: Sequence[Sequence[int]] = PROMPTS) -> tuple[list[Any], Ledger]:
    """Return what `decoded` does, of the method of some words."""
    return decoded(model, build_method(compose(["gen_length=8", *words])), prompts)


def decoded(model: LanguageModel, method: Method, prompts: Sequence[Sequence[int]]) -> tuple[list[Any], Ledger]:
    """Return tokens, steps and counts of every row, and the ledger."""
    spec, ledger, seeds = model.spec, Ledger(), range(len(prompts))
    if isinstance(method, DiffusionMethod):
        assert spec.mask_id is not None
        canvas = Canvas.from_prompts(
            prompts, gen_length=8, mask_id=spec.mask_id, pad_id=spec.pad_id, stop_ids=(), seeds=seeds
        )
        rows = decode(model, method, canvas, ledger)
    else:
        rows = causal.decode(model, method, prompts, gen_length=8, seeds=seeds, ledger=ledger)
    return [(one.tokens, one.decided_at, two) for one, two in zip(rows, ledger.counts(seeds), strict=True)], ledger


def test_buckets_are_few_and_waste_little() -> None:
    """Guards the number of graphs, and positions that are computed for nothing."""
    assert [bucket(n) for n in (1, 2, 3, 4, 5, 7, 9, 12, 13, 25, 33, 97)] == [1, 2, 3, 4, 6, 8, 12, 12, 16, 32, 48, 128]
    assert len({bucket(n) for n in range(1, 4097)}) == 24
    assert all(n <= bucket(n) <= 1.5 * n and bucket(bucket(n)) == bucket(n) for n in range(1, 4097))


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kind", ["masked_diffusion", "block_diffusion"])
def test_answers_and_counts_are_those_of_plain_calls(kind: str, cache: str) -> None:
    """Guards padding that is seen, stored, scored or counted: of rows, of positions, of what is read."""
    words = (
        "model=tiny_mdm",
        "method=threshold",
        "method.threshold=0.9",
        "method.block_length=4",
        f"method/cache={cache}",
    )
    model = model_of(kind)
    static = StaticModel(model)
    assert made(static, *words)[0] == made(model, *words)[0]
    assert set(static.calls) == {PADDED}


@pytest.mark.parametrize(("name", "kind", "method"), decoders(), ids=lambda one: one if isinstance(one, str) else "")
def test_every_decoder_gets_what_it_gets_of_the_model(name: str, kind: ModelKind, method: DiffusionMethod) -> None:
    """Guards drafts that share a store, copies of rows, logits that a decoder writes into, canvases that grow."""
    model, prompts = model_of(kind.value), PROMPTS[:3]
    assert decoded(StaticModel(model), method, prompts)[0] == decoded(model, method, prompts)[0]


@pytest.mark.parametrize(
    "method", ["ar_greedy", "ar_sample", "prompt_lookup", "speculative", "beam", "adadec", "ffs", "self_consistency"]
)
def test_causal_answers_are_those_of_plain_calls(method: str) -> None:
    """Guards the other family: ragged windows against a store, trees, rows that share a sample, a draft's own calls."""
    target, told = random_causal(), ("model=tiny_ar", f"method={method}")
    prompts = [[5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6], [9, 1, 2, 3, 1, 2]]
    drafting = alike(target)
    static = Models(StaticModel(target), StaticModel(drafting))
    assert made(static, *told, prompts=prompts)[0] == made(Models(target, drafting), *told, prompts=prompts)[0]
    assert [*static.target.calls] == [PADDED] and (method != "speculative" or static.draft.calls)


@pytest.mark.parametrize("method", ["layer_skip", "del", "swift", "unified_skip"])
def test_parts_of_a_model_are_called_as_they_are(method: str) -> None:
    """Guards methods that run a part of the layers: theirs are plain calls, and say why, over the same store."""
    target, told = random_causal(layers=4), ("model=tiny_ar", f"method={method}")
    static, prompts = StaticModel(target), [[5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6]]
    assert made(static, *told, prompts=prompts)[0] == made(target, *told, prompts=prompts)[0]
    assert [reason for reason in static.calls if reason.startswith("part of the request")]


def test_what_fills_a_bucket_is_padding_and_nothing_else() -> None:
    """Guards counters: five rows of a bucket of six, each as wide as its bucket."""
    model, words = model_of(), ("model=tiny_mdm", "method=llada")
    (plain, before), (static, after) = made(model, *words), made(StaticModel(model), *words)
    assert [one[2] for one in static] == [one[2] for one in plain]
    widths = [record.width for record in after.records]
    assert {record.width for record in before.records} == {16} and set(widths) == {16}
    added = sum(after.padded(range(5))) - sum(before.padded(range(5)))
    assert added == sum(widths) and all(len(record.idle_B) == 1 for record in after.records)


class Watched:
    """A model that takes down the shape and the place of everything that a call is given."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.places, self.shapes = model, set(), set()
        self.spec, self.device, self.transformer = model.spec, model.device, model.transformer

    def new_store(self, rows: int, slots: int) -> Any:
        return self.model.new_store(rows, slots)

    def forward(self, request: ForwardRequest) -> torch.Tensor:
        r, kv = request, request.kv
        given = [one for one in (r.tokens_BT, r.positions_BT, r.slots_BT, r.visible_BTS, r.select_N) if one is not None]
        kept = [] if kv is None else [*kv.keys, *kv.values]
        self.shapes.add((*(tuple(one.shape) for one in given), r.end))
        self.places.add(tuple(one.data_ptr() for one in (*given, *kept)))
        return self.model.forward(request)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_shapes_are_those_of_buckets_and_nothing_moves(cache: str) -> None:
    """Guards what a graph needs: a bucket has one place, and the next decodings need no other."""
    words = ("model=tiny_mdm", "method=llada", "method.block_length=4", f"method/cache={cache}")
    watched = Watched(model_of())
    static = StaticModel(watched)
    made(static, *words)
    buckets = len(static.shapes)
    assert len(watched.shapes) <= buckets == len(watched.places) < static.calls[PADDED]
    assert all(bucket(one.rows) == one.rows and bucket(one.width) == one.width for one in static.shapes)
    made(static, *words)
    made(static, *words, prompts=[row[::-1] for row in PROMPTS])
    assert len(watched.places) == len(static.shapes) == buckets


@pytest.mark.parametrize("kind", ["masked_diffusion", "block_diffusion", "causal"])
@pytest.mark.parametrize("windowed", [False, True])
def test_nothing_waits_for_the_host(kind: str, windowed: bool) -> None:
    """Guards what a capture forbids, and a stall in every replay: reads of numbers, shapes that data decide."""
    static = StaticModel(model_of(kind))
    kv, tokens_BT = (static.new_store(3, 9) if windowed else None), torch.full((3, 5), 7)
    request = ForwardRequest(
        tokens_BT,
        positions_BT=torch.arange(2, 7).expand(3, -1) if windowed else None,
        kv=kv,
        end=7 if windowed else None,
        visible_BTS=torch.arange(7 if windowed else 5).expand(3, 1, -1) > 1,
        select_N=torch.tensor([0, 7, 14]),
    )
    static.forward(request)
    with Operations(static.spec.vocab_size) as whole:
        static.forward(request)
    with Operations(static.spec.vocab_size) as alone:
        static.inner.forward(replace(request, kv=kv.plain()) if windowed else request)
    assert not whole.reads and whole.made.total() <= alone.made.total() + 32


@pytest.mark.parametrize(
    ("cache", "why"), [("d2cache", OBSERVING), ("layer_reuse", PLANNED), ("elastic", PLANNED), ("dllm_cache", PLANNED)]
)
def test_what_cannot_be_captured_says_why(cache: str, why: str) -> None:
    """Guards a silent fallback: who watches attention or plans layers is called as it asks, with its reason."""
    words = ("model=tiny_mdm", "method=threshold", "method.block_length=4", f"method/cache={cache}")
    model = model_of()
    static = StaticModel(model)
    assert made(static, *words)[0] == made(model, *words)[0]
    assert static.calls[why]


def test_experts_and_other_models_cannot_be_captured() -> None:
    """Guards graphs of what depends on data, or keeps its keys and values where nobody knows."""
    assert "not of this package" in (why_not(object()) or "")
    assert why_not(model_of()) is None


def test_a_store_is_what_the_plain_one_is() -> None:
    """Guards keys and values through rows that leave, enter, repeat, move and grow."""
    model = random_causal()
    stores = [model.new_store(3, 5), StaticModel(model).new_store(3, 5)]
    generator = torch.Generator().manual_seed(0)
    values = [torch.rand(3, 5, 1, 8, generator=generator, dtype=torch.float64) for _ in range(4)]
    index_B, slots_BS = torch.tensor([2, 0, 0]), torch.tensor([[4, 1, 0], [3, 3, 2], [0, 1, 2]])
    seen = []
    for store in stores:
        for kept, new in zip(tensors(store), values, strict=True):
            kept.copy_(new)
        store.move(torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([3, 4]))
        chain = [store.rows(index_B), store.gathered(index_B, slots_BS), store.grown(9), store.extended(2)]
        chain.append(chain[-1].rows(torch.tensor([4, 1])).grown(7))
        chain.append(store.joined(chain[0]))
        seen.append([(one.slots, [kept.clone() for kept in tensors(one)]) for one in (store, *chain)])
    for (slots, plain), (others, static) in zip(*seen, strict=True):
        assert slots == others and all(torch.equal(*pair) for pair in zip(plain, static, strict=True))


def tensors(store: Any) -> list[torch.Tensor]:
    plain = store.plain() if hasattr(store, "plain") else store
    return [*plain.keys, *plain.values]


def test_keys_and_values_that_nobody_has_any_more_are_used_again() -> None:
    """Guards memory, and graphs that a new place of keys and values would ask for."""
    static = StaticModel(random_causal())
    first = static.new_store(2, 6)
    first.held.keys[0].fill_(7)
    place = first.held.keys[0].data_ptr()
    beside = static.new_store(2, 5)
    assert beside.held.keys[0].data_ptr() != place
    del first
    again = static.new_store(2, 7)
    assert again.held.keys[0].data_ptr() == place and not again.held.keys[0].any()


def test_a_row_that_is_too_long_is_refused_as_before() -> None:
    """Guards the error of the model itself."""
    model = model_of(max_length=8)
    too_long = ForwardRequest(torch.full((1, 9), 5))
    for one in (model, StaticModel(model)):
        with pytest.raises(Exception, match="does not fit the 8 positions"):
            one.forward(too_long)


def test_weights_of_half_the_width_keep_theirs() -> None:
    """Guards bfloat16 through buffers and stores, near to what plain calls give."""
    model = model_of(dtype=torch.bfloat16, logit_deviation=1.0)
    static, tokens_BT = StaticModel(model), torch.randint(5, 90, (3, 7), generator=torch.Generator().manual_seed(0))
    for request in (ForwardRequest(tokens_BT), ForwardRequest(tokens_BT, select_N=torch.tensor([0, 8, 20]))):
        ours, plain = static.forward(request), model.forward(request)
        assert ours.dtype == torch.bfloat16 and ours.shape == plain.shape
        torch.testing.assert_close(ours, plain, rtol=0.02, atol=0.1)
    words = ("model=tiny_mdm", "method=threshold", "method.block_length=4", "method/cache=dual")
    assert made(static, *words)[0][0][2].nfe > 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 13)])
def test_a_request_has_the_bucket_of_its_sizes(shape: tuple[int, int]) -> None:
    """Guards buckets that would depend on what tokens say."""
    tokens_BT = torch.zeros(shape, dtype=torch.int64)
    got = Shape.of(ForwardRequest(tokens_BT, select_N=torch.arange(shape[1])), longest=128)
    assert got == Shape(
        rows=bucket(shape[0]), width=bucket(shape[1]), keys=bucket(shape[1]), per_query=False,
        selected=1 << (shape[1] - 1).bit_length(), structured=True,
    )  # fmt: skip
    assert Shape.of(ForwardRequest(torch.zeros(1, 13)), longest=14).width == 14


def test_a_compiled_call_has_one_graph() -> None:
    """Guards breaks in what is compiled: operations run by the eager backend, the trace must be whole."""
    model = model_of(dtype=torch.float32)
    static = StaticModel(model, compiled=True, backend="eager")
    request = ForwardRequest(torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(static.forward(request), model.forward(request))
    from torch._dynamo.utils import counters

    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_replayed_graph_gives_what_the_call_gives() -> None:
    """Guards capture itself: stores, windows and rows that end, on a device."""
    words = ("model=tiny_mdm", "method=threshold", "method.threshold=0.9", "method.block_length=4", "method/cache=dual")
    model = model_of(device="cuda")
    static = StaticModel(model)
    assert made(static, *words)[0] == made(model, *words)[0]
    assert set(static.calls) == {GRAPH}


def test_a_run_says_what_became_of_its_calls(results_dir: Path) -> None:
    """Guards the knob through the whole runner: the same answers under another run_id, and the reason in provenance."""
    words = ["model=random_mdm", "method=threshold", "method.block_length=4", "task=list_copy", "task.samples=3"]
    words += ["batch_size=2", "batching=continuous", f"results_dir={results_dir}"]
    plain, static = (run(compose([*words, f"device.graphs={one}"])).row for one in ("auto", "on"))
    assert plain["run_id"] != static["run_id"] and plain["setting_id"] == static["setting_id"]
    rows = Store(root=results_dir).read("samples").to_pylist()
    first, second = ([one["output_ids"] for one in rows if one["run_id"] == row["run_id"]] for row in (plain, static))
    assert first == second
    assert '"graphs":{"asked":"auto","target":"there is no CUDA"}' in plain["provenance"]
    calls = json.loads(static["provenance"])["graphs"]
    assert calls["asked"] == "on" and [*calls["target"]] == [PADDED]
    assert static["nfe"] <= calls["target"][PADDED] < static["nfe"] * 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("device.graphs=yes", "device.graphs=.*: must be one of auto, on, off"),
        ("device.compile=true", "device.compile=true: compiles calls of few shapes, which device.graphs=auto does not"),
        ("device.compile=1", "device.compile=1: must be true or false"),
    ],
)
def test_what_cannot_be_is_refused(words: str, message: str) -> None:
    """Guards a knob that would be ignored."""
    with pytest.raises(ConfigError, match=message):
        run(compose(["model=random_mdm", "method=llada", "task=list_copy", words]))
