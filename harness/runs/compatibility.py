"""Refusal of combinations that cannot run, before a model is loaded."""

from omegaconf import DictConfig

from harness.errors import ConfigError
from harness.models import hub
from harness.runs import build
from harness.runs.catalogue import describe


def check(cfg: DictConfig) -> None:
    """Raise ConfigError naming the key, the value and what would do, if model, method and task do not fit."""
    _kinds(cfg)
    _lengths(cfg)
    _text(cfg)
    build.build_method(cfg)
    build.build_task(cfg)
    hub.find_of(cfg.model)


def _kinds(cfg: DictConfig) -> None:
    if cfg.model.kind in cfg.method.models:
        return
    fitting = [str(m["name"]) for m in describe("model") if m["kind"] in cfg.method.models]
    raise ConfigError(
        f"method={cfg.method.name}: does not run on model={cfg.model.name}, which is {cfg.model.kind}; "
        f"it runs on {', '.join(fitting)}"
    )


def _lengths(cfg: DictConfig) -> None:
    gen_length, block = cfg.gen_length, cfg.method.get("block_length")
    if gen_length >= cfg.model.max_length:
        raise ConfigError(f"gen_length={gen_length}: model={cfg.model.name} has {cfg.model.max_length} positions")
    if not isinstance(block, int):
        return
    if block < gen_length and gen_length % block:
        divisors = [d for d in range(1, gen_length + 1) if gen_length % d == 0]
        raise ConfigError(
            f"method.block_length={block}: must divide gen_length={gen_length}; {', '.join(map(str, divisors))} do"
        )
    own = cfg.model.block_length
    if own is not None and (block > own or own % block):
        raise ConfigError(
            f"method.block_length={block}: model={cfg.model.name} generates blocks of {own}; "
            f"use method.block_length={own} or a divisor of it"
        )


def _text(cfg: DictConfig) -> None:
    renderer = cfg.task.get("renderer")
    if cfg.model.tokenizer == "text" and renderer == "tiny":
        raise ConfigError(
            f"task.renderer=tiny: model={cfg.model.name} reads text, not the symbols of the embedded models; "
            f"use task.renderer=chat with a task.template of its own"
        )
    if cfg.model.tokenizer == "symbols" and renderer != "tiny":
        raise ConfigError(
            f"task.renderer={renderer}: model={cfg.model.name} reads symbols only; use task.renderer=tiny"
        )
    if cfg.model.tokenizer == "symbols" and cfg.task.max_items != cfg.model.max_items:
        raise ConfigError(
            f"task.max_items={cfg.task.max_items}: model={cfg.model.name} was trained on prompts laid out for "
            f"{cfg.model.max_items} items"
        )
