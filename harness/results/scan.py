"""One look at a store: which attempts there are, and their rows. It opens no file twice."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pyarrow as pa

from harness.results.files import Folder
from harness.results.packs import PACK, Pack
from harness.results.parts import Attempt, Row, as_rows, columns_of, read_part, rows_of, with_known_columns
from harness.results.schemas import RESULTS, RUNS, SCHEMAS, empty

_READERS, _LOCAL_READERS = 4, 2


class Scan:
    """What lies in a store when it is made, from the names of files alone; rows are read when they are asked for.

    `attempts` are by setting and number; `single` are those with files of their own, `packs` hold the others. What is
    no regular file, or has another name, is passed over. With `about`, a setting or a run, it knows those attempts
    alone, and takes no longer for them in a store of thousands than names take to be listed.
    """

    def __init__(self, folder: Folder, about: str | None = None) -> None:
        self.folder = folder
        self._about = about
        self._runs: dict[Attempt, pa.Table | None] = {}
        self._look()

    def _look(self) -> None:
        names = self.folder.names("runs")
        self.packs = [Pack(folder=self.folder, name=name) for name in sorted(filter(PACK.fullmatch, names))]
        about = self._about
        names = names if about is None else [name for name in names if about in name]
        self.single = {one for name in names if (one := Attempt.parse(name)) is not None and one.is_about(about)}
        packed = ((one, pack) for pack in self.packs for one in (pack.attempts if about is None else pack.told))
        self._packed = {one: pack for one, pack in packed if one.is_about(about)}
        self.attempts = sorted({*self.single, *self._packed})

    def run(self, attempt: Attempt) -> pa.Table | None:
        """Return the row of an attempt, or None, with a warning, where it cannot be trusted."""
        if attempt not in self._runs:
            self._runs[attempt] = self._part(attempt, "runs", 1)
        return self._runs[attempt]

    def part(self, attempt: Attempt, table: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return an attempt's rows of a table; None, with a warning, where the run or they are not whole.

        Of a table of many rows some `columns` can be asked for, which are all that is read then, beside the names.
        """
        run = self.run(attempt)
        if run is None or table == "runs":
            return run if run is None or not columns else run.select(columns_of(table, columns).names)
        schema = columns_of(table, columns) if columns else SCHEMAS[table]
        rows = run[rows_of(table)][0].as_py()
        if not rows:
            return empty(schema)
        found = self._part(attempt, table, rows, columns)
        return found if found is None else with_known_columns(found, schema)

    def parts(
        self, attempts: Iterable[Attempt], table: str, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[Attempt, pa.Table]]:
        """Yield attempts with their rows of samples or steps, as `part` returns them; those of a pack together."""
        packed, alone = self._by_pack(attempts)
        for one in alone:
            if (found := self.part(one, table, columns)) is not None:
                yield one, found
        for pack, some in packed:
            yield from self._parts_of(pack, some, table, columns)

    def _parts_of(
        self, pack: Pack, attempts: Sequence[Attempt], table: str, columns: Sequence[str] | None
    ) -> Iterator[tuple[Attempt, pa.Table]]:
        counted = pack.rows(attempts, [rows_of(table)])
        if counted is None:
            each = ((one, self.part(one, table, columns)) for one in attempts)
            yield from ((one, found) for one, found in each if found is not None)
            return
        rows = dict(zip(attempts, counted[rows_of(table)].to_pylist(), strict=True))
        none = empty(columns_of(table, columns) if columns else SCHEMAS[table])
        yield from ((one, none) for one, count in rows.items() if not count)
        yield from pack.parts({one: count for one, count in rows.items() if count}, table, columns)

    def _by_pack(self, attempts: Iterable[Attempt]) -> tuple[list[tuple[Pack, list[Attempt]]], list[Attempt]]:
        """Return the attempts of every pack that has some, and those with files of their own."""
        packed: dict[str, list[Attempt]] = {}
        alone: list[Attempt] = []
        for one in attempts:
            own = one in self.single or one not in self._packed
            (alone if own else packed.setdefault(self._packed[one].name, [])).append(one)
        return [(pack, packed[pack.name]) for pack in self.packs if pack.name in packed], alone

    def rows(self, attempts: Iterable[Attempt], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of attempts, or some columns, in their order, without those that cannot be trusted."""
        attempts, schema = list(attempts), columns_of("runs", columns or RUNS.names)
        packed, alone = self._by_pack(attempts)
        tables, told = [empty(schema)], list[Attempt]()
        for pack, some in packed:
            rows = pack.rows(some, columns)
            if rows is None:
                alone += some
                continue
            tables.append(rows)
            told += some
        each = {one: row for one, row in zip(alone, self._each_run(alone, columns), strict=True) if row is not None}
        # Completed together: doing it file by file takes as long as reading.
        own = pa.concat_tables([empty(schema), *each.values()], promote_options="default")
        found = pa.concat_tables([*tables, with_known_columns(own, schema)])
        place = {one: at for at, one in enumerate([*told, *each])}
        order = [place[one] for one in attempts if one in place]
        return found if order == [*range(len(order))] else found.take(order)

    def _each_run(self, attempts: Sequence[Attempt], columns: Sequence[str] | None) -> Iterator[pa.Table | None]:
        def read(attempt: Attempt) -> pa.Table | None:
            return self._part(attempt, "runs", 1, columns) if columns else self.run(attempt)

        # A pack, read once and kept, several threads would read twice.
        if not attempts or not self.single.issuperset(attempts):
            return map(read, attempts)
        # Of local files each reader gets its share at once: handed one by one, they wait for each other.
        readers, share = (_LOCAL_READERS, -(-len(attempts) // _LOCAL_READERS)) if self.folder.local else (_READERS, 1)
        shares = [attempts[at : at + share] for at in range(0, len(attempts), share)]
        with ThreadPoolExecutor(readers) as pool:
            return chain.from_iterable(pool.map(lambda some: [read(one) for one in some], shares))

    def completed(self, run_id: str) -> Row | None:
        """Return the row of the newest good attempt of a run that is whole, samples and steps included, or None."""
        good = (one for one in reversed(self.attempts) if one.run_id == run_id and one.ok)
        runs = (self.run(one) for one in good if self.whole(one))
        return next((as_rows(run)[0] for run in runs if run is not None), None)

    def whole(self, attempt: Attempt) -> bool:
        """Say whether all rows of an attempt can be read."""
        return all(self.part(attempt, table) is not None for table in RESULTS)

    def _part(self, attempt: Attempt, table: str, rows: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        own = f"{table}/{attempt.file}"
        if attempt not in self._packed and not self.folder.exists(own):
            # Somebody may have packed it since.
            self._look()
        if attempt not in self._packed or self.folder.exists(own):
            found = read_part(self.folder, table, attempt, rows, columns)
            if found is not None or attempt not in self._packed:
                return found
        pack = self._packed[attempt]
        return pack.run(attempt, columns) if table == "runs" else pack.part(attempt, table, rows, columns)
