"""Models by role: the one that drafts for a target, and refusal of one that cannot, or that nobody asks."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from harness.config.catalogue import describe, read
from harness.config.content import tokenizer_folder
from harness.engine.families import Method, asks
from harness.engine.shared.model import ModelKind
from harness.errors import ConfigError
from harness.models.pool import Tokenizer
from harness.models.text import TextTokenizer

ROLES = {"target": "model", "draft": "draft"}
"""The roles of a run's models, each with the section of the config that says which model it is."""

_KEY = "model@draft"


def refuse_unfit(cfg: DictConfig, method: Method) -> None:
    """Raise ConfigError where a method lacks the draft that it asks, or is given one that it does not or cannot ask."""
    kinds, draft, name = asks(method), cfg.draft, cfg.method.name
    if draft is None:
        if kinds:
            raise ConfigError(f"{_KEY}=null: method={name} asks a model for its drafts; {_fitting(cfg, kinds)}")
        return
    given = f"{_KEY}={draft.name}"
    if not kinds:
        raise ConfigError(f"{given}: method={name} asks no model for drafts; leave it out, or use method=speculative")
    if ModelKind(draft.kind) not in kinds:
        raise ConfigError(f"{given}: is {draft.kind}, and method={name} cannot ask it; {_fitting(cfg, kinds)}")
    if draft.tokenizer != cfg.model.tokenizer:
        raise ConfigError(
            f"{given}: reads {draft.tokenizer}, model={cfg.model.name} reads {cfg.model.tokenizer}; "
            f"{_fitting(cfg, kinds)}"
        )
    if cfg.gen_length >= draft.max_length:
        raise ConfigError(f"gen_length={cfg.gen_length}: {given} has {draft.max_length} positions")


def _fitting(cfg: DictConfig, kinds: frozenset[ModelKind]) -> str:
    """Return how to go on: models of these kinds with the target's tokenizer, as far as a look at them tells."""
    names = [str(one["name"]) for one in describe("model") if ModelKind(str(one["kind"])) in kinds]
    alike = [name for name in names if read("model", name)["tokenizer"] == cfg.model.tokenizer]
    return f"name one of the target's vocabulary, such as {_KEY}={', '.join(alike)}"


@contextmanager
def told_of(role: str) -> Iterator[None]:
    """Have what is refused of a model name the keys of the section where its role has it."""
    try:
        yield
    except ConfigError as error:
        if role == "draft":
            spoken = re.sub(r"(?<![.\w])model=", f"{_KEY}=", str(error))
            error.args = (re.sub(r"(?<![.\w])model\.", "draft.", spoken),)
        raise


def refuse_other_files(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for a draft whose tokenizer's file has other tokens than the target's; models by role.

    Looked at is what can be told before a model is loaded; added tokens are compared when it is.
    """
    folders = [tokenizer_folder(models[role]) for role in ROLES if models[role]["tokenizer"] == "text"]
    files = [folder / "tokenizer.json" for folder in folders if folder is not None]
    if len(files) == len(ROLES) and all(file.is_file() for file in files):
        target, draft = (_vocabulary(file, file.stat().st_mtime_ns) for file in files)
        _refuse_other(models, target, draft)


def refuse_other(models: Mapping[str, Mapping[str, Any]], target: Tokenizer, draft: Tokenizer) -> None:
    """Raise ConfigError for a draft whose tokenizer, once loaded, has other tokens than the target's."""
    if isinstance(target, TextTokenizer) and isinstance(draft, TextTokenizer):
        _refuse_other(models, target.inner.get_vocab(), draft.inner.get_vocab())


def _refuse_other(models: Mapping[str, Mapping[str, Any]], target: Mapping[str, int], draft: Mapping[str, int]) -> None:
    if target == draft:
        return
    texts = [{number: text for text, number in one.items()} for one in (target, draft)]
    number = min(one for one in texts[0].keys() | texts[1].keys() if texts[0].get(one) != texts[1].get(one))
    here, there = (repr(one[number]) if number in one else "none" for one in texts)
    raise ConfigError(
        f"{_KEY}={models['draft']['name']}: its token {number} is {there}, that of model={models['target']['name']} is "
        f"{here}; vocabularies may differ by padding only, so use a smaller model of the same family"
    )


@lru_cache(maxsize=4)
def _vocabulary(file: Path, mtime_ns: int) -> Mapping[str, int]:
    from tokenizers import Tokenizer as Reader

    return Reader.from_file(str(file)).get_vocab(with_added_tokens=False)
