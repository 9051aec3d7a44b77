"""`decbench bench statistics`: what a paired bootstrap costs here, with new draws and with remembered ones.

Two settings are compared on 3,000 samples with 10,000 replicates; the least of several rounds is told, in milliseconds
of wall and of CPU time, one line of JSON last.
"""

import json
import sys
import time
from collections.abc import Callable

SAMPLES, ROUNDS = 3_000, 5


def main() -> int:
    """Measure, and print both."""
    import numpy as np

    from harness.results import resampling
    from harness.results.statistics import paired_means

    first, second = (np.random.default_rng(seed).random((SAMPLES, 1)) for seed in range(2))

    def compared() -> None:
        paired_means([first], [second]).gain(0)

    cells = {"new": _least(compared, resampling.forget), "remembered": _least(compared, lambda: None)}
    for name, cell in cells.items():
        sys.stdout.write(f"{name} draws: {cell['wall_ms']:.0f} ms, {cell['cpu_ms']:.0f} ms of CPU time\n")
    told = {"samples": SAMPLES, "replicates": resampling.REPLICATES, **cells}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _least(work: Callable[[], None], before: Callable[[], None]) -> dict[str, float]:
    rounds = []
    for _ in range(ROUNDS):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        rounds.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall_s, cpu_s = (min(times) for times in zip(*rounds, strict=True))
    return {"wall_ms": 1e3 * wall_s, "cpu_ms": 1e3 * cpu_s}
