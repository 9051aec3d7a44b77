"""Composition of a run's config: typed, validated, and refused in one line where it cannot be."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import options, protocols, words
from harness.config.catalogue import NEAR, knobs, names, nearest, read
from harness.config.loader import loader
from harness.config.located import class_at
from harness.config.overrides import parse, shown_as_typed
from harness.config.root import GROUPS, SEARCHED, Batching, BenchConf, OnError, RayConf, refuse_option, refuse_unknown
from harness.errors import ConfigError

_NOT_KEPT = frozenset({"overrides", "summary", "figure", "protocol", "split", *SEARCHED})
KEPT = frozenset(item.name for item in fields(BenchConf)) - _NOT_KEPT
"""The keys of a config that are stored as they stand."""

_LARGEST = 2**31 - 1
_SEEDS = 2**63
"""Bounds of what the columns of the store hold."""


def register() -> None:
    """Make typed options and the root's schema known to Hydra."""
    options.register()
    _register_root()


@cache
def _register_root() -> None:
    store = ConfigStore.instance()
    store.store(name="bench_schema", node=BenchConf, provider="decbench")
    store.store(group="hydra/launcher", name="ray", node=RayConf, provider="decbench")


def compose(overrides: Sequence[str]) -> DictConfig:
    """Return the config of a run, every value resolved and of its type.

    Raise ConfigError naming the key, the value and what would do, for unknown names and keys, wrong types and
    values out of range.
    """
    register()
    parsed = parse(overrides)
    _refuse_unknown(parsed)
    with shown_as_typed(overrides):
        cfg = _composed(parsed)
        if settings := _added(cfg, parsed):
            cfg = _composed([*parsed, *parse(settings)])
        _check_values(cfg)
    if cfg.batch_tokens is not None and not any(one.key_or_group == "batch_size" for one in parsed):
        # The budget says how many rows: no more than these fit, each with a token of a prompt.
        cfg.batch_size = max(cfg.batch_size, min(_LARGEST, cfg.batch_tokens // (cfg.gen_length + 1)))
    return cfg


def options_of(overrides: Sequence[str]) -> Mapping[str, str | None]:
    """Return what is chosen of each group that is about a whole command: the experiment, Hydra's launcher.

    The overrides must have been composed before.
    """
    return loader().chosen(parse(overrides))


def _added(cfg: DictConfig, parsed: Sequence[Override]) -> list[str]:
    """Return the overrides of the protocol, the decoder of a model that has one of its own, and a task's own length."""
    added = protocols.settings(cfg, parsed)
    chosen = {one.key_or_group for one in parsed}
    if not chosen & {"method", "experiment"} and cfg.model.get("decoder"):
        added.append(f"method={cfg.model.decoder}")
    if cfg.task.get("gen_length", 0) is None:
        task = class_at("task", cfg.task)
        if hasattr(task, "default_length"):
            added.append(f"task.gen_length={task.default_length(OmegaConf.to_container(cfg.task, resolve=True))}")
    return added


def _composed(overrides: Sequence[Override]) -> DictConfig:
    try:
        return loader().compose(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides)) from error


def _refuse_unknown(overrides: Sequence[Override]) -> None:
    """Raise ConfigError, with the nearest name, for what is no option, no key, or no policy of a slot."""
    refuse_unknown(overrides)
    for override in overrides:
        if override.key_or_group.startswith("method/"):
            refuse_option(override, options.names_of(override.key_or_group))


def _explain(error: Exception, overrides: Sequence[Override]) -> str:
    """Return one line for what Hydra found, with the nearest known key or the reason behind it."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return _unknown(unknown.group(1), overrides)
    if launcher := re.search(r"Could not find 'hydra/launcher/(\w+)'", text):
        how = "for joblib and slurm: pip install 'decbench[launchers]'"
        return f"hydra/launcher={launcher[1]}: is not installed; {how}"
    merged = re.fullmatch(r"Error merging override ([^=]*)=.*", text, re.DOTALL)
    if merged and error.__cause__:
        typed = [str(one.input_line) for one in overrides if one.get_key_element() == merged[1]]
        return f"{typed[-1] if typed else merged[1]}: {words.reason(error.__cause__)}"
    return " ".join(text.split())


def _unknown(key: str, overrides: Sequence[Override]) -> str:
    """Return what to say of a key that the config does not have; a knob may be another method's."""
    group, _, knob = key.partition(".")
    known = _known_keys(group, overrides)
    if group != "method":
        return f"{key}: no such key; {nearest(key, known)}"
    owners: dict[str, list[str]] = {}
    for name in names("method"):
        for one in knobs(read("method", name)):
            owners.setdefault(one, []).append(name)
    own = [one.removeprefix("method.") for one in known if one.startswith("method.")]
    (close,) = difflib.get_close_matches(knob, [*own, *owners], n=1, cutoff=NEAR) or [""]
    if close in own or not close:
        return f"{key}: no such key; {nearest(key, known)}"
    chosen = [str(one.value()) for one in overrides if one.key_or_group == "method"] or ["llada, which is the default,"]
    spelled = "" if close == knob else f"; did you mean method.{close}?"
    return f"{key}: method={chosen[-1]} has no such key{spelled}; known to {', '.join(owners[close])}"


def _known_keys(group: str, overrides: Sequence[Override]) -> list[str]:
    """Return the keys of the root, and those of the option chosen of a group, two levels deep."""
    of_group = [one for one in overrides if group == (one.package or one.key_or_group) and one.key_or_group in GROUPS]
    chosen = [one for one in of_group if isinstance(one.value(), str)]
    root = loader().compose(chosen)
    node = root.get(group)
    if not isinstance(node, DictConfig):
        return [str(k) for k in root]
    inner = [
        f"{k}.{field}" for k in node if isinstance(node.get(k), DictConfig) for field in node[k] if field != "_target_"
    ]
    return [*map(str, root), *(f"{group}.{k}" for k in [*node, *inner])]


def _check_values(cfg: DictConfig) -> None:
    for key in (one.name for one in fields(BenchConf) if one.type is not Any):
        try:
            value = cfg[key]
        except OmegaConfBaseException as error:
            typed = OmegaConf.to_container(cfg, resolve=False)
            assert isinstance(typed, dict)
            raise words.refused(key, typed[key], words.reason(error)) from error
        if OmegaConf.is_interpolation(cfg, key):
            # Whoever asks for it would parse the reference anew, which takes as long as reading twenty values.
            cfg[key] = value
    if not str(cfg.results_dir).strip():
        raise ConfigError("results_dir=: names no folder; leave it out for results/raw, or give one")
    if cfg.name is not None and (not str(cfg.name).strip() or set(str(cfg.name)) & {"/", "\\", "\0"}):
        raise ConfigError(f"name={cfg.name}: is part of file names; give a word without slashes")
    for key in ("gen_length", "batch_size", "split"):
        value = cfg[key]
        if value < 1:
            raise words.refused(key, value, "must be at least 1")
        if value > _LARGEST:
            raise words.refused(key, value, f"must be at most {_LARGEST}")
    if cfg.batching not in {one.value for one in Batching}:
        raise ConfigError(f"batching={cfg.batching}: must be {' or '.join(one.value for one in Batching)}")
    if cfg.batch_tokens is not None and (cfg.batching == Batching.FIXED.value or cfg.batch_tokens < 1):
        raise ConfigError(f"batch_tokens={cfg.batch_tokens}: must be at least 1, and needs batching=continuous")
    if cfg.split > 1 and cfg.measure.name == "timed":
        raise ConfigError(f"split={cfg.split}: the seconds of a timed run belong together; leave split out")
    if not -_SEEDS <= cfg.seed < _SEEDS:
        raise words.refused("seed", cfg.seed, f"must lie from -{_SEEDS} to {_SEEDS - 1}")
    if not 0 <= cfg.save_every_s < float("inf"):
        raise ConfigError(f"save_every_s={cfg.save_every_s}: must be a number of seconds from 0")
    if cfg.on_error not in {e.value for e in OnError}:
        renamed = "; raise is called stop now" if cfg.on_error == "raise" else ""
        raise ConfigError(f"on_error={cfg.on_error}: must be stop or record{renamed}")
    if cfg.sandbox not in ("safe", "unsafe"):
        raise ConfigError(f"sandbox={cfg.sandbox}: must be safe or unsafe")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain values, interpolations resolved and enums by name.

    Of the protocol only the name is left: what it says about this task stands in task, method and gen_length. How the
    run was asked for is no part of it.
    """
    return {key: plain(cfg, key) for key in map(str, cfg) if key in KEPT} | {"protocol": cfg.protocol.name}


def plain(cfg: DictConfig, key: str) -> Any:
    """Return what stands below a key of a config's root as plain values, as `resolved` does."""
    try:
        value = cfg[key]
        return OmegaConf.to_container(value, resolve=True, enum_to_str=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {words.reason(error)}") from error
