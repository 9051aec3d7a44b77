"""`decbench sync tracker=NAME [tracker.KEY=VALUE ...] [column=value ...] [--output FOLDER] [results_dir=...]`.

Tells a tracker of what is stored, as the runs themselves would have: every attempt that ended, in the group of every
sweep that asked for it, and the pictures of sweeps. Each is told once, however often this is done; what was interrupted
goes on. Further words choose among stored runs, as for `decbench results list`.

  decbench sync tracker=wandb                          files that `wandb sync` uploads, in RESULTS_DIR/wandb
  decbench sync tracker=wandb tracker.mode=online      upload them
  decbench sync tracker=mlflow tracker.uri=URL         to a server; without a URI to files in RESULTS_DIR/mlflow/mlruns

Exit code 0: all was told, 1: the tracker could not be told (the store is as it was; do it again), 2: cannot be done.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from harness.commands.results.words import Words, none_left, parse
from harness.config.composition import compose, plain
from harness.errors import ConfigError, MissingDependency, RunFailed, one_line
from harness.results.files import beside
from harness.results.scan import Scan
from harness.results.selection import parse_filters
from harness.runs.trackers.stored import asked, pictures, reports
from harness.runs.trackers.tracking import Tracking, tracking_of

_TRACKER = "tracker"
_AT_ONCE = 8
"""Reports that wait for each other's servers and disks at a time."""


def main(argv: Sequence[str]) -> int:
    """Tell the tracker what it was not told yet, and say how much that was."""
    words = parse(argv, options=("--output",))
    none_left(words.names)
    chosen = [word for word in words.filters if word.startswith((f"{_TRACKER}=", f"{_TRACKER}."))]
    filters = parse_filters(word for word in words.filters if word not in chosen)
    tracking = _tracking(words, chosen)
    scan = Scan(words.store.folder)
    pairs = asked(words.store, scan, filters)
    told = _all(tracking.tell, reports(scan, pairs, tracking.was_told), tracking)
    names = list(dict.fromkeys(name for _, name in pairs if name))
    shown = _all(tracking.show, pictures(beside(words.store.root), names), tracking)
    sys.stdout.write(f"{tracking.place}\n{told} of {len(pairs)} reports and {shown} pictures are new there\n")
    return 0


def _tracking(words: Words, chosen: Sequence[str]) -> Tracking:
    settings = plain(compose(chosen), _TRACKER)
    tracking = tracking_of(settings, Path(words.options.get("--output", beside(words.store.root))))
    if not isinstance(tracking, Tracking):
        raise ConfigError("sync: needs a tracker to tell; write tracker=wandb or tracker=mlflow")
    return tracking


def _all(tell: Callable[[Any], bool], told: Iterable[Any], tracking: Tracking) -> int:
    """Tell a tracker of all, several at a time; return how many were new. Raises RunFailed at the first failure."""
    waiting, new = iter(told), 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while some := list(islice(waiting, _AT_ONCE)):
            try:
                new += sum(pool.map(tell, some))
            except MissingDependency:
                raise
            except Exception as error:
                where = " ".join(tracking.place.split())
                raise RunFailed(
                    f"{where}: {one_line(error)}; the store is as it was, do it again for the rest"
                ) from error
    return new
