"""A task of lm-evaluation-harness, asked and graded by its own definition (github.com/EleutherAI, 0.4.13)."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed
from typing import Any

from harness.errors import ConfigError, DataError
from tasks import settings as checks
from tasks.asking import Turns, cut
from tasks.lm_eval import data, requests
from tasks.lm_eval.definitions import UNNAMED, Definition, find
from tasks.task import Encoder, Grading, Sample, Score


@dataclass(frozen=True, kw_only=True)
class LmEvalTask:
    """The generate_until task `name` of lm-evaluation-harness, or of the YAML files below the folder `include_path`.

    Its definition gives prompts, worked examples, filters and metrics; `num_fewshot` and `gen_length` change it where
    they are given, as does `data`, a file of JSON lines for every split that the definition names. `turns` says who
    speaks (text: no chat; one: a single user turn; many). The first `samples` documents are asked. An answer is
    correct if `metric` after `filter` is at least 1 for it; None takes the first of each. `renderer` and `max_items`
    say of prompts in the symbols of the embedded models how they are laid out. Raises ConfigError.
    """

    name: str
    summary: str = ""
    template: str = "lm_eval"
    include_path: str | None = None
    data: dict[str, str] | None = None
    num_fewshot: int | None = None
    fewshot_seed: int = 1234
    turns: str = "text"
    samples: int | None = None
    gen_length: int = requests.DEFAULT_LENGTH
    metric: str | None = None
    filter: str | None = None
    renderer: str | None = None
    max_items: int | None = None
    download: bool = False

    def __post_init__(self) -> None:
        checks.refuse(self, self._problems())

    @staticmethod
    def default_length(settings: Mapping[str, Any]) -> int:
        """Return the answer tokens that the definition of `settings['name']` asks for; ConfigError as for `find`."""
        if settings["name"] == UNNAMED:
            return requests.DEFAULT_LENGTH
        return requests.length(find(settings["name"], settings["include_path"]).generation)

    @property
    def templates(self) -> tuple[str, ...]:
        """The one wording, that of the definition."""
        return ("lm_eval",)

    def sources(self) -> list[str]:
        """Return the version of the library, and a digest of every question, document and rule of the task."""
        task = self._task.dump_config()
        rules = {key: task.get(key) for key in ("metric_list", "filter_list", "process_results")}
        asked = [(r.args, r.doc, self._task.doc_to_target(r.doc)) for r in (s.instance for s in self._samples)]
        text = json.dumps(
            [rules, asked], sort_keys=True, default=lambda value: getattr(value, "__qualname__", str(value))
        )
        return [f"{installed('lm_eval')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"]

    def instances(self) -> list[Sample]:
        """Return the samples in the order of the data; DataError where the data set is not here."""
        return self._samples

    def score(self, sample: Sample, text: str) -> Score:
        """Grade an answer, cut at the first stop string, by the task's own filters and metrics."""
        answer = cut(text, requests.stops(sample.instance.args[1]))
        filtered, values = self._verdict(sample.instance, answer)
        name, metric = self._chosen(values)
        correct = values[metric, name] >= 1
        return Score(
            correct=correct,
            detail="" if correct else f"{metric} is {values[metric, name]:g}",
            extracted=filtered[name] if isinstance(filtered[name], str) else None,
            path=name,
            measures={f"{metric},{name}": value for (metric, name), value in values.items()},
        )

    def grading(self) -> Grading:
        """Return the library's version; warn of what the definition asks for and does not get."""
        warnings = []
        if asked := requests.sampling(self._definition.generation):
            warnings.append(f"task.name={self.name}: asks for {asked}; tokens are chosen as method says")
        for metric in self._definition.config.get("metric_list") or []:
            if (over := metric.get("aggregation", "mean")) not in ("mean", "nanmean"):
                warnings.append(
                    f"task.name={self.name}: {metric['metric']} is a number of all samples ({over}), left out"
                )
        return Grading(facts={"lm_eval": installed("lm_eval")}, warnings=tuple(warnings))

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest reference answer, end token included."""
        targets = (str(self._task.doc_to_target(sample.instance.doc)) for sample in self._samples)
        return 1 + max(len(tokenizer.encode(target)) for target in targets)

    @cached_property
    def _definition(self) -> Definition:
        definition = find(self.name, self.include_path)
        if self.num_fewshot and definition.config.get("num_fewshot") == 0:
            raise ConfigError(f"task.num_fewshot={self.num_fewshot}: task.name={self.name} is defined without examples")
        return definition

    @cached_property
    def _task(self) -> Any:
        found = data.load(self._definition, self.data or {}, num_fewshot=self.num_fewshot, download=self.download)
        if found.config.num_fewshot is None:
            found.set_config("num_fewshot", 0)
        found.set_fewshot_seed(self.fewshot_seed)
        return found

    @cached_property
    def _samples(self) -> list[Sample]:
        chat, task = Turns(self.turns) is not Turns.TEXT, self._task
        try:
            with data.silent():
                task.build_all_requests(
                    limit=self.samples,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=Turns(self.turns) is Turns.MANY,
                    chat_template=_as_turns if chat else None,
                )
        # Code and templates of a task raise whatever a row makes them raise.
        except Exception as error:
            raise DataError(f"task.name={self.name}: {type(error).__name__} in its prompts ({error})") from error
        asked = task.instances
        if self.samples is not None and self.samples > len(asked):
            raise DataError(f"task.samples={self.samples}: task.name={self.name} has {len(asked)} documents")
        kinds = {request.request_type for request in asked}
        if kinds != {"generate_until"} or len({request.doc_id for request in asked}) < len(asked):
            raise DataError(
                f"task.name={self.name}: asks for {', '.join(sorted(kinds))}; one answer per document is due"
            )
        self._chosen(self._verdict(asked[0], "")[1])
        return [Sample(id=str(request.doc_id), prompt=request.args[0], instance=request) for request in asked]

    def _verdict(self, request: Any, answer: str) -> tuple[dict[str, Any], dict[tuple[str, str], float]]:
        """Return the filtered answer by filter, and the numbers that the metrics give by metric and filter."""
        probe = copy.copy(request)
        probe.resps, probe.filtered_resps = [answer], {}
        for one in self._task._filters:  # `apply_filters` would filter the answers to all requests anew each time
            one.apply([probe])
        values = {}
        for name, response in probe.filtered_resps.items():
            for metric, value in self._task.process_results(request.doc, [response]).items():
                if isinstance(value, int | float):
                    values[metric, name] = float(value)
        return probe.filtered_resps, values

    def _chosen(self, values: Mapping[tuple[str, str], float]) -> tuple[str, str]:
        """Return filter and metric that decide; ConfigError where they do not exist, or where less is better."""
        smaller = {metric for metric, better in self._task.higher_is_better().items() if better is False}
        pairs = [(name, metric) for metric, name in values if metric not in smaller]
        for name, metric in pairs:
            if self.filter in (None, name) and self.metric in (None, metric):
                return name, metric
        key = "filter" if self.metric is None or any(self.metric == metric for _, metric in pairs) else "metric"
        known = ", ".join(f"task.metric={metric} task.filter={name}" for name, metric in pairs) or "none that fits"
        raise ConfigError(f"task.{key}={getattr(self, key)}: no such verdict on answers; there is {known}")

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.turns not in (known := [turns.value for turns in Turns]):
            yield "turns", f"must be one of {', '.join(known)}"
        if self.template not in self.templates:
            yield "template", "must be lm_eval; the definition of the task words it"
        for key, least in (("samples", 1), ("gen_length", 1), ("num_fewshot", 0)):
            if (value := getattr(self, key)) is not None and value < least:
                yield key, f"must be at least {least}"


def _as_turns(turns: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> list[Mapping[str, str]]:
    """Stand in for a chat template: turns go to the model's own template later, with an answer begun or not."""
    return list(turns)
