"""Samples per second against rows at once, as a page of markdown: `python -m tests.batches`, three minutes.

Whole runs in one process, grading included, interleaved round by round: CPU seconds on one thread, medians.
"""

import statistics
import sys
import time
from dataclasses import replace

import torch

from harness.config.composition import compose
from harness.config.job import resolve
from harness.results import metrics
from harness.runs.forward_clock import ForwardClock
from harness.runs.progress import Silent
from harness.runs.runner import street_of
from harness.runs.street import Street, Walked
from harness.runs.unfinished import KeepsNothing

_ROUNDS, _SAMPLES, _BAR = 9, 64, 3.0
_METHODS = ("llada", "threshold", "freedave")
_WAYS = ((1, "fixed"), (16, "fixed"), (16, "continuous"))


def main() -> None:
    """Measure, and print the page."""
    torch.set_num_threads(1)
    sys.stdout.write(
        f"# What rows at once are worth\n\nMade by `python -m tests.batches > results/batches.md`: `tiny_mdm` on "
        f"{_SAMPLES} samples of `list_shuffle` with three to ten items, whole runs with grading, CPU seconds on one "
        f"thread, medians over {_ROUNDS} interleaved rounds, of ratios too. The bar of 16 rows is {_BAR:g} times the "
        "samples per second of one. What the forwards alone would gain stands beside it: a draft of `freedave` is a "
        "row already where one sample is decoded.\n\n"
        "| method | rows | batching | samples/s | times one row | forwards alone | forwards | query tokens | padding "
        "|\n"
        "|---|---:|---|---:|---:|---:|---:|---:|---:|\n"
    )
    for method in _METHODS:
        streets = [_street(method, *way) for way in _WAYS]
        seconds: list[list[float]] = [[] for _ in streets]
        forwards = [_forwards(street) for street in streets]
        for _ in range(_ROUNDS):
            for street, taken in zip(streets, seconds, strict=True):
                taken.append(_walked(street)[1])
        for (rows, batching), street, (calls, alone_s), taken in zip(_WAYS, streets, forwards, seconds, strict=True):
            samples = _walked(street)[0].samples
            times = statistics.median(one / this for one, this in zip(seconds[0], taken, strict=True))
            sys.stdout.write(
                f"| `{method}` | {rows} | {batching} | {_SAMPLES / statistics.median(taken):.1f} | {times:.2f} "
                f"| {forwards[0][1] / alone_s:.2f} | {calls} | {sum(row['query_tokens'] for row in samples)} "
                f"| {metrics.summarize(samples)['padding_waste']:.3f} |\n"
            )
        sys.stdout.flush()


def _street(method: str, rows: int, batching: str) -> Street:
    asked = ["model=tiny_mdm", f"method={method}", "task=list_shuffle", f"task.samples={_SAMPLES}"]
    job = resolve(compose([*asked, f"batch_size={rows}", f"batching={batching}", "device.threads=1"]))
    return street_of(job, Silent())[0]


def _walked(street: Street) -> tuple[Walked, float]:
    started = time.process_time()
    return street.walk(KeepsNothing()), time.process_time() - started


def _forwards(street: Street) -> tuple[int, float]:
    """Return how many calls of the model a run makes, and the seconds of them, the least of some rounds."""
    seconds = []
    for _ in range(_ROUNDS):
        clock = ForwardClock(street.loaded.model)
        replace(street, loaded=replace(street.loaded, model=clock)).walk(KeepsNothing())
        seconds.append(sum(clock.seconds()))
    return len(clock.shapes), min(seconds)


if __name__ == "__main__":
    main()
