"""Composition of a run's config: typed, validated, and refused in one line where it cannot be."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import options, protocols
from harness.config.catalogue import names, nearest, refused
from harness.config.loader import ROOT, loader
from harness.config.located import class_at
from harness.errors import ConfigError

GROUPS = ("model", "method", "task", "measure", "tracker", "device", "launch", "experiment", "protocol")


class OnError(Enum):
    """What a failing run does: `raise` ends the command, `record` stores the failure and goes on."""

    RAISE = "raise"
    RECORD = "record"


class FigureKind(Enum):
    """What a named sweep draws: accuracy over `calls`, `areas` under parallelism, or the `convergence` of answers."""

    CALLS = "calls"
    AREAS = "areas"
    CONVERGENCE = "convergence"


@dataclass
class BenchConf:
    """The root of a run's config; groups fill the open keys."""

    model: Any
    method: Any
    task: Any
    protocol: Any
    measure: Any
    tracker: Any
    device: Any
    seed: int
    gen_length: int
    batch_size: int
    sandbox: str
    results_dir: str
    resume: bool
    on_error: str
    name: str | None
    figure: str
    points: list[str] | None
    axes: Any
    overrides: list[str]


def register() -> None:
    """Make typed options and the root's schema known to Hydra."""
    options.register()
    _register_root()


@cache
def _register_root() -> None:
    ConfigStore.instance().store(name="bench_schema", node=BenchConf, provider="decbench")


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Return the config of a run, every value resolved and of its type.

    Raise ConfigError naming the key, the value and what would do, for unknown names and keys, wrong types and
    values out of range.
    """
    register()
    parsed = parse(overrides)
    _check_names(parsed)
    cfg = _composed(parsed, with_hydra=with_hydra)
    if settings := _added(cfg, parsed):
        cfg = _composed([*parsed, *parse(settings)], with_hydra=with_hydra)
    _check_values(cfg)
    return cfg


def completed(overrides: Sequence[str]) -> list[str]:
    """Return overrides together with those that protocol and task add, for a composition that is not `compose`'s."""
    compose(overrides)
    parsed = parse(overrides)
    return [*overrides, *_added(_composed(parsed, with_hydra=False), parsed)]


def _added(cfg: DictConfig, parsed: Sequence[Override]) -> list[str]:
    """Return the overrides of the protocol, and the answer length of a task whose own files name it."""
    added = protocols.settings(cfg, parsed)
    if cfg.task.get("gen_length", 0) is None:
        task = class_at("task", cfg.task)
        if hasattr(task, "default_length"):
            added.append(f"task.gen_length={task.default_length(OmegaConf.to_container(cfg.task, resolve=True))}")
    return added


def _composed(overrides: Sequence[Override], *, with_hydra: bool) -> DictConfig:
    try:
        if with_hydra:
            lines = [str(override.input_line) for override in overrides]
            return loader().load_configuration(ROOT, lines, RunMode.RUN, from_shell=False)
        return loader().compose(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides)) from error


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides; raise ConfigError for what is none."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"{str(error).splitlines()[0]}; overrides look like key=value") from error


def _check_names(overrides: Sequence[Override]) -> None:
    for override in overrides:
        group, value = override.key_or_group, override.value()
        slot = group.startswith("method/")
        known = names(group) if group in GROUPS else options.names_of(group) if slot else ()
        if not known or not isinstance(value, str):
            continue
        if reason := refused(group, value):
            raise ConfigError(f"{group}={value}: {reason}")
        if value not in known:
            raise ConfigError(f"{group}={value}: no such {group.rpartition('/')[2]}; {nearest(value, known)}")


def _explain(error: Exception, overrides: Sequence[Override]) -> str:
    """Return one line for what Hydra found, with the nearest known key or the reason behind it."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown.group(1)
        return f"{key}: no such key; {nearest(key, _known_keys(key, overrides))}"
    merged = re.fullmatch(r"Error merging override (.*)", text)
    if merged and error.__cause__:
        return f"{merged[1]}: {str(error.__cause__).splitlines()[0]}"
    return " ".join(text.split())


def _known_keys(key: str, overrides: Sequence[Override]) -> list[str]:
    """Return the keys of the root, and those of the option chosen of the key's group, two levels deep."""
    group = key.split(".")[0]
    chosen = [one for one in overrides if one.key_or_group == group and isinstance(one.value(), str)]
    root = loader().compose(chosen)
    node = root.get(group)
    if not isinstance(node, DictConfig):
        return [str(k) for k in root]
    inner = [
        f"{k}.{field}" for k in node if isinstance(node.get(k), DictConfig) for field in node[k] if field != "_target_"
    ]
    return [*map(str, root), *(f"{group}.{k}" for k in [*node, *inner])]


def _check_values(cfg: DictConfig) -> None:
    for key in ("seed", "gen_length", "batch_size", "resume"):
        try:
            cfg[key]
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    if not str(cfg.results_dir).strip():
        raise ConfigError("results_dir=: names no folder; leave it out for results/raw, or give one")
    if cfg.name is not None and (not str(cfg.name).strip() or set(str(cfg.name)) & {"/", "\\", "\0"}):
        raise ConfigError(f"name={cfg.name}: is part of file names; give a word without slashes")
    if cfg.gen_length < 1:
        raise ConfigError(f"gen_length={cfg.gen_length}: must be at least 1")
    if cfg.batch_size < 1:
        raise ConfigError(f"batch_size={cfg.batch_size}: must be at least 1")
    if cfg.on_error not in {e.value for e in OnError}:
        raise ConfigError(f"on_error={cfg.on_error}: must be raise or record")
    if cfg.figure not in {e.value for e in FigureKind}:
        raise ConfigError(f"figure={cfg.figure}: must be calls, areas or convergence")


def resolved(cfg: DictConfig) -> dict:
    """Return the config as plain values, interpolations resolved and enums by name.

    Of the protocol only the name is left: what it says about this task stands in task, method and gen_length. How the
    run was asked for is no part of it.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    plain.pop("overrides")
    return {str(k): v for k, v in plain.items()} | {"protocol": cfg.protocol.name}
