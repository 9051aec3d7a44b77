"""Methods that leave decoding to a library: refusal of models that are not its own, before one is loaded."""

from typing import Any

from omegaconf import DictConfig

from harness.config.build import user_key
from harness.config.catalogue import describe, read
from harness.config.composition import plain
from harness.config.located import loader_module
from harness.config.words import refused_field
from harness.engine.families import DRAFT, Method, asks
from harness.engine.own_sampler import OwnSamplerMethod
from harness.errors import ConfigError, FieldError


def refuse_unfit(cfg: DictConfig, method: Method) -> None:
    """Raise ConfigError where a sampler is a library's (`library`) and a model is not loaded by it (`LIBRARY`).

    And for layers that the model does not have, where its files tell how many there are.
    """
    library = getattr(method.sampler, "library", None) if isinstance(method, OwnSamplerMethod) else None
    if library is None:
        return
    assert isinstance(method, OwnSamplerMethod)
    fitting = {"model": cfg.method.models, "draft": [kind.value for kind in asks(method).get(DRAFT, ())]}
    for section, key in (("model", "model"), ("draft", "model@draft")):
        if cfg[section] is not None and _library(plain(cfg, section)) != library:
            names = [str(one["name"]) for one in describe("model") if one["kind"] in fitting[section]]
            known = [name for name in names if _library(read("model", name)) == library]
            raise ConfigError(
                f"{key}={cfg[section].name}: method={cfg.method.name} is {library}' own generation, and this model is "
                f"not one of its classes; use {', '.join(known)}"
            )
    fit_layers, model = getattr(method.sampler, "fit_layers", None), plain(cfg, "model")
    layers = loader_module(model).layers_of(model) if fit_layers is not None else None
    if fit_layers is None or layers is None:
        return
    try:
        fit_layers(layers)
    except FieldError as error:
        said = refused_field(user_key(cfg.method, "sampler", error.field), error)
        raise ConfigError(f"{said} (model={model['name']})") from error


def _library(model: dict[str, Any]) -> str | None:
    return getattr(loader_module(model), "LIBRARY", None)
