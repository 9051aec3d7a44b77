"""transformers' own generation, counted from outside: hooks see every call of the modules that it makes.

Its assisted generation takes one prompt at a time, and so do all of these. The first call of the target reads the
prompt together with what was drafted by then. What is known of a call: its positions, those before them in the cache,
the logits that came out, and, of a model that drafts with its first layers, how many it ran.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from harness.engine.own_sampler import Called, Sampled
from harness.engine.shared.generation import Outside
from harness.engine.shared.model import ModelSpec
from harness.engine.shared.randomness import seeded
from harness.engine.shared.records import Role
from harness.engine.shared.shortage import out_of_memory
from harness.errors import DataError
from harness.models.text import one_line

_CACHES = ("cache", "past_key_values")
_FED = ("input_ids", "noise_embeds")
_CONFIDENCE = "assistant_confidence_threshold"
_UNSEEN = Outside(unseen=(), unknown=frozenset({"nfe_idle"}))


@dataclass
class _Calls:
    """Reports calls of a module for one prompt, and keeps how many drafts each call of the target scored: `drafted`.

    Calls of fewer than all layers are drafts, as are all where it is `drafting`.
    """

    inner: Any
    prompt: int
    sample: int
    called: Called
    drafting: bool = False
    drafted: list[int] = field(default_factory=list)
    _past: int = 0

    def __post_init__(self) -> None:
        self.layers = self.inner.config.get_text_config().num_hidden_layers

    def before(self, module: object, arguments: tuple, named: Mapping[str, Any]) -> None:
        """Note what the cache holds."""
        cache = next((named[name] for name in _CACHES if named.get(name) is not None), None)
        self._past = 0 if cache is None else int(cache.get_seq_length())

    def after(self, module: object, arguments: tuple, named: Mapping[str, Any], output: Any) -> None:
        """Report the call."""
        width = (arguments[0] if arguments else next(named[name] for name in _FED if name in named)).shape[1]
        layers = self.inner.config.get_text_config().num_hidden_layers
        role = Role.DRAFT if self.drafting or layers < self.layers else self._role(width)
        if (context := named.get("context_hidden_states")) is not None:
            # A block sees all of the text and of itself; the target's head reads it but for the token that stands.
            keys, head = self._past + context.shape[1] + width, width - 1
        else:
            keys, head = self._past + (width + 1) / 2, output.logits.shape[1]
        self.called(role, [self.sample], query=width, keys=keys, head=head, layers=layers)

    def _role(self, width: int) -> Role:
        first = not self.drafted
        self.drafted.append(width - (self.prompt if first else 1))
        if first:
            return Role.PREFILL
        return Role.VERIFY if width > 1 else Role.TARGET

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the module for as long as this lasts."""
        hooks = [
            self.inner.register_forward_pre_hook(self.before, with_kwargs=True),
            self.inner.register_forward_hook(self.after, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            # An early exit that fails leaves the number of its layers behind.
            self.inner.config.get_text_config().num_hidden_layers = self.layers


@dataclass
class _Rounds:
    """Is asked behind every round whether to stop, which it never says, and notes how much there was."""

    lengths: list[int] = field(default_factory=list)

    def __call__(self, input_ids: torch.Tensor, scores: object, **others: object) -> torch.Tensor:
        self.lengths.append(input_ids.shape[1])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def accepted(self) -> list[int]:
        """Return how many drafts stood in every round behind the first, which the target's own token ended."""
        return [after - before - 1 for before, after in pairwise(self.lengths)]

    def decided_at(self, prompt: int, count: int) -> tuple[int, ...]:
        """Return the round of every token of the response, from 0."""
        ends = [min(length - prompt, count) for length in self.lengths]
        return tuple(next(number for number, end in enumerate(ends) if place < end) for place in range(count))


def generate(
    inner: Any,
    spec: ModelSpec,
    prompts: Sequence[Sequence[int]],
    *,
    gen_length: int,
    seeds: Sequence[int],
    settings: Mapping[str, object],
    called: Called,
    draft: Any = None,
) -> list[Sampled]:
    """Return what `inner.generate` answers greedily to each prompt, with `settings` on top.

    `draft` is the module of the model that drafts, if there is one. Raise DataError, in one line, for what the class
    cannot do; not for want of memory, which is the caller's to mend.
    """
    draft = _twin(inner) if draft is inner else draft
    return [
        _of_prompt(inner, spec, list(prompt), sample, seed, gen_length, dict(settings), called, draft)
        for sample, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]


def _twin(inner: Any) -> Any:
    """Return a module with the same weights: hooks and schedules of one that drafts for itself are told apart."""
    weights = [*inner.parameters(), *inner.buffers()]
    return copy.deepcopy(inner, {id(weight): weight for weight in weights})


def _of_prompt(
    inner: Any,
    spec: ModelSpec,
    prompt: list[int],
    sample: int,
    seed: int,
    gen_length: int,
    settings: dict[str, object],
    called: Called,
    draft: Any,
) -> Sampled:
    calls = _Calls(inner, len(prompt), sample, called)
    drafting = nullcontext() if draft is None else _Calls(draft, len(prompt), sample, called, drafting=True).watched()
    rounds, ids = _Rounds(), torch.tensor([prompt], device=inner.device)
    lent, drafts = {"assistant_model": draft} if draft is not None else {}, bool(settings)
    with seeded(seed, inner.device), calls.watched(), drafting, _lent(inner if draft is None else draft, settings):
        try:
            said = inner.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=gen_length,
                eos_token_id=list(spec.stop_ids),
                pad_token_id=spec.pad_id,
                stopping_criteria=[rounds],
                **settings,
                **lent,
            )
        # Classes that run all of their layers whatever the config says fail at an exit with an IndexError.
        except (ValueError, TypeError, RuntimeError, AttributeError, LookupError) as error:
            if out_of_memory(error):
                raise
            raise DataError(f"model={spec.name}: transformers' generate: {one_line(error)}") from error
    tokens = said[0, len(prompt) :].tolist()
    return Sampled(
        tokens=tokens,
        outside=_UNSEEN,
        decided_at=rounds.decided_at(len(prompt), len(tokens)),
        tokens_generated=len(calls.drafted) + sum(calls.drafted),
        rounds=[*zip(calls.drafted[1:], rounds.accepted(), strict=True)] if drafts else None,
    )


@contextmanager
def _lent(assistant: Any, settings: dict[str, object]) -> Iterator[None]:
    """Have the model that drafts, which may be the target, know how much to draft while it answers one prompt.

    transformers reads that from the assistant's own config, and its schedules write there: what is lent is taken back,
    so that a prompt's answer does not depend on those before it.
    """
    kept = getattr(assistant, "generation_config", None)
    if kept is None:
        # An assistant that generates nothing by itself has no such config.
        yield
        return
    assistant.generation_config = copy.deepcopy(kept)
    for name in [name for name in settings if name.startswith("num_assistant") or name == _CONFIDENCE]:
        setattr(assistant.generation_config, name, settings.pop(name))
    try:
        yield
    finally:
        assistant.generation_config = kept
