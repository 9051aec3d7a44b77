"""The files of a store: one folder of any file system that fsspec knows, a local one where no other is named.

Nothing else of the store touches a disk. What it rests on is little: a file appears whole or not at all, and of several
who create one name one succeeds.
"""

import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

_URL = re.compile(r"[a-z][a-z0-9+.-]+://.")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of a file system. Names are paths within it, with slashes; errors are those of the file system."""

    fs: AbstractFileSystem
    path: str

    @classmethod
    def at(cls, place: str | Path) -> "Folder":
        """Return the folder at a path or a URL, which need not exist."""
        if _URL.match(str(place)):
            fs, path = url_to_fs(str(place), use_listings_cache=False)
            return cls(fs=fs, path=path)
        return cls(fs=LocalFileSystem(), path=os.path.abspath(place))

    def where(self, name: str) -> str:
        """Return the whole path of a name, as the file system knows it."""
        return f"{self.path}/{name}" if name else self.path

    def names(self, folder: str) -> list[str]:
        """Return the names of the regular files in a folder, without the folder's; none where there is no folder."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if isinstance(self.fs, LocalFileSystem):
                # Asking for details, as below, costs twenty times as much here.
                with os.scandir(self.where(folder)) as entries:
                    return [entry.name for entry in entries if entry.is_file()]
            return [_last(one) for one in self.fs.ls(self.where(folder), detail=True) if one["type"] == "file"]
        return []

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return [_last(one) for one in self.fs.ls(self.where(folder), detail=True) if one["type"] == "directory"]
        return []

    def exists(self, name: str) -> bool:
        """Say whether there is a regular file."""
        return self.fs.isfile(self.where(name))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return cast(bytes, self.fs.cat_file(self.where(name)))

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read parts of it."""
        return cast("IO[bytes]", self.fs.open(self.where(name), "rb"))

    def make(self, folder: str) -> None:
        """Create a folder, and prove that files can be written there."""
        self.fs.makedirs(self.where(folder), exist_ok=True)
        probe = f"{folder}/.{uuid.uuid4().hex}"
        self.create(probe)
        self.remove(probe)

    def create(self, name: str) -> None:
        """Create an empty file; raise FileExistsError if there is one, whoever else creates it at the same time."""
        with self.fs.open(self.where(name), "xb"):
            pass

    def write(self, name: str, fill: Callable[[IO[bytes]], None]) -> None:
        """Have `fill` write a file, which appears under its name when it is whole; an older one is replaced."""
        folder, _, last = name.rpartition("/")
        temporary = self.where(f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with self.fs.open(temporary, "wb") as file:
                fill(cast("IO[bytes]", file))
            self.fs.mv(temporary, self.where(name))
        except BaseException:
            with suppress(OSError):
                self.fs.rm_file(temporary)
            raise

    def move(self, name: str, folder: str) -> None:
        """Move a file into another folder."""
        self.fs.makedirs(self.where(folder), exist_ok=True)
        self.fs.mv(self.where(name), self.where(f"{folder}/{name.rpartition('/')[2]}"))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.where(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.where(name), recursive=True)


def _last(entry: dict[str, str]) -> str:
    return entry["name"].rstrip("/").rpartition("/")[2]
