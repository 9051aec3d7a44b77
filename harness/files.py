"""Files that users give: read whole, or refused for what they are; and where files of our own are kept."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any


def require(file: Path) -> None:
    """Raise OSError for what is no file, such as a pipe: nobody may ever write to it, and it is read once."""
    kind = file.stat().st_mode
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe" if stat.S_ISFIFO(kind) else "a device or socket"
        raise OSError(f"it is {what}, not a file")


def content(file: Path) -> bytes:
    """Return the bytes of a file; raise OSError as `require` does."""
    require(file)
    return file.read_bytes()


def cache_folder() -> Path:
    """Return the user's folder for what can be made anew; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "decbench"


def sha256(file: Path) -> str:
    """Return the hex digest of a file; raise OSError as `require` does."""
    require(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text(file: Path) -> str:
    """Return the text of a UTF-8 file; raise OSError as `content` does, and ValueError where it is not UTF-8."""
    return content(file).decode("utf-8")


def parsed(line: str) -> Any:
    """Return the value of a JSON text; raise ValueError for what is none or no program can hold."""
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ValueError("holds a whole number of thousands of digits") from None
