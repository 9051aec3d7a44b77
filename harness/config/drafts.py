"""Models by role: those that are asked beside a target, and refusal of one that cannot be, or that nobody asks."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from harness.config.catalogue import describe, read
from harness.config.composition import plain
from harness.config.content import tokenizer_folder
from harness.config.located import loader_module
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.families import DRAFT, Method, asks
from harness.engine.shared.model import ModelKind
from harness.errors import ConfigError
from harness.models.fit import misfit
from harness.models.pool import Tokenizer
from harness.models.text import TextTokenizer

TARGET = "target"
ROLES = {TARGET: "model", DRAFT: "draft", "judge": "judge"}
"""The roles of a run's models, each with the section of the config that says which model it is."""

_ASKED = {DRAFT: ("a model for its drafts", "no model for drafts; leave it out, or use method=speculative")}
"""How a method asks a model in a role, and that it asks none."""


def key_of(role: str) -> str:
    """Return the key by which a user names the model in a role."""
    return "model" if role == TARGET else f"model@{role}"


def refuse_unfit(cfg: DictConfig, method: Method) -> None:
    """Raise ConfigError where a method lacks a model that it asks, or is given one that it does not or cannot ask."""
    asked = asks(method)
    if unknown := asked.keys() - ROLES.keys():
        roles = ", ".join(role for role in ROLES if role != TARGET)
        raise ConfigError(f"method={cfg.method.name}: asks a {min(unknown)}, and a run's models beside it are {roles}")
    for role in (role for role in ROLES if role != TARGET):
        _refuse_unfit(cfg, role, method, asked.get(role, frozenset()))
    if cfg.draft is not None:
        _refuse_assistant(cfg, method, plain(cfg, "draft"), plain(cfg, "model"))


def _refuse_assistant(cfg: DictConfig, method: Method, draft: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Raise ConfigError for an assistant that drafts for a library alone, and for that of another target.

    A loader of assistants says what these read by a function `wants(model)` beside it, one of targets what these have
    by `measures(model)`; both as far as files tell.
    """
    if draft["kind"] != ModelKind.ASSISTANT.value:
        return
    key, module = f"model@draft={draft['name']}", loader_module(draft)
    if isinstance(method, AutoregressiveMethod) and not _drafts_for(method, draft):
        raise ConfigError(
            f"{key}: drafts for {module.LIBRARY}' own generation, and method={cfg.method.name} is none of it; "
            f"{_fitting(cfg, DRAFT, method, asks(method)[DRAFT])}"
        )
    wants, measures = getattr(module, "wants", None), getattr(loader_module(target), "measures", None)
    wanted, there = wants and wants(draft), measures and measures(target)
    if wanted and there and (reason := misfit(wanted, target["name"], there)) is not None:
        raise ConfigError(f"{key}: {reason}; use the assistant of this target")


def _refuse_unfit(cfg: DictConfig, role: str, method: Method, kinds: frozenset[ModelKind]) -> None:
    model, name, key = cfg[ROLES[role]], cfg.method.name, key_of(role)
    one, none = _ASKED.get(role, (f"a {role}", f"no {role}; leave it out"))
    if model is None:
        if kinds:
            raise ConfigError(f"{key}=null: method={name} asks {one}; {_fitting(cfg, role, method, kinds)}")
        return
    if "name" not in model:
        raise ConfigError(f"{key}=null: no model is named, and {role}.{min(map(str, model))} is set; name it, too")
    given = f"{key}={model.name}"
    if not kinds:
        raise ConfigError(f"{given}: method={name} asks {none}")
    if ModelKind(model.kind) not in kinds:
        raise ConfigError(
            f"{given}: is {model.kind}, and method={name} cannot ask it; {_fitting(cfg, role, method, kinds)}"
        )
    if model.tokenizer != cfg.model.tokenizer:
        raise ConfigError(
            f"{given}: reads {model.tokenizer}, model={cfg.model.name} reads {cfg.model.tokenizer}; "
            f"{_fitting(cfg, role, method, kinds)}"
        )
    if cfg.gen_length >= model.max_length:
        raise ConfigError(f"gen_length={cfg.gen_length}: {given} has {model.max_length} positions")


def _fitting(cfg: DictConfig, role: str, method: Method, kinds: frozenset[ModelKind]) -> str:
    """Return how to go on: models of these kinds with the target's tokenizer, as far as a look at them tells."""
    names = [str(one["name"]) for one in describe("model") if ModelKind(str(one["kind"])) in kinds]
    options = {name: read("model", name) for name in names}
    alike = [
        name
        for name, one in options.items()
        if one["tokenizer"] == cfg.model.tokenizer and (role != DRAFT or _drafts_for(method, one))
    ]
    return f"name one of the target's vocabulary, such as {key_of(role)}={', '.join(alike)}"


def _drafts_for(method: Method, draft: Mapping[str, Any]) -> bool:
    """Say whether a model would draft for a method: assistants of a library do for its own generation alone."""
    if draft["kind"] != ModelKind.ASSISTANT.value:
        return True
    return hasattr(loader_module(draft), "LIBRARY") is not isinstance(method, AutoregressiveMethod)


@contextmanager
def told_of(role: str) -> Iterator[None]:
    """Have what is refused of a model name the keys of the section where its role has it."""
    try:
        yield
    except ConfigError as error:
        if role != TARGET:
            spoken = re.sub(r"(?<![.\w])model=", f"{key_of(role)}=", str(error))
            error.args = (re.sub(r"(?<![.\w])model\.", f"{role}.", spoken),)
        raise


def refuse_other_files(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for a model whose tokenizer's file has other tokens than the target's; models by role.

    Looked at is what can be told before a model is loaded; added tokens are compared when it is.
    """
    if len(models) == 1:
        return
    known = {role: found for role, model in models.items() if (found := _in_file(model)) is not None}
    for role in known.keys() - {TARGET}:
        if TARGET in known:
            _refuse_other(models, known[TARGET], known[role], role)


def _in_file(model: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Return the tokens of the file of a model's tokenizer, None where there is no such file."""
    folder = tokenizer_folder(model) if model["tokenizer"] == "text" else None
    file = None if folder is None else folder / "tokenizer.json"
    return None if file is None or not file.is_file() else _vocabulary(file, file.stat().st_mtime_ns)


def refuse_other(
    models: Mapping[str, Mapping[str, Any]], target: Tokenizer, other: Tokenizer, role: str = DRAFT
) -> None:
    """Raise ConfigError for a model whose tokenizer, once loaded, has other tokens than the target's."""
    if isinstance(target, TextTokenizer) and isinstance(other, TextTokenizer):
        _refuse_other(models, target.inner.get_vocab(), other.inner.get_vocab(), role)


def _refuse_other(
    models: Mapping[str, Mapping[str, Any]], target: Mapping[str, int], other: Mapping[str, int], role: str
) -> None:
    if target == other:
        return
    texts = [{number: text for text, number in one.items()} for one in (target, other)]
    number = min(one for one in texts[0].keys() | texts[1].keys() if texts[0].get(one) != texts[1].get(one))
    here, there = (repr(one[number]) if number in one else "none" for one in texts)
    name = models[TARGET]["name"]
    raise ConfigError(
        f"{key_of(role)}={models[role]['name']}: its token {number} is {there}, that of model={name} is "
        f"{here}; vocabularies may differ by padding only, so use a smaller model of the same family"
    )


@lru_cache(maxsize=4)
def _vocabulary(file: Path, mtime_ns: int) -> Mapping[str, int]:
    from tokenizers import Tokenizer as Reader

    return Reader.from_file(str(file)).get_vocab(with_added_tokens=False)
