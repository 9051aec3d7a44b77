"""Models that bring a sampler of their own: the sampler decodes, this loop seeds, counts and collects.

For models whose decoding cannot be taken apart into the policies of the other loops. Calls are recorded one by one as
the model reports them, with the same counter; rows are decoded one after the other, so that none depends on another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from harness.engine.generation import Generation
from harness.engine.model import LanguageModel
from harness.engine.records import Ledger, Role

Called = Callable[[Role, int, float, int], None]
"""Is told of a finished call: its role, its query positions, the keys that each sees (mean), and positions with logits.

A call that opens a canvas is PREFILL (the prompt) or CACHE (the canvas before); those that refine it are TARGET.
"""


class Sampler(Protocol):
    """Parameters of a model's own sampler."""

    def settings(self) -> Mapping[str, object]:
        """Return them by the names that the model knows."""
        ...


@runtime_checkable
class SamplingModel(Protocol):
    """A model that can decode by itself."""

    def sample(
        self, prompt: Sequence[int], *, gen_length: int, seed: int, settings: Mapping[str, object], called: Called
    ) -> list[int]:
        """Return the response to one prompt, canvas by canvas of `spec.block_length`; draws depend on `seed` only."""
        ...


@dataclass(frozen=True, kw_only=True)
class OwnSamplerMethod:
    """A method that leaves decoding to the model."""

    sampler: Sampler


@dataclass
class _Row:
    """The calls of one row: `steps` that refined a canvas, and the last one of each canvas, from 0."""

    model: LanguageModel
    ledger: Ledger
    sample: int
    calls: int
    on_call: Callable[[int], None]
    steps: int = 0
    closed_at: list[int] = field(default_factory=list)
    first_call: int = -1

    def __call__(self, role: Role, query: int, keys: float, head: int) -> None:
        self.ledger.note(self.model, role, sample=self.sample, query=query, keys=keys, head=head)
        if role is not Role.TARGET:
            self.closed_at.append(self.steps)
        else:
            self.closed_at[-1], self.steps = self.steps, self.steps + 1
            self.first_call = self.calls if len(self.closed_at) == 1 else self.first_call
        self.calls += 1
        self.on_call(self.calls)


def decode(
    model: LanguageModel,
    method: OwnSamplerMethod,
    prompts: Sequence[Sequence[int]],
    *,
    gen_length: int,
    seeds: Sequence[int],
    ledger: Ledger,
    on_progress: Callable[[int, int], None] = lambda finished, calls: None,
) -> list[Generation]:
    """Decode every prompt and return the generations in order; a position is decided when its canvas is complete.

    `tokens_generated` counts every position of a canvas in every call, since the sampler draws all of them anew.
    """
    assert isinstance(model, SamplingModel) and model.spec.block_length is not None
    width, settings = model.spec.block_length, method.sampler.settings()
    results: list[Generation] = []
    calls = 0
    for sample, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        row = _Row(model, ledger, sample, calls, lambda made: on_progress(len(results), made))
        tokens = model.sample(prompt, gen_length=gen_length, seed=seed, settings=settings, called=row)
        calls = row.calls
        results.append(
            Generation(
                sample=sample,
                tokens=tuple(tokens),
                decided_at=tuple(row.closed_at[place // width] for place in range(len(tokens))),
                idle=0,
                forced=0,
                remasked=0,
                tokens_generated=row.steps * width,
                first_call=row.first_call,
            )
        )
    return results
