"""Refusal of combinations that cannot run, before a model is loaded."""

import math
from collections.abc import Collection, Iterator
from dataclasses import fields, replace

from omegaconf import DictConfig

from harness.config import build, drafts, layers, protocols, samplers
from harness.config.catalogue import describe
from harness.config.knobs import knobs_read
from harness.config.overrides import tells_as_typed
from harness.config.root import Batching
from harness.config.words import refused
from harness.engine.diffusion.fit import refuse_arrivals, refuse_kind
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.families import Method
from harness.engine.shared.model import ModelKind
from harness.errors import ConfigError, DataError
from harness.models import hub
from harness.models.tokenizer import SymbolTokenizer
from tasks.task import Task

MOST_THREADS = 1024
"""More than any machine has use for; libraries of numbers end the process where threads cannot be had."""

_WHOLE = 1 << 63
"""Whole numbers beyond have no place in tensors."""

DTYPES = ("float32", "float64", "bfloat16", "float16")
GRAPHS = ("auto", "on", "off")


@tells_as_typed
def check(cfg: DictConfig) -> tuple[Method, Task]:
    """Return the method and the task of a config.

    Raise ConfigError naming the key, the value and what would do, if model, method and task do not fit, or answers
    cannot be graded here.
    """
    builder = build.Builder()
    method, task = _parts(cfg, builder)
    task.grading()
    look_at_models(cfg, builder)
    return method, task


@tells_as_typed
def fit(cfg: DictConfig, builder: build.Builder) -> tuple[Method, Task]:
    """Return the method and the task of a config; raise ConfigError likewise, but for answers that nobody can grade.

    Finding out may mean trying programs, which a run that is stored does not need.
    """
    method, task = _parts(cfg, builder)
    look_at_models(cfg, builder)
    return method, task


@tells_as_typed
def fit_decoding(cfg: DictConfig, builder: build.Builder) -> Method:
    """Return the method of a config; raise ConfigError if it, the kind of model and the length do not fit."""
    _finite(cfg, builder)
    check_kinds(cfg)
    return _decoding(cfg, builder)


def _parts(cfg: DictConfig, builder: build.Builder) -> tuple[Method, Task]:
    _finite(cfg, builder)
    protocols.check(cfg)
    check_kinds(cfg)
    _text(cfg)
    return _decoding(cfg, builder), builder.task(cfg)


def look_at_models(cfg: DictConfig, builder: build.Builder) -> None:
    """Raise ConfigError for a model that is not there, whose settings its loader refuses at a look, or that is
    asked beside it in another vocabulary.
    """
    models = builder.models(cfg)
    for role, model in models.items():
        with drafts.told_of(role):
            hub.find_of(model)
            build.check_model(model)
    drafts.refuse_other_files(models)


def _decoding(cfg: DictConfig, builder: build.Builder) -> Method:
    _lengths(cfg, knobs_read(builder.values.raw(cfg, "method")))
    method = builder.method(cfg)
    if isinstance(method, DiffusionMethod):
        try:
            refuse_kind(method, ModelKind(cfg.model.kind))
        except ValueError as error:
            raise ConfigError(f"method={cfg.method.name} model={cfg.model.name}: {error}") from error
        if cfg.batching == Batching.CONTINUOUS.value:
            try:
                refuse_arrivals(method)
            except ValueError as error:
                raise ConfigError(f"method={cfg.method.name} batching=continuous: {error}") from error
    drafts.refuse_unfit(cfg, method)
    layers.refuse_unfit(cfg, method)
    samplers.refuse_unfit(cfg, method)
    _worded(cfg, method)
    return method


def reason_against(method: DiffusionMethod, kind: ModelKind, **policies: object) -> str | None:
    """Return why a method cannot use other policies on models of a kind, or None if it can; nothing is loaded or run.

    Whether the method runs on such models at all is what its config says (`models`).
    """
    try:
        refuse_kind(replace(method, **policies), kind)  # type: ignore[arg-type]
    except ValueError as error:
        return str(error)
    return None


def _finite(cfg: DictConfig, builder: build.Builder) -> None:
    # What a protocol says has reached the others.
    sections = {key: builder.values.raw(cfg, key) for key in map(str, cfg) if key != "protocol"}
    for key, value in _numbers(sections):
        if isinstance(value, float) and not math.isfinite(value):
            raise refused(key, value, "must be a finite number")
        if isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
            raise refused(key, value, f"must lie from {-_WHOLE} to {_WHOLE - 1}")


def _numbers(node: object, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in a config, with their keys."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inner:
        yield from _numbers(value, f"{key}.{name}" if key else str(name))
    if isinstance(node, int | float):
        yield key, node


def _fits(threads: object, most: int) -> bool:
    return threads is None or (isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= most)


def _device(cfg: DictConfig) -> None:
    device = cfg.device
    allowed = {
        "threads": (_fits(device.threads, MOST_THREADS), f"a whole number from 1 to {MOST_THREADS}"),
        "dtype": (device.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
        "device": (str(device.device).split(":")[0] in ("auto", "cpu", "cuda"), "auto, cpu or cuda"),
        "deterministic": (isinstance(device.deterministic, bool), "true or false"),
        # Options of before these were there have neither.
        "graphs": (device.get("graphs", "off") in GRAPHS, f"one of {', '.join(GRAPHS)}"),
        "compile": (isinstance(device.get("compile", False), bool), "true or false"),
    }
    for knob, (fits, what) in allowed.items():
        if not fits:
            raise ConfigError(f"device.{knob}={device[knob]}: must be {what}")
    build.calls_of(cfg)


@tells_as_typed
def check_kinds(cfg: DictConfig) -> None:
    """Raise ConfigError for a device that cannot be, or a method that is not for models of this kind."""
    _device(cfg)
    _positions(cfg)
    if cfg.model.kind in cfg.method.models:
        return
    fitting = [str(m["name"]) for m in describe("model") if m["kind"] in cfg.method.models]
    raise ConfigError(
        f"method={cfg.method.name}: does not run on model={cfg.model.name}, which is {cfg.model.kind}; "
        f"it runs on {', '.join(fitting)}"
    )


def _positions(cfg: DictConfig) -> None:
    for section in drafts.ROLES.values():
        model = cfg.get(section) or {}
        for key, none_fits in (("max_length", False), ("block_length", True)):
            value = model.get(key)
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if key in model and not fits and not (none_fits and value is None):
                raise refused(f"{section}.{key}", value, "must be a whole number of at least 1")


def _worded(cfg: DictConfig, method: Method) -> None:
    """Raise ConfigError for texts of a method that a model cannot read; those with tokenizers of text read all."""
    if cfg.model.tokenizer != "symbols":
        return
    for slot in fields(method):
        in_tokens = getattr(getattr(method, slot.name), "in_tokens", None)
        try:
            _ = in_tokens and in_tokens(SymbolTokenizer().encode, ())
        except DataError as error:
            raise ConfigError(f"method={cfg.method.name} model={cfg.model.name}: {slot.name}: {error}") from None


def _lengths(cfg: DictConfig, read: Collection[str]) -> None:
    gen_length, own = cfg.gen_length, cfg.model.block_length
    if gen_length >= cfg.model.max_length:
        raise ConfigError(f"gen_length={gen_length}: model={cfg.model.name} has {cfg.model.max_length} positions")
    if cfg.model.kind == ModelKind.UNIFORM_DIFFUSION.value and gen_length % own:
        raise ConfigError(
            f"gen_length={gen_length}: model={cfg.model.name} writes canvases of {own} positions; "
            f"use gen_length={-(-gen_length // own) * own}"
        )
    for knob in (name for name in ("block_length", "sub_block_length") if name in read):
        block = cfg.method.get(knob)
        if not isinstance(block, int) or block < 1:
            continue
        # Blocks that count from absolute position 0 may end with the response.
        if "masked_diffusion" in cfg.method.models and block < gen_length and gen_length % block:
            divisors = [d for d in range(1, gen_length + 1) if gen_length % d == 0]
            raise ConfigError(
                f"method.{knob}={block}: must divide gen_length={gen_length}; {', '.join(map(str, divisors))} do"
            )
        if own is not None and (block > own or own % block):
            raise ConfigError(
                f"method.{knob}={block}: model={cfg.model.name} generates blocks of {own}; "
                f"use method.{knob}={own} or a divisor of it"
            )


def _text(cfg: DictConfig) -> None:
    renderer = cfg.task.get("renderer")
    if cfg.model.tokenizer == "text" and renderer == "tiny":
        raise ConfigError(
            f"task.renderer=tiny: model={cfg.model.name} reads text, not the symbols of the embedded models; "
            f"use task.renderer=chat with a task.template of its own"
        )
    if cfg.model.tokenizer == "symbols" and renderer is None:
        raise ConfigError(
            f"task={cfg.task.name}: is written in words, and model={cfg.model.name} reads symbols only; "
            f"choose a model with a tokenizer of text, or a list task"
        )
    if cfg.model.tokenizer == "symbols" and renderer != "tiny":
        raise ConfigError(
            f"task.renderer={renderer}: model={cfg.model.name} reads symbols only; use task.renderer=tiny"
        )
    asked, trained = cfg.task.get("max_items"), cfg.model.max_items
    if cfg.model.tokenizer == "symbols" and asked != trained and not _known(cfg):
        layout = f"prompts laid out for {trained} items" if asked is not None else "list tasks, and this is none"
        key = f"task.max_items={asked}" if asked is not None else f"task={cfg.task.name}"
        raise ConfigError(f"{key}: model={cfg.model.name} was trained on {layout}")


def _known(cfg: DictConfig) -> bool:
    return "knows" in cfg.model and cfg.task.name in cfg.model.knows
