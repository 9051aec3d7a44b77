"""The families of methods, each with the loop that runs it."""

from collections.abc import Mapping
from dataclasses import fields

from harness.engine.autoregressive.asking import AsksOthers
from harness.engine.autoregressive.drafting import AsksDraft
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.model import ModelKind

Method = DiffusionMethod | AutoregressiveMethod | OwnSamplerMethod
METHOD_CLASSES: dict[str, type] = {
    "diffusion": DiffusionMethod,
    "autoregressive": AutoregressiveMethod,
    "own_sampler": OwnSamplerMethod,
}


DRAFT = "draft"
"""The role of the model that drafts."""


def asks(method: Method) -> Mapping[str, frozenset[ModelKind]]:
    """Return the roles of the models that a method asks beside its target, each with the kinds that will do."""
    if isinstance(method, OwnSamplerMethod):
        kinds = getattr(method.sampler, "asks", None)
        return {DRAFT: kinds} if kinds else {}
    if not isinstance(method, AutoregressiveMethod):
        return {}
    asked = {DRAFT: method.drafter.asks} if isinstance(method.drafter, AsksDraft) else {}
    for slot in fields(method):
        if isinstance(policy := getattr(method, slot.name), AsksOthers):
            asked |= policy.asks_others
    return asked
