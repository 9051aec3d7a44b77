"""Somebody else's `generate()` behind the interface of models that bring a sampler; hooks on its module count.

A forward hook sees the shape of what the module is called with: rows, and positions of a row. It does not see which
rows belong to which prompt or are finished (batch composition), what was read from a store of keys and values (cached
positions), and what is computed anywhere else, such as in a draft model (work outside the module).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.engine.own_sampler import Called, Sampled, SamplesOnly
from harness.engine.shared.generation import Outside
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.randomness import seeded
from harness.engine.shared.records import Role
from harness.errors import ConfigError, DataError
from harness.models import text
from harness.models.hf_causal import stops
from harness.models.pool import LoadedModel, Tokenizer
from harness.models.tokenizer import SymbolTokenizer
from harness.references import below, blame, find_function, imported, is_reference, is_there, module_of

UNSEEN = ("batch composition", "cached positions", "work outside the module")
"""What stands in every row: what a hook cannot see."""

_UNKNOWN = frozenset(
    "nfe_idle nfe_cache nfe_draft layer_tokens tokens_generated forced remasked decided_at "
    "layer_loads critical_depth head_tokens".split()
)
_BY_ROW = frozenset("nfe nfe_prefill nfe_total query_tokens".split())
_INPUTS = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")
TOKENIZERS = ("text", "symbols")

Generate = Callable[..., object]
"""`generate(prompts: list[list[int]], gen_length, seeds, **kwargs) -> list[list[int]]`: responses without prompts."""


class ExternalModel(SamplesOnly):
    """A black-box `generate` and the module that it calls; `where` names it in messages.

    Nobody else knows what the module wants to be called with, and the function keeps its own store.
    """

    def __init__(self, generate: Generate, module: nn.Module, spec: ModelSpec, *, where: str) -> None:
        self.generate, self.module, self.spec, self.where = generate, module, spec, where

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((weight.device for weight in self.module.parameters()), torch.device("cpu"))

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        settings: Mapping[str, object],
        called: Called,
    ) -> list[Sampled]:
        """Return what the function returns for all prompts at once; torch's generators start from the first seed.

        Raise DataError, in one line, for a function that raises, returns something else, or calls another module.
        """
        watch = _Watch(longest_prompt=max(map(len, prompts)), prompts=len(prompts), called=called)
        hook = self.module.register_forward_hook(watch, with_kwargs=True)
        try:
            with seeded(seeds[0], self.device):
                made = self.generate([list(prompt) for prompt in prompts], gen_length, list(seeds))
        except DataError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.where}: {blame(error)}") from error
        finally:
            hook.remove()
        responses = _checked(made, len(prompts), gen_length, self.spec.vocab_size, self.where)
        if not watch.calls:
            raise DataError(f"{self.where}: did not call model.module; name the module whose forward does the work")
        unknown = _UNKNOWN if watch.told_apart else _UNKNOWN | _BY_ROW
        return [Sampled(tokens=one, outside=Outside(unseen=UNSEEN, unknown=unknown)) for one in responses]


@dataclass
class _Watch:
    """Reports the calls of one `generate`: those that reach no further than the prompts are theirs, until another.

    Rows are shared out evenly among the prompts. Where they cannot be (`told_apart` is False then), nothing is known
    of a single prompt's. That the logits of a prompt's call are used cannot be seen, and is assumed.
    """

    longest_prompt: int
    prompts: int
    called: Called
    calls: int = 0
    told_apart: bool = True
    _prompt_positions: int = field(default=0, init=False)
    _generating: bool = field(default=False, init=False)

    def __call__(self, module: nn.Module, arguments: tuple, named: dict[str, object], output: object) -> None:
        rows, width = _shape(arguments, named)
        self._prompt_positions += width
        self._generating |= self._prompt_positions > self.longest_prompt
        self.calls += 1
        if rows % self.prompts:
            self.told_apart = False
            return
        samples = [sample for sample in range(self.prompts) for _ in range(rows // self.prompts)]
        role = Role.TARGET if self._generating else Role.PREFILL
        self.called(role, samples, query=width, keys=width, head=width)


def _shape(arguments: Sequence[object], named: Mapping[str, object]) -> tuple[int, int]:
    """Return rows and positions of ids or embeddings, named as transformers names them, or else of the first tensor."""
    candidates = [*(named.get(name) for name in _INPUTS), *arguments, *named.values()]
    found = next((one for one in candidates if isinstance(one, Tensor) and one.ndim), None)
    if found is None:
        raise DataError("model.module: is called without ids or embeddings; name the module that is called with them")
    return (1, found.shape[0]) if found.ndim == 1 else (found.shape[0], found.shape[1])


def _checked(made: object, prompts: int, gen_length: int, vocab_size: int, where: str) -> list[list[int]]:
    """Return the responses; raise DataError for what is not a list of ids per prompt."""
    due = f"{prompts} lists of token ids, one per prompt, are due"
    if not isinstance(made, list | tuple):
        raise DataError(f"{where}: returned {type(made).__name__}; {due}")
    if len(made) != prompts:
        raise DataError(f"{where}: returned {len(made)} answers; {due}")
    for number, ids in enumerate(made, start=1):
        problem = _problem(ids, gen_length, vocab_size)
        if problem is not None:
            raise DataError(f"{where}: answer {number} of {prompts} {problem}")
    return [list(ids) for ids in made]


def _problem(ids: object, gen_length: int, vocab_size: int) -> str | None:
    if not isinstance(ids, list | tuple):
        return f"is of type {type(ids).__name__}; return a list of ids, of a tensor its tolist()"
    if len(ids) > gen_length:
        return f"has {len(ids)} tokens, gen_length={gen_length}; return the response alone, without the prompt"
    for place, token in enumerate(ids):
        if type(token) is not int:
            return f"holds {token!r} at place {place}; return ids as int, of a tensor its tolist()"
        if not 0 <= token < vocab_size:
            return f"holds id {token} at place {place}; the vocabulary has ids from 0 to {vocab_size - 1}"
    return None


def checkpoint_folder(model: Mapping[str, Any]) -> Path | None:
    """Return what `model.path` names; raise ConfigError where nothing is there."""
    if model.get("path") is None:
        return None
    path = Path(model["path"])
    if not path.exists():
        raise ConfigError(f"model.path={path}: no such file or folder; name the checkpoint that model.target uses")
    return path


def load_external(
    *,
    name: str,
    target: str | None,
    module: str | None,
    load: str | None = None,
    kwargs: Mapping[str, object] | None = None,
    tokenizer: str = "text",
    max_length: int = 2048,
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Import the function `target` (package.module:function) and find the module that it calls.

    `module` is a dotted path: of what the target's module has, or of any other module; with `load`, below what that
    returns, which may be left out. `load` (package.module:function) is called with those of path, dtype and device
    that it takes and returns a module, or one with its transformers tokenizer; the target then also gets the module as
    `model`. Without a tokenizer from there, `text` is the one in the folder `path`. Raise ConfigError or DataError, in
    one line, for what is not there, or cannot be used.
    """
    check({"tokenizer": tokenizer, "target": target, "module": module, "load": load})
    # Weights that are drawn when code is imported are the same in every process.
    with seeded(0, torch.device(device)):
        generate, own = find_function("model.target", target), None
        if load is None:
            found = _of_code(str(module), str(target))
        else:
            made, own = _loaded(load, {"path": path, "dtype": dtype, "device": device})
            found = below("model.module", module, made, module or "")
    inner = _require_module(module, found, dtype)
    given = dict(kwargs or {}) | ({} if load is None else {"model": inner})
    where = f"model.target={target}"
    _require_signature(where, generate, given)
    encoder, vocab_size, stop_ids = _tokenizer(tokenizer, own, inner, path)
    spec = ModelSpec(
        name=name,
        kind=ModelKind.BLACK_BOX,
        vocab_size=vocab_size,
        max_length=max_length,
        layers=1,
        stop_ids=stop_ids,
        pad_id=stop_ids[0],
    )
    return LoadedModel(
        model=ExternalModel(bound(generate, given), inner, spec, where=where),
        tokenizer=encoder,
        checkpoint_sha256=None,
        parameters=sum(weight.numel() for weight in inner.parameters()),
    )


def check(model: Mapping[str, Any]) -> None:
    """Raise ConfigError for what is wrong before anybody's code is imported."""
    if model["tokenizer"] not in TOKENIZERS:
        raise ConfigError(f"model.tokenizer={model['tokenizer']}: must be one of {', '.join(TOKENIZERS)}")
    module_of("model.target", model["target"])
    if model["load"] is None and model["module"] is None:
        raise ConfigError("model.module=null: name the nn.Module whose forward does the work, such as mine.MODEL")


def bound(generate: Generate, arguments: Mapping[str, object]) -> Generate:
    """Return a function of prompts, gen_length and seeds alone."""
    return lambda prompts, gen_length, seeds: generate(prompts, gen_length, seeds, **arguments)


def taken(function: Callable[..., object], offered: Mapping[str, object]) -> dict[str, object]:
    """Return those of the arguments offered that a function takes by name."""
    parameters = inspect.signature(function).parameters.values()
    names = {one.name for one in parameters}
    everything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return {name: value for name, value in offered.items() if everything or name in names}


def _of_code(module: str, target: str) -> object:
    """Return what a path names in the module of `target`, or in any other."""
    home, _, path = module.partition(":") if is_reference(module) else ("", "", module)
    if home:
        return below("model.module", module, imported("model.module", module, home), path)
    here = imported("model.target", target, target.partition(":")[0])
    parts = path.split(".")
    if hasattr(here, parts[0]):
        return below("model.module", module, here, path)
    if not all(part.isidentifier() for part in parts) or not is_there(path):
        raise ConfigError(
            f"model.module={module}: neither in {target.partition(':')[0]} nor a module; write mine.MODEL"
        )
    owner, rest = imported("model.module", module, parts[0]), parts[1:]
    for depth in range(1, len(parts)):
        if hasattr(owner, parts[depth]):
            break
        owner, rest = imported("model.module", module, ".".join(parts[: depth + 1])), parts[depth + 1 :]
    return below("model.module", module, owner, ".".join(rest))


def _loaded(load: str, offered: Mapping[str, object]) -> tuple[object, Any]:
    """Return the module and the tokenizer, or None, that `load` returns."""
    factory = find_function("model.load", load)
    try:
        made = factory(**taken(factory, offered))
    except (Exception, SystemExit) as error:
        raise DataError(f"model.load={load}: {blame(error)}") from error
    if isinstance(made, tuple):
        if len(made) != 2:
            raise DataError(f"model.load={load}: returned {len(made)} things; return a module, or (module, tokenizer)")
        return made
    return made, None


def _require_module(path: str | None, found: object, dtype: torch.dtype) -> nn.Module:
    if not isinstance(found, nn.Module):
        kind = "the class" if isinstance(found, type) else "of type"
        shown = getattr(found, "__name__", type(found).__name__)
        raise ConfigError(f"model.module={path or 'null'}: is {kind} {shown}; name an object that is a torch.nn.Module")
    kinds = {weight.dtype for weight in found.parameters() if weight.is_floating_point()}
    if kinds and dtype not in kinds:
        has = str(next(iter(kinds))).removeprefix("torch.")
        asked = str(dtype).removeprefix("torch.")
        raise ConfigError(f"device.dtype={asked}: the weights of model.module={path} are {has}; say device.dtype={has}")
    return found


def _require_signature(where: str, generate: Generate, arguments: Mapping[str, object]) -> None:
    try:
        inspect.signature(generate).bind([[0]], 1, [0], **arguments)
    except TypeError as error:
        due = "prompts, gen_length, seeds and model.kwargs"
        raise ConfigError(f"{where}: is called with {due}, but: {error}; give model.kwargs.NAME=VALUE") from None
    except ValueError:
        return  # compiled code tells no signature


def _tokenizer(kind: str, own: Any, module: nn.Module, path: str | None) -> tuple[Tokenizer, int, tuple[int, ...]]:
    """Return the tokenizer, the number of ids, and those that end an answer."""
    if kind == "symbols":
        return SymbolTokenizer(), SymbolTokenizer.vocab_size, (SymbolTokenizer.eos_id,)
    if own is None and path is None:
        raise ConfigError(
            "model.tokenizer=text: name the checkpoint's folder by model.path, or let model.load return "
            "(module, tokenizer); symbols is that of the embedded models"
        )
    where = Path(path) if path is not None else Path("model.load")
    inner = text.read(where) if own is None else own
    stop_ids = stops(where, module, inner)
    config = getattr(module, "config", None)
    encoder = text.TextTokenizer(inner, where=str(where), stop_ids=stop_ids, add_bos=text.begins_with_bos(inner))
    return encoder, max(len(inner), getattr(config, "vocab_size", None) or 0), stop_ids
