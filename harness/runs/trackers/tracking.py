"""Reports that reach a tracker once: whatever is told of an attempt goes through here.

What has been told is noted beside the tracker's files, in `reported/DESTINATION/ID`, and claimed before that: of
several processes one tells, and what was begun by one that was killed, or failed, is cleared away and told anew.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from harness.config.located import class_at
from harness.errors import ConfigError
from harness.results.canonical import canonical_json
from harness.results.files import Folder
from harness.runs.process import has_ended, this_process
from harness.runs.trackers.report import Picture, Report

_NOT_PASSED = ("_target_", "name", "summary")
_CLAIM = ".claim"


class Tracker(Protocol):
    """Told of runs after their parquet rows were written; a failure here loses nothing.

    Its class is made with the keys of its option and `folder`, where it may keep files.
    """

    @property
    def place(self) -> str:
        """Where reports go, for people."""
        ...

    def tell(self, report: Report) -> None:
        """Write one report."""
        ...

    def show(self, picture: Picture) -> None:
        """Write a sweep's picture."""
        ...

    def clear(self, name: str) -> None:
        """Remove what was begun of the report with this id, if anything was."""
        ...


class Untracked:
    """Report nowhere."""

    place = None

    def was_told(self, name: str) -> bool:
        """Say that there is nothing to tell."""
        return True

    def tell(self, report: Report) -> bool:
        """Do nothing."""
        return False

    def show(self, picture: Picture) -> bool:
        """Do nothing."""
        return False


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """A tracker, and a note of what it was told: `destination` names where that went."""

    tracker: Tracker
    folder: Folder
    destination: str

    @property
    def place(self) -> str:
        """Where reports go, for people."""
        return self.tracker.place

    def was_told(self, name: str) -> bool:
        """Say whether the report with this id has been made."""
        return self.folder.exists(self._note(name))

    def tell(self, report: Report) -> bool:
        """Report an attempt unless it was, or is being, reported; return whether it was not."""
        return self._once(report.id, lambda: self.tracker.tell(report))

    def show(self, picture: Picture) -> bool:
        """Report a picture, likewise."""
        return self._once(picture.id, lambda: self.tracker.show(picture))

    def _once(self, name: str, write: Callable[[], None]) -> bool:
        note = self._note(name)
        if self.was_told(name) or not self._claimed(note, name):
            return False
        try:
            write()
        except BaseException:
            # Left where it is: it says that something was begun.
            self._sign(note + _CLAIM, {})
            raise
        self._sign(note, this_process())
        self.folder.remove(note + _CLAIM)
        return True

    def _note(self, name: str) -> str:
        return f"reported/{self.destination}/{name}"

    def _claimed(self, note: str, name: str) -> bool:
        """Claim a report, and clear away what was begun of it by somebody who will not end it."""
        self.folder.make(f"reported/{self.destination}")
        claim = note + _CLAIM
        try:
            self.folder.create(claim)
        except FileExistsError:
            if not self._is_left(claim):
                return False
            self.tracker.clear(name)
        self._sign(claim, this_process())
        return True

    def _is_left(self, claim: str) -> bool:
        told: Any = {}
        with suppress(OSError, ValueError):
            told = json.loads(self.folder.read(claim))
        # On another machine, a process that is silent may be at work: its claim has to be removed by hand.
        return not told or has_ended(told) is True

    def _sign(self, name: str, told: Mapping[str, object]) -> None:
        def fill(file: IO[bytes]) -> None:
            file.write(canonical_json(told).encode())

        self.folder.write(name, fill)


def tracking_of(settings: Mapping[str, Any], root: Path) -> Tracking | Untracked:
    """Return the tracking that a resolved config of the group `tracker` describes, with its files below `root`.

    Raises ConfigError for a tracker that is none, and MissingDependency where its package is not installed.
    """
    if settings.get("_target_") is None:
        return Untracked()
    cls: Any = class_at("tracker", settings)
    passed = {key: value for key, value in settings.items() if key not in _NOT_PASSED}
    folder = root / str(settings["name"])
    try:
        tracker = cls(folder=folder, **passed)
    except TypeError as error:
        raise ConfigError(f"tracker={settings['name']}: {error}") from error
    destination = hashlib.sha256(canonical_json(passed).encode()).hexdigest()[:12]
    return Tracking(tracker=tracker, folder=Folder.at(folder), destination=destination)
