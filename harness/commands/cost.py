"""`decbench cost model=NAME method=NAME device=NAME [...]`: what a decoding would cost on a machine that is not here.

An embedded model of the same kind decodes a few prompts (`on=NAME` chooses another; what else is said is said to it, as
to `run`: method.threshold=0.8, task=list_sort, task.samples=16, batch_size=4). Its calls, with the positions that each
computed and saw, are then priced for the shape of `model` on `device`: operations, bytes, and the longer of the two
times that they take. Beside them stands a causal model of the same shape that writes the same answers in the same
batches; `even_at` are the tokens that a call has to decide to be as fast as that. Every number is a prediction, none is
measured; what the small model is sure of, the large one may not be.

`device=FILE.json` is a machine that `decbench bench --fit` has measured: calls outside what was measured are refused.

`decbench cost serving [context=8192,32768]`: the cost of a token of four published models where many are served.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.engine.records import ForwardRecord
    from harness.models.cost.shape import ModelShape
    from harness.models.cost.work import Call, Timing, Work
    from harness.runs.decode_batch import Decoded

_ON = {"masked_diffusion": "tiny_mdm", "block_diffusion": "tiny_block", "causal": "tiny_ar"}
"""What decodes in place of a model, by kind."""
_MOST_BYTES = 8


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
    """Calls and what they come to on a machine; `tokens` are those that answers hold."""

    calls: int
    tokens: int
    query_tokens: float
    work: "Work"
    seconds: float

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


def main(argv: Sequence[str]) -> int:
    """Print predictions, as a table or with --json as the last line."""
    as_json, words = "--json" in argv, [word for word in argv if word != "--json"]
    rows = serving_rows(words[1:]) if words[:1] == ["serving"] else decoding_rows(options(words))
    if as_json:
        sys.stdout.write(json.dumps({"cost": rows}) + "\n")
        return 0
    from rich.table import Table

    from harness.commands.console import console

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            *(value if isinstance(value, str) else "" if value is None else f"{value:.4g}" for value in row.values())
        )
    console().print(table, highlight=False)
    return 0


def options(words: Sequence[str]) -> Options:
    """Return what a command line asks; raise ConfigError for a number that is none, or keys that only runs have."""
    own: dict[str, Any] = {}
    overrides = []
    for word in words:
        key, _, value = word.partition("=")
        if key in {one.name for one in fields(Options)} - {"overrides"}:
            own[key] = value
        elif key in ("experiment", "measure", "results_dir", "name"):
            raise ConfigError(f"{word}: is for run; cost decodes a few prompts and stores nothing")
        else:
            overrides.append(word)
    if "bytes_per_value" in own:
        own["bytes_per_value"] = _bytes(own["bytes_per_value"])
    return Options(**own, overrides=tuple(overrides))


def _bytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= _MOST_BYTES:
        raise ConfigError(f"bytes_per_value={text}: must be a number of bytes, such as 2 or 0.5, at most {_MOST_BYTES}")
    return value


def decoding_rows(asked: Options) -> list[dict[str, Any]]:
    """Return what the method costs and, beside it, what a causal model of the same shape would."""
    from harness.config.catalogue import names, nearest, read
    from harness.models.cost.fit import read_fit
    from harness.models.cost.machine import machine

    if asked.model not in names("model"):
        raise ConfigError(f"model={asked.model}: no such model; {nearest(asked.model, names('model'))}")
    model = read("model", asked.model)
    where = read_fit(Path(asked.device)) if asked.device.endswith(".json") else machine(asked.device)
    shape = shape_named(asked.model, model, asked.bytes_per_value)
    on = asked.on or _ON.get(model["kind"])
    if on is None:
        raise ConfigError(
            f"model={asked.model}: nothing embedded decodes as {model['kind']} does; name a model with on="
        )
    decoded, prompts = decode([f"model={on}", *asked.overrides])
    calls = [call for batch in decoded for call in calls_of(batch.calls)]
    tokens = sum(len(made.answer) for batch in decoded for made in batch.generations)
    causal = [call for batch, given in zip(decoded, prompts, strict=True) for call in causal_calls(batch, given)]
    cost, beside = (priced(some, tokens, shape, where) for some in (calls, causal))
    even = (cost.seconds / cost.calls) / (beside.seconds / beside.tokens)
    return [
        {"decoding": _said(asked, on), **cost.per_token(), "even_at": even, **shares(cost.work)},
        {"decoding": "causal, same shape and answers", **beside.per_token(), "even_at": None, **shares(beside.work)},
    ]


def _said(asked: Options, on: str) -> str:
    told = " ".join(asked.overrides) or "method=llada"
    return f"{told} (calls of {on}) as {asked.model} on {asked.device}"


def shape_named(name: str, model: Mapping[str, Any], bytes_per_value: float) -> "ModelShape":
    """Return the shape of a model that is embedded, published with a known shape, or lies on this machine."""
    from harness.models import checkpoint, hub, packaged
    from harness.models.cost.shape import shape_of
    from harness.models.embedded import CHECKPOINTS
    from harness.models.public.families import FAMILIES
    from harness.models.public.loader import read_config
    from harness.models.public.synthetic import SHAPES

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
    return shape_of(config, bytes_per_value=bytes_per_value)


def decode(overrides: Sequence[str]) -> tuple[list["Decoded"], list[list[int]]]:
    """Return decoded batches of a task's prompts, and the lengths of the prompts of each."""
    from harness.config.composition import compose
    from harness.config.job import resolve
    from harness.runs.progress import Silent
    from harness.runs.runner import street_of

    given = {word.partition("=")[0] for word in overrides}
    few = [] if "task.samples" in given else ["task.samples=8"]
    street, _ = street_of(resolve(compose([*overrides, *few, "measure=traced"])), Silent())
    prompts, decoded = zip(*street.decodings(), strict=True)
    return list(decoded), [[len(one) for one in batch] for batch in prompts]


def calls_of(records: Sequence["ForwardRecord"]) -> Iterator["Call"]:
    """Yield the calls of a batch as their cost sees them; where one reuses what another has stored, all store."""
    from harness.models.cost.work import Call

    reuses = any(record.reused_B is not None and bool(record.reused_B.any()) for record in records)
    for record in records:
        tokens = float(record.layer_tokens_B.sum()) / record.layers
        yield Call(
            tokens=tokens,
            pairs=float((record.query_B * record.keys_B).sum()),
            # Queries of a causal call see fewer keys, on the mean, than the call computes and reads.
            visible=float(record.keys_B.maximum(record.query_B).sum()),
            head=float(record.head_B.sum()),
            stored=tokens if reuses else 0,
            depth=record.layers / record.layers_total,
        )


def causal_calls(decoded: "Decoded", prompts: Sequence[int]) -> Iterator["Call"]:
    """Yield the calls of a causal model that writes the same answers with its keys and values kept: one per token."""
    from harness.models.cost.work import Call

    lengths = [len(made.answer) for made in decoded.generations]
    for place in range(max(lengths)):
        rows = [prompt for prompt, length in zip(prompts, lengths, strict=True) if place < length]
        computed = rows if place == 0 else [1] * len(rows)
        seen = [prompt + place for prompt in rows]
        yield Call(
            tokens=sum(computed),
            pairs=sum(query * (2 * keys - query + 1) / 2 for query, keys in zip(computed, seen, strict=True)),
            visible=sum(seen),
            head=len(rows),
            stored=sum(computed),
        )


def priced(calls: Sequence["Call"], tokens: int, shape: "ModelShape", where: "Timing") -> Cost:
    """Return what calls cost that made `tokens` tokens of answers."""
    from harness.models.cost.work import Work, seconds_of, work_of

    if not tokens:
        raise ConfigError("task: the answers hold no token; choose another task, or more samples")
    return Cost(
        calls=len(calls),
        tokens=tokens,
        query_tokens=sum(call.tokens for call in calls),
        work=sum((work_of(shape, call) for call in calls), Work()),
        seconds=seconds_of(shape, calls, where),
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
