"""A model of lm-evaluation-harness whose answers are decoded here, counters included.

`model_args` are overrides as for `decbench run`: model=tiny_mdm,method=threshold,method.threshold=0.8,gen_length=32.
Imported by the library alone, which is why it may import the library.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm

from harness.config import compatibility
from harness.config.composition import compose, resolved
from harness.config.job import Shared, by_role, resolve_decoding
from harness.engine.families import Method
from harness.engine.shared.randomness import sample_seed
from harness.errors import ConfigError
from harness.models.text import TextTokenizer
from harness.results.schemas import COUNTERS
from harness.runs.decode_batch import decode_batch, with_room
from harness.runs.loading import load
from harness.runs.measure import Measure, Measurement
from harness.runs.runner import setting
from harness.runs.votes import in_tokens
from tasks.asking import cut
from tasks.lm_eval import requests as asked

_LOG = logging.getLogger(__name__)
_GROUPS = ("model", "model@draft", "draft", "model@judge", "judge", "method", "device", "seed", "gen_length")
_COUNTS = Measure(name=Measurement.COUNTS, warmup=0, repetitions=1)


class Rendered(str):
    """Chat turns as the model's template writes them, special tokens included: no more are put around it."""


class DecbenchLM(LM):
    """Answers requests of generate_until with a model and a method of decbench.

    `gen_length` among the settings replaces the length that requests ask for. `counters` has one entry per request, in
    order: task, doc_id, repetition and the counters of the samples table. Raises ConfigError for unusable settings.
    """

    def __init__(self, batch_size: int | str = 1, device: str | None = None, **settings: Any) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ConfigError(f"batch_size={batch_size}: must be a number of rows, at least 1")
        self.batch_size = int(batch_size)
        self._overrides = list(_overrides(settings | ({"device": device} if device is not None else {})))
        self._length: int | None = settings.get("gen_length")
        self._cfg = compose(self._overrides)
        compatibility.check_kinds(self._cfg)
        self._shared = Shared()
        compatibility.look_at_models(self._cfg, self._shared.builder)
        _, self._loaded = load(self._cfg)
        self.counters: list[dict[str, Any]] = []

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "DecbenchLM":
        """Make the model; what stands in `model_args` wins over the library's own flags."""
        flags = {k: v for k, v in (additional_config or {}).items() if v is not None and k != "max_batch_size"}
        if flags.get("device") == "cuda:0":
            flags["device"] = "auto"  # what the library says where nobody named a device, GPU or not
        return cls(**{**flags, **arg_dict})

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "DecbenchLM":
        """Make the model from `key=value,key=value`."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the answers in the order of the requests, each cut at the first of its stop strings."""
        answers, counters = [""] * len(requests), [{}] * len(requests)
        repetitions, lengths = _repetitions(requests), [self._length_of(request) for request in requests]
        for note in {note for request in requests if (note := asked.sampling(request.arguments[1]))}:
            _LOG.warning("a task asks for %s; tokens are chosen as method says", note)
        with tqdm(total=len(requests), disable=disable_tqdm or None, desc="decbench") as bar:
            for length in dict.fromkeys(lengths):
                method = self._method(length)
                places = [place for place, one in enumerate(lengths) if one == length]
                for first in range(0, len(places), self.batch_size):
                    part = places[first : first + self.batch_size]
                    made = self._answer([requests[i] for i in part], [repetitions[i] for i in part], length, method)
                    for place, (answer, counted) in zip(part, made, strict=True):
                        answers[place], counters[place] = answer, counted
                        self.cache_hook.add_partial("generate_until", requests[place].args, answer)
                    bar.update(len(part))
        self.counters += counters
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: how tokens are decoded plays no part in the likelihood of given ones."""
        raise _refusal("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse likewise."""
        raise _refusal("loglikelihood_rolling", requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return turns as the text that the answer follows; a last turn of the assistant is left open."""
        return Rendered(self._text("apply_chat_template").render(chat_history))

    @property
    def tokenizer_name(self) -> str:
        """Name of the model, by which the library keeps rendered requests apart."""
        return str(self._cfg.model.name)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the source of the model's template."""
        return str(self._text("chat_template").inner.chat_template) if chat_template else ""

    def get_model_info(self) -> dict[str, Any]:
        """Return what the library puts beside its results: the setting, and the sums of all counters."""
        known = {name: [row[name] for row in self.counters] for name in COUNTERS if self.counters}
        sums = {name: sum(values) for name, values in known.items() if None not in values}
        tpf = {"tpf": sums["tokens_out"] / sums["nfe"]} if sums.get("nfe") and "tokens_out" in sums else {}
        about = {
            "model": self._cfg.model.name,
            "setting": setting(by_role(resolved(self._cfg)), self._cfg.overrides),
            "seed": self._cfg.seed,
        }
        digest = {"checkpoint_sha256": self._loaded.checkpoint_sha256}
        return {"decbench": {**about, **digest, "requests": len(self.counters), **sums, **tpf}}

    def _length_of(self, request: Instance) -> int:
        return self._length or asked.length(request.arguments[1])

    def _method(self, length: int) -> Method:
        return resolve_decoding(compose([*self._overrides, f"gen_length={length}"]), self._shared).method

    def _answer(
        self, requests: Sequence[Instance], repetitions: Sequence[int], length: int, method: Method
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        seed = self._cfg.seed
        names = [(str(request.task_name), str(request.doc_id)) for request in requests]
        decoded = decode_batch(
            self._loaded.model,
            in_tokens(method, self._loaded.tokenizer),
            [self._ids(request, length) for request in requests],
            seeds=[sample_seed(seed, *name, r) for name, r in zip(names, repetitions, strict=True)],
            gen_length=length,
            measure=_COUNTS,
        )
        counters = decoded.counters(self._loaded.model.spec.stop_ids)
        for request, r, made, counted in zip(requests, repetitions, decoded.generations, counters, strict=True):
            text = cut(self._loaded.tokenizer.decode(made.answer), asked.stops(request.arguments[1]))
            if made.out_of_budget:
                where = f"task {request.task_name}, document {request.doc_id}"
                _LOG.warning("%s: used up its model calls and was ended as it stood (finish_reason=budget)", where)
            yield text, {"task": request.task_name, "doc_id": request.doc_id, "repetition": r, **counted}

    def _ids(self, request: Instance, length: int) -> list[int]:
        prompt, tokenizer = request.arguments[0], self._loaded.tokenizer
        ids = tokenizer.encode(prompt) if isinstance(prompt, Rendered) else tokenizer.encode_prompt(prompt)
        where, model = f"task {request.task_name}, document {request.doc_id}", self._cfg.model.name
        return with_room(self._loaded, ids, gen_length=length, where=where, model=model)

    def _text(self, what: str) -> TextTokenizer:
        if not isinstance(self._loaded.tokenizer, TextTokenizer):
            raise ConfigError(f"{what}: model={self._cfg.model.name} reads no chat turns; choose a model of text")
        return self._loaded.tokenizer


def _overrides(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield overrides; raise ConfigError for one that the library or its task decides."""
    for key, value in settings.items():
        if key.split(".")[0].split("/")[0] not in _GROUPS:
            known = ", ".join(_GROUPS)
            raise ConfigError(f"{key}={value}: no setting of a model; model_args take {known} and what is below them")
        device, colon, _ = str(value).partition(":")
        if key == "device" and colon:
            yield f"device={device}"
            yield f"device.device={value}"
        else:
            yield f"{key}={'null' if value is None else value}"


def _repetitions(requests: Sequence[Instance]) -> list[int]:
    """Return how often each request was asked before: the library repeats one object for several answers."""
    seen: Counter[int] = Counter()
    found = []
    for request in requests:
        found.append(seen[id(request)])
        seen[id(request)] += 1
    return found


def _refusal(kind: str, requests: Sequence[Instance]) -> ConfigError:
    names = ", ".join(sorted({str(request.task_name) for request in requests}))
    return ConfigError(
        f"--tasks {names}: asks for {kind}, and decbench measures decoding; choose tasks of generate_until"
    )
