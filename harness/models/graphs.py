"""A model whose calls have few shapes: requests are padded to buckets, and on CUDA each bucket is one graph, replayed.

Rows, query positions and selected positions are padded by repeating the last one; what was added is seen by nothing,
written to a slot that nothing reads, and cut from the logits. Keys and values stay where they are. Without CUDA the
same padded calls are made without a graph. What cannot be of a fixed shape is called as it is, and `calls` says why.

Shapes: B rows, T query positions, S slots or keys, N selected positions; each of the bucket where it is a buffer's.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, LanguageModel, Store
from harness.models.static_store import Pool, StaticStore, bucket
from harness.models.transformer import Transformer

_PADDED = {"tokens_BT", "positions_BT", "slots_BT", "kv", "end", "visible_BTS", "structured", "select_N"}
_UNREAD = {"decided_at_BT"}
"""What networks ignore."""
_ASKED = [one for one in fields(ForwardRequest) if one.name not in _PADDED | _UNREAD]

GRAPH, PADDED = "replayed as a graph", "padded, without a graph: there is no CUDA"
"""What became of a call that has a shape of its bucket; otherwise `StaticModel.calls` says why it has none."""


def why_not(model: object) -> str | None:
    """Return why no call of a model can have a fixed shape; None if some can."""
    transformer = getattr(model, "transformer", None)
    if not isinstance(transformer, Transformer):
        return "the model is not of this package: where its keys and values lie is not known"
    if transformer.config.experts is not None:
        return "which experts compute a position depends on data"
    return None


@dataclass(frozen=True)
class Shape:
    """What the buffers of a call are made for; `keys` are the slots that are seen, or the positions without a store.

    `per_query` says whether queries of a row see different keys, `selected` how many logits are wanted (None: all).
    """

    rows: int
    width: int
    keys: int
    per_query: bool
    selected: int | None
    structured: bool

    @classmethod
    def of(cls, request: ForwardRequest, longest: int) -> "Shape":
        """Return the bucket of a request; no bucket has more keys than `longest`, the positions of the model."""
        (rows, width), kv, select_N = request.tokens_BT.shape, request.kv, request.select_N
        padded = min(bucket(width), max(longest, width))
        visible_BTS = request.visible_BTS
        return cls(
            rows=bucket(rows),
            width=padded,
            keys=padded if kv is None else min(bucket(_end(request)), longest),
            per_query=visible_BTS is not None and visible_BTS.shape[1] > 1,
            # It changes with every step, and a head costs little beside the layers: fewer buckets, of more waste.
            selected=None if select_N is None else 1 << (len(select_N) - 1).bit_length(),
            structured=request.structured,
        )


def _end(request: ForwardRequest) -> int:
    assert request.kv is not None
    return request.kv.slots if request.end is None else request.end


class Buffers:
    """The inputs of the calls of one shape, at one place, and the request that is made of them."""

    def __init__(self, shape: Shape, kv: StaticStore | None, device: torch.device) -> None:
        whole = shape.rows, shape.width
        self.tokens_BT = torch.zeros(whole, dtype=torch.int64, device=device)
        self.positions_BT, self.slots_BT = torch.zeros_like(self.tokens_BT), torch.zeros_like(self.tokens_BT)
        queries = shape.width if shape.per_query else 1
        self.visible_BTS = torch.zeros(shape.rows, queries, shape.keys, dtype=torch.bool, device=device)
        wanted = shape.selected
        self.select_N = None if wanted is None else torch.zeros(wanted, dtype=torch.int64, device=device)
        self.nowhere = None if kv is None else kv.held.slots - 1
        self.request = ForwardRequest(
            self.tokens_BT,
            positions_BT=self.positions_BT,
            slots_BT=None if kv is None else self.slots_BT,
            kv=None if kv is None else kv.held,
            end=None if kv is None else shape.keys,
            visible_BTS=self.visible_BTS,
            structured=shape.structured,
            select_N=self.select_N,
        )

    def fill(self, request: ForwardRequest) -> None:
        """Write a request into the buffers."""
        rows, width = request.tokens_BT.shape
        places_BT = request.places_BT()
        _spread(self.tokens_BT, request.tokens_BT)
        _spread(self.positions_BT, places_BT)
        keys = width
        if self.nowhere is not None:
            _spread(self.slots_BT, places_BT if request.slots_BT is None else request.slots_BT)
            self.slots_BT[:, width:] = self.nowhere
            keys = _end(request)
        if request.visible_BTS is None:
            self.visible_BTS[..., :keys] = True
        else:
            seen_BTS = request.visible_BTS.expand(rows, -1, keys)
            _spread(self.visible_BTS[..., :keys], seen_BTS)
        self.visible_BTS[..., keys:] = False
        if self.select_N is not None:
            assert request.select_N is not None
            wanted, padded = request.select_N, self.tokens_BT.shape[1]
            self.select_N[: len(wanted)] = wanted if padded == width else wanted // width * padded + wanted % width
            self.select_N[len(wanted) :] = 0

    def cut(self, logits: Tensor, request: ForwardRequest) -> Tensor:
        """Return the logits that a request asked for, of those of the bucket."""
        if request.select_N is not None:
            return logits[: len(request.select_N)]
        rows, width = request.tokens_BT.shape
        return logits[:rows, :width].contiguous()


def _spread(buffer: Tensor, values: Tensor) -> None:
    """Write values into the first places of a buffer, and the last of them into the others."""
    rows, width = values.shape[:2]
    buffer[:rows, :width] = values
    if width < buffer.shape[1]:
        buffer[:rows, width:] = values[:, -1:]
    if rows < buffer.shape[0]:
        buffer[rows:] = buffer[rows - 1]


class StaticModel:
    """A language model of which every call is one of few shapes; see the head of this module.

    `calls` counts what became of them, and why. With `compiled` torch compiles the padded call, once per shape.
    """

    def __init__(self, model: LanguageModel, *, compiled: bool = False, backend: str = "inductor") -> None:
        assert (reason := why_not(model)) is None, reason
        self.spec, self.inner, self.calls = model.spec, model, Counter[str]()
        self._memory: Any = None
        self._pool = Pool(model.new_store)  # type: ignore[arg-type]
        self._prepared: dict[tuple[Shape, int], tuple[Buffers, Callable[[], Tensor]]] = {}
        self._forward = torch.compile(model.forward, dynamic=False, backend=backend) if compiled else model.forward

    def __getattr__(self, name: str) -> object:
        """Return what the model itself has besides."""
        if "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def device(self) -> torch.device:
        """Where tokens have to be."""
        return self.inner.device

    @property
    def shapes(self) -> list[Shape]:
        """The shapes that calls had so far, once for each place of keys and values."""
        return [shape for shape, _ in self._prepared]

    def new_store(self, rows: int, slots: int) -> Store:
        """Allocate an empty key/value store, which keeps its place."""
        return self._pool.store(rows, slots)

    def padded_size(self, request: ForwardRequest) -> tuple[int, int]:
        """Return how many rows a call computes, and how many positions wide."""
        if self._why_not(request) is None:
            shape = Shape.of(request, self.spec.max_length)
            return shape.rows, shape.width
        rows, width = request.tokens_BT.shape
        return rows, width

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits as the model itself does, up to the rounding of kernels that another shape takes."""
        reason, kv = self._why_not(request), request.kv
        if reason is not None:
            self.calls[reason] += 1
            return self.inner.forward(replace(request, kv=kv.plain()) if isinstance(kv, StaticStore) else request)
        assert kv is None or isinstance(kv, StaticStore)
        key = Shape.of(request, self.spec.max_length), 0 if kv is None else id(kv.held)
        buffers, call = self._prepared.get(key) or self._prepare(*key, kv, request)
        buffers.fill(request)
        self.calls[GRAPH if self.device.type == "cuda" else PADDED] += 1
        return buffers.cut(call(), request)

    def _why_not(self, request: ForwardRequest) -> str | None:
        """Return why a call cannot have the shape of a bucket, None if it can."""
        for one in _ASKED:
            if getattr(request, one.name) is not one.default:
                return f"{one.name} of the request: what runs depends on more than tokens"
        if not request.tokens_BT.numel() or (request.select_N is not None and not len(request.select_N)):
            return "nothing is computed"
        seen = request.tokens_BT.shape[1] if request.kv is None else _end(request)
        return None if seen <= self.spec.max_length else "more is seen than the model has positions"

    def _prepare(
        self, shape: Shape, place: int, kv: StaticStore | None, request: ForwardRequest
    ) -> tuple[Buffers, Callable[[], Tensor]]:
        # What is made in inference mode could be written there only.
        with torch.inference_mode(False):
            buffers = Buffers(shape, kv, self.device)
        buffers.fill(request)
        call: Callable[[], Tensor] = lambda: self._forward(buffers.request)  # noqa: E731
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                self._memory = self._memory or torch.cuda.graph_pool_handle()
                call = _captured(call, self._memory)
        self._prepared[shape, place] = buffers, call
        return buffers, call


def _captured(call: Callable[[], Tensor], memory: Any) -> Callable[[], Tensor]:
    """Return what replays a call as one graph; its logits are a copy, since the next replay writes them again.

    All graphs work in one pool of memory, as no two of them run at a time.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    # What kernels set up when they run first must not be captured.
    with torch.cuda.stream(beside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory):
        logits = call()

    def replay() -> Tensor:
        graph.replay()
        return logits.clone()

    return replay
