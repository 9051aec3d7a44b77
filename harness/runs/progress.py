"""How a sweep shows that it is alive: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress(Protocol):
    """Told what happens in a run."""

    def start(self, samples: int) -> None:
        """Announce how many samples will be decoded."""
        ...

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note finished samples, given by their rows."""
        ...


class Silent:
    """Show nothing."""

    def start(self, samples: int) -> None:
        """Do nothing."""

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""


@dataclass
class SweepProgress:
    """Progress of `runs` runs; `begin` and `end` surround each."""

    console: Console
    runs: int
    _bar: Bar | None = None
    _task: Any = None
    _current: str = ""
    _done: int = 0
    _counts: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "SweepProgress":
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, label: str) -> None:
        """Say which run starts."""
        self._done += 1
        self._current, self._counts = f"run {self._done}/{self.runs} {label}", {"tokens_out": 0, "nfe": 0}
        if self._bar is None:
            self.console.print(self._current, highlight=False, soft_wrap=True, markup=False)

    def start(self, samples: int) -> None:
        """Show a new bar."""
        if self._bar is not None:
            self._task = self._bar.add_task(self._current, total=samples, speed="")

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Move the bar and show tokens per forward."""
        for name in self._counts:
            self._counts[name] += sum(row[name] or 0 for row in rows)
        if self._bar is not None:
            calls = self._counts["nfe"]
            speed = f"{self._counts['tokens_out'] / calls:.2f} tokens/forward" if calls else ""
            self._bar.update(self._task, advance=len(rows), speed=speed)

    def end(self, outcome: str) -> None:
        """Say how the run ended."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if outcome:
            # Behind the run's name, which stands in the line above or was on a bar that is gone.
            text = f"  {outcome}" if self._bar is None else f"{self._current}: {outcome}"
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)
