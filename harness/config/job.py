"""What a run needs, resolved once: method, task, and the names under which its results are stored."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from omegaconf import DictConfig

from harness import references
from harness.config import build, compatibility, identity
from harness.config.composition import resolved
from harness.config.content import data_digest
from harness.config.drafts import ROLES
from harness.config.hardware import device_name
from harness.config.located import function_at
from harness.config.overrides import shown_as_typed
from harness.config.root import Batching
from harness.config.source_digest import Code, Reader, has_no_version
from harness.engine.families import Method
from harness.errors import one_line
from tasks.task import Task

DECODING = ("harness.runs.street",)
"""The modules through which every sample passes: with what they import, they decode, count and grade."""

_NOT_TOLD = ("_target_", "name", "path", "hub_id", "key_env", "timeout_s", "retries")
"""Arguments of loaders that say where a model is, or how to get at it."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What decodes, whatever is decoded: a method, and the models of `cfg`, which are loaded by whoever begins.

    `device` is torch's name of it; `checkpoints` tell, by role, what the loaders of the models will read.
    """

    cfg: DictConfig
    method: Method
    device: str
    checkpoints: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that can be executed: what decodes, the task, and its names.

    `plain` is the config as stored. `producer` is what of a run's name is neither setting nor code.
    """

    decoding: Decoding
    plain: dict[str, Any]
    task: Task
    setting: Mapping[str, object]
    producer: Mapping[str, object]
    code: Code

    @property
    def cfg(self) -> DictConfig:
        """The config that it was resolved from."""
        return self.decoding.cfg

    @cached_property
    def setting_id(self) -> str:
        """Name of what was asked."""
        return identity.setting_id(self.setting)

    @cached_property
    def run_id(self) -> str:
        """Name of what produces the numbers."""
        return identity.run_id(self.setting_id, self.producer, self.code)

    def require_grading(self) -> None:
        """Raise ConfigError, DataError or MissingDependency if its answers cannot be graded here."""
        with shown_as_typed(self.cfg.overrides):
            self.task.grading()


class Shared:
    """What the jobs of one command share: parts of equal configs, and the code of equal classes."""

    def __init__(self) -> None:
        self.builder = build.Builder()
        self.reader = Reader()


def resolve_decoding(cfg: DictConfig, shared: Shared | None = None) -> Decoding:
    """Return what decodes prompts that come from elsewhere than a task; raise ConfigError for what cannot be."""
    builder = (shared or Shared()).builder
    method = compatibility.fit_decoding(cfg, builder)
    compatibility.look_at_models(cfg, builder)
    checkpoints = {role: builder.checkpoint(model) for role, model in builder.models(cfg).items()}
    return Decoding(cfg=cfg, method=method, device=build.device_of(cfg), checkpoints=checkpoints)


def resolve(cfg: DictConfig, shared: Shared | None = None) -> Job:
    """Return the job of a config; raise ConfigError or DataError, in one line, for one that cannot be.

    Whether its answers can be graded here is not looked at: a result that is stored needs no grading.
    """
    shared = shared or Shared()
    method, task = compatibility.fit(cfg, shared.builder)
    values, device = shared.builder.values.resolved(cfg), build.device_of(cfg)
    models = shared.builder.models(cfg)
    checkpoints = {role: shared.builder.checkpoint(model) for role, model in models.items()}
    return Job(
        decoding=Decoding(cfg=cfg, method=method, device=device, checkpoints=checkpoints),
        plain=by_role(values),
        task=task,
        setting=identity.setting_of(
            models={role: _told(model, checkpoints[role]) for role, model in models.items()},
            method=method,
            task=task,
            data=data_digest(task.sources()),
            seed=cfg.seed,
            gen_length=cfg.gen_length,
            dtype=cfg.device.dtype,
        ),
        producer=_producer(cfg, values["measure"], device),
        code=shared.reader.code_of([*DECODING, *_modules(method, task, models.values())]),
    )


def by_role(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved config as it is stored, with its models by the role they play."""
    models = {role: plain[key] for role, key in ROLES.items() if plain.get(key) is not None}
    return {"models": models} | {key: value for key, value in plain.items() if key not in ROLES.values()}


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A run that cannot be: the error that says why, and the names under which it is kept.

    `plain` is its config as stored, None where there is none: then `overrides` are all that tells it.
    """

    error: Exception
    overrides: tuple[str, ...]
    setting_id: str
    run_id: str
    plain: dict[str, Any] | None

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return one_line(self.error)


def refused(error: Exception, overrides: Sequence[str], cfg: DictConfig | None) -> Refused:
    """Return the run that an error has refused, told by its config or, for want of one, by what was asked."""
    try:
        plain = None if cfg is None else resolved(cfg)
        keys = (*ROLES.values(), "method", "task", "seed", "gen_length")
        asked = plain and {key: plain[key] for key in keys if plain[key] is not None}
        setting = identity.setting_id({"refused": asked or list(overrides)})
    except ValueError:
        # A value of another type, or one that has no JSON.
        plain, setting = None, identity.setting_id({"refused": list(overrides)})
    return Refused(
        error=error,
        overrides=tuple(overrides),
        setting_id=setting,
        run_id=identity.run_id(setting, {}, Code(modules={}, versions={})),
        plain=plain and by_role(plain),
    )


def _told(model: Mapping[str, Any], checkpoint: str | None) -> dict[str, object]:
    """Return what tells a model: its loader, the arguments that change answers, and the digest of its checkpoint."""
    loader = model["loader"]
    arguments = {name: value for name, value in loader.items() if name not in _NOT_TOLD}
    told = identity.described_call(function_at("model.loader", loader), arguments)
    return told | ({"checkpoint": checkpoint} if checkpoint else {})


def _producer(cfg: DictConfig, measure: Mapping[str, Any], device: str) -> dict[str, object]:
    made: dict[str, object] = {
        "measure": {key: value for key, value in measure.items() if key not in identity.DESCRIPTIVE},
        "batch_size": cfg.batch_size,
        **({"batching": cfg.batching} if cfg.batching != Batching.FIXED.value else {}),
        **({"batch_tokens": cfg.batch_tokens} if cfg.batch_tokens is not None else {}),
        "device": torch.device(device).type,
        "deterministic": cfg.device.deterministic,
        **({"calls": asdict(calls)} if (calls := build.calls_of(cfg)).static else {}),
    }
    if measure["name"] == "timed":
        made |= {"hardware": device_name(device), "threads": cfg.device.threads or torch.get_num_threads()}
    return made


def _modules(method: Method, task: Task, models: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the modules of every class that the config chose, and of code of a user's own that it names."""
    parts = [getattr(method, slot.name) for slot in fields(method)]
    named = [*references.modules_named("task", vars(task))]
    chosen: list[Any] = [*map(type, (method, task, *parts))]
    for loader in (model["loader"] for model in models):
        chosen.append(function_at("model.loader", loader))
        named += references.modules_named("model", loader)
        path = loader.get("module")
        if path and references.is_there(path) and has_no_version(path.partition(".")[0]):
            named += accumulate(path.split("."), "{}.{}".format)
    modules = [inspect.getmodule(one) for one in chosen]
    return [*(one.__name__ for one in modules if one is not None and one.__name__ != "builtins"), *named]
