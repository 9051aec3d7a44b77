"""`decbench cost model=NAME method=NAME device=NAME [...]`: what a decoding would cost on a machine that is not here.

An embedded model of the same kind decodes a few prompts, in whole batches. Its calls, with the positions that each
computed and saw, are then priced for the shape of `model` on `device`: operations, bytes, and the longer of the two
times that they take. Beside them stands a causal model of the same shape that writes the same answers in the same
batches. Every number is a prediction, none is measured; what the small model is sure of, the large one may not be.

| words | what they do |
|---|---|
| on=NAME | another embedded model; what else is said is said to it, as to `run`: task=list_sort batch_size=4 |
| method/cache=none,prefix,dual | several decodings, as in a sweep |
| --figure FOLDER | draws where their time goes, as time_parts.svg, pdf, png and csv |
| device=FILE.json | a machine that `decbench bench --fit` measured, in its bytes per value; calls beyond are refused |

`even_at` are the tokens that a call has to decide to be as fast as the causal model. `decbench cost break_even
[key=value ...]`: the same by batch and context (`harness.commands.cost_break_even`). `decbench cost serving
[context=8192,32768]`: the cost of a token of four published models where many are served.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.cost_decoding import decode, job_of
from harness.commands.cost_measured import measured_for, require_measured
from harness.commands.writable import require_drawing
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.config.job import Job
    from harness.engine.shared.records import ForwardRecord
    from harness.models.cost.fit import Fit
    from harness.models.cost.machine import Machine
    from harness.models.cost.shape import ModelShape
    from harness.models.cost.work import Call, Timing, Work
    from harness.models.transformer import TransformerConfig

_ON = {"masked_diffusion": "tiny_mdm", "block_diffusion": "tiny_block", "causal": "tiny_ar"}
"""What decodes in place of a model, by kind."""
_MOST_BYTES = 8
_FOR_RUN = ("experiment", "measure", "results_dir", "name")
_OWN = ("model", "device", "on", "bytes_per_value")
_PART = "predicted_ms_of_"
_CAUSAL = "causal, same shape"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked: whose calls are priced, where, and with how many bytes per weight; `overrides` are the run's."""

    model: str = "llada_8b_instruct"
    device: str = "h200"
    on: str | None = None
    bytes_per_value: float = 2
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Calls and what they come to on a machine: `tokens` that answers hold, and seconds by what they are spent on."""

    calls: int
    tokens: int
    query_tokens: float
    work: "Work"
    spent: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """The time of all calls."""
        return sum(self.spent.values())

    def per_token(self) -> dict[str, float]:
        """Return the predicted columns of a table."""
        return {
            "calls": self.calls,
            "tokens_per_call": self.tokens / self.calls,
            "query_tokens": self.query_tokens,
            "predicted_gflops_per_token": self.work.flops / self.tokens / 1e9,
            "predicted_gbytes_per_token": self.work.moved / self.tokens / 1e9,
            "predicted_ms_per_call": 1000 * self.seconds / self.calls,
            "predicted_tokens_per_s": self.tokens / self.seconds,
        }

    def parts(self) -> dict[str, float]:
        """Return the predicted milliseconds of a token by what they are spent on."""
        return {f"{_PART}{part}": 1000 * seconds / self.tokens for part, seconds in self.spent.items()}


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """One row: what it is called in a figure, how many rows a call has, what it rests on, and its columns."""

    label: str
    batch_size: int
    causal: bool
    row: dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Print predictions, as a table or with --json as the last line; draw what --figure asks for."""
    from harness.commands.results.words import taken_out

    if argv[:1] == ["break_even"]:
        from harness.commands import cost_break_even

        return cost_break_even.main(argv[1:])
    folder, words = taken_out([word for word in argv if word != "--json"], "--figure")
    if words[:1] == ["serving"]:
        if folder is not None:
            raise ConfigError("--figure: serving draws nothing; leave it out")
        tell(serving_rows(words[1:]), as_json="--json" in argv)
        return 0
    asked = options(words)
    if folder is not None:
        require_drawing(folder)
    found = decodings(asked)
    if folder is not None:
        for path in _drawn(found, asked, Path(folder)):
            sys.stdout.write(f"{path}\n")
    tell([one.row for one in found], as_json="--json" in argv)
    return 0


def tell(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows: all of them as JSON, or as a table without the parts of the time."""
    if as_json:
        sys.stdout.write(json.dumps({"cost": rows}) + "\n")
        return
    from rich.table import Table

    from harness.commands.console import console

    columns = [column for column in rows[0] if not column.startswith(_PART)]
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        cells = (row[column] for column in columns)
        table.add_row(
            *(value if isinstance(value, str) else "" if value is None else f"{value:.4g}" for value in cells)
        )
    console().print(table, highlight=False)


def options(words: Sequence[str]) -> Options:
    """Return what a command line asks; raise ConfigError for a number that is none, or keys that only runs have."""
    own: dict[str, Any] = {}
    overrides = []
    for word in words:
        key, _, value = word.partition("=")
        if key in _OWN:
            if not value.strip():
                raise ConfigError(f"{word}: needs a value; leave it out for the default")
            own[key] = value
        elif key in _FOR_RUN:
            raise ConfigError(f"{word}: is for run; cost decodes a few prompts and stores nothing")
        else:
            overrides.append(word)
    _refuse_unknown(overrides)
    if "bytes_per_value" in own:
        own["bytes_per_value"] = _bytes(own["bytes_per_value"])
    if (stored := _stored_bytes(own.get("device", ""))) and own.setdefault("bytes_per_value", stored) != stored:
        raise ConfigError(
            f"bytes_per_value={own['bytes_per_value']:g}: {own['device']} was measured with {stored} bytes per value; "
            f"leave it out"
        )
    return Options(**own, overrides=tuple(overrides))


def _refuse_unknown(overrides: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest one, for a key that neither cost nor run knows."""
    from harness.config.catalogue import nearest
    from harness.config.overrides import parse
    from harness.config.root import GROUPS, BenchConf

    known = {*_OWN, *(one.name for one in fields(BenchConf))} - {*_FOR_RUN}
    for key in (override.key_or_group for override in parse(overrides)):
        if key.partition(".")[0].partition("/")[0] not in {*known, *GROUPS, "hydra"}:
            raise ConfigError(f"{key}: no such key; {nearest(key, known)}")


def _stored_bytes(device: str) -> int | None:
    """Return what a value took where a machine was measured; None for one of a data sheet."""
    from harness.models.cost.fit import Fit
    from harness.models.cost.fit_file import BYTES

    where = timing_named(device) if device.endswith(".json") else None
    return BYTES[where.dtype] if isinstance(where, Fit) else None


def _bytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= _MOST_BYTES:
        raise ConfigError(f"bytes_per_value={text}: must be a number of bytes, such as 2 or 0.5, at most {_MOST_BYTES}")
    return value


def decodings(asked: Options) -> list[Decoding]:
    """Return what decodings cost and, after each, what a causal model of the same shape would."""
    from harness.config.catalogue import read
    from harness.models.cost.shape import shape_of
    from harness.runs.sweep import expand

    config, where = config_named(asked.model), timing_named(asked.device)
    shape, kind = shape_of(config, bytes_per_value=asked.bytes_per_value), read("model", asked.model)["kind"]
    on = asked.on or _ON.get(kind)
    if on is None:
        raise ConfigError(f"model={asked.model}: nothing embedded decodes as {kind} does; name a model with on=")
    jobs = [job[1:] for job in expand([f"model={on}", *asked.overrides]).jobs]
    # All of them before the first is decoded, so that the last is not refused minutes later.
    found = zip(jobs, _labels(jobs), [job_of([f"model={on}", *job]) for job in jobs], strict=True)
    with measured_for(asked, config, where):
        return [one for words, label, job in found for one in _both(words, label, job, asked, on, shape, where)]


def _both(
    words: Sequence[str], label: str, job: "Job", asked: Options, on: str, shape: "ModelShape", where: "Timing"
) -> Iterator[Decoding]:
    from harness.models.cost.generations import causal_calls

    decoded, prompts = decode(job)
    calls = [call for batch in decoded for call in calls_of(batch.calls)]
    answers = [[len(made.answer) for made in batch.generations] for batch in decoded]
    causal = [call for given, made in zip(prompts, answers, strict=True) for call in causal_calls(given, made)]
    require_measured(where, shape, [*calls, *causal])
    cost, beside = (priced(some, sum(map(sum, answers)), shape, where) for some in (calls, causal))
    even = (cost.seconds / cost.calls) / (beside.seconds / beside.tokens)
    rows = max(map(len, prompts))
    told = f"{' '.join(words) or 'method=llada'} (calls of {on}) as {asked.model} on {asked.device}"
    for name, shown, one, at in ((told, label, cost, even), ("causal, same shape and answers", _CAUSAL, beside, None)):
        row = {"decoding": name, **one.per_token(), "even_at": at, **shares(one.work), **one.parts()}
        yield Decoding(label=shown, batch_size=rows, causal=one is beside, row=row)


def _labels(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return what tells jobs apart: their methods, and the words that not all have."""
    common = set.intersection(*map(set, jobs))
    told = [[word for word in job if word not in common or word.startswith("method=")] for job in jobs]
    short = [[_shortened(word) for word in words] for words in told]
    return [" ".join(words) or "llada" for words in short]


def _shortened(word: str) -> str:
    key, _, value = word.partition("=")
    named = {"method": value, "batch_size": f"batch {value}"}
    return named.get(key, word.removeprefix("method/").removeprefix("method."))


def timing_named(device: str) -> "Fit | Machine":
    """Return a machine by name, or the one that a file of `decbench bench --fit` holds."""
    from harness.models.cost.fit_file import read_fit
    from harness.models.cost.machine import machine

    return read_fit(Path(device)) if device.endswith(".json") else machine(device)


def _drawn(found: Sequence[Decoding], asked: Options, folder: Path) -> list[Path]:
    from harness.models.cost.work import PARTS
    from harness.results.figures.making import make_rows, save

    batches = dict.fromkeys(one.batch_size for one in found)
    # The answers of decodings differ little: one causal bar for each batch size is enough.
    causal = {one.batch_size: one for one in reversed(found) if one.causal}
    shown = [one for one in found if not one.causal] + [causal[size] for size in batches]
    rows = []
    for one in shown:
        name = f"{one.label}, batch {one.batch_size}" if one.causal and len(batches) > 1 else one.label
        ms = {part: one.row[f"{_PART}{part}"] for part in PARTS}
        rows += [{"decoding": name, "part": part, "ms_per_token": taken, "share": taken / sum(ms.values())}
                 for part, taken in ms.items()]  # fmt: skip
    sizes = ", ".join(map(str, sorted(batches)))
    summary = (
        f"Where the time goes that {asked.model} is predicted to take on {asked.device}, with "
        f"{asked.bytes_per_value:g} bytes per value, at batch {sizes}: calls of a small model, priced. A call waits "
        "for arithmetic or for memory; its parts share that time by their operations or by their bytes. The causal "
        "model writes the answers of the first decoding."
    )
    provenance = {"cost": {**asdict(asked), "machine": asdict(timing_named(asked.device))}, **code()}
    return save(make_rows("time_parts", rows, summary=summary, provenance=provenance), folder / "time_parts")


def code() -> dict[str, Any]:
    """Return which code a prediction is of."""
    from harness.runs.provenance import collect

    told = collect("cpu", switches={})
    return {name: told[name] for name in ("git_commit", "git_dirty", "packages_sha256")}


def config_named(name: str) -> "TransformerConfig":
    """Return the sizes of a model that is embedded, published with a known shape, or lies on this machine."""
    from harness.config.catalogue import names, nearest, read
    from harness.models import checkpoint, hub, packaged
    from harness.models.embedded import CHECKPOINTS
    from harness.models.public.families import FAMILIES
    from harness.models.public.loader import read_config
    from harness.models.public.synthetic import SHAPES

    if name not in names("model"):
        raise ConfigError(f"model={name}: no such model; {nearest(name, names('model'))}")
    model = read("model", name)
    family = model["loader"].get("family")
    if name in SHAPES:
        config = SHAPES[name]
    elif (CHECKPOINTS / name).is_dir():
        config = checkpoint.read_config(CHECKPOINTS / name)
    elif family in FAMILIES:
        folder = hub.find(name, hub_id=model.get("hub_id"), path=model.get("path"))
        config, _ = read_config(folder, FAMILIES[family], model["loader"].get("ignored_fields", ()))
    elif "package" in model:
        config, _ = read_config(packaged.made(model), FAMILIES[packaged.FAMILY], ())
    else:
        raise ConfigError(f"model={name}: its shape is not known here; choose {', '.join(SHAPES)}, or an in-tree model")
    return config


def calls_of(records: Sequence["ForwardRecord"]) -> Iterator["Call"]:
    """Yield the calls of a batch as their cost sees them; where one reuses what another has stored, all store."""
    from harness.models.cost.work import Call

    reuses = any(record.reused_B is not None and bool(record.reused_B.any()) for record in records)
    for record in records:
        tokens = float(record.layer_tokens_B.sum()) / record.layers if record.layers else 0.0
        yield Call(
            tokens=tokens,
            pairs=float((record.query_B * record.keys_B).sum()),
            # Queries of a causal call see fewer keys, on the mean, than the call computes and reads.
            visible=float(record.keys_B.maximum(record.query_B).sum()),
            head=float(record.head_B.sum()),
            stored=tokens if reuses else 0,
            depth=record.layers / record.layers_total,
            fills=reuses and record.reused_B is not None and not bool(record.reused_B.any()),
        )


def priced(calls: Sequence["Call"], tokens: int, shape: "ModelShape", where: "Timing") -> Cost:
    """Return what calls cost that made `tokens` tokens of answers."""
    from harness.models.cost.work import Work, spent, work_of

    if not tokens:
        raise ConfigError("task: the answers hold no token; choose another task, or more samples")
    return Cost(
        calls=len(calls),
        tokens=tokens,
        query_tokens=sum(call.tokens for call in calls),
        work=sum((work_of(shape, call) for call in calls), Work()),
        spent=spent(shape, calls, where),
    )


def shares(work: "Work") -> dict[str, float]:
    """Return the parts of operations and bytes, as shares."""
    return {
        "attention_flops": work.attention_flops / work.flops,
        "head_flops": work.head_flops / work.flops,
        "cache_bytes": work.cache_bytes / work.moved,
    }


def serving_rows(words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the cost of a token of published models at contexts, and where it is cheapest."""
    from harness.models.cost import serving
    from harness.models.cost.machine import machines

    contexts = [8192, 32768]
    for word in words:
        key, _, value = word.partition("=")
        if key != "context" or not all(one.isdecimal() and int(one) > 0 for one in value.split(",")):
            raise ConfigError(f"{word}: write context=8192, or several: context=8192,32768")
        contexts = [int(one) for one in value.split(",")]
    rented = {name: one for name, one in machines().items() if one.price is not None}
    rows = []
    for name, shape in serving.served().items():
        for context in contexts:
            work = serving.per_token(shape, context)
            total, attention, rest = serving.split_price(work, rented)
            rows.append(
                {
                    "model": name,
                    "context": f"{context}",
                    "cache_mb": work.cache_bytes / 1e6,
                    "core_gflops": work.core_flops / 1e9,
                    "projection_gflops": work.projection_flops / 1e9,
                    "feed_forward_gflops": work.feed_forward_flops / 1e9,
                    "intensity": work.intensity,
                    "predicted_usd_per_million": total,
                    "attention_on": attention,
                    "rest_on": rest,
                }
            )
    return rows
