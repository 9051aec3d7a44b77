"""`decbench bench --fit [key=value ...]`: what of its speed this machine gives to calls, for `decbench cost`.

Calls of many shapes of two transformers with random weights, one a quarter as wide as the other, are timed in turns,
the median of `rounds` taken, and three numbers fitted to two thirds of them: operations per second, bytes per second,
and what every call loses. The others tell how far predictions are off. `decbench cost device=FILE` then predicts for
this machine, inside what was measured. One thread of a processor is timed by its own clock, which leaves out what
others do there.

The file holds every call. `--figure FOLDER` draws them under the roof of the machine, and predicted over measured
seconds, as roofline.svg, pdf, png and csv; hollow markers are calls that nothing was fitted to.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.bench_options import memory_for, parsed, require_device, require_memory
from harness.commands.writable import require_drawing, require_file
from harness.errors import ConfigError, listed

if TYPE_CHECKING:
    from harness.models.cost.fit import Fit, Timed
    from harness.models.cost.work import Call
    from harness.models.transformer import Transformer

_HEAD, _NARROW = 32, 4
"""The width of a head, and how much narrower the second transformer is."""
_ROWS, _QUERIES, _KEYS = (1, 2, 4, 8), (1, 4, 16, 64), (64, 192)
"""Rows, query positions of each, and positions that they see: full calls where these are as many."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line may say; the sizes are those of the wider of the two transformers."""

    width: int = 256
    layers: int = 4
    vocabulary: int = 512
    rounds: int = 7
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    out: str = "results/raw/machine.json"


def options(words: Sequence[str]) -> Options:
    """Return what a command line says; raise ConfigError naming the key and the value that cannot be."""
    o = Options(**parsed(words, Options.__dataclass_fields__))
    if o.width % _HEAD:
        raise ConfigError(f"width={o.width}: must be a multiple of {_HEAD}, the width of a head")
    return o


def require_machine(o: Options) -> None:
    """Raise ConfigError for what this machine has not: the device, memory for the weights, or a place for the file."""
    require_device(o.device)
    weights = 13 * o.layers * o.width**2 + 2 * o.vocabulary * o.width
    sizes = f"width={o.width} layers={o.layers} vocabulary={o.vocabulary}"
    require_memory(sizes, 4 * (weights + max(_ROWS) * max(_KEYS) * o.vocabulary))
    require_file("out", o.out)


def main(words: Sequence[str]) -> int:
    """Measure, fit, print, and write the machine as JSON; return 0."""
    from harness.commands.console import console
    from harness.commands.results.words import taken_out
    from harness.models.cost.fit import fit
    from harness.runs import device
    from harness.runs.provenance import collect

    folder, words = taken_out(words, "--figure")
    o = options(words)
    require_machine(o)
    if folder is not None:
        require_drawing(folder)
    switches = device.apply(device=o.device, dtype=o.dtype, threads=o.threads, deterministic=False)
    with memory_for(f"width={o.width} layers={o.layers} vocabulary={o.vocabulary}"):
        every = list(measure(o))
    found = fit([one for place, one in enumerate(every) if place % 3], every[::3])
    calls = [_call_row(one, found, held_out=place % 3 == 0) for place, one in enumerate(every)]
    provenance = collect(o.device, switches=switches.to_dict())
    record = {"options": asdict(o), "fit": found.kept(), "provenance": provenance, "calls": calls}
    Path(o.out).parent.mkdir(parents=True, exist_ok=True)
    Path(o.out).write_text(json.dumps(record, indent=1) + "\n")
    console().print(_said(found, o), highlight=False, soft_wrap=True)
    if folder is not None:
        for path in _drawn(record, found, o, Path(folder)):
            console().print(str(path), highlight=False, soft_wrap=True, markup=False)
    return 0


def _call_row(one: "Timed", found: "Fit", *, held_out: bool) -> dict[str, float | bool]:
    """Return a call with what was measured and what is predicted: seconds, and 1e9 operations per second."""
    predicted, flops = found.seconds(one.work), one.work.flops
    return {
        "query_tokens": one.call.tokens,
        "visible": one.call.visible,
        "flops": flops,
        "bytes": one.work.moved,
        "intensity": flops / one.work.moved,
        "measured_s": one.seconds,
        "predicted_s": predicted,
        "measured_gflops": flops / one.seconds / 1e9,
        "predicted_gflops": flops / predicted / 1e9,
        "held_out": held_out,
    }


def _drawn(record: dict[str, Any], found: "Fit", o: Options, folder: Path) -> list[Path]:
    from harness.results.figures.making import make_rows, save

    summary = (
        f"Calls of transformers with {o.layers} layers of width {listed(_widths(o), 2)} and a vocabulary of "
        f"{o.vocabulary} on {o.device} ({o.dtype}, threads: {o.threads}), each the median of {o.rounds}: "
        f"{_said(found, o).splitlines()[0]}."
    )
    provenance = {name: record[name] for name in ("options", "fit", "provenance")}
    roof = {"flops": found.machine.flops, "bandwidth": found.machine.bandwidth}
    made = make_rows("roofline", record["calls"], summary=summary, provenance=provenance, **roof)
    return save(made, folder / "roofline")


def _said(found: "Fit", o: Options) -> str:
    machine = found.machine
    return (
        f"{machine.flops / 1e9:.3g} GFLOP/s, {machine.bandwidth / 1e9:.3g} GB/s, {1e3 * machine.overhead_s:.3g} ms per "
        f"call; predictions off by {found.median_error:.1%} (median), {found.worst_error:.1%} (worst) on calls held "
        f"out\nmachine: {o.out}"
    )


def measure(o: Options) -> Iterator["Timed"]:
    """Yield every shape of call with the median of its times; rounds go through all shapes, so that noise is shared."""
    from harness.models.cost.fit import timed
    from harness.models.cost.shape import shape_of
    from harness.runs.measure import settled_heap

    # Between the calls of one transformer bytes differ little: a narrow one tells reading from what every call loses,
    # and its calls are those of small models.
    models = [_transformer(o, width) for width in _widths(o)]
    shapes = [shape_of(model.config, bytes_per_value=next(model.parameters()).element_size()) for model in models]
    calls = [(shape, *call) for shape, model in zip(shapes, models, strict=True) for call in _calls(model)]
    for _, _, run in calls:
        run()
    taken: list[list[float]] = [[] for _ in calls]
    with settled_heap():
        for _ in range(o.rounds):
            for seconds, (_, _, run) in zip(taken, calls, strict=True):
                seconds.append(_seconds(run, o))
    for seconds, (shape, call, _) in zip(taken, calls, strict=True):
        yield timed(shape, call, statistics.median(seconds))


def _widths(o: Options) -> list[int]:
    return [*dict.fromkeys((o.width, width_for(o.width // _NARROW)))]


def width_for(width: int) -> int:
    """Return the least width that is not smaller and can be timed."""
    return max(1, -(-width // _HEAD)) * _HEAD


def largest() -> "Call":
    """Return the largest call that is timed."""
    from harness.models.cost.work import Call

    return Call.even(rows=max(_ROWS), query=max(_KEYS), keys=max(_KEYS))


def _transformer(o: Options, width: int) -> "Transformer":
    import torch

    from harness.models.training import initialise
    from harness.models.transformer import Attention, TransformerConfig

    config = TransformerConfig(
        vocab_size=o.vocabulary,
        width=width,
        layers=o.layers,
        heads=width // _HEAD,
        kv_heads=width // _HEAD,
        head_width=_HEAD,
        feed_forward_width=3 * width,
        max_length=max(_KEYS),
        attention=Attention.FULL,
    )
    model = initialise(config, 0).requires_grad_(False)
    return model.to(device=o.device, dtype=getattr(torch, o.dtype)).eval()


def _calls(model: "Transformer") -> Iterator[tuple["Call", Callable[[], object]]]:
    """Yield calls, and what makes each: windows that see stored positions, and whole rows."""
    import torch

    from harness.engine.shared.model import ForwardRequest
    from harness.models.cost.work import Call

    device = next(model.parameters()).device
    for rows in _ROWS:
        for keys in _KEYS:
            whole = torch.arange(keys, device=device).expand(rows, -1) % model.config.vocab_size
            store = model.new_store(rows, keys)
            model.logits(ForwardRequest(whole, positions_BT=whole, slots_BT=whole, kv=store, end=keys))
            yield Call.even(rows=rows, query=keys, keys=keys), partial(model, whole)
            for query in _QUERIES:
                window = whole[:, keys - query :]
                request = ForwardRequest(window, positions_BT=window, slots_BT=window, kv=store, end=keys)
                call = Call.even(rows=rows, query=query, keys=keys, stored=query)
                yield call, partial(model.logits, request)


def _seconds(run: Callable[[], object], o: Options) -> float:
    import torch

    from harness.engine.shared import device_clock

    device = torch.device(o.device)
    if device.type == "cpu" and o.threads == 1:
        began = time.thread_time()
        run()
        return time.thread_time() - began
    started = device_clock.mark(device)
    run()
    ended = device_clock.mark(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return device_clock.seconds_between(started, ended)
