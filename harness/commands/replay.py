"""`decbench replay key=value ... [--lengths 1,2,4] [--thresholds 0.2,0.5] [--heuristic] [--json]`: other draft lengths.

Plain decoding answers the samples once, the drafter of the method says once what it would draft behind every token of
the answers, and the rounds of every draft length follow without the model: tokens per round, calls, and layers loaded,
as drafting itself would count them. What is said otherwise is said as to `run`; commas choose among exits or drafts:

    decbench replay model=tiny_ar_exits method=layer_skip method.exit=1,2,3 task=list_sort --lengths 1,2,4

`--lengths` are the most tokens of a round (default: 1 to 8; a block is replayed at its own), `--thresholds` end a draft
behind a token that the drafter gave less, `--heuristic` adds the schedule that goes up by two and down by one. Greedy
verification alone can be replayed, of drafters that look at the text alone. Nothing is stored.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.results.canonical import canonical_json

if TYPE_CHECKING:
    from harness.config.job import Job
    from harness.engine.autoregressive.method import AutoregressiveMethod
    from harness.engine.autoregressive.replay import DraftsFromText, Place, Rule
    from harness.runs.street import Street

_LENGTHS = tuple(range(1, 9))
_COLUMNS = ("model", "setting", "task", "rule", "tau", "drafted", "stand", "nfe", "nfe_draft", "loads", "x loads")
_NOTE = "tau: tokens per round, the target's own included; per sample: calls, layers loaded; *: loads the fewest layers"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which rules are replayed."""

    lengths: tuple[int, ...]
    thresholds: tuple[float, ...]
    heuristic: bool

    def rules(self, drafter: "DraftsFromText", own: int) -> list["Rule"]:
        """Return the rules for a drafter, `own` being its method's length; raise ConfigError where it has none."""
        from harness.engine.autoregressive.drafting import DraftsStepwise
        from harness.engine.autoregressive.replay import Rule

        name = type(drafter).__name__
        if self.thresholds and not isinstance(drafter, DraftsStepwise):
            raise ConfigError(f"--thresholds: {name} does not draft token by token; leave them out")
        if not drafter.nested:
            if self.lengths or self.heuristic:
                raise ConfigError(
                    f"--lengths: what {name} drafts hangs on their number; ask the method for another one"
                )
            return [Rule(length=own)]
        lengths = self.lengths or _LENGTHS
        fixed = [Rule(length=length, threshold=least) for least in (0.0, *self.thresholds) for length in lengths]
        return fixed + [Rule(length=length, heuristic=True) for length in lengths if self.heuristic and length]


def main(argv: Sequence[str]) -> int:
    """Print what every rule comes to, the cheapest marked; the rows as JSON with --json."""
    from harness.commands.results.words import parse

    words = parse(argv, flags=("--heuristic", "--json"), options=("--lengths", "--thresholds"))
    asked = Asked(
        lengths=tuple(int(one) for one in _numbers(words.options, "--lengths", "whole numbers from 0", str.isdecimal)),
        thresholds=tuple(map(float, _numbers(words.options, "--thresholds", "numbers in (0, 1]", _is_share))),
        heuristic="--heuristic" in words.flags,
    )
    rows = list(_rows(words.rest, asked))
    if "--json" in words.flags:
        sys.stdout.write(json.dumps({"replay": rows}) + "\n")
    else:
        _print(rows)
    return 0


def _numbers(options: dict[str, str], name: str, must: str, fits: Any) -> list[str]:
    given = options[name].split(",") if name in options else []
    for one in given:
        if not fits(one):
            raise ConfigError(f"{name}={options[name]}: must be {must}, with commas between them")
    return given


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


def _rows(overrides: Sequence[str], asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield a row for every setting, task and rule; all settings are looked at before a model is loaded."""
    from harness.config.composition import compose
    from harness.config.job import Shared, resolve
    from harness.runs.progress import Silent
    from harness.runs.runner import setting, street_of
    from harness.runs.sweep import expand

    shared = Shared()
    jobs = [resolve(compose(words), shared) for words in expand(overrides).jobs]
    rules = [_rules_of(job, asked) for job in jobs]
    answered: dict[str, list[_Answered]] = {}
    for job, wanted in zip(jobs, rules, strict=True):
        street, _ = street_of(job, Silent())
        target = canonical_json([job.plain["models"]["target"], job.plain["task"], job.cfg.gen_length])
        if target not in answered:
            answered[target] = _answers(street)
        # What a schedule comes to is not known before: a draft is never longer than an answer.
        longest = street.gen_length if asked.heuristic else max(rule.length for rule in wanted)
        traces = [_places(street, one, longest) for one in answered[target]]
        told = {"model": street.model, "setting": setting(job.plain, job.cfg.overrides), "task": street.task.name}
        for rule in wanted:
            yield told | _summed(rule, traces, street.loaded.model.spec.layers)


def _rules_of(job: "Job", asked: Asked) -> list["Rule"]:
    """Return the rules of a job; raise ConfigError, in one line, where its rounds do not follow from answers."""
    from harness.engine.autoregressive.method import AutoregressiveMethod
    from harness.engine.autoregressive.replay import DraftsFromText

    method, name = job.decoding.method, job.cfg.method.name
    if not isinstance(method, AutoregressiveMethod) or not isinstance(method.drafter, DraftsFromText):
        raise ConfigError(f"method={name}: drafts nothing that hangs on the text alone; use method=prompt_lookup, say")
    if not method.drafter.from_text:
        raise ConfigError(f"method={name}: its drafts hang on earlier rounds, or are a tree; switch that off")
    if getattr(method.acceptor, "temperature", 0.0) or getattr(method.drafter, "temperature", 0.0):
        raise ConfigError(f"method={name}: greedy verification alone is replayed; use method.temperature=0")
    return asked.rules(method.drafter, getattr(method.draft_length, "length", 0))


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """A sample: its prompt, what plain decoding answers, and its seed."""

    prompt: list[int]
    answer: tuple[int, ...]
    seed: int


def _answers(street: "Street") -> list[_Answered]:
    """Decode all samples plainly."""
    from harness.engine.autoregressive.method import AutoregressiveMethod

    plain = replace(street, method=AutoregressiveMethod(acceptor=_method(street).acceptor))
    found = []
    for prompts, decoded in plain.decodings():
        made = zip(prompts, decoded.generations, strict=True)
        found += [_Answered(prompt=prompt, answer=one.tokens, seed=street.seed) for prompt, one in made]
    return found


def _method(street: "Street") -> "AutoregressiveMethod":
    from harness.engine.autoregressive.method import AutoregressiveMethod

    assert isinstance(street.method, AutoregressiveMethod)
    return street.method


def _places(street: "Street", one: _Answered, longest: int) -> list["Place"]:
    from harness.engine.autoregressive.replay import record

    told = {"length": longest, "gen_length": street.gen_length, "seed": one.seed}
    return record(street.loaded.model, _method(street), one.prompt, one.answer, **told)


def _summed(rule: "Rule", traces: Sequence[Sequence["Place"]], layers: int) -> dict[str, Any]:
    """Return what a rule comes to over all samples, as ratios of totals and means per sample."""
    from harness.engine.autoregressive.replay import replay

    made = [replay(places, rule, layers=layers) for places in traces]
    rounds, drafted, stand = (
        sum(getattr(one.drafting, name) for one in made) for name in ("rounds", "draft_tokens", "accepted_draft_tokens")
    )
    loads = sum(one.layer_loads for one in made)
    return {
        "rule": _spelled(rule),
        "tau": 1 + stand / rounds if rounds else None,
        "drafted": drafted / rounds if rounds else None,
        "stand": stand / drafted if drafted else None,
        "nfe": sum(one.nfe for one in made) / len(made),
        "nfe_draft": sum(one.nfe_draft for one in made) / len(made),
        "loads": loads / len(made),
        "x loads": sum(one.plain_loads for one in made) / loads,
    }


def _spelled(rule: "Rule") -> str:
    if rule.heuristic:
        return f"heuristic from {rule.length}"
    return f"up to {rule.length}" + (f", none behind p < {rule.threshold:g}" if rule.threshold else "")


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from harness.commands.console import console

    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for row in rows:
        alike = [one for one in rows if (one["model"], one["task"]) == (row["model"], row["task"])]
        best = "*" if row["x loads"] == max(one["x loads"] for one in alike) else ""
        cells = [row[column] for column in _COLUMNS]
        table.add_row(*("-" if one is None else one if isinstance(one, str) else f"{one:.3g}" for one in cells[:-1]),
                      f"{row['x loads']:.3g}{best}")  # fmt: skip
    output = console()
    output.print(table, highlight=False)
    output.print(_NOTE, style="dim", highlight=False)
