"""What is held to the rules: a method on a model, and what it did with a few prompts of different lengths."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from harness.engine import diffusion, draft_verify, own_sampler
from harness.engine.canvas import GIVEN, Canvas
from harness.engine.drafting import AutoregressiveMethod, Round, Sequences
from harness.engine.families import Method
from harness.engine.generation import Generation
from harness.engine.method import DiffusionMethod
from harness.engine.model import LanguageModel
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.prediction import Candidates
from harness.engine.records import Counts, ForwardRecord, Ledger
from harness.runs.forward_clock import ForwardClock

LENGTH = 16
PROMPTS: tuple[tuple[int, ...], ...] = tuple((2, 30 + i, *range(76, 76 + i), 4) for i in range(1, 9))
CONSTRAINTS = {0: 40, 9: 41}
"""Tokens that stand in a response from the start, by place."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What came of some prompts decoded together.

    `shown` has an entry for each call that the model saw, `touched` says what was changed that must not be.
    """

    generations: list[Generation]
    counts: list[Counts]
    shown: list[int]
    records: list[ForwardRecord]
    touched: list[str]

    @property
    def answers(self) -> list[tuple[object, ...]]:
        """Everything of the rows but their number in the batch."""
        return [
            (one.tokens, one.decided_at, one.idle, one.forced, one.remasked, one.tokens_generated, counts)
            for one, counts in zip(self.generations, self.counts, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A method on a model. `words` are those of the command that shows it."""

    words: str
    method: Method
    model: LanguageModel
    prompts: Sequence[Sequence[int]] = PROMPTS
    length: int = LENGTH

    @cached_property
    def together(self) -> Decoding:
        """All prompts decoded as one batch."""
        return self.decode(range(len(self.prompts)))

    def decode(self, rows: Sequence[int], *, constrained: bool = False) -> Decoding:
        """Decode some of the prompts together, each with its own seed; `constrained`, with tokens that are given."""
        prompts, ledger, watched = [self.prompts[row] for row in rows], Ledger(), ForwardClock(self.model)
        guard = _Guard([list(prompt) for prompt in prompts], CONSTRAINTS if constrained else {})
        with torch.inference_mode():
            generations = self._decode(watched, prompts, list(rows), ledger, guard)
        return Decoding(
            generations=generations,
            counts=ledger.counts(range(len(prompts))),
            shown=[shape.numel() for shape in watched.shapes],
            records=ledger.records,
            touched=list(guard.touched),
        )

    def _decode(
        self, model: ForwardClock, prompts: list[Sequence[int]], seeds: list[int], ledger: Ledger, guard: "_Guard"
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
                model,
                method,
                prompts,
                gen_length=self.length,
                seeds=seeds,
                ledger=ledger,
                observers=[guard.after_round],
            )
        assert isinstance(method, OwnSamplerMethod)
        return own_sampler.decode(self.model, method, prompts, gen_length=self.length, seeds=seeds, ledger=ledger)


@dataclass
class _Guard:
    """Looks at every state of a decoding for what must not change."""

    prompts: list[list[int]]
    given: dict[int, int]
    touched: dict[str, None] = field(default_factory=dict)

    def after_step(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Look at the canvas behind a step."""
        self._look(after)

    def after_round(self, completed: Round) -> None:
        """Look at the sequences behind a round."""
        self._look(completed.after)

    def _look(self, state: Canvas | Sequences) -> None:
        rows = zip(state.sample_B.tolist(), state.tokens_BL.tolist(), state.decided_at_BL.tolist(), strict=True)
        for sample, tokens, decided_at in rows:
            prompt = self.prompts[sample]
            if tokens[: len(prompt)] != prompt:
                self.touched[f"the prompt of row {sample} was changed"] = None
            for place, token in self.given.items():
                at = len(prompt) + place
                if tokens[at : at + 1] != [token] or decided_at[at] != GIVEN:
                    self.touched[f"the token given at place {place} of row {sample} was changed"] = None
