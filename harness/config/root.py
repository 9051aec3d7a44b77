"""The root of a run's config: its keys, the groups that fill them, and refusal of names that are none of them.

Names need no composing: they are told before a framework is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from hydra.core.override_parser.types import Override

from harness.config.catalogue import names, nearest, refused
from harness.errors import ConfigError

GROUPS = ("model", "method", "task", "measure", "tracker", "device", "launch", "experiment", "protocol", "figure")


class OnError(Enum):
    """What a run that is refused or fails does to the others.

    `stop`: nothing runs if one is refused, and the first failure ends the command; `record`: it is stored, they run.
    """

    STOP = "stop"
    RECORD = "record"


class Batching(Enum):
    """How rows share calls: `fixed` batches in the order of the samples; `continuous`: one begins as another ends."""

    FIXED = "fixed"
    CONTINUOUS = "continuous"


SEARCHED = ("search", "objective", "margin", "trials")
"""Keys of what an experiment searches: they are about many runs and no part of any."""


@dataclass
class BenchConf:
    """The root of a run's config; groups fill the open keys, those of models by role if one is named."""

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
    batching: str
    batch_tokens: int | None
    sandbox: str
    results_dir: str
    resume: bool
    save_every_s: float
    split: int
    on_error: str
    name: str | None
    summary: str
    figure: Any
    points: list[str] | None
    axes: Any
    search: Any
    objective: str
    margin: float
    trials: int
    overrides: list[str]
    draft: Any = None
    judge: Any = None


@dataclass
class RayConf:
    """Processes on Ray: `workers` of them (None: as many as fit), each with so many processors and GPUs.

    `num_gpus` None is one where the cluster has any. `address` None starts a cluster on this machine.
    """

    _target_: str = "harness.runs.ray_launcher.RayLauncher"
    address: str | None = None
    workers: int | None = None
    num_cpus: float = 1
    num_gpus: float | None = None


def refuse_unknown(overrides: Sequence[Override]) -> None:
    """Raise ConfigError, with the nearest name, for an option that a group does not have, and for a key at the root."""
    for override in overrides:
        if override.key_or_group in GROUPS:
            refuse_option(override, names(override.key_or_group))
    keys = {item.name for item in fields(BenchConf)}
    for key in (override.key_or_group for override in overrides):
        if key.partition(".")[0].partition("/")[0] not in {*keys, *GROUPS, "hydra"}:
            raise ConfigError(f"{key}: no such key; {nearest(key, keys)}")


def refuse_option(override: Override, known: Sequence[str]) -> None:
    """Raise ConfigError for an option that is none of those known; the values of a sweep are looked at one by one."""
    group, name = override.key_or_group, override.value()
    if not known or isinstance(name, dict) or override.is_sweep_override():
        return
    if not isinstance(name, str):
        what = f"must be the name of a {group.rpartition('/')[2]}, such as {known[0]}"
        raise ConfigError(f"{override.input_line}: {what}")
    asked = f"{group}@{override.package}" if override.package else group
    if reason := refused(group, name):
        raise ConfigError(f"{asked}={name}: {reason}")
    if name not in known:
        raise ConfigError(f"{asked}={name}: no such {group.rpartition('/')[2]}; {nearest(name, known)}")
