"""`decbench bench [key=value ...]`: what loading and decoding models of 7 to 8 B cost on this machine, cache by cache.

Weights are random, since time and memory do not depend on them: they are written to `folder` in the published format,
read by the loader of real checkpoints, and deleted. Every cache then decodes the same random prompts one token per
step. A forward is timed on the device's own clock, from events that are read when everything is done; what is left of
the wall time is the share that is not the model: selection, bookkeeping, and a device that waits for the host.

`decbench bench --targets` measures what the loops cost beside bare forwards, `decbench bench statistics` the paired
bootstrap, both on any machine.
"""

import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.engine.shared.model import LanguageModel

_KINDS = {"shrink": int, "prompt_length": int, "gen_length": int, "block_length": int}


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
    from harness.commands.results.words import settings

    values: dict[str, Any] = {}
    for key, value in settings(overrides, Options.__dataclass_fields__):
        try:
            kept = tuple(filter(None, value.split(",")))
            listed = tuple(int(n) for n in kept) if key == "batches" else kept
            values[key] = listed if key in ("models", "caches", "batches") else _KINDS.get(key, str)(value)
        except ValueError:
            raise ConfigError(f"{key}={value}: must be a whole number") from None
    if values.get("graphs", "auto") not in ("auto", "on", "off"):
        raise ConfigError(f"graphs={values['graphs']}: must be one of auto, on, off")
    return Options(**values)


def main(argv: Sequence[str]) -> int:
    """Measure, print a table, and write every cell and what it rests on as JSON."""
    if "--fit" in argv:
        from harness.commands.bench_fit import main as fit

        return fit([word for word in argv if word != "--fit"])
    if "--targets" in argv:
        from harness.commands.bench_targets import main as targets

        return targets([word for word in argv if word not in ("--targets", "--json")])
    if [*argv] == ["statistics"]:
        from harness.commands import bench_statistics

        return bench_statistics.main()
    from rich.table import Table

    from harness.commands.console import console
    from harness.runs import device as device_switches
    from harness.runs.provenance import collect

    o = options(argv)
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
    import torch

    from harness.config.catalogue import nearest
    from harness.models.public.synthetic import SHAPES, shrunk
    from harness.runs.measure import settled_heap

    for name in o.models:
        if name not in SHAPES:
            raise ConfigError(f"models={name}: its shape is not known here; {nearest(name, SHAPES)}")
        if (o.prompt_length + o.gen_length) > SHAPES[name].max_length:
            raise ConfigError(f"gen_length={o.gen_length}: model {name} has {SHAPES[name].max_length} positions")
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
                except torch.cuda.OutOfMemoryError:
                    yield base | {"outcome": "out of memory"}
        del model


def _methods(o: Options) -> dict[str, Any]:
    """Return, by cache, one token per step in blocks with that cache, or why it cannot be."""
    from harness.config.build import build_method
    from harness.config.catalogue import nearest
    from harness.config.compatibility import reason_against
    from harness.config.composition import compose
    from harness.config.matrix import caches
    from harness.engine.shared.model import ModelKind

    known = caches()
    for cache in o.caches:
        if cache not in known:
            raise ConfigError(f"caches={cache}: no such cache; {nearest(cache, known)}")
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

    option, folder = read("model", name), Path(o.folder) / name
    family, dtype, device = option["loader"]["family"], getattr(torch, o.dtype), torch.device(o.device)
    try:
        files = synthetic.write(folder, config, family, dtype=dtype)
        reset_peak_memory(device)
        started = time.perf_counter()
        transformer = synthetic.read(files, config, family, dtype=dtype, device=device)
        seconds = time.perf_counter() - started
    finally:
        shutil.rmtree(folder, ignore_errors=True)
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
