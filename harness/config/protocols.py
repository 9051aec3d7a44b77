"""What a protocol says about a task: whether it was published, and the settings that came with it."""

import json
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

from harness.config.catalogue import describe
from harness.errors import ConfigError

OWN = "own"


def check(cfg: DictConfig) -> None:
    """Raise ConfigError if the protocol of a config was not published for its task, or has no sentences to be read."""
    protocol, known_as = cfg.protocol, _known_as(cfg)
    if protocol.get("wording") is not None and (known_as is None or protocol.name == OWN):
        published = [str(p["name"]) for p in describe("protocol") if p["name"] != OWN]
        raise ConfigError(
            f"protocol.wording={protocol.wording}: nobody else published prompts of task={cfg.task.name} under "
            f"protocol={protocol.name}; leave it out, or use protocol={' or '.join(published)} and a task of theirs"
        )
    if known_as in protocol.tasks or (known_as is None and protocol.name == OWN):
        return
    reason = (protocol.get("unpublished") or {}).get(known_as, f"it has {', '.join(map(str, protocol.tasks))}")
    fitting = [str(p["name"]) for p in describe("protocol") if known_as in p["tasks"]] or [OWN]  # type: ignore[operator]
    raise ConfigError(
        f"protocol={protocol.name}: was not published for task={known_as or cfg.task.name} ({reason}); "
        f"use protocol={' or '.join(fitting)}"
    )


def settings(cfg: DictConfig, given: Sequence[Override]) -> list[str]:
    """Return the overrides that the protocol adds for this task and model, less those that were given.

    `settings` of a task come first, those of a model replace them. A knob that the method does not have is left out.
    """
    known_as = _known_as(cfg)
    if known_as is None or known_as not in cfg.protocol.tasks:
        return []
    general = cfg.protocol.tasks[known_as].get("settings") or {}
    special = OmegaConf.select(cfg.protocol, f"models.{cfg.model.name}.{known_as}") or {}
    told = {override.get_key_element() for override in given}
    wanted: dict[str, Any] = {str(k): v for part in (general, special) for k, v in part.items()}
    return [f"{key}={_written(value)}" for key, value in wanted.items() if key not in told and _exists(cfg, key)]


def _known_as(cfg: DictConfig) -> Any:
    # Of a key that is not there, `get` composes a message of what is, to no purpose.
    return OmegaConf.select(cfg, "task.known_as")


def _exists(cfg: DictConfig, key: str) -> bool:
    group, _, knob = key.partition(".")
    return group != "method" or knob in cfg.method


def _written(value: object) -> str:
    """Write a value as an override: a quoted text may hold line ends, but no backslash."""
    if isinstance(value, str):
        assert "\\" not in value and '"' not in value, f"{value!r} cannot be written as an override"
        return f'"{value}"'
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_written, value))}]"
    return json.dumps(value)
