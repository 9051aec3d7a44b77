"""What stored samples were asked: their prompts as text, made again from the task of the run's config."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from harness.config.build import Builder
from harness.config.content import tokenizer_folder
from harness.config.stored import restored
from harness.errors import ConfigError, DataError, MissingDependency, one_line
from harness.models import text
from harness.models.served import Spoken
from harness.models.tokenizer import SymbolTokenizer
from harness.results.canonical import canonical_json, prompt_digest
from tasks.task import Prompt

Row = Mapping[str, Any]
Turns = tuple[tuple[str, str], ...]
"""Role and text of every turn of a prompt; one turn without a role where it is a text."""

Encodings = Callable[[Prompt], list[list[int]]]

_LOG = logging.getLogger(__name__)


class Asked:
    """Tells the prompts of stored samples; a task and a tokenizer are read once for all runs."""

    def __init__(self) -> None:
        self._builder = Builder()
        self._prompts: dict[str, dict[str, Prompt]] = {}
        self._encodings: dict[str, Encodings] = {}
        self._said: set[str] = set()

    def __call__(self, run: Row, samples: Sequence[Row]) -> dict[str, Turns]:
        """Return prompts by name of sample, of those whose ids are the ones that the run was asked.

        What cannot be told here, or is asked otherwise today, is left out with a warning that says why, once.
        """
        try:
            config = json.loads(run["config"])
            if "models" not in config:
                raise DataError("its config is not stored")
            prompts, encodings = self._prompts_of(config), self._encodings_of(config["models"]["target"])
            same = [one for one in samples if _is_of(one, prompts, encodings)]
        except (ConfigError, DataError, MissingDependency) as error:
            self._say(run, one_line(error))
            return {}
        if len(same) < len(samples):
            self._say(run, "the task asks something else today")
        return {one["sample_id"]: _turns(prompts[one["sample_id"]]) for one in same}

    def _prompts_of(self, config: Mapping[str, Any]) -> dict[str, Prompt]:
        key = canonical_json(config["task"])
        if key not in self._prompts:
            task = self._builder.task(restored(config))
            self._prompts[key] = {one.id: one.prompt for one in task.instances()}
        return self._prompts[key]

    def _encodings_of(self, model: Mapping[str, Any]) -> Encodings:
        key = canonical_json(model)
        if key not in self._encodings:
            self._encodings[key] = _encodings(model)
        return self._encodings[key]

    def _say(self, run: Row, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _LOG.warning("%s: its prompts are not shown: %s", run["run_id"], reason)


def _is_of(sample: Row, prompts: Mapping[str, Prompt], encodings: Encodings) -> bool:
    prompt = prompts.get(sample["sample_id"])
    return prompt is not None and sample["prompt_sha256"] in map(prompt_digest, encodings(prompt))


def _encodings(model: Mapping[str, Any]) -> Encodings:
    """Return what gives the ids of a prompt in every way that the model may read it; raise DataError without any."""
    if model.get("tokenizer") == "symbols":
        return lambda prompt: [SymbolTokenizer().encode_prompt(prompt)]
    if "api" in model:
        return lambda prompt: [Spoken(model["api"]).encode_prompt(prompt)]
    folder = tokenizer_folder(model)
    if folder is None:
        raise DataError(f"model={model['name']}: how it reads a prompt is not known here")
    inner = text.read(folder)
    # Whether special tokens go around a text is the loader's choice.
    around = product(
        *((False, True) if one is not None else (False,) for one in (inner.bos_token_id, inner.eos_token_id))
    )
    readers = [text.TextTokenizer(inner, where=str(folder), stop_ids=(), add_bos=b, add_eos=e) for b, e in around]
    return lambda prompt: [one.encode_prompt(prompt) for one in readers]


def _turns(prompt: Prompt) -> Turns:
    if isinstance(prompt, str):
        return (("", prompt),)
    return tuple((turn["role"], turn["content"]) for turn in prompt)
