"""Models that bring a sampler of their own: the sampler decodes, this loop seeds, counts and collects.

For models whose decoding cannot be taken apart into the policies of the other loops. Calls are recorded one by one as
the model reports them, with the same counter. Whether rows depend on each other is up to the sampler.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, runtime_checkable

from harness.engine.shared.drafts import of_chains
from harness.engine.shared.generation import Generation, Outside
from harness.engine.shared.model import ForwardRequest, LanguageModel, Models, ModelSpec
from harness.engine.shared.records import Ledger, Role


class Called(Protocol):
    """Is told of every finished call."""

    def __call__(
        self, role: Role, samples: Sequence[int], *, query: int, keys: float, head: int, layers: int | None = None
    ) -> None:
        """Note a call with one row for each of `samples`, places in the list of prompts.

        Each row had `query` query positions, which see `keys` keys (mean), and `head` of them logits. A call that
        opens a canvas is PREFILL (the prompt) or CACHE (the canvas before); those that refine it are TARGET. `layers`
        were run (None: all of the model, of the one that drafts in a DRAFT).
        """
        ...


class Sampler(Protocol):
    """Parameters of a model's own sampler."""

    def settings(self) -> Mapping[str, object]:
        """Return them by the names that the model knows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The response to one prompt; `outside` where the calls do not tell everything about it.

    `decided_at` and `tokens_generated` are those of a generation, where there are no canvases to tell them. `rounds`
    of a sampler that drafts are those behind the prompt's call: how many tokens were drafted, and how many stood.
    """

    tokens: Sequence[int]
    outside: Outside | None = None
    decided_at: tuple[int, ...] = ()
    tokens_generated: int = 0
    rounds: Sequence[tuple[int, int]] | None = None


@runtime_checkable
class SamplingModel(Protocol):
    """A model that can decode by itself."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        settings: Mapping[str, object],
        called: Called,
    ) -> list[Sampled]:
        """Return the responses in the order of the prompts; the draws of a row depend on its seed only.

        A model with canvases (`spec.block_length`) reports the calls of a row canvas by canvas. Where another model
        drafts, `settings` has it as `draft`.
        """
        ...


class SamplesOnly:
    """What a model says, of which nothing but `sample` can be used, to whoever would call it or keep its K/V."""

    spec: ModelSpec

    def new_store(self, rows: int, slots: int) -> NoReturn:
        """Refuse: the sampler keeps its own."""
        raise TypeError(f"model {self.spec.name} decodes with its own sampler and no other")

    def forward(self, request: ForwardRequest) -> NoReturn:
        """Refuse: calls are the sampler's."""
        raise TypeError(f"model {self.spec.name} decodes with its own sampler and no other")


@dataclass(frozen=True, kw_only=True)
class OwnSamplerMethod:
    """A method that leaves decoding to the model."""

    sampler: Sampler


@dataclass
class _Row:
    """The canvases of one row: `steps` that refined one, and the last one of each canvas, from 0."""

    steps: int = 0
    closed_at: list[int] = field(default_factory=list)
    first_call: int = -1

    def note(self, role: Role, call: int) -> None:
        if role is not Role.TARGET:
            self.closed_at.append(self.steps)
            return
        self.closed_at[-1], self.steps = self.steps, self.steps + 1
        self.first_call = call if len(self.closed_at) == 1 else self.first_call


def decode(
    model: LanguageModel,
    method: OwnSamplerMethod,
    prompts: Sequence[Sequence[int]],
    *,
    gen_length: int,
    seeds: Sequence[int],
    ledger: Ledger,
    on_progress: Callable[[int], None] = lambda calls: None,
) -> list[Generation]:
    """Decode every prompt and return the generations in order; a position is decided when its canvas is complete.

    `tokens_generated` counts every position of a canvas in every call, since the sampler draws all of them anew.
    `on_progress` is told after each call how many there were.
    """
    asked = model.target if isinstance(model, Models) else model
    settings = {**method.sampler.settings(), **({"draft": model.draft} if isinstance(model, Models) else {})}
    assert isinstance(asked, SamplingModel)
    width, rows = model.spec.block_length, [_Row() for _ in prompts]
    calls = 0

    def called(
        role: Role, samples: Sequence[int], *, query: int, keys: float, head: int, layers: int | None = None
    ) -> None:
        nonlocal calls
        ran = model.draft if isinstance(model, Models) and role is Role.DRAFT else asked
        ledger.note(ran, role, samples=samples, query=query, keys=keys, head=head, layers=layers)
        if width is not None:
            for sample in samples:
                rows[sample].note(role, calls)
        calls += 1
        on_progress(calls)

    made = asked.sample(prompts, gen_length=gen_length, seeds=seeds, settings=settings, called=called)
    ledger.rounds += [of_chains(sample, one.rounds) for sample, one in enumerate(made) if one.rounds is not None]
    return [_generation(sample, one, rows[sample], width) for sample, one in enumerate(made)]


def _generation(sample: int, made: Sampled, row: _Row, width: int | None) -> Generation:
    closed_at = (
        made.decided_at if width is None else (row.closed_at[place // width] for place in range(len(made.tokens)))
    )
    return Generation(
        sample=sample,
        tokens=tuple(made.tokens),
        decided_at=tuple(closed_at),
        idle=0,
        forced=0,
        remasked=0,
        tokens_generated=row.steps * (width or 0) or made.tokens_generated,
        first_call=0 if made.decided_at else row.first_call,
        outside=made.outside,
    )
