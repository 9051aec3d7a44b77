"""The families of methods, each with the loop that runs it."""

from harness.engine.autoregressive.drafting import AsksDraft, AutoregressiveMethod
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.model import ModelKind

Method = DiffusionMethod | AutoregressiveMethod | OwnSamplerMethod
METHOD_CLASSES: dict[str, type] = {
    "diffusion": DiffusionMethod,
    "autoregressive": AutoregressiveMethod,
    "own_sampler": OwnSamplerMethod,
}


def asks(method: Method) -> frozenset[ModelKind]:
    """Return the kinds of models of which a method asks one for drafts, beside its target; most ask none."""
    if isinstance(method, OwnSamplerMethod):
        return getattr(method.sampler, "asks", frozenset())
    drafter = method.drafter if isinstance(method, AutoregressiveMethod) else None
    return drafter.asks if isinstance(drafter, AsksDraft) else frozenset()
