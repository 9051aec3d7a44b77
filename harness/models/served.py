"""A model behind an OpenAI-compatible address (vLLM, SGLang, ...): its answers and their time; nothing else is seen.

The server has its own tokenizer. Here a prompt is the UTF-8 of its text or turns, as JSON, and an answer that of its
text, so that both go the way of every sample; these numbers are no tokens, and none of them is stored or counted.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import torch

from harness.engine.own_sampler import Called, Sampled, SamplesOnly
from harness.engine.shared.generation import Outside
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.records import Counts, Loads
from harness.errors import ConfigError, DataError
from harness.models.pool import LoadedModel
from harness.models.service import Service

UNSEEN = ("model calls", "positions", "batch composition", "weights and code of the server")
"""What stands in every row: what a server does not tell."""

APIS = {"chat": "/chat/completions", "completions": "/completions"}
_UNKNOWN = frozenset(
    [
        *Counts.__dataclass_fields__,
        *Loads.__dataclass_fields__,
        *("nfe_idle", "tokens_out", "tokens_canvas", "tokens_generated", "forced", "remasked"),
        *("prompt_tokens", "output_ids", "decided_at", "finish_reason"),
    ]
)
_DECIDED = frozenset({"model", "prompt", "messages", "max_tokens", "seed", "stream", "n"})
_SEEDS = 1 << 31
"""Servers take seeds of 32 bits; more are cut to these."""


class ServedModel(SamplesOnly):
    """Asks a server once per prompt, those of a batch at the same time; it gives text, and keeps its own store."""

    def __init__(self, service: Service, spec: ModelSpec, *, served_name: str, api: str, fields: Mapping[str, object]):
        self.service, self.spec = service, spec
        self.served_name, self.api, self.fields = served_name, api, dict(fields)

    @property
    def device(self) -> torch.device:
        """The CPU, on which this end waits."""
        return torch.device("cpu")

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        settings: Mapping[str, object],
        called: Called,
    ) -> list[Sampled]:
        """Return the texts of the answers as bytes; raise DataError, in one line, for a request that gets none."""
        asked = [json.loads(bytes(prompt)) for prompt in prompts]
        return _together([lambda i=i: self._answer(asked[i], gen_length, seeds[i]) for i in range(len(asked))])

    def _answer(self, prompt: object, gen_length: int, seed: int) -> Sampled:
        body = {"model": self.served_name, "max_tokens": gen_length, "seed": seed % _SEEDS, **self.fields}
        answer = self.service.post(APIS[self.api], {**body, **_asked(prompt, self.api)})
        text, finish_reason = self._read(answer)
        usage = answer.get("usage")
        told = usage if isinstance(usage, dict) else {}
        numbers = {"prompt_tokens": told.get("prompt_tokens"), "tokens_out": told.get("completion_tokens")}
        reported = {name: number for name, number in numbers.items() if type(number) is int and number >= 0}
        reported |= {"tokens_canvas": gen_length, "finish_reason": finish_reason}
        outside = Outside(unseen=UNSEEN, unknown=_UNKNOWN, reported=reported)
        return Sampled(tokens=list(text.encode(errors="replace")), outside=outside)

    def _read(self, answer: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return text and finish reason of the only choice; an answer of which nothing is meant to be seen is empty."""
        place = "message.content" if self.api == "chat" else "text"
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if self.api == "chat" else choice["text"]
            reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            text = reason = answer
        if text is not None and not isinstance(text, str):
            raise DataError(
                f"model.url={self.service.base}: answered without choices[0].{place}; try another model.api"
            )
        return text or "", reason if isinstance(reason, str) else None


class Spoken:
    """Prompts and answers as UTF-8, in place of the tokens that only the server knows."""

    def __init__(self, api: str) -> None:
        self.api = api

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text."""
        return list(text.encode())

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, object]]) -> list[int]:
        """Return a text or turns as JSON; raise DataError for turns where the address takes a text."""
        if self.api == "completions" and not isinstance(prompt, str):
            raise DataError("model.api=completions: takes a text and no turns; use model.api=chat, or task.turns=text")
        return self.encode(json.dumps(prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of bytes."""
        return bytes(ids).decode(errors="replace")


def check(model: Mapping[str, Any]) -> None:
    """Raise ConfigError for settings of the model group that cannot be, before anything is asked."""
    _base(model["url"])
    _key(model["key_env"])
    if model["api"] not in APIS:
        raise ConfigError(f"model.api={model['api']}: must be one of {', '.join(APIS)}")
    if decided := sorted(_DECIDED & {*(model["kwargs"] or {})}):
        raise ConfigError(
            f"model.kwargs.{decided[0]}: is decided by the run; set gen_length, seed or model.served_name"
        )
    if not model["timeout_s"] > 0:
        raise ConfigError(f"model.timeout_s={model['timeout_s']}: must be above 0 seconds")
    if not 0 <= model["retries"] <= 10:
        raise ConfigError(f"model.retries={model['retries']}: must be from 0 to 10")


def load_served(
    *,
    name: str,
    url: str | None,
    served_name: str | None = None,
    api: str = "chat",
    kwargs: Mapping[str, object] | None = None,
    key_env: str | None = None,
    timeout_s: float = 600.0,
    retries: int = 3,
    max_length: int = 1_000_000,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Return the model `served_name` at `url`, or the only one there; `dtype` and `device` are the server's affair.

    `api` is the address that is asked, `kwargs` are further fields of a request (temperature 0 unless given), `key_env`
    names the environment variable that holds the key. Raise ConfigError or DataError, in one line, for settings that
    cannot be and a server that does not answer.
    """
    told = {"url": url, "key_env": key_env, "api": api, "kwargs": kwargs, "timeout_s": timeout_s, "retries": retries}
    check(told)
    service = Service(base=_base(url), key=_key(key_env), timeout_s=timeout_s, retries=retries)
    chosen = served_name or _only_one(service)
    spec = ModelSpec(
        name=name, kind=ModelKind.BLACK_BOX, vocab_size=256, max_length=max_length, layers=1, stop_ids=(), pad_id=0
    )
    fields = {"temperature": 0, **(kwargs or {})}
    return LoadedModel(
        model=ServedModel(service, spec, served_name=chosen, api=api, fields=fields),
        tokenizer=Spoken(api),
        checkpoint_sha256=None,
        parameters=None,
        elsewhere=f"{chosen} at {service.base}",
    )


def _base(url: object) -> str:
    """Return an address up to and with /v1."""
    example = "write http://localhost:8000, or wherever the server listens"
    try:
        parts = urlsplit(str(url))
        plain = re.fullmatch(r"[!-~]+", str(url)) is not None
        named = plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if url is None or not named:
        raise ConfigError(f"model.url={'null' if url is None else url}: is no address; {example}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("model.url: holds a password, which would be stored; use model.key_env=NAME")
    if parts.query or parts.fragment:
        raise ConfigError(f"model.url={url}: ends in a query; {example}")
    path = re.sub(r"/(chat/)?completions$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc}{path}" + ("" if re.search(r"/v\d+$", path) else "/v1")


def _key(key_env: str | None) -> str | None:
    """Return the key that a variable holds; what was given in place of its name may be a key, and is not repeated."""
    if key_env is None:
        return None
    if re.fullmatch(r"[A-Za-z_]\w*", str(key_env), re.ASCII) is None or key_env not in os.environ:
        raise ConfigError(
            "model.key_env: no environment variable of that name; export NAME=KEY, say model.key_env=NAME"
        )
    key = os.environ[key_env].strip()
    if not key.isascii() or not key.isprintable() or not key or " " in key:
        raise ConfigError(f"model.key_env={key_env}: what the variable holds is no key; export it anew")
    return key


def _only_one(service: Service) -> str:
    listed = service.get("/models").get("data")
    names = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if len(names) != 1 or not isinstance(names[0], str):
        offered = f"the server offers {', '.join(map(str, names))}" if names else "the server lists none"
        raise ConfigError(f"model.served_name=null: {offered}; choose one by model.served_name=NAME")
    return names[0]


def _asked(prompt: object, api: str) -> Mapping[str, object]:
    """Return the fields of a request that ask; an answer that is begun is to be gone on with (vLLM, SGLang)."""
    if api == "completions":
        return {"prompt": prompt}
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    assert isinstance(turns, list)
    begun = turns[-1]["role"] == "assistant"
    if begun and not turns[-1]["content"]:
        return {"messages": turns[:-1]}
    return {"messages": turns} | ({"continue_final_message": True, "add_generation_prompt": False} if begun else {})


def _together(asks: Sequence[Callable[[], Sampled]]) -> list[Sampled]:
    """Return all results in order, asked at the same time; raise the first error."""
    found: list[Sampled | BaseException | None] = [None] * len(asks)

    def ask(place: int) -> None:
        try:
            found[place] = asks[place]()
        except Exception as error:
            found[place] = error

    # Threads that end with the process: an interrupted run does not wait for a server.
    threads = [Thread(target=ask, args=(place,), daemon=True) for place in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if isinstance(one, Sampled)]
