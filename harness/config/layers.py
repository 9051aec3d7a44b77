"""Methods that run a part of a model: refusal of models without parts, and of layers that one does not have."""

from typing import Any

from omegaconf import DictConfig

from harness.config.build import user_key
from harness.config.catalogue import describe, read
from harness.config.composition import plain
from harness.config.located import loader_module
from harness.config.words import refused_field
from harness.engine.autoregressive.layers import RoutesExperts, TapsForDraft
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.parts import running_parts
from harness.engine.families import Method
from harness.errors import ConfigError, FieldError


def refuse_unfit(cfg: DictConfig, method: Method) -> None:
    """Raise ConfigError where a method runs a part of a model that has none, or layers that it does not have.

    A loader of models that have parts says so by a function `layers_of(model)` beside it, which returns the number of a
    model's layers, or None where that is known once it is loaded. So does `experts_of(model)`, if it is there.
    """
    if not isinstance(method, AutoregressiveMethod):
        return
    if isinstance(method.drafter, TapsForDraft) and not _has_parts(target := plain(cfg, "model")):
        told = f"shows no states of its layers, and method={cfg.method.name} drafts from them"
        raise ConfigError(f"model={target['name']}: {told}; use {_with_parts(cfg)}")
    for slot, policy in running_parts(method):
        section, key = ("draft", "model@draft") if policy.of_draft else ("model", "model")
        if cfg[section] is None:
            continue
        model = plain(cfg, section)
        if not _has_parts(model):
            raise ConfigError(
                f"{key}={model['name']}: runs all of its layers or none, and "
                f"method={cfg.method.name} has it run a part of them; use {_with_parts(cfg)}"
            )
        layers, experts = loader_module(model).layers_of(model), _experts_of(model)
        try:
            if layers is not None:
                policy.fit_layers(layers)
            if isinstance(policy, RoutesExperts) and experts is not None:
                policy.fit_experts(experts)
        except FieldError as error:
            said = refused_field(user_key(cfg.method, slot, error.field), error)
            raise ConfigError(f"{said} ({key}={model['name']})") from error


def _with_parts(cfg: DictConfig) -> str:
    fitting = [str(one["name"]) for one in describe("model") if one["kind"] in cfg.method.models]
    return ", ".join(name for name in fitting if _has_parts(read("model", name)))


def _has_parts(model: dict[str, Any]) -> bool:
    return hasattr(loader_module(model), "layers_of")


def _experts_of(model: dict[str, Any]) -> int | None:
    experts_of = getattr(loader_module(model), "experts_of", None)
    return None if experts_of is None else experts_of(model)
