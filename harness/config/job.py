"""What a run needs, resolved once: method, task, and the names under which its results are stored."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from omegaconf import DictConfig

from harness.config import build, compatibility, identity
from harness.config.composition import resolved
from harness.config.content import checkpoint_digest, checkpoint_folder, data_digest
from harness.config.hardware import device_name
from harness.config.located import function_at
from harness.config.source_digest import Code, code_of
from harness.engine.families import Method
from tasks.task import Task

DECODING = ("harness.runs.street",)
"""The modules through which every sample passes: with what they import, they decode, count and grade."""

_PLACES = ("_target_", "name", "path", "hub_id")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that can be executed: its config, the objects that it describes, and its names.

    `plain` is the config as stored. `producer` is what of a run's name is neither setting nor code.
    """

    cfg: DictConfig
    plain: dict[str, Any]
    method: Method
    task: Task
    device: str
    checkpoint_sha256: str | None
    setting: Mapping[str, object]
    producer: Mapping[str, object]
    code: Code

    @cached_property
    def setting_id(self) -> str:
        """Name of what was asked."""
        return identity.setting_id(self.setting)

    @cached_property
    def run_id(self) -> str:
        """Name of what produces the numbers."""
        return identity.run_id(self.setting_id, self.producer, self.code)


def resolve(cfg: DictConfig) -> Job:
    """Return the job of a config; raise ConfigError or DataError, in one line, for one that cannot be."""
    method, task = compatibility.check(cfg)
    plain, device = resolved(cfg), build.device_of(cfg)
    model = plain["model"]
    folder = checkpoint_folder(model)
    checkpoint = checkpoint_digest(folder) if folder is not None and folder.is_dir() else None
    return Job(
        cfg=cfg,
        plain=by_role(plain),
        method=method,
        task=task,
        device=device,
        checkpoint_sha256=checkpoint,
        setting=identity.setting_of(
            target=_target(model, checkpoint),
            method=method,
            task=task,
            data=data_digest(task.sources()),
            seed=cfg.seed,
            gen_length=cfg.gen_length,
            dtype=cfg.device.dtype,
        ),
        producer=_producer(cfg, plain["measure"], device),
        code=code_of([*DECODING, *_modules(method, task, model)]),
    )


def by_role(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved config as it is stored, with its models by the role they play."""
    return {"models": {"target": plain["model"]}} | {key: value for key, value in plain.items() if key != "model"}


def refused_ids(plain: Mapping[str, Any]) -> tuple[str, str]:
    """Return setting_id and run_id for a run that cannot be: told by its config, for want of the objects."""
    asked = {key: plain[key] for key in ("model", "method", "task", "seed", "gen_length")}
    setting = identity.setting_id({"refused": asked})
    return setting, identity.run_id(setting, {}, Code(modules={}, versions={}))


def _target(model: Mapping[str, Any], checkpoint: str | None) -> dict[str, object]:
    """Return what tells a model: its loader, the arguments that are no places, and the digest of its checkpoint."""
    loader = model["loader"]
    arguments = {name: value for name, value in loader.items() if name not in _PLACES}
    told = identity.described_call(function_at("model.loader", loader), arguments)
    return told | ({"checkpoint": checkpoint} if checkpoint else {})


def _producer(cfg: DictConfig, measure: Mapping[str, Any], device: str) -> dict[str, object]:
    made: dict[str, object] = {
        "measure": {key: value for key, value in measure.items() if key not in identity.DESCRIPTIVE},
        "batch_size": cfg.batch_size,
        "device": torch.device(device).type,
        "deterministic": cfg.device.deterministic,
    }
    if measure["name"] == "timed":
        made |= {"hardware": device_name(device), "threads": cfg.device.threads or torch.get_num_threads()}
    return made


def _modules(method: Method, task: Task, model: Mapping[str, Any]) -> list[str]:
    """Return the modules of every class that the config chose."""
    parts = [getattr(method, slot.name) for slot in fields(method)]
    chosen = [*map(type, (method, task, *parts)), function_at("model.loader", model["loader"])]
    modules = [inspect.getmodule(one) for one in chosen]
    return [module.__name__ for module in modules if module is not None and module.__name__ != "builtins"]
