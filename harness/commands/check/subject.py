"""What is held to the rules: a method on a model, and what it did with a few prompts of different lengths."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from harness.engine import own_sampler
from harness.engine.autoregressive import loop as draft_verify
from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.diffusion import loop as diffusion
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.families import DRAFT, Method
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.generation import GIVEN, Generation
from harness.engine.shared.model import ForwardRequest, LanguageModel, Models
from harness.engine.shared.prediction import Candidates
from harness.engine.shared.records import Counts, ForwardRecord, Ledger
from harness.models.transformer import Block
from harness.runs.decode_batch import Decoded, decode_stream
from harness.runs.forward_clock import ForwardClock
from harness.runs.measure import Measure, Measurement
from harness.runs.room import Room

LENGTH = 16
PROMPTS: tuple[tuple[int, ...], ...] = tuple((2, 30 + i, *range(76, 76 + i), 4) for i in range(1, 9))
CONSTRAINTS = {0: 40, 9: 41}
"""Tokens that stand in a response from the start, by place."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What came of some prompts decoded together.

    `shown` has an entry for each call that the model saw, with the shape of its tokens; `layer_tokens` too: positions
    that went through its layers, summed over these, None of models whose layers are not ours. `touched` says what was
    changed that must not be, in the `looks` that were taken at a state.
    """

    generations: list[Generation]
    counts: list[Counts]
    shown: list[torch.Size]
    layer_tokens: list[int | None]
    records: list[ForwardRecord]
    touched: list[str]
    looks: int

    @property
    def answers(self) -> list[tuple[object, ...]]:
        """Everything of the rows but their number in the batch."""
        return [
            (one.tokens, one.decided_at, one.idle, one.forced, one.remasked, one.tokens_generated, counts)
            for one, counts in zip(self.generations, self.counts, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A method on a model, and by role those that it asks beside it. `words` are those of the command that shows it."""

    words: str
    method: Method
    model: LanguageModel
    beside: Mapping[str, LanguageModel] = field(default_factory=dict)
    prompts: Sequence[Sequence[int]] = PROMPTS
    length: int = LENGTH

    @cached_property
    def together(self) -> Decoding:
        """All prompts decoded as one batch."""
        return self.decode(range(len(self.prompts)))

    def decode(self, rows: Sequence[int], *, constrained: bool = False) -> Decoding:
        """Decode some of the prompts together, each with its own seed; `constrained`, with tokens that are given."""
        prompts, ledger, watched = [self.prompts[row] for row in rows], Ledger(), _Watched(self.model, self.beside)
        guard = _Guard([list(prompt) for prompt in prompts], CONSTRAINTS if constrained else {})
        with torch.inference_mode(), watched.layers():
            generations = self._decode(watched, prompts, list(rows), ledger, guard)
        return Decoding(
            generations=generations,
            counts=ledger.counts(range(len(prompts))),
            shown=watched.shapes,
            layer_tokens=watched.layer_tokens,
            records=ledger.records,
            touched=list(guard.touched),
            looks=guard.looks,
        )

    def in_turn(self, at_once: int) -> Decoding:
        """Decode all prompts, so many at once: one begins as another ends."""
        parts: list[Decoded] = []
        decode_stream(
            together(self.model, self.beside),
            self.method,
            self.prompts,
            seeds=range(len(self.prompts)),
            gen_length=self.length,
            measure=Measure(name=Measurement.COUNTS),
            room=Room(rows=at_once),
            tell=parts.append,
        )
        rows = [row for part in parts for row in zip(part.rows, part.generations, part.counts, strict=True)]
        _, generations, counts = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
        return replace(self.together, generations=list(generations), counts=list(counts))

    def _decode(
        self, model: "_Watched", prompts: list[Sequence[int]], seeds: list[int], ledger: Ledger, guard: "_Guard"
    ) -> list[Generation]:
        spec, method = model.spec, self.method
        if isinstance(method, DiffusionMethod):
            assert spec.mask_id is not None
            canvas = Canvas.from_prompts(
                prompts,
                gen_length=self.length,
                mask_id=spec.mask_id,
                pad_id=spec.pad_id,
                stop_ids=spec.stop_ids,
                seeds=seeds,
                device=model.device,
                constraints=[guard.given] * len(prompts),
            )
            return diffusion.decode(model, method, canvas, ledger, [guard.after_step])
        if isinstance(method, AutoregressiveMethod):
            return draft_verify.decode(
                together(model, model.beside),
                method,
                prompts,
                gen_length=self.length,
                seeds=seeds,
                ledger=ledger,
                observers=[guard.after_round],
            )
        assert isinstance(method, OwnSamplerMethod)
        return own_sampler.decode(self.model, method, prompts, gen_length=self.length, seeds=seeds, ledger=ledger)


def together(model: LanguageModel, beside: Mapping[str, LanguageModel]) -> LanguageModel:
    """Return what a method is given: a model, and with it those that it asks beside it, if it asks any."""
    others = {role: one for role, one in beside.items() if role != DRAFT}
    return Models(model, beside.get(DRAFT), others) if beside else model


class _Watched(ForwardClock):
    """A model of which is seen, besides, how many positions every call takes through the layers.

    A layer is given what it computes, and nothing that comes from memory; one that is run in parts, by a plan, shows it
    to its feed-forward part. What models beside it are asked is seen among the target's calls, in their order.
    """

    def __init__(self, model: LanguageModel, beside: Mapping[str, LanguageModel] = MappingProxyType({})) -> None:
        super().__init__(model)
        modules = [one for one in (model, *getattr(model, "__dict__", {}).values()) if isinstance(one, torch.nn.Module)]
        self._blocks = [block for one in modules for block in one.modules() if isinstance(block, Block)]
        self._seen, self._whole = 0, False
        self.layer_tokens: list[int | None] = []
        self.beside = {role: _Watched(one) for role, one in beside.items()}
        for one in self.beside.values():
            one.shapes, one.layer_tokens = self.shapes, self.layer_tokens

    @contextmanager
    def layers(self) -> Iterator[None]:
        """Watch the layers for as long as this lasts."""

        def enter(block: torch.nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            _, feeds = named.get("halves", (True, True))
            self._whole = True
            self._seen += arguments[0].shape[:-1].numel() if feeds else 0

        def leave(*_: object) -> None:
            self._whole = False

        def feed(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._seen += 0 if self._whole else arguments[0].shape[:-1].numel()

        hooks = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in self._blocks]
        hooks += [block.register_forward_hook(leave) for block in self._blocks]
        hooks += [block.feed_forward.register_forward_pre_hook(feed) for block in self._blocks]
        try:
            with ExitStack() as watched:
                for one in self.beside.values():
                    watched.enter_context(one.layers())
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return what the model does."""
        before = self._seen
        logits = super().forward(request)
        self.layer_tokens.append(self._seen - before if self._blocks else None)
        return logits


@dataclass
class _Guard:
    """Looks at every state of a decoding for what must not change."""

    prompts: list[list[int]]
    given: dict[int, int]
    touched: dict[str, None] = field(default_factory=dict)
    looks: int = 0

    def after_step(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Look at the canvas behind a step."""
        self._look(after)

    def after_round(self, completed: Round) -> None:
        """Look at the sequences behind a round."""
        self._look(completed.after)

    def _look(self, state: Canvas | Sequences) -> None:
        self.looks += 1
        rows = zip(state.sample_B.tolist(), state.tokens_BL.tolist(), state.decided_at_BL.tolist(), strict=True)
        for sample, tokens, decided_at in rows:
            prompt = self.prompts[sample]
            if tokens[: len(prompt)] != prompt:
                self.touched[f"the prompt of row {sample} was changed"] = None
            for place, token in self.given.items():
                at = len(prompt) + place
                if tokens[at : at + 1] != [token] or decided_at[at] != GIVEN:
                    self.touched[f"the token given at place {place} of row {sample} was changed"] = None
