"""What commands cost, as a page of markdown: `python -m tests.costs [FOLDER]`, about ten minutes on an idle machine.

Commands are processes of their own, interleaved round by round; their numbers are medians of CPU seconds. What Python
takes to import torch stands first, since machines differ more than versions do. FOLDER (build/costs) keeps the stores.
"""

import io
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.results.compaction import compact
from harness.results.store import Store
from harness.runs import street
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.sweep import expand
from tests.results.factory import add_run

_ROUNDS, _STORED, _JOBS = 5, 2000, 40
_DECBENCH = (sys.executable, "-m", "harness")
_ONE = ("model=tiny_mdm", "method=threshold", "task=list_copy", "task.samples=1")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command whose seconds are measured, and how many it may take, where that was said."""

    told: str
    words: Sequence[str]
    bar_s: float | None = None


def main(folder: Path) -> None:
    """Fill the stores as far as they are not there, measure, and print the page."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fresh-", dir=folder) as own:
        fresh = Path(own) / "store"
        commands = _prepared(folder, fresh)
        seconds: dict[str, list[tuple[float, float]]] = {one.told: [] for one in commands}
        for _ in range(_ROUNDS):
            for one in commands:
                shutil.rmtree(fresh, ignore_errors=True)
                seconds[one.told].append(_seconds(one.words))
    sys.stdout.write(
        f"# What commands cost\n\nMade by `python -m tests.costs > results/costs.md` on {os.cpu_count()} cores: CPU "
        f"seconds of whole processes, medians of {_ROUNDS} interleaved rounds, smallest and largest beside them, and "
        "seconds by the clock; Python keeps its bytecode, as it does for users. Bars are CPU seconds, but for listing, "
        "which is to be done in two by the clock.\n\n"
        "| command | CPU s | smallest | largest | beyond torch | by the clock | bar |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n"
    )
    torch_s = statistics.median(cpu_s for cpu_s, _ in seconds[commands[0].told])
    for one in commands:
        each, clock = zip(*seconds[one.told], strict=True)
        middle, bar = statistics.median(each), "-" if one.bar_s is None else f"{one.bar_s:g}"
        beyond = f"{middle - torch_s:.2f}" if middle > torch_s else "-"
        sys.stdout.write(
            f"| {one.told} | {middle:.2f} | {min(each):.2f} | {max(each):.2f} | {beyond} "
            f"| {statistics.median(clock):.2f} | {bar} |\n"
        )
    alone_ms, cached_ms = _inside()
    sys.stdout.write(
        "\nInside a started sweep, in CPU milliseconds (bar):\n\n"
        f"* a run of one sample, beyond its decoding, planning included: {alone_ms:.0f} (50)\n"
        f"* a run that is stored, planning included: {cached_ms:.0f} (30)\n"
    )


def _prepared(folder: Path, fresh: Path) -> list[Command]:
    loose, packed, quick = (folder / name for name in ("loose", "packed", "quickstart"))
    for place in (loose, packed):
        store = Store(root=place)
        for at in range(len(store.attempts()), _STORED):
            add_run(store, f"{at:08x}", setting=f"llada steps={at}", setting_id=f"s{at:07x}")
    compact(Store(root=packed))
    quickstart = [*_DECBENCH, "run", "experiment=quickstart", "tracker=none", f"results_dir={quick}"]
    _seconds(quickstart)
    # Of what a program has not read before, the disk decides.
    _seconds([*_DECBENCH, "plan", *_ONE])
    return [
        Command(told="`python -c 'import torch'`", words=[sys.executable, "-c", "import torch"]),
        Command(told="`decbench --help`", words=[*_DECBENCH, "--help"]),
        Command(told="`decbench list methods`", words=[*_DECBENCH, "list", "methods"]),
        Command(told="`decbench show method=threshold`", words=[*_DECBENCH, "show", "method=threshold"]),
        Command(told="`decbench run method=thresold`, a typo", words=[*_DECBENCH, "run", "method=thresold"]),
        Command(told="`decbench plan` of one run: ready to decode", words=[*_DECBENCH, "plan", *_ONE], bar_s=4),
        Command(
            told="`decbench run` of one sample",
            words=[*_DECBENCH, "run", *_ONE, "tracker=none", f"results_dir={fresh}"],
        ),
        Command(
            told="`decbench run experiment=quickstart`, its 60 runs stored: table and figure",
            words=quickstart,
            bar_s=6,
        ),
        Command(
            told=f"`decbench results list` of {_STORED:,} runs in files of their own",
            words=[*_DECBENCH, "results", "list", f"results_dir={loose}"],
            bar_s=2,
        ),
        Command(
            told=f"`decbench results list` of {_STORED:,} runs, compacted",
            words=[*_DECBENCH, "results", "list", f"results_dir={packed}"],
            bar_s=2,
        ),
    ]


def _seconds(words: Sequence[str]) -> tuple[float, float]:
    """Return CPU seconds of a command, and its seconds by the clock."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.perf_counter() - started


def _environment() -> dict[str, str]:
    """Return that of a user, whose Python keeps what it has compiled; here it may have been told not to."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _inside() -> tuple[float, float]:
    """Return CPU milliseconds of a run of one sample without its decoding, and of the same run when it is stored."""
    with tempfile.TemporaryDirectory() as root:
        _sweep(root, 3)
        decoded, decode_batch = 0.0, street.decode_batch

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal decoded
            started = time.process_time()
            try:
                return decode_batch(*args, **kwargs)
            finally:
                decoded += time.process_time() - started

        street.decode_batch = timed
        try:
            anew = _of(lambda: _sweep(root, _JOBS)) - decoded
        finally:
            street.decode_batch = decode_batch
        return 1e3 * anew / _JOBS, 1e3 * _of(lambda: _sweep(root, _JOBS)) / _JOBS


def _sweep(root: str, jobs: int) -> None:
    """Run seeds of one setting; three runs ask for others than forty do."""
    seeds = f"seed=range({jobs * 100},{jobs * 101})"
    execute(plan(expand([seeds, *_ONE, f"results_dir={root}"])), Console(file=io.StringIO()))


def _of(act: Callable[[], None]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/costs"))
