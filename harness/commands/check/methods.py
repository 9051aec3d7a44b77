"""Methods and caches, on every kind of model that they are for, as what is tried of them."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cache, partial

import torch

from harness.commands.check.command import Trial
from harness.commands.check.rules import RULES, closed_form, unchanged
from harness.commands.check.subject import LENGTH, PROMPTS, Subject
from harness.config import matrix
from harness.config.build import build_method, load_model
from harness.config.catalogue import names, nearest, read
from harness.config.compatibility import reason_against
from harness.config.composition import compose
from harness.engine.autoregressive.layers import RoutesExperts
from harness.engine.autoregressive.method import AutoregressiveMethod, EmptyDrafter
from harness.engine.diffusion.fit import refuse_kind
from harness.engine.diffusion.method import DiffusionMethod, NoCache, Unverified
from harness.engine.diffusion.needs import gives_of
from harness.engine.families import Method, asks
from harness.engine.shared.model import LanguageModel, ModelKind, Models
from harness.errors import ConfigError
from harness.models import random as random_models
from harness.models import random_assistant

MODELS = {"causal": "tiny_ar", "masked_diffusion": "random_mdm", "block_diffusion": "tiny_block"}
"""The option of each kind that a method is composed with."""

_BLOCK = 8
_LOOKS = ("progress", "mask", "batch", "given")
"""What is tried again beside every cache."""

_DECODERS = ("threshold", "llada", "sdar")
_ROWS = 4
_EXPERTS = 4


@cache
def model(kind: str, *, experts: int = 0) -> LanguageModel:
    """Make a random-weight model in float64, where a batch cannot change an answer by rounding."""
    block = _BLOCK if kind == "block_diffusion" else None
    # Part of a causal model may be skipped, and something has to be left.
    layers = 4 if kind == "causal" else 2
    shape = {"layers": layers, "max_length": 64, "block_length": block, "experts": experts}
    return random_models.load(name="random", kind=kind, seed=3, dtype=torch.float64, **shape).model


def model_for(method: Method, kind: str) -> LanguageModel:
    """Return a random model of a kind, with mixtures where a method chooses among their experts."""
    policies = [getattr(method, slot.name) for slot in fields(method)]
    return model(kind, experts=_EXPERTS if any(isinstance(one, RoutesExperts) for one in policies) else 0)


def beside_for(method: Method) -> dict[str, LanguageModel]:
    """Return random models that a method asks beside its target, by role."""
    return {role: _smaller(min(kind.value for kind in kinds)) for role, kinds in asks(method).items()}


@cache
def _smaller(kind: str) -> LanguageModel:
    if kind == ModelKind.ASSISTANT.value:
        shape = {"width": 32, "reads": (0, 3), "block_size": 4, "max_length": 64}
        return random_assistant.load(name="draft", dtype=torch.float64, **shape).model
    # Of the same seed, and so flat that its best tokens are the target's at times: some drafts stand, some fall.
    return random_models.load(
        name="draft", kind=kind, seed=3, max_length=64, logit_deviation=1.0, dtype=torch.float64
    ).model


def built(name: str, kind: str, overrides: Sequence[str], length: int = LENGTH) -> Method:
    """Build a method for models of a kind, in blocks of 8 where it has blocks and no other size is asked for."""
    sized = any(override.startswith("method.block_length=") for override in overrides)
    block = ["method.block_length=8"] if "block_length" in read("method", name) and not sized else []
    made = build_method(
        compose([f"model={MODELS[kind]}", f"method={name}", *block, *overrides, f"gen_length={length}"])
    )
    if isinstance(made, DiffusionMethod):
        refuse_kind(made, ModelKind(kind))
    return made


def subject(name: str, kind: str, overrides: Sequence[str] = ()) -> Subject:
    """Return a method on a random model of a kind."""
    words = " ".join([f"method={name}", *overrides, f"kind={kind}"])
    made = built(name, kind, overrides)
    return Subject(words=words, method=made, model=model_for(made, kind), beside=beside_for(made))


def of_method(name: str, overrides: list[str], kind: str | None) -> Iterator[Trial]:
    """Yield what is tried of a method: the rules, what it costs, FreeDave and every cache that it is not refused."""
    if name not in names("method"):
        compose([f"method={name}"])  # says what is wrong with the name
    option = read("method", name)
    claimed = [one for one in option["models"] if kind in (None, one)]
    if not claimed:
        raise ConfigError(f"kind={kind}: method={name} does not claim it; {nearest(str(kind), option['models'])}")
    if chosen := [one for one in overrides if one.startswith("model=")]:
        yield from _on_model(name, [one for one in overrides if one not in chosen], chosen[0])
        return
    for one in claimed:
        if one not in MODELS:
            raise ConfigError(f"method={name}: there is no small model that is {one}; name yours with model=NAME")
        base = subject(name, one, overrides)
        yield from _rules(base, RULES)
        for form in option.get("closed_form", []):
            knobs = [*overrides, *(f"method.{knob}" for knob in str(form["knobs"]).split())]
            yield Trial(
                rule="counting",
                words=" ".join([f"method={name}", *knobs, f"kind={one}"]),
                run=partial(_cost, name, one, knobs, form["calls"]),
            )
        if option["lossless"] and not overrides:
            yield from _undrafted(base)
        if isinstance(base.method, DiffusionMethod):
            yield from _beside(base, base.method, ModelKind(one))


def _cost(name: str, kind: str, knobs: list[str], calls: int | list[int]) -> Iterator[str]:
    made = replace(subject(name, kind, knobs), prompts=[tuple(range(2, 10))])
    yield from closed_form(made, calls)


def _undrafted(base: Subject) -> Iterator[Trial]:
    """Yield the comparison of a method that says that it is lossless with the same one that drafts nothing."""
    method = base.method
    if isinstance(method, DiffusionMethod) and method.drafts:
        plain: Method = replace(method, verifier=Unverified())
    elif isinstance(method, AutoregressiveMethod) and not isinstance(method.drafter, EmptyDrafter):
        plain = replace(method, drafter=EmptyDrafter())
    else:
        return
    yield Trial(rule="lossless", words=base.words, run=partial(unchanged, replace(base, method=plain), base))


def _on_model(name: str, overrides: list[str], chosen: str) -> Iterator[Trial]:
    cfg = compose([chosen, f"method={name}", *overrides, "device.dtype=float64"])
    loaded, method = load_model(cfg), build_method(cfg)
    target = loaded.model.target if isinstance(loaded.model, Models) else loaded.model
    beside = beside_for(method) | {role: one.model for role, one in loaded.beside.items()}
    words = f"method={name} {' '.join([*overrides, chosen])}"
    made = Subject(words=words, method=method, model=target, beside=beside, length=int(cfg.gen_length))
    yield from _rules(made, RULES)


def _rules(made: Subject, rules: Sequence[str] | dict, alone: str | None = None) -> Iterator[Trial]:
    yield from (Trial(rule=rule, words=made.words, run=partial(RULES[rule], made), alone=alone) for rule in rules)


def _beside(base: Subject, method: DiffusionMethod, kind: ModelKind) -> Iterator[Trial]:
    """Yield what is tried beside other parts: what is refused is not claimed."""
    drafts = matrix.policies("verifier")["freedave"]()
    if isinstance(method.verifier, Unverified) and reason_against(method, kind, verifier=drafts) is None:
        drafted = _variant(base, "method/verifier=freedave", replace(method, verifier=drafts))
        yield Trial(rule="freedave", words=drafted.words, run=partial(unchanged, base, drafted))
    if not isinstance(method.cache, NoCache):
        return
    for name, one in matrix.caches().items():
        if not isinstance(one, NoCache) and reason_against(method, kind, cache=one) is None:
            cached = _variant(base, f"method/cache={name}", replace(method, cache=one))
            yield from _rules(replace(cached, prompts=PROMPTS[:_ROWS]), _LOOKS, base.words)


def _variant(base: Subject, override: str, method: Method) -> Subject:
    method_word, *rest = base.words.split()
    return replace(base, words=" ".join([method_word, override, *rest]), method=method)


def of_cache(name: str, overrides: list[str], kind: str | None) -> Iterator[Trial]:
    """Yield what is tried of a cache: the rules for methods that may have it, and equal answers where it says so."""
    chosen = [f"method/cache={name}", *overrides]
    reasons = []
    for decoder in _DECODERS:
        for one in (one for one in read("method", decoder)["models"] if kind in (None, one)):
            try:
                made = subject(decoder, one, chosen)
            except ValueError as error:
                reasons.append(str(error))
                continue
            yield from _rules(made, RULES)
            assert isinstance(made.method, DiffusionMethod)
            cached = made.method.cache
            if gives_of(cached).any_draft:
                base = replace(made, method=replace(made.method, cache=NoCache()))
                yield Trial(rule="exact", words=made.words, run=partial(unchanged, base, made))
    if len(reasons) == sum(len(read("method", decoder)["models"]) for decoder in _DECODERS):
        raise ConfigError(
            f"cache={name}: fits none of {', '.join(_DECODERS)} ({reasons[0]}); check method=NAME with it"
        )
