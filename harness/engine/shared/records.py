"""The one counter: every model call leaves a record, every count is derived from records.

Shapes: B rows of a call. Names and definitions of counts are the project's; nobody else counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from harness.engine.shared import device_clock
from harness.engine.shared.drafts import Drafting, Drafts, RoundRecord, add_rounds
from harness.engine.shared.model import ForwardRequest, LanguageModel, computed_size


class Role(Enum):
    """What a model call is for."""

    PREFILL = "prefill"
    TARGET = "target"
    VERIFY = "verify"
    DRAFT = "draft"
    CACHE = "cache"
    HEAD = "head"
    """No call of the model: no layer is run, states are looked up, or read by the head."""


Purpose = Role | str
"""What a call is for; that of a model beside target and draft is told by the name of the model's role (`judge`)."""


@dataclass(frozen=True, kw_only=True)
class ForwardRecord:
    """One model call. Tensors have one entry per row: the sample it is charged to and what was computed for it.

    `query_B` query positions (mean over layers, rounded up, where these differ), `keys_B` visible key positions (mean
    over queries), `head_B` positions whose vocabulary logits were computed; at most `layers` of `layers_total` were
    run, half a layer being half of one, with `planned_B` query positions over all of them where a plan says so; `depth`
    of them follow one another, None for all. Rows were computed `width` positions wide, padding included; 0 where that
    is not known; those of the samples `idle_B`, if any, for nothing. `reused_B` visible positions were computed by
    earlier calls, those of `cached_BL`; None unless traced, `cached_BL` also where layers differ in them. `span` are
    the marks of the device's clock around the call; None unless timed.
    """

    role: Purpose
    sample_B: Tensor
    query_B: Tensor
    keys_B: Tensor
    head_B: Tensor
    layers: float
    layers_total: int
    depth: float | None = None
    width: int = 0
    idle_B: Tensor | None = None
    planned_B: Tensor | None = None
    reused_B: Tensor | None = None
    cached_BL: Tensor | None = None
    span: tuple[Any, Any] | None = None

    @property
    def layer_tokens_B(self) -> Tensor:
        """Query positions, summed over the layers that were run; rounded up where one of them was run by half."""
        if self.planned_B is not None:
            return self.planned_B
        return -(-self.query_B * int(2 * self.layers) // 2)

    @property
    def seconds(self) -> float | None:
        """Time of the call on the device's clock, which must have got there; None unless timed."""
        return None if self.span is None else device_clock.seconds_between(*self.span)


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What a call will have computed, and for which samples; entries of tensors are as in `ForwardRecord`.

    Where a plan runs the layers, it knows `query_B`, which is None here. `reused` tells how often each position of rows
    [B, L] is visible as earlier calls have computed it; without it none is, or those that a plan left out. `idle_B` are
    samples of rows that are computed beside the others for nothing.
    """

    role: Purpose = Role.TARGET
    sample_B: Tensor
    query_B: Tensor | None
    keys_B: Tensor
    head_B: Tensor
    reused: Callable[[], Tensor] | None = None
    idle_B: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Work of one sample, summed over its records (units: calls, rows, tokens, layer-tokens, seconds).

    `nfe` counts calls in which the sample had a row: with those that compute a prompt and give logits, which commit a
    token, and without those that only store it; `nfe_prefill` counts both of these. `nfe_total` counts rows. All work
    is in `query_tokens`, that for the prompt included, which `prefill_tokens` tells apart.
    """

    nfe: int
    nfe_prefill: int
    nfe_cache: int
    nfe_draft: int
    nfe_total: int
    query_tokens: int
    prefill_tokens: int
    layer_tokens: int
    head_tokens: int


@dataclass(frozen=True, kw_only=True)
class Loads:
    """Layers that were loaded for one sample: a call loads each that it runs once, for all of its positions.

    A call of a part of a model loads that part, half a layer being half of one. `layer_loads` are those of all calls,
    whatever model they are of; of these, `critical_depth` counts what can be run at the same time once.
    """

    layer_loads: float
    critical_depth: float


@dataclass(kw_only=True)
class Asked:
    """What a model beside target and draft was asked for one sample: its calls, positions, layers, and their seconds.

    All of it is part of what all calls come to, but of `nfe` and `nfe_draft`. `seconds` are None unless timed.
    """

    calls: int = 0
    query_tokens: int = 0
    layer_loads: float = 0.0
    seconds: float | None = 0.0


@dataclass
class _Work:
    """What is known of a sample's work: its counts and loads, positions of padding, and seconds of its calls."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Counts.__dataclass_fields__, 0))
    loads: float = 0.0
    depth: float = 0.0
    draft_loads: float = 0.0
    draft_queries: int = 0
    draft_seconds: float | None = 0.0
    padded: int = 0
    seconds: float | None = 0.0
    asked: dict[str, Asked] = field(default_factory=dict)

    def charge(self, record: ForwardRecord, query: int, layer_tokens: int, head: int, *, first_row: bool) -> None:
        """Add a row of a call, the sample's first one or another."""
        total, prompt, draft = self.counts, record.role is Role.PREFILL, record.role is Role.DRAFT
        if first_row:
            took = record.seconds
            self.seconds = _sum(self.seconds, took)
            self.draft_seconds = _sum(self.draft_seconds, took) if draft else self.draft_seconds
        total["head_tokens"] += head
        if record.role is Role.HEAD:
            return
        self._load(record, query, draft=draft, first_row=first_row)
        target = isinstance(record.role, Role) and not draft
        total["nfe"] += first_row and target and (head > 0 or not prompt)
        total["nfe_prefill"] += first_row and prompt
        total["nfe_cache"] += first_row and record.role is Role.CACHE
        total["nfe_draft"] += first_row and draft
        total["nfe_total"] += 1
        total["query_tokens"] += query
        total["prefill_tokens"] += query if prompt else 0
        total["layer_tokens"] += layer_tokens
        if record.planned_B is None and record.width:
            self.padded += record.width - query

    def _load(self, record: ForwardRecord, query: int, *, draft: bool, first_row: bool) -> None:
        self.draft_queries += query if draft else 0
        if isinstance(record.role, str):
            self._ask(self.asked.setdefault(record.role, Asked()), record, query, first_row=first_row)
        if not first_row:
            return
        self.loads += record.layers
        self.draft_loads += record.layers if draft else 0
        self.depth += record.layers if record.depth is None else record.depth

    def _ask(self, asked: Asked, record: ForwardRecord, query: int, *, first_row: bool) -> None:
        asked.query_tokens += query
        if first_row:
            asked.calls += 1
            asked.layer_loads += record.layers
            asked.seconds = _sum(asked.seconds, record.seconds)


def _sum(seconds: float | None, more: float | None) -> float | None:
    return None if seconds is None or more is None else seconds + more


def _idle(charge: Charge, added: int) -> Tensor | None:
    """Return the samples of rows that are computed for nothing: rows that a model adds are charged to one after one."""
    if not added or not len(charge.sample_B):
        return charge.idle_B
    sample_B = charge.sample_B.repeat(-(-added // len(charge.sample_B)))[:added]
    return sample_B if charge.idle_B is None else torch.cat([charge.idle_B, sample_B])


@dataclass
class Ledger:
    """Call models and keep one record per call; nothing else may call a model.

    With `timed` the device's clock is read around every call, without waiting for it; with `traced` positions that
    calls reused are recorded. Of methods that draft, `rounds` has what came of it.
    """

    timed: bool = False
    traced: bool = False
    records: list[ForwardRecord] = field(default_factory=list)
    rounds: list[RoundRecord] = field(default_factory=list)
    _work: dict[int, _Work] = field(default_factory=dict)
    _charged: int = 0
    _drafts: dict[int, Drafts] = field(default_factory=dict)
    _added: int = 0

    def call(self, model: LanguageModel, request: ForwardRequest, charge: Charge) -> Tensor:
        """Return what the model answers to a request, and record what it is charged for."""
        rows, width = computed_size(model, request)
        started = device_clock.mark(model.device) if self.timed else None
        logits = model.forward(request)
        plan, query_B, total = request.plan, charge.query_B, model.spec.layers
        part = request.part
        if plan is not None:
            assert query_B is None, "what is computed is the plan's knowledge"
            query_B = -(-plan.layer_tokens_B // total)
        assert query_B is not None
        reused_B, cached_BL = self._reused(charge, query_B, planned=plan is not None)
        self.records.append(
            ForwardRecord(
                role=charge.role,
                sample_B=charge.sample_B,
                query_B=query_B,
                keys_B=charge.keys_B,
                head_B=charge.head_B,
                planned_B=None if plan is None else plan.layer_tokens_B,
                layers=total if part is None else part.loads(total),
                layers_total=total,
                depth=None if part is None else part.depth(total),
                width=width,
                idle_B=_idle(charge, rows - len(request.tokens_BT)),
                reused_B=reused_B,
                cached_BL=cached_BL,
                span=None if started is None else (started, device_clock.mark(model.device)),
            )
        )
        return logits

    def _reused(self, charge: Charge, query_B: Tensor, *, planned: bool) -> tuple[Tensor | None, Tensor | None]:
        if not self.traced:
            return None, None
        if planned:
            return (charge.keys_B - query_B).clamp(min=0), None
        times_BL = query_B.new_zeros(len(query_B), 0) if charge.reused is None else charge.reused()
        return times_BL.sum(1), times_BL > 0

    def note(
        self,
        model: LanguageModel,
        role: Role,
        *,
        samples: Sequence[int],
        query: int,
        keys: float,
        head: int,
        layers: int | None = None,
    ) -> None:
        """Record a call that a model made by itself, through so many layers (None: all): one row for each sample."""
        row_B = torch.ones(len(samples), dtype=torch.int64)
        self.records.append(
            ForwardRecord(
                role=role,
                sample_B=torch.tensor(samples),
                query_B=query * row_B,
                keys_B=keys * row_B,
                head_B=head * row_B,
                layers=model.spec.layers if layers is None else layers,
                layers_total=model.spec.layers,
            )
        )

    def counts(self, samples: Sequence[int]) -> list[Counts]:
        """Return the counts of each of `samples`, in their order."""
        return [Counts(**self._work_of(sample).counts) for sample in samples]

    def loads(self, samples: Sequence[int]) -> list[Loads]:
        """Return the layers that were loaded for each of `samples`."""
        work = [self._work_of(sample) for sample in samples]
        return [Loads(layer_loads=one.loads, critical_depth=one.depth) for one in work]

    def drafting(self, samples: Sequence[int]) -> list[Drafting | None]:
        """Return what came of the drafts of each of `samples`; None for all of them where the method drafts nothing."""
        if not self.rounds:
            return [None] * len(samples)
        add_rounds(self._drafts, self.rounds[self._added :])
        self._added = len(self.rounds)
        work = [self._work_of(sample) for sample in samples]
        return [
            self._drafts.get(sample, Drafts()).drafting(
                query_tokens=one.draft_queries,
                layer_loads=one.draft_loads,
                seconds=one.draft_seconds if self.timed else None,
            )
            for sample, one in zip(samples, work, strict=True)
        ]

    def asked(self, samples: Sequence[int]) -> list[Mapping[str, Asked]]:
        """Return what models beside target and draft were asked for each of `samples`, by the names of their roles."""
        return [self._work_of(sample).asked for sample in samples]

    def padded(self, samples: Sequence[int]) -> list[int]:
        """Return how many positions calls have computed for each of `samples` beside its own: padding."""
        return [self._work_of(sample).padded for sample in samples]

    def seconds_of(self, samples: Sequence[int]) -> list[float | None]:
        """Return the time of the calls in which each of `samples` had a row; None where one was not timed."""
        return [self._work_of(sample).seconds for sample in samples]

    def _work_of(self, sample: int) -> "_Work":
        for record in self.records[self._charged :]:
            columns = (record.sample_B, record.query_B, record.layer_tokens_B, record.head_B)
            seen: set[int] = set()
            for one, query, layer_tokens, head in zip(*(c.tolist() for c in columns), strict=True):
                work = self._work.setdefault(one, _Work())
                work.charge(record, query, layer_tokens, head, first_row=one not in seen)
                seen.add(one)
            for one in [] if record.idle_B is None else record.idle_B.tolist():
                self._work.setdefault(one, _Work()).padded += record.width
        self._charged = len(self.records)
        return self._work.get(sample, _Work())
