"""How a sweep in other processes shows that it is alive: a line per run as soon as its rows are stored."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console

from harness.config.job import Job
from harness.errors import DataError
from harness.results.parts import Attempt
from harness.results.store import Store
from harness.runs.plan import Planned

_LOOK_S = 1.0
_SHARE = 0.05
"""How much of its time a watch may look, which takes longer the more is stored."""


@dataclass(kw_only=True)
class Watch:
    """Looks at the stores of some jobs while it is entered: all processes write there, wherever they run."""

    console: Console
    jobs: Sequence[Planned]
    _told: set[int] = field(default_factory=set)
    _known: set[Attempt] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._known = self._attempts()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def tell(self, one: Planned, outcome: str) -> None:
        """Say how a job ended, unless that has been said; nothing is looked for any more."""
        self._stop()
        self._say(one, outcome)

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look_again(self) -> None:
        pause_s = _LOOK_S
        while not self._ended.wait(pause_s):
            began_s = time.process_time()
            self.look()
            pause_s = max(_LOOK_S, (time.process_time() - began_s) / _SHARE)

    def look(self) -> None:
        """Say which runs have succeeded since the last look; what failed is told with its reason, at the end."""
        new = {attempt.run_id for attempt in self._attempts() - self._known if attempt.ok}
        for one in self.jobs:
            if one.stored is None and one.job.run_id in new:
                self._say(one, "ok")

    def _attempts(self) -> set[Attempt]:
        roots = {str(one.job.plain["results_dir"]) for one in self.jobs if isinstance(one.job, Job)}
        found: set[Attempt] = set()
        for root in roots:
            # A store that cannot be read now may be so at the next look; who writes to it will say what is wrong.
            with suppress(DataError, OSError):
                found.update(Store(root=root).attempts())
        return found

    def _say(self, one: Planned, outcome: str) -> None:
        if one.number in self._told:
            return
        self._told.add(one.number)
        told = f"run {one.number}/{len(self.jobs)} {one.label}: {outcome}"
        self.console.print(told, highlight=False, soft_wrap=True, markup=False)
