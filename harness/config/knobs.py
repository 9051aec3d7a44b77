"""The flat knobs of a method: which fields of its policies read them, and refusal of one that nothing reads."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.config import options
from harness.config.catalogue import METADATA, read
from harness.config.overrides import parse
from harness.engine.shared.policy import PROBABILITY
from harness.errors import ConfigError

_REFERENCE = re.compile(r"\$\{(\.+|method\.)(\w+)\}")


def knob_of(method: DictConfig, slot: str, name: str) -> str | None:
    """Return the knob that a policy's field refers to, or None for a field of its own."""
    match = _REFERENCE.fullmatch(str(as_written(method)[slot].get(name)))
    return match[2] if match and match[1] == ".." else None


def knobs_read(raw: Mapping[str, Any]) -> set[str]:
    """Return the flat knobs that a policy of a method, as its config is written, reads: itself or through another."""
    found = {knob for node in raw.values() if isinstance(node, dict) for knob in _references(node)}
    while more := {knob for name in found for knob in _references(raw.get(name))} - found:
        found |= more
    return found


def cautions(node: DictConfig, method: object) -> list[str]:
    """Return a line for every probability that `method`, built from `node`, waits for and that none can reach."""
    lines = []
    for slot in fields(method):  # type: ignore[arg-type]
        part = getattr(method, slot.name)
        for item in fields(part) if is_dataclass(part) else ():
            value = getattr(part, item.name)
            if PROBABILITY in item.metadata and value is not None and value > 1:
                knob = knob_of(node, slot.name, item.name) or f"{slot.name}.{item.name}"
                lines.append(f"method.{knob}={value}: no probability is above 1, so only one token per call is decided")
    return lines


def refuse_unread(cfg: DictConfig, raw: Mapping[str, Any]) -> None:
    """Raise ConfigError for a knob that was asked for and that nothing reads; `raw` is the method as it is written."""
    known = knobs_read(raw)
    for override in parse(cfg.overrides):
        group, _, name = override.key_or_group.partition(".")
        if group != "method" or name in METADATA or name in known or isinstance(raw.get(name, {}), dict):
            continue
        raise ConfigError(f"method.{name}={raw[name]}: nothing reads it{_remedy(cfg.method, name)}")


def _remedy(method: DictConfig, knob: str) -> str:
    """Return why nothing reads a knob, and what would do."""
    option = read("method", method.name)
    own = options.parts_of(option)
    readers = [
        (slot, field) for slot in own for field, value in option.get(slot, {}).items() if value == f"${{..{knob}}}"
    ]
    if not readers:
        return "; set the run's gen_length" if knob == "gen_length" else "; leave it out"
    slot, field = readers[0]
    chosen = options.option_of(f"method/{slot}", method[slot]["_target_"])
    if chosen == own[slot]:
        return f" beside method.{slot}.{field}; leave one of them out"
    instead = f"set method.{slot}.{field}" if field in method[slot] else "leave it out"
    return f" with method/{slot}={chosen}; {instead}, or keep method/{slot}={own[slot]}"


def _references(value: object, dots: str = ".") -> Iterator[str]:
    """Yield the keys of the method that a value refers to; `dots` lead from the value to the method."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _references(item, f"{dots}.")
    elif isinstance(value, str):
        yield from (name for way, name in _REFERENCE.findall(value) if way in ("method.", dots))


def as_written(method: DictConfig) -> dict[str, Any]:
    """Return a method as its config is written, references and all."""
    raw = OmegaConf.to_container(method, resolve=False)
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items()}
