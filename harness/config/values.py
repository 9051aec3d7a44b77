"""Plain values of configs, worked out once for sections that are equal: following references takes most of planning."""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.composition import KEPT, plain

_REFERENCE = re.compile(r"\$\{(\.*)(\w+(?:\.\w+)*)\}")


class Values:
    """What configs say, for the jobs of one command. Nothing that it returns is to be written to."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._cfg: DictConfig | None = None
        self._raw: dict[str, Any] = {}
        self._told: dict[str, str | None] = {}

    def resolved(self, cfg: DictConfig) -> dict[str, Any]:
        """Return what `harness.config.composition.resolved` does."""
        return {key: self.section(cfg, key) for key in map(str, cfg) if key in KEPT} | {"protocol": cfg.protocol.name}

    def section(self, cfg: DictConfig, name: str) -> Any:
        """Return what stands below a key of the root."""
        key = self.told(cfg, name)
        if key is None:
            return plain(cfg, name)
        if key not in self._known:
            self._known[key] = plain(cfg, name)
        return self._known[key]

    def raw(self, cfg: DictConfig, name: str) -> Any:
        """Return a section as it is written, references and all; None for what is no section."""
        self._look_at(cfg)
        if name not in self._raw:
            node = cfg._get_node(name)
            self._raw[name] = OmegaConf.to_container(node) if isinstance(node, Container) else None
        return self._raw[name]

    def told(self, cfg: DictConfig, name: str) -> str | None:
        """Return all that a section's values follow from; None if that is more than plain references, or no section."""
        self._look_at(cfg)
        if name not in self._told:
            self._told[name] = _told(cfg, name, self.raw(cfg, name))
        return self._told[name]

    def _look_at(self, cfg: DictConfig) -> None:
        if cfg is not self._cfg:
            self._cfg, self._raw, self._told = cfg, {}, {}


def _told(cfg: DictConfig, name: str, raw: Any) -> str | None:
    if not isinstance(raw, dict):
        return None
    outside = {*_outside(raw, 1)}
    try:
        values = {key: OmegaConf.select(cfg, key) for key in sorted(outside - {""})}
    except OmegaConfBaseException:
        return None
    if "" in outside or any(OmegaConf.is_config(value) for value in values.values()):
        return None
    return f"{name}: {raw!r} {values!r}"


def _outside(value: object, depth: int) -> Iterator[str]:
    """Yield what a value refers to outside of its section, `depth` levels up; nothing's name for what is not plain."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _outside(inner, depth + isinstance(inner, dict | list))
    elif isinstance(value, str) and "${" in value:
        for dots, name in _REFERENCE.findall(value):
            if not dots or len(dots) > depth:
                yield "" if dots else name
        if "${" in _REFERENCE.sub("", value):
            yield ""
