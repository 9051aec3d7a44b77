"""`decbench report [column=value ...] [output=FILE] [samples=N] [traces=N] [results_dir=...]`: one HTML page of runs.

The page asks no network for anything: leaderboard, accuracy over cost, a page per task and run, and a viewer in which
samples are decoded step by step, two methods side by side. Words such as task=list_sort or name=SWEEP choose among the
runs, as for `decbench results list`. It is written to RESULTS_DIR/report.html, or to FILE, and has at most 30 MB.

samples=N lists the first N samples of every run; without it all, or as many as fit. The first 8 of each run can be
played, below their prompts: step by step with measure=traced, otherwise in the order in which positions were committed
for good. traces=N makes that the first N, and decodes those again that were not traced, which loads every model and
costs what N samples of every run cost; nothing of it is stored.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from harness.commands.results.words import Words, none_left, parse
from harness.commands.trace import spelling
from harness.errors import ConfigError, DataError
from harness.results.files import Folder
from harness.results.selection import parse_filters

_NUMBERS = ("samples", "traces")
_OUTPUT = "output="


def main(argv: Sequence[str]) -> int:
    """Write the page, and say where it lies and how large it is."""
    given = [word for word in argv if word.startswith("--output")]
    if given:
        raise ConfigError(f"{given[0]}: is written {_OUTPUT}FILE here")
    words = parse(argv)
    none_left(words.names)
    numbers = {name: _number(words, name) for name in _NUMBERS}
    filters = parse_filters(
        word for word in words.filters if not word.startswith((_OUTPUT, *map("{}=".format, _NUMBERS)))
    )
    output = _output(words)
    from harness.results.html.page import Shown, page
    from harness.runs.asked import Asked
    from harness.runs.theory_points import theory

    shown = Shown(samples=numbers["samples"], asked=Asked(), theory=theory)
    if numbers["traces"] is not None:
        from harness.runs.traced_again import traced_again

        shown = replace(shown, films=numbers["traces"], decode=traced_again)
    if not words.store.attempts():
        raise ConfigError(f"no runs are stored in {words.store.root}; name another store: results_dir=PATH")
    # Found out before the page is made, which may take minutes.
    with _writing(output):
        place, _, name = output.rpartition("/")
        folder = Folder.at(place or ("/" if output.startswith("/") else "."))
        folder.fs.makedirs(folder.path, exist_ok=True)
    made = page(words.store, filters, spelling, shown)
    content = made.html.encode("utf-8")
    with _writing(output):
        folder.write(name, lambda file: _fill(file, content))
    sys.stdout.write(f"{output}\n{len(content) / 1e6:.1f} MB{''.join(f'; {note}' for note in made.notes)}\n")
    return 0


def _number(words: Words, name: str) -> int | None:
    given = [word.partition("=")[2] for word in words.filters if word.startswith(f"{name}=")]
    if not given:
        return None
    if not given[-1].isdecimal():
        raise ConfigError(f"{name}={given[-1]}: must be a whole number, at least 0")
    return int(given[-1])


def _output(words: Words) -> str:
    given = [word.removeprefix(_OUTPUT) for word in words.filters if word.startswith(_OUTPUT)]
    if not given:
        return f"{words.store.root}/report.html"
    if not given[-1].strip() or Path(given[-1]).is_dir():
        raise ConfigError(f"{_OUTPUT}{given[-1]}: names no file; give one, such as {_OUTPUT}report.html")
    return given[-1]


def _fill(file: IO[bytes], content: bytes) -> None:
    file.write(content)


@contextmanager
def _writing(output: str) -> Iterator[None]:
    """Turn errors of the file system into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{_OUTPUT}{output}: cannot be written ({reason}); give another file") from error
