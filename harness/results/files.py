"""The files of a store: one folder of any file system that fsspec knows, a local one where no other is named.

Nothing else of the store touches a disk. What it rests on is little: a file appears whole or not at all, and of several
who create one name one succeeds. No links, no locks, no times of files.

| | a folder, or another file system | an object store |
|---|---|---|
| a file appears whole | written elsewhere, then renamed | one put, or an upload in parts, which shows at its end |
| one of many creates a name | opened for exclusive creation | a put on the condition that there is nothing |
| a file moves | renamed | copied, then removed: for a while there are two |
| a folder | made | part of a name; buckets are not made |
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from harness.errors import ConfigError, DataError, one_line

if TYPE_CHECKING:
    from pyarrow import NativeFile

_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "r2"}
"""Protocols of fsspec whose puts appear whole."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of a file system. Names are paths within it, with slashes; errors are those of the file system."""

    fs: AbstractFileSystem
    path: str

    @classmethod
    def at(cls, place: str | Path) -> "Folder":
        """Return the folder at a path or a URL, which need not exist.

        Raises ImportError without the package of a file system, and ConfigError for a URL that names no folder.
        """
        if "://" not in str(place):
            return cls(fs=LocalFileSystem(), path=os.path.abspath(place))
        try:
            fs, path = url_to_fs(str(place), use_listings_cache=False)
        except ValueError as error:
            raise ConfigError(f"{place}: {one_line(error)}; give a folder, or a URL that fsspec knows") from error
        if not path.strip("/"):
            raise ConfigError(f"{place}: names no folder; write {place}FOLDER")
        return cls(fs=fs, path=path)

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def _of_objects(self) -> bool:
        protocol = self.fs.protocol
        return not _OBJECT_STORES.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what libraries of other file systems raise of their own (unreachable, no credentials) into OSError."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            if self.local:
                raise
            raise OSError(one_line(error)) from error

    def where(self, name: str) -> str:
        """Return the whole path of a name, as the file system knows it."""
        return f"{self.path}/{name}" if name else self.path

    def names(self, folder: str) -> list[str]:
        """Return the names of the regular files in a folder, without the folder's; none where there is no folder.

        Raises DataError where it cannot be looked into.
        """
        if not self.local:
            return self._listed(folder, "file")
        try:
            # Asking for details, as elsewhere, costs twenty times as much here.
            with os.scandir(self.where(folder)) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder; raises DataError where it cannot be looked into."""
        return self._listed(folder, "directory")

    def _listed(self, folder: str, kind: str) -> list[str]:
        try:
            with self._asking():
                entries = self.fs.ls(self.where(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error
        return [_last(one) for one in entries if one["type"] == kind]

    def _unreadable(self, folder: str, error: OSError) -> DataError:
        where = self.where(folder) if self.local else self.fs.unstrip_protocol(self.where(folder))
        why = one_line(error).removeprefix("OSError: ")
        return DataError(f"{where}: cannot be read ({why}); choose another store: results_dir=PATH or URL")

    def exists(self, name: str) -> bool:
        """Say whether there is a regular file."""
        with self._asking():
            return self.fs.isfile(self.where(name))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        if self.local:
            # fsspec wraps a file in four objects, which costs as much as reading a small one.
            return Path(self.where(name)).read_bytes()
        with self._asking():
            return cast(bytes, self.fs.cat_file(self.where(name)))

    def open(self, name: str) -> "IO[bytes] | NativeFile":
        """Open a file to read parts of it; one of this machine past Python, which is sooner where parts are many."""
        if self.local:
            from pyarrow import OSFile

            return OSFile(self.where(name))
        with self._asking():
            return cast("IO[bytes]", self.fs.open(self.where(name), "rb"))

    def make(self, folder: str) -> None:
        """Create a folder, and prove that files can be written there, and names be created once."""
        if not self._of_objects:
            with self._asking():
                self.fs.makedirs(self.where(folder), exist_ok=True)
        probe = f"{folder}/.{uuid.uuid4().hex}"
        self.create(probe)
        try:
            if not self.local:
                self._require_exclusive(probe)
        finally:
            self.remove(probe)

    def _require_exclusive(self, name: str) -> None:
        with suppress(FileExistsError):
            self.create(name)
            raise OSError("several can create one name there, so that attempts could not be numbered")

    def create(self, name: str) -> None:
        """Create a file without content; raise FileExistsError if there is one, whoever creates it at the same time."""
        try:
            with self._asking(), self.fs.open(self.where(name), "xb") as file:
                # s3fs writes what is empty without the condition.
                file.write(b"\n")  # type: ignore[arg-type]
        except OSError as error:
            # Not every server says which condition was not met.
            if not self.local and self.exists(name):
                raise FileExistsError(self.where(name)) from error
            raise

    def write(self, name: str, fill: Callable[[IO[bytes]], None]) -> None:
        """Have `fill` write a file, which appears under its name when it is whole; an older one is replaced."""
        if self.local:
            self._renamed(name, lambda temporary: _filled(temporary, fill))
            return
        with tempfile.TemporaryDirectory() as scratch:
            content = f"{scratch}/content"
            _filled(content, fill)
            with self._asking():
                if self._of_objects:
                    self.fs.put_file(content, self.where(name))
                else:
                    self._renamed(name, lambda temporary: self.fs.put_file(content, temporary))

    def _renamed(self, name: str, make: Callable[[str], None]) -> None:
        """Have a file made under another name, and give it its own."""
        folder, _, last = name.rpartition("/")
        temporary = self.where(f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            make(temporary)
            self.fs.mv(temporary, self.where(name))
        except BaseException:
            with suppress(OSError):
                self.fs.rm_file(temporary)
            raise

    def move(self, name: str, folder: str) -> None:
        """Move a file into another folder."""
        with self._asking():
            if not self._of_objects:
                self.fs.makedirs(self.where(folder), exist_ok=True)
            self.fs.mv(self.where(name), self.where(f"{folder}/{name.rpartition('/')[2]}"))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), self._asking():
            self.fs.rm_file(self.where(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        with suppress(FileNotFoundError), self._asking():
            self.fs.rm(self.where(name), recursive=True)


def beside(root: Path | str) -> Path:
    """Return the folder of this machine for what is no part of a store: figures, a tracker's files, logs of jobs.

    It is the store's own where that is a folder, else one in `results` that is called like it.
    """
    folder = Folder.at(root)
    if folder.local:
        return Path(folder.path) if "://" in str(root) else Path(root)
    scheme, _, place = str(root).partition("://")
    return Path("results", scheme, *filter(None, place.split("/")))


def _filled(path: str, fill: Callable[[IO[bytes]], None]) -> None:
    with open(path, "wb") as file:
        fill(file)


def _last(entry: dict[str, str]) -> str:
    return entry["name"].rstrip("/").rpartition("/")[2]
