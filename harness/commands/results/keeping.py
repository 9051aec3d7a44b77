"""`decbench results delete|compact|migrate`: what changes a store."""

import sys
from collections.abc import Collection, Mapping, Sequence

from harness.commands.results.words import Words, none_left, parse
from harness.errors import ConfigError
from harness.results.compaction import compact, delete
from harness.results.migration import migrate
from harness.results.parts import Attempt
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.selection import attempt_of, matching, parse_filters, why_none


def delete_runs(argv: Sequence[str]) -> int:
    """Remove runs, after asking."""
    words = parse(argv, flags=("--yes",))
    names = read_requests(words.store).names()
    attempts = _chosen(words, names)
    for one in attempts:
        asked = f", asked for by {', '.join(dict.fromkeys(names[one.run_id]))}" if one.run_id in names else ""
        sys.stdout.write(f"{one.run_id} attempt {one.number} ({one.status}) of {one.setting_id}{asked}\n")
    if not attempts:
        sys.stdout.write("nothing to delete\n")
        return 0
    if "--yes" not in words.flags and not _agreed(f"delete these {len(attempts)} attempts for good? [y/N] "):
        sys.stdout.write("nothing was deleted\n")
        return 1
    delete(words.store, attempts)
    sys.stdout.write(f"{len(attempts)} attempts deleted\n")
    return 0


def compact_runs(argv: Sequence[str]) -> int:
    """Pack small files."""
    words = parse(argv)
    none_left(words.rest)
    done = compact(words.store)
    left = f"; {done.unreadable} attempts cannot be read whole and stay as they are" if done.unreadable else ""
    sys.stdout.write(f"{words.store.root}: {done.before} files are now {done.after}{left}\n")
    return 0


def migrate_runs(argv: Sequence[str]) -> int:
    """Bring old files to the present columns."""
    words = parse(argv)
    none_left(words.rest)
    done = migrate(words.store)
    for column, reason in done.unfilled.items():
        sys.stdout.write(f"not filled: {column}: {reason}\n")
    for file in done.unreadable:
        sys.stdout.write(f"left where it is: {file}\n")
    kept = f"; the old files are in {done.kept_in}" if done.runs else ""
    sys.stdout.write(f"{words.store.root}: {done.runs} runs of older columns migrated{kept}\n")
    return 0


def _chosen(words: Words, names: Mapping[str, Collection[str]]) -> list[Attempt]:
    """Return every attempt of the runs that are named, or that pass the filters; `names` are those of sweeps."""
    scan = Scan(words.store.folder)
    if not words.rest:
        raise ConfigError("delete: needs runs, or filters such as status=failed; decbench results list names runs")
    if words.names and words.filters:
        raise ConfigError(f"delete {' '.join(words.rest)}: takes runs or filters, not both")
    ids = {attempt_of(scan.attempts, run).run_id for run in words.names}
    if words.filters:
        filters = parse_filters(words.filters)
        rows = matching(scan, filters, (), every_attempt=True, names=names)
        if not rows:
            sys.stderr.writelines(f"{line}\n" for line in why_none(scan, filters, names))
        passing = {(row["setting_id"], row["attempt"]) for row in rows}
        return [one for one in scan.attempts if (one.setting_id, one.number) in passing]
    return [one for one in scan.attempts if one.run_id in ids]


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("delete: nobody is there to be asked; add --yes")
    return input(question).strip().lower() in ("y", "yes")
