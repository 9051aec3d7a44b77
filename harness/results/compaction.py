"""Making few files of many, and removing runs: what a store does to what it holds."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

from harness.results.packs import AT_MOST, TABLES, write_pack
from harness.results.parts import Attempt
from harness.results.scan import Scan
from harness.results.store import Store


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What became of a store: numbers of its files before and after, and of the attempts that could not be read."""

    before: int
    after: int
    unreadable: int


def compact(store: Store) -> Compacted:
    """Pack all attempts that can be read whole, `AT_MOST` in a pack; attempts that are written meanwhile stay apart.

    It can be interrupted, and done again, at any time. What cannot be trusted is left where it is, and named.
    """
    with store.writing():
        before, scan = _files(store), Scan(store.folder)
        small = [pack for pack in scan.packs if len(pack.attempts) < AT_MOST]
        full = {attempt for pack in scan.packs if pack not in small for attempt in pack.attempts}
        loose = [one for one in scan.attempts if one not in full]
        whole = [one for one in loose if scan.whole(one)]
        kept = {pack.name for pack in scan.packs} - {pack.name for pack in small}
        if scan.single & {*whole} or len(small) > 1:
            kept |= {pack.name for pack in _packed(scan, whole)}
        else:
            kept |= {pack.name for pack in small}
        _remove_what_is_packed(store, kept)
        _remove_finished(store)
    return Compacted(before=before, after=_files(store), unreadable=len(loose) - len(whole))


def delete(store: Store, attempts: Collection[Attempt]) -> None:
    """Remove attempts for good; packs that hold some are written again without them first."""
    with store.writing():
        scan, gone = Scan(store.folder), {*attempts}
        for attempt in gone & scan.single:
            _remove(store, attempt)
        for pack in scan.packs:
            stay = [one for one in pack.attempts if one not in gone]
            if len(stay) < len(pack.attempts):
                readable = [one for one in stay if pack.holds(one)]
                made = write_pack(store.folder, readable, scan.part) if readable else None
                if made is None or made.name != pack.name:
                    pack.remove()
        for run_id in {one.run_id for one in gone}:
            store.folder.remove(f"errors/{run_id}.txt")


def _packed(scan: Scan, attempts: list[Attempt]) -> Iterable:
    """Yield packs of the attempts, each read back."""
    waiting = iter(attempts)
    while some := list(islice(waiting, AT_MOST)):
        pack = write_pack(scan.folder, some, scan.part)
        if all(pack.holds(one) for one in some):
            yield pack


def _remove_what_is_packed(store: Store, kept: Collection[str]) -> None:
    """Remove the single files of what the kept packs hold, and the other packs if the kept ones hold all of theirs."""
    scan = Scan(store.folder)
    held = {one for pack in scan.packs if pack.name in kept for one in pack.attempts if pack.holds(one)}
    for table in reversed(TABLES):
        names = {*store.folder.names(table)}
        for attempt in held:
            if attempt.file in names:
                store.folder.remove(f"{table}/{attempt.file}")
    for pack in scan.packs:
        if pack.name not in kept and held.issuperset(pack.attempts):
            pack.remove()


def _remove_finished(store: Store) -> None:
    """Remove the batches of runs that another process has stored since they were kept."""
    stored = {one.run_id for one in store.attempts() if one.ok}
    for run_id in stored & {*store.folder.folders("partial")}:
        store.folder.remove_folder(f"partial/{run_id}")


def _remove(store: Store, attempt: Attempt) -> None:
    for table in reversed(TABLES):
        store.folder.remove(f"{table}/{attempt.file}")


def _files(store: Store) -> int:
    return sum(name.endswith(".parquet") for table in TABLES for name in store.folder.names(table))
