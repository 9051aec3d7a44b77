"""How large a page of many runs is, and how soon it can be used: `python -m tests.browser.large_page [RUNS SAMPLES]`.

Makes a store of 200 runs of 500 samples of 128 tokens, writes its page, opens it in Chromium, and prints megabytes, and
seconds until what was asked for can be used: the leaderboard, a run, a film, a plot. The first number is what the clock
says, the second what the page's process has computed, which a busy machine does not change.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.results.html.page import Shown, page
from harness.results.store import Store
from tests.browser.page_in_browser import Opened, browser
from tests.results.factory import run_row, sample_rows

_LENGTH = 128


def large_store(root: Path, runs: int, samples: int) -> Store:
    """Return a store of runs of ten methods on ten tasks, of answers in words, each with the order of its commits."""
    store, draw = Store(root=root), random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(2000)]
    for number in range(runs):
        calls = [draw.randint(8, _LENGTH) for _ in range(samples)]
        right = [draw.random() < 0.7 for _ in range(samples)]
        rows = sample_rows(correct=right, nfe=calls, latency_s=[0.01 * one for one in calls])
        for row, most in zip(rows, calls, strict=True):
            ids = draw.choices(range(2000), k=_LENGTH)
            row |= {"output_ids": ids, "output_text": " ".join(words[one] for one in ids),  # type: ignore[operator]
                    "decided_at": [draw.randrange(most) for _ in ids]}  # fmt: skip
        task, step = f"task_{number // 10 % 10}", number // 100
        method = "llada" if number % 10 == 0 else f"method_{number % 10}"
        values = {"task": task, "method": method, "setting": f"{method} steps={step}" if step else method}
        store.write(run_row(f"r{number:04d}", rows, minutes=number, **values), rows)
    return store


def processor_of(page: Any) -> Callable[[], float]:
    """Return what tells the processor's seconds of a page's process since it was started."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    return lambda: {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}[
        "ProcessTime"
    ]


def main(runs: int = 200, samples: int = 500) -> None:
    """Print sizes and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        store, file = large_store(Path(folder) / "store", runs, samples), Path(folder) / "report.html"
        started = time.perf_counter()
        made = page(store, {}, lambda config: str, Shown())
        file.write_text(made.html, encoding="utf-8")
        print(f"{file.stat().st_size / 1e6:.1f} MB, made in {time.perf_counter() - started:.1f} s; {made.notes}")
        with browser() as started_browser:
            opened = Opened(started_browser.new_page(), file)
            computed, before = processor_of(opened.page), 0.0
            for place in ("#board", "#run?id=r0001", "#viewer?a=r0001&b=r0002", "#plots"):
                started = time.perf_counter()
                opened.go(place)
                took, now = time.perf_counter() - started, computed()
                print(f"{place}: {took:.2f} s, {now - before:.2f} s computed")
                before = now
            assert not opened.wrong, opened.wrong


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
