"""`decbench bench [key=value ...]`: what loading and decoding models of 7 to 8 B cost on this machine, cache by cache.

Weights are random, since time and memory do not depend on them: they are written in the published format, into a new
folder in `folder`, read by the loader of real checkpoints, and deleted with it. Every cache then decodes the same
random prompts one token per step. A forward is timed on the device's own clock, from events that are read when
everything is done; what is left of the wall time is the share that is not the model: selection, bookkeeping, and a
device that waits for the host.

`decbench bench --targets` measures what the loops cost beside bare forwards, `decbench bench statistics` the paired
bootstrap, both on any machine.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.bench_options import parsed, require_device, require_known, require_memory
from harness.commands.writable import require_file, require_folder
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.engine.shared.model import LanguageModel

_OTHERS = {"--fit": ("--figure",), "--targets": ("--json",), "statistics": ()}
"""What else can be measured, and the options of each."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line may say; `caches` empty takes all, `shrink` divides layers, heads and channels.

    A `gen_length` of two blocks shows a cache where it starts and where it goes on. `graphs` is as in `device.graphs`.
    """

    models: tuple[str, ...] = ("llada_8b_instruct", "dream_7b_instruct")
    caches: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 16)
    prompt_length: int = 256
    gen_length: int = 64
    block_length: int = 32
    device: str = "cuda"
    dtype: str = "bfloat16"
    graphs: str = "auto"
    shrink: int = 1
    folder: str = "results/raw/random_weights"
    out: str = "results/raw/bench.json"


def options(overrides: Sequence[str]) -> Options:
    """Return what a command line says; raise ConfigError naming the key and the value that cannot be."""
    from harness.config.matrix import caches
    from harness.models.public.synthetic import SHAPES

    o = Options(**parsed(overrides, Options.__dataclass_fields__))
    if o.graphs not in ("auto", "on", "off"):
        raise ConfigError(f"graphs={o.graphs}: must be one of auto, on, off")
    require_known("models", o.models, SHAPES, "its shape is not known here")
    require_known("caches", o.caches, caches(), "no such cache")
    for name in o.models:
        _require_positions(name, SHAPES[name].max_length, o)
    if o.gen_length % o.block_length:
        raise ConfigError(
            f"block_length={o.block_length}: must divide gen_length={o.gen_length}; choose another of the two"
        )
    return o


def _require_positions(model: str, most: int, o: Options) -> None:
    if o.prompt_length + o.gen_length <= most:
        return
    key, other = ("gen_length", "prompt_length")[:: 1 if o.gen_length >= o.prompt_length else -1]
    raise ConfigError(
        f"{key}={getattr(o, key)}: model {model} has {most} positions for prompt and response; "
        f"use at most {max(1, most - getattr(o, other))} with {other}={getattr(o, other)}"
    )


def require_machine(o: Options) -> None:
    """Raise ConfigError for what this machine has not: the device, memory for what every call keeps, or a place."""
    from harness.models.public.synthetic import SHAPES, shrunk

    require_device(o.device)
    for name in o.models:
        shape, batch = shrunk(SHAPES[name], o.shrink), max(o.batches)
        # Of a call at least the states of all positions and the logits of a block, two bytes each.
        elements = (o.prompt_length + o.gen_length) * shape.width + o.block_length * shape.vocab_size
        require_memory(f"batches={batch} model {name}", 2 * batch * elements, o.device)
    require_folder("folder", o.folder)
    require_file("out", o.out)


def _other(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return what else than caches is to be measured, and the words that are left; raise ConfigError for two."""
    from harness.config.catalogue import nearest

    asked = [one for one in _OTHERS if one in argv]
    if len(asked) > 1:
        raise ConfigError(f"{' '.join(asked)}: each measures something else; leave one out")
    known = [*_OTHERS, *(_OTHERS[asked[0]] if asked else ())]
    for word in argv:
        option = word.partition("=")[0]
        if option.startswith("-") and option not in known:
            raise ConfigError(f"{word}: no such option; {nearest(option, known)}")
    return (asked or [None])[0], [word for word in argv if word not in asked]


def main(argv: Sequence[str]) -> int:
    """Measure, print a table, and write every cell and what it rests on as JSON."""
    other, words = _other(argv)
    if other == "--fit":
        from harness.commands.bench_fit import main as fit

        return fit(words)
    if other == "--targets":
        from harness.commands.bench_targets import main as targets

        return targets([word for word in words if word != "--json"])
    if other == "statistics":
        from harness.commands import bench_statistics

        if words:
            raise ConfigError(f"{words[0]}: nothing of bench statistics can be chosen; leave it out")
        return bench_statistics.main()
    return _caches(options(words))


def _caches(o: Options) -> int:
    from rich.table import Table

    from harness.commands.console import console
    from harness.runs import device as device_switches
    from harness.runs.provenance import collect

    require_machine(o)
    switches = device_switches.apply(device=o.device, dtype=o.dtype, threads=None, deterministic=False)
    table, cells = Table(*"model,cache,batch,outcome,calls,ms,window ms,not the model,peak GB".split(","), box=None), []
    record = {"options": asdict(o), "provenance": collect(o.device, switches=switches.to_dict()), "cells": cells}
    Path(o.out).parent.mkdir(parents=True, exist_ok=True)
    for cell in measure(o):
        cells.append(cell)
        # After every cell: hours of measuring that are cut short leave what they got to.
        Path(o.out).write_text(json.dumps(record, indent=1) + "\n")
        table.add_row(*_shown(cell))
    console().print(table, highlight=False)
    return 0


def _shown(cell: dict[str, Any]) -> list[str]:
    columns = [cell["model"], cell["cache"], str(cell.get("batch", "")), cell["outcome"]]
    if "calls" in cell:
        columns += [str(cell["calls"]), f"{cell['call_ms']:.2f}", f"{cell['window_call_ms']:.2f}"]
        columns += [f"{cell['not_model']:.1%}"]
    if "peak_bytes" in cell:
        columns += [""] * (8 - len(columns)) + [f"{cell['peak_bytes'] / 1e9:.2f}"]
    return columns


def measure(o: Options) -> Iterator[dict[str, Any]]:
    """Yield one cell per model, cache and batch: loading first, as the cache `load`; refused caches have a reason."""
    from harness.engine.shared.shortage import out_of_memory
    from harness.models.public.synthetic import SHAPES, shrunk
    from harness.runs.measure import settled_heap

    methods = _methods(o)
    for name in o.models:
        shape = replace(shrunk(SHAPES[name], o.shrink), max_length=o.prompt_length + o.gen_length)
        model, loading = _load(name, shape, o)
        yield loading
        for cache, method in methods.items():
            if isinstance(method, str):
                yield {"model": name, "cache": cache, "outcome": "refused", "reason": method}
                continue
            for batch in o.batches:
                base = {"model": name, "cache": cache, "batch": batch}
                try:
                    with settled_heap():
                        cell = _decode(model, method, batch, o)
                    yield base | cell | {"outcome": "ok"}
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    yield base | {"outcome": "out of memory"}
        del model


def _methods(o: Options) -> dict[str, Any]:
    """Return, by cache, one token per step in blocks with that cache, or why it cannot be."""
    from harness.config.build import build_method
    from harness.config.compatibility import reason_against
    from harness.config.composition import compose
    from harness.config.matrix import caches
    from harness.engine.shared.model import ModelKind

    known = caches()
    sizes = [f"gen_length={o.gen_length}", f"method.block_length={o.block_length}"]
    plain: Any = build_method(compose(["method=llada", *sizes]))
    made = {}
    for cache in o.caches or known:
        reason = reason_against(plain, ModelKind.MASKED_DIFFUSION, cache=known[cache])
        made[cache] = reason or replace(plain, cache=known[cache])
    return made


def _load(name: str, config: Any, o: Options) -> tuple["LanguageModel", dict[str, Any]]:
    """Return a model that was written and loaded, and the cell of its loading: seconds, bytes of weights, peak."""
    import torch

    from harness.config.catalogue import read
    from harness.engine.shared.model import ModelKind, ModelSpec
    from harness.models.embedded import EmbeddedModel
    from harness.models.graphs import StaticModel
    from harness.models.public import synthetic
    from harness.runs.measure import peak_memory_bytes, reset_peak_memory

    option = read("model", name)
    family, dtype, device = option["loader"]["family"], getattr(torch, o.dtype), torch.device(o.device)
    Path(o.folder).mkdir(parents=True, exist_ok=True)
    # In a folder of its own: what else lies in `folder`, under whatever name, is somebody's.
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=o.folder) as folder:
        files = synthetic.write(Path(folder), config, family, dtype=dtype)
        reset_peak_memory(device)
        started = time.perf_counter()
        transformer = synthetic.read(files, config, family, dtype=dtype, device=device)
        seconds = time.perf_counter() - started
    spec = ModelSpec(
        name=name,
        kind=ModelKind.MASKED_DIFFUSION,
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        layers=config.layers,
        stop_ids=(),
        pad_id=0,
        mask_id=option["mask_id"],
        shift=option.get("shift", 0),
    )
    weights = sum(p.nbytes for p in transformer.parameters())
    cell = {"model": name, "cache": "load", "outcome": f"{weights / 1e9:.2f} GB in {seconds:.1f} s"}
    cell |= {"weights_bytes": weights, "seconds": seconds, "peak_bytes": peak_memory_bytes(device)}
    model = EmbeddedModel(transformer, spec)
    return StaticModel(model) if o.graphs == "on" or (o.graphs, device.type) == ("auto", "cuda") else model, cell


def _decode(model: "LanguageModel", method: Any, batch: int, o: Options) -> dict[str, Any]:
    """Decode twice, the first time to warm up, and return what the second cost."""
    import torch

    from harness.runs.decode_batch import decode_batch
    from harness.runs.forward_clock import ForwardClock
    from harness.runs.measure import Measure, Measurement, peak_memory_bytes, reset_peak_memory

    assert model.spec.mask_id is not None
    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(1, model.spec.mask_id, (batch, o.prompt_length), generator=generator).tolist()
    clock, arguments = ForwardClock(model), {"seeds": range(batch), "gen_length": o.gen_length}
    for _ in range(2):
        clock.reset()
        reset_peak_memory(model.device)
        made = decode_batch(clock, method, prompts, **arguments, measure=Measure(name=Measurement.COUNTS))
    calls_s, wall_s = clock.seconds(), made.watch.wall_s
    widths = [width for _, width in clock.shapes]
    narrow = [s for s, width in zip(calls_s, widths, strict=True) if width == min(widths)]
    return {
        "calls": len(calls_s),
        "call_ms": 1e3 * statistics.median(calls_s),
        "window_call_ms": 1e3 * statistics.median(narrow),
        "model_s": sum(calls_s),
        "wall_s": wall_s,
        "not_model": max(0.0, 1 - sum(calls_s) / wall_s),
        "query_tokens": sum(counts.query_tokens for counts in made.counts),
        "peak_bytes": peak_memory_bytes(model.device),
    }
