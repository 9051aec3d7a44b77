"""`decbench cost break_even [key=value ...]`: the tokens per call at which blocks are as fast as a causal model.

`model`, `device` and `bytes_per_value` are those of `decbench cost`. Responses of `gen_length` positions behind prompts
of `prompt_length`, in blocks of `block_length`, are priced at batch sizes from 1 to 64: without a cache, with prefix
and dual caches, and block-causal, where a block is computed once more to keep it. A causal model of the same shape
writes as many tokens in the same batch. A blank says that even one call per block is slower.

`--figure FOLDER` draws it, as break_even.svg, pdf, png and csv. Filters of stored runs (name=SWEEP, task=list_sort,
results_dir=FOLDER) add what these methods reach: tokens per call, without the calls that only keep a block.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.commands.cost import Options as Priced
from harness.commands.cost import code, config_named, tell, timing_named
from harness.commands.cost import options as priced
from harness.commands.cost_measured import measured_for
from harness.commands.results.words import Words, parse
from harness.commands.writable import require_drawing
from harness.errors import ConfigError

_BATCHES = range(1, 65)
_LENGTHS = {"prompt_length": 256, "gen_length": 256, "block_length": 32}
_LONGEST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked: a shape on a machine, lengths in tokens, and filters of stored runs."""

    of: Priced
    prompt_length: int
    gen_length: int
    block_length: int
    filters: tuple[str, ...]


def main(argv: Sequence[str]) -> int:
    """Print a row per doubling of the batch, or with --json one per batch size; draw what --figure asks for."""
    words = parse(argv, flags=("--json",), options=("--figure",))
    o, folder = options(words.rest), words.options.get("--figure")
    if folder is not None:
        require_drawing(folder)
    elif o.filters:
        raise ConfigError(f"{o.filters[0]}: stored runs are drawn, not printed; add --figure FOLDER")
    rows = break_even_rows(o)
    if folder is not None:
        for path in _drawn(rows, o, words, Path(folder)):
            sys.stdout.write(f"{path}\n")
    as_json = "--json" in words.flags
    tell([row for row in rows if as_json or row["batch_size"].bit_count() == 1], as_json=as_json)
    return 0


def options(words: Sequence[str]) -> Options:
    """Return what a command line asks; raise ConfigError for lengths that cannot be."""
    own, of, filters = dict(_LENGTHS), [], []
    for word in words:
        key, _, value = word.partition("=")
        if key in own:
            if not value.isdecimal() or not 0 < int(value) <= _LONGEST:
                raise ConfigError(f"{word}: must be a whole number from 1 to {_LONGEST}")
            own[key] = int(value)
        elif key in ("model", "device", "bytes_per_value"):
            of.append(word)
        else:
            filters.append(word)
    if own["gen_length"] % own["block_length"]:
        raise ConfigError(
            f"block_length={own['block_length']}: must divide gen_length={own['gen_length']}; choose another of the two"
        )
    return Options(of=priced(of), **own, filters=tuple(filters))


def break_even_rows(o: Options) -> list[dict[str, Any]]:
    """Return a row per batch size: tokens per call by cache, and the causal model's tokens per second."""
    from harness.models.cost.generations import Lengths, break_even, causal_s
    from harness.models.cost.shape import shape_of

    config, where = config_named(o.of.model), timing_named(o.of.device)
    if o.prompt_length + o.gen_length > config.max_length:
        longer = max(("gen_length", "prompt_length"), key=lambda key: getattr(o, key))
        raise ConfigError(
            f"{longer}={getattr(o, longer)}: model={o.of.model} has {config.max_length} positions for prompt and "
            f"response, not {o.prompt_length + o.gen_length}; choose shorter ones"
        )
    shape = shape_of(config, bytes_per_value=o.of.bytes_per_value)
    lengths = Lengths(prompt=o.prompt_length, response=o.gen_length, block=o.block_length)
    with measured_for(o.of, config, where):
        return [
            {
                "batch_size": rows,
                **break_even(shape, rows, lengths, where),
                "predicted_causal_tokens_per_s": rows * o.gen_length / causal_s(shape, rows, lengths, where),
            }
            for rows in _BATCHES
        ]


def reached(words: Words, filters: Sequence[str]) -> list[dict[str, Any]]:
    """Return tokens per deciding call of stored runs, by group and batch size: over all, least and most of a run."""
    from harness.results.figures.columns import VARIANT
    from harness.results.figures.definition import Definition
    from harness.results.figures.selected import select
    from harness.results.selection import parse_filters

    drawn = Definition(
        kind="scatter",
        name="break_even",
        runs={"family": frozenset({"diffusion"})},
        x=("batch_size",),
        y=("tokens_out", "nfe", "nfe_cache"),
        groups=("model", VARIANT),
    )
    selected = select(words.store, drawn, parse_filters(filters))
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in selected.runs:
        if run["nfe"]:
            groups.setdefault((selected.group(run), run["batch_size"]), []).append(run)
    rows = []
    for (group, batch_size), runs in groups.items():
        tokens = [run["n"] * run["tokens_out"] for run in runs]
        calls = [run["n"] * (run["nfe"] - (run["nfe_cache"] or 0)) for run in runs]
        each = [made / called for made, called in zip(tokens, calls, strict=True)]
        rows.append({"kind": "reached", "group": group, "x": batch_size, "y": sum(tokens) / sum(calls),
                     "low": min(each), "high": max(each), "runs": " ".join(run["run_id"] for run in runs)})  # fmt: skip
    return rows


def _drawn(rows: Sequence[dict[str, Any]], o: Options, words: Words, folder: Path) -> list[Path]:
    from harness.models.cost.generations import CACHES
    from harness.results.figures.making import make_rows, save

    lines = [{"kind": "line", "group": cache, "x": row["batch_size"], "y": row[cache], "low": None, "high": None,
              "runs": ""} for cache in CACHES for row in rows]  # fmt: skip
    marks = reached(words, o.filters) if o.filters else []
    summary = (
        f"Tokens per call and row at which {o.of.model} in blocks of {o.block_length} is predicted to be as fast on "
        f"{o.of.device} as a causal model of its shape: prompts of {o.prompt_length} tokens, responses of "
        f"{o.gen_length}, {o.of.bytes_per_value:g} bytes per value."
    )
    if marks:
        summary += (
            " Markers are calls of stored runs of other models and lengths, those that only keep a block left out."
        )
    asked = asdict(o) | {"machine": asdict(timing_named(o.of.device))}
    provenance = {"break_even": asked, **code()}
    made = make_rows("break_even", [*lines, *marks], summary=summary, provenance=provenance, block=o.block_length)
    return save(made, folder / "break_even")
