"""How work grows, as a page of markdown: `python -m tests.growth [LARGEST] [FOLDER]`, about eight minutes on two cores.

Every point is a process of its own: CPU seconds of the work alone, the least of some rounds, and by how much it raised
the memory that was held before. LARGEST (1 unless told otherwise) is the share of the sizes that is measured, from the
smallest on; FOLDER (build/growth) is emptied.
"""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import torch
from rich.console import Console

from harness.results.compaction import compact
from harness.results.figures.definition import read_definition
from harness.results.figures.selected import select
from harness.results.scan import Scan
from harness.results.selection import matching
from harness.results.store import Store
from harness.results.tables import as_markdown, data
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.sweep import expand
from tests.growth.decodings import decoding, operations
from tests.growth.exponent import exponent, upper_half
from tests.growth.measured import Measured, in_a_fork, measured
from tests.results.factory import add_run

_IMPORTED = ("pandas", "scipy.special", "scipy.stats", "harness.commands.tables")
_LEAST_BYTES = 2 << 20
_TOLERANCE = 0.2
_BLOCK = 16
_TABLE = {"name": "growth", "kind": "table", "y": ["accuracy", "nfe"], "groups": ["model", "method"]}

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Work that grows in one size: `prepare` makes it for a size; exponents are those of time and of memory.

    `operations` counts what the model has to do, where a model is what takes the time: its exponent is the one
    expected. What can be done `once` only is not repeated.
    """

    told: str
    of: str
    sizes: Sequence[int]
    prepare: Callable[[int], Work]
    time: float | None = None
    memory: float
    once: bool = False
    operations: Callable[[int], float] | None = None


def decodings() -> Iterator[Series]:
    """Yield decodings; memory grows as what they hold at once: logits of all rows and positions."""

    def of(told: str, grows: str, sizes: Sequence[int], *words: str, key: str, steps: bool = True) -> Series:
        def given(size: int) -> tuple[tuple[str, ...], dict[str, int]]:
            room = size if key == "response" else 32
            return (*words, *(["method.steps=8"] if steps else [])), {"response": room} | {key: size}

        def prepare(size: int) -> Work:
            settings, sizes = given(size)
            return decoding(*settings, **sizes)

        def counted(size: int) -> float:
            settings, sizes = given(size)
            return operations(*settings, **sizes)

        return Series(told=told, of=grows, sizes=sizes, prepare=prepare, memory=1, operations=counted)

    blocks = f"method.block_length={_BLOCK}"
    yield of("a decoding, 8 calls", "batch", (2, 4, 8, 16, 32, 64, 128), key="rows")
    yield of("a decoding, 8 calls", "canvas", (64, 128, 256, 512, 1024, 2048), key="response")
    yield of("a decoding, a token per call", "canvas", (32, 64, 128, 256, 512), key="response", steps=False)
    cached = (blocks, "method/cache=dual")
    yield of("the same in blocks with a dual cache", "canvas", (32, 64, 128, 256, 512), *cached, key="response",
             steps=False)  # fmt: skip
    yield of("a decoding, 8 calls", "vocabulary", (512, 2048, 8192, 32768, 131072), key="vocabulary")


def runs(folder: Path) -> Iterator[Series]:
    """Yield runs and sweeps: each sample and each run should cost the same, whatever comes before it."""
    one = ("model=tiny_mdm", "method=threshold", "task=list_copy", "batch_size=16")

    def words_of(size: int) -> list[str]:
        return [*one, f"task.samples={size}", f"results_dir={folder / f'run{size}'}", "tracker=none"]

    def decoded(size: int) -> Work:
        planned = plan(expand([*words_of(size), "resume=false"]))
        return lambda: execute(planned, Console(file=io.StringIO()))

    begun = count(step=1000)

    def sweep(size: int) -> Work:
        # Other seeds than in the round before: what was composed once is remembered.
        first = next(begun)
        seeds = [*one, "task.samples=1", f"seed=range({first},{first + size})", f"results_dir={folder / 'none'}"]
        return lambda: plan(expand(seeds))

    yield Series(told="`decbench run`, batches of 16", of="samples", sizes=(32, 64, 128, 256, 512), prepare=decoded,
                 time=1, memory=1)  # fmt: skip
    yield Series(told="`decbench plan` of a sweep", of="runs", sizes=(8, 16, 32, 64, 128), prepare=sweep, time=1,
                 memory=1, once=True)  # fmt: skip


def stores(folder: Path) -> Iterator[Series]:
    """Yield what is asked of stores of so many runs; storing one more should not depend on them."""
    sizes = (50, 100, 200, 400, 800)

    def root(size: int, kind: str = "loose") -> Path:
        return folder / f"{kind}{size}"

    def listed(size: int) -> Work:
        columns = ("model", "setting", "task", "n", "accuracy")
        return lambda: matching(Scan(Store(root=root(size)).folder), {}, columns)

    def tabled(kind: str, size: int) -> Work:
        asked = read_definition(_TABLE, "growth")
        return lambda: as_markdown(data(select(Store(root=root(size, kind)), asked)), "")

    def copied(size: int) -> Store:
        place = Path(mkdtemp(dir=folder)) / "store"
        shutil.copytree(root(size), place)
        return Store(root=place)

    def packed(size: int) -> Work:
        store = copied(size)
        return lambda: compact(store)

    def one_more(size: int) -> Work:
        store, names = copied(size), (f"m{at:07x}" for at in count())
        return lambda: add_run(store, next(names), setting_id=next(names))

    yield Series(told="listing a store", of="stored runs", sizes=sizes, prepare=listed, time=1, memory=1)
    yield Series(told="a table of a store", of="stored runs", sizes=sizes, prepare=partial(tabled, "loose"), time=1,
                 memory=1)  # fmt: skip
    yield Series(told="packing a store", of="stored runs", sizes=sizes, prepare=packed, time=1, memory=1,
                 once=True)  # fmt: skip
    yield Series(told="a table of a packed store", of="stored runs", sizes=sizes, prepare=partial(tabled, "packed"),
                 time=1, memory=1)  # fmt: skip
    yield Series(told="storing one run more", of="stored runs", sizes=sizes, prepare=one_more, time=0, memory=0)


def fill(folder: Path, sizes: Sequence[int]) -> None:
    """Store so many runs in stores of their own, each beginning with the one before, and pack a copy of each."""
    grown = folder / "grown"
    for before, size in zip((0, *sizes), sizes, strict=False):
        store = Store(root=grown)
        for at in range(before, size):
            add_run(store, f"{at:08x}", setting=f"llada steps={at}", setting_id=f"s{at:07x}")
        shutil.copytree(grown, folder / f"loose{size}")
        shutil.copytree(grown, folder / f"packed{size}")
        compact(Store(root=folder / f"packed{size}"))


def line(one: Series, share: float) -> str:
    """Return a series, measured, as a line of the table."""
    sizes = one.sizes[: max(3, round(share * len(one.sizes)))]
    warm, rounds = partial(one.prepare, sizes[0]), {"rounds": 1} if one.once else {}
    points = [measured(partial(one.prepare, size), warm, **rounds) for size in sizes]
    expected = one.time if one.operations is None else exponent(sizes, [*map(one.operations, sizes)])
    assert expected is not None, "a series says what is expected of it"
    seconds = [point.seconds for point in points]
    told = [f"{one.told}", one.of, f"{sizes[0]:,} to {sizes[-1]:,}", f"{seconds[0]:.3g} to {seconds[-1]:.3g}"]
    told += [*_exponents(sizes, seconds, expected), *_memory(sizes, points, one.memory)]
    return f"| {' | '.join(told)} |\n"


def _memory(sizes: Sequence[int], points: Sequence[Measured], expected: float) -> list[str]:
    """Return peaks and exponents of memory, of the sizes at which it can be told from what an allocator keeps."""
    first, last = (f"{points[at].memory_bytes / 2**20:,.1f}" for at in (0, -1))
    large = [at for at, point in enumerate(points) if point.memory_bytes >= _LEAST_BYTES]
    peaks = [float(points[at].memory_bytes) for at in large]
    told = _exponents([sizes[at] for at in large], peaks, expected) if len(large) > 2 else ["-", "-", f"{expected:g}"]
    return [f"{first} to {last}", *told]


def _exponents(sizes: Sequence[int], values: Sequence[float], expected: float) -> list[str]:
    """Return the exponents of all sizes and of the larger half, and the expected one; too large ones say so."""
    every, larger = exponent(sizes, values), upper_half(sizes, values)
    over = max(every, larger) > expected + _TOLERANCE
    return [f"{every:.2f}", f"**{larger:.2f}, too much**" if over else f"{larger:.2f}", f"{expected:.2g}"]


def main(share: float, folder: Path) -> None:
    """Measure every series and print the page."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    for module in _IMPORTED:
        import_module(module)
    sys.stdout.write(
        f"# How work grows\n\nMade by `python -m tests.growth > results/growth.md` on {os.cpu_count()} cores, with one "
        "thread: CPU seconds and MiB of memory beyond what was held before, at the smallest and the largest size, and "
        "the power with which they grow between (least squares of logarithms), over all sizes and over the larger "
        "half. The model of decodings has two layers of 64 channels and random weights; the exponent expected of their "
        "time is that of the operations of their calls (`harness.models.cost`), so that less means that what every "
        "call or position costs besides grows slower. Memory below 2 MiB tells nothing.\n\n"
        f"What exceeds the expected exponent by more than {_TOLERANCE:g} is marked.\n\n"
        "| what | grows in | sizes | CPU s | exponent | larger half | expected | MiB | exponent | larger half "
        "| expected |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    )
    for series in (decodings(), runs(folder)):
        for one in series:
            _say(one, share)
    asked = [*stores(folder)]
    in_a_fork(partial(fill, folder, asked[0].sizes[: max(3, round(share * len(asked[0].sizes)))]))
    for one in asked:
        _say(one, share)


def _say(one: Series, share: float) -> None:
    sys.stdout.write(line(one, share))
    sys.stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, Path(sys.argv[2] if len(sys.argv) > 2 else "build/growth"))
