"""From a config to the objects it describes: method, task and model."""

import copy
import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, astuple, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import drafts, words
from harness.config.composition import plain
from harness.config.content import checkpoint_digest, checkpoint_folder
from harness.config.knobs import as_written, knob_of, refuse_unread
from harness.config.located import class_at, function_at, refuse_lacking
from harness.config.options import schema
from harness.config.overrides import tells_as_typed
from harness.config.values import Values
from harness.engine.families import DRAFT, METHOD_CLASSES, Method
from harness.engine.shared.model import Models
from harness.errors import ConfigError, FieldError
from harness.models.pool import LoadedModel
from harness.models.pool import load_model as from_pool
from tasks.task import Task

_MANY: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}
_PLAIN: dict[Any, str] = {int: "a whole number", str: "a text", bool: "true or false"}


class Builder:
    """Builds methods and tasks, and looks at checkpoints, once for equal configs: the jobs of a command share one."""

    def __init__(self) -> None:
        self.values = Values()
        self._methods: dict[str, Method] = {}
        self._tasks: dict[str, Task] = {}
        self._checkpoints: dict[Path, str] = {}

    def method(self, cfg: DictConfig) -> Method:
        """Return the method of a config, as `build_method` does; it is nobody else's."""
        key = self.values.told(cfg, "method")
        if key is None or key not in self._methods:
            made = build_method(cfg)
            if key is None:
                return made
            self._methods[key] = made
        else:
            refuse_unread(cfg, self.values.raw(cfg, "method"))
        return copy.deepcopy(self._methods[key])

    def task(self, cfg: DictConfig) -> Task:
        """Return the task of a config, as `build_task` does; its rows are read once."""
        key = self.values.told(cfg, "task")
        if key is None:
            return build_task(cfg)
        if key not in self._tasks:
            self._tasks[key] = build_task(cfg)
        return self._tasks[key]

    def models(self, cfg: DictConfig) -> dict[str, dict[str, Any]]:
        """Return the models of a config as plain values, by role; none is to be written to."""
        return {role: self.values.section(cfg, key) for role, key in drafts.ROLES.items() if cfg.get(key) is not None}

    def checkpoint(self, model: dict[str, Any]) -> str | None:
        """Return the digest of what a model's loader reads, None for a model without a checkpoint."""
        folder = checkpoint_folder(model)
        if folder is None or not folder.exists():
            return None
        if folder not in self._checkpoints:
            self._checkpoints[folder] = checkpoint_digest(folder)
        return self._checkpoints[folder]


@tells_as_typed
def build_method(cfg: DictConfig) -> Method:
    """Return the method of a config; raise ConfigError naming the knob whose value cannot be used, or is not read."""
    refuse_unread(cfg, as_written(cfg.method))
    method = cfg.method
    made = METHOD_CLASSES[method.family]
    policies = {f.name: _policy(method, f.name) for f in fields(made) if f.name in method}
    if lacking := [slot.name for slot in fields(made) if slot.name not in policies and _needs_value(slot)]:
        raise ConfigError(f"method={method.name}: its defaults choose no {', '.join(lacking)}")
    for slot, interface in get_type_hints(made).items():
        if slot in policies:
            refuse_lacking(f"method.{slot}", policies[slot], interface)
    try:
        return made(**policies)
    except ValueError as error:
        raise ConfigError(f"method={method.name}: {error}") from error


def _needs_value(slot: Field[Any]) -> bool:
    return slot.default is MISSING and slot.default_factory is MISSING


def _policy(method: DictConfig, slot: str) -> object:
    node, values = method[slot], {}
    for name in node:
        try:
            values[name] = _plain(node[name])
        except OmegaConfBaseException as error:
            raise words.unreadable(method, user_key(method, slot, str(name)), error) from error
    if "_target_" not in values:
        raise ConfigError(f"method.{slot}: no policy is chosen; name one in the method's defaults, or its _target_")
    cls = class_at(f"method.{slot}", values)
    values.pop("_target_")
    _refuse_other_lists(method, slot, cls, values)
    try:
        return cls(**values)
    except FieldError as error:
        raise words.refused_field(user_key(method, slot, error.field), error) from error
    except TypeError as error:
        raise ConfigError(f"method.{slot}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"method.{slot}: {error}") from error


def _refuse_other_lists(method: DictConfig, slot: str, cls: type, values: Mapping[str, object]) -> None:
    """Raise ConfigError for what is no list of the type that a policy's field says; OmegaConf looks at no entry."""
    for name, hint in get_type_hints(cls).items():
        kind = get_args(hint)[0] if get_origin(hint) is tuple and get_args(hint)[1:] == (...,) else None
        if kind not in _MANY or name not in values:
            continue
        value, allowed = values[name], (int, float) if kind is float else (kind,)
        if not isinstance(value, list | tuple) or any(type(one) not in allowed for one in value):
            raise words.refused(user_key(method, slot, name), value, f"must be a list of {_MANY[kind]}, written [a,b]")


def _plain(value: object) -> object:
    """Return lists and dictionaries as Python's own; anything else as it is."""
    if OmegaConf.get_type(value) in (dict, list, tuple):
        return OmegaConf.to_container(value, resolve=True)
    return value


def user_key(method: DictConfig, slot: str, name: str) -> str:
    """Return the key by which a user sets the field `name` of a policy: a knob, where one is wired to it."""
    knob = knob_of(method, slot, name)
    return f"method.{knob}" if knob else f"method.{slot}.{name}"


@tells_as_typed
def build_task(cfg: DictConfig) -> Task:
    """Return the task of a config; raise ConfigError naming the key whose value has another type than the task's."""
    target = class_at("task", cfg.task)
    if not is_dataclass(target):
        raise ConfigError(
            f"task._target_={cfg.task['_target_']}: must be a dataclass, whose fields are the task's keys"
        )
    given = OmegaConf.to_container(cfg.task, resolve=True)
    try:
        values = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema(target)), given))
    except OmegaConfBaseException as error:
        key = error.full_key or "task"
        raise ConfigError(f"task.{key}={OmegaConf.select(cfg.task, key)}: {words.reason(error)}") from error
    assert isinstance(values, dict)
    try:
        made: Any = target(**{str(k): v for k, v in values.items() if k != "_target_"})
    except TypeError as error:
        raise ConfigError(f"task={cfg.task.name}: {error}") from error
    refuse_lacking("task", made, Task)
    return made


def device_of(cfg: DictConfig) -> str:
    """Return the torch device that a config asks for; `auto` takes CUDA where there is a device."""
    if cfg.device.device != "auto":
        return cfg.device.device
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Calls:
    """How a config has its models called: with few shapes (`harness.models.graphs`), and these compiled."""

    static: bool
    compiled: bool


def calls_of(cfg: DictConfig) -> Calls:
    """Return how models are called; raise ConfigError for calls of any shape that are to be compiled."""
    asked, compiled = cfg.device.get("graphs", "off"), cfg.device.get("compile", False)
    static = asked == "on" or (asked == "auto" and torch.device(device_of(cfg)).type == "cuda")
    if compiled and not static:
        raise ConfigError(
            f"device.compile=true: compiles calls of few shapes, which device.graphs={asked} does not make here; "
            "use device.graphs=on"
        )
    return Calls(static=static, compiled=compiled)


def check_model(model: dict[str, Any]) -> None:
    """Raise ConfigError for settings that a model's loader refuses at a look: by the function `check` beside it."""
    loader = function_at("model.loader", model["loader"])
    _fits(loader, model["loader"]["_target_"], _arguments(model))
    module = sys.modules[loader.__module__]
    if check := getattr(module, "check", None):
        check(model)


def _arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {key: value for key, value in model["loader"].items() if key != "_target_"}
    return arguments | ({"path": model["path"]} if "path" in model else {})


def _fits(loader: Callable[..., Any], target: str, arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError for an argument that a loader does not take, or that is not of its plain type."""
    try:
        signature = inspect.signature(loader)
        signature.bind(name="", dtype=torch.float32, device="cpu", **arguments)
    except TypeError as error:
        raise ConfigError(f"model.loader._target_={target}: {error}") from error
    for name, value in arguments.items():
        wanted: Any = signature.parameters[name].annotation if name in signature.parameters else None
        if wanted in _PLAIN and not isinstance(value, wanted):
            raise words.refused(f"model.loader.{name}", value, f"must be {_PLAIN[wanted]}")


def load_model(cfg: DictConfig, checkpoints: Mapping[str, str | None] = MappingProxyType({})) -> LoadedModel:
    """Return the model of a config, with those that are asked beside it, from the pool if loaded last.

    `checkpoints` tell the pool what lies at the paths of the models, by role: a changed checkpoint is loaded anew.
    Raise ConfigError for one of another vocabulary.
    """
    models = {role: plain(cfg, key) for role, key in drafts.ROLES.items() if cfg.get(key) is not None}
    where, calls = (str(cfg.device.dtype), device_of(cfg)), calls_of(cfg)
    keys = {
        role: json.dumps([model, *where, *astuple(calls), checkpoints.get(role)], sort_keys=True)
        for role, model in models.items()
    }
    # A draft may be the target itself: one key, one model.
    loaded = {
        role: from_pool(key, partial(_loaded, models[role], *where, calls), beside=keys.values())
        for role, key in keys.items()
    }
    for one in loaded.values() if calls.static else ():
        # Of this run, and not of those before it that had the same model.
        getattr(one.model, "calls", Counter()).clear()
    target, beside = loaded.pop("target"), loaded
    if not beside:
        return target
    for role, one in beside.items():
        drafts.refuse_other(models, target.tokenizer, one.tokenizer, role)
    draft, others = beside.get(DRAFT), {role: one.model for role, one in beside.items() if role != DRAFT}
    return replace(target, model=Models(target.model, draft and draft.model, others), beside=beside)


def _loaded(model: Mapping[str, Any], dtype: str, device: str, calls: Calls) -> LoadedModel:
    loader = function_at("model.loader", model["loader"])
    loaded = loader(name=model["name"], dtype=getattr(torch, dtype), device=device, **_arguments(model))
    if "tokens_BT" in inspect.signature(loaded.model.forward).parameters:
        raise ConfigError(
            f"model.loader={model['loader']}: its forward takes tokens and their like one by one; since "
            "interface 2 it is forward(request), a harness.engine.shared.model.ForwardRequest"
        )
    if calls.static:
        # Not at the top: most commands make no call.
        from harness.models.graphs import StaticModel, why_not

        if why_not(loaded.model) is None:
            return replace(loaded, model=StaticModel(loaded.model, compiled=calls.compiled))
    return loaded
