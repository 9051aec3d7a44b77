"""The config of a stored run, as runs are made of: its values alone, whatever the options of today say."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import options, words
from harness.config.composition import register
from harness.config.drafts import ROLES
from harness.config.located import class_at
from harness.errors import ConfigError

_REFERENCE = re.compile(r"(\\*)\$\{")


def restored(config: Mapping[str, Any]) -> DictConfig:
    """Return what `harness.config.job.by_role` made a stored config of.

    Policies get the types of their classes, which are those of today; of the protocol all that is known is its name,
    and that it had the task. Raises ConfigError where a class, or a field that has a value, is no more.
    """
    register()
    task = config["task"]
    root = {key: value for key, value in config.items() if key != "models"} | {
        **{key: config["models"].get(role) for role, key in ROLES.items()},
        "protocol": {"name": config["protocol"], "tasks": {task.get("known_as") or task["name"]: {}}},
        "overrides": [],
    }
    cfg = OmegaConf.create({key: _literal(value) for key, value in root.items()})
    for slot, node in config["method"].items():
        if isinstance(node, dict) and "_target_" in node:
            cfg.method[slot] = _typed(slot, node)
    return cfg


def _typed(slot: str, node: Mapping[str, Any]) -> Any:
    cls, values = class_at(f"method.{slot}", node), _literal(node)
    if options.option_of(f"method/{slot}", node["_target_"]) == node["_target_"]:
        return values
    try:
        return OmegaConf.merge(OmegaConf.structured(options.schema(cls)), values)
    except OmegaConfBaseException as error:
        key = f"method.{slot}.{error.full_key or error.key}"
        raise ConfigError(f"{key}: {words.reason(error)}; the policy is not what it was") from error


def _literal(value: object) -> Any:
    """Return a value in which no text refers to others: a prompt may hold ${."""
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return _REFERENCE.sub(lambda found: 2 * found[1] + "\\${", value) if isinstance(value, str) else value
