"""One look at a store: which attempts there are, and their rows. It opens no file twice."""

import pyarrow as pa

from harness.results.files import Folder
from harness.results.parts import Attempt, read_part
from harness.results.schemas import SCHEMAS


class Scan:
    """What lies in a store when it is made, from the names of files alone; rows are read when they are asked for.

    `attempts` are by setting and number. What is no regular file, or has another name, is passed over.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        parsed = map(Attempt.parse, folder.names("runs"))
        self.attempts = sorted(attempt for attempt in parsed if attempt is not None)
        self._runs: dict[Attempt, pa.Table | None] = {}

    def run(self, attempt: Attempt) -> pa.Table | None:
        """Return the row of an attempt, or None, with a warning, where it cannot be trusted."""
        if attempt not in self._runs:
            self._runs[attempt] = read_part(self._folder, "runs", attempt, 1)
        return self._runs[attempt]

    def part(self, attempt: Attempt, table: str) -> pa.Table | None:
        """Return an attempt's rows of samples or steps; None, with a warning, where the run or they are not whole."""
        run = self.run(attempt)
        if run is None:
            return None
        rows = run[f"{table.removesuffix('s')}_rows"][0].as_py()
        return read_part(self._folder, table, attempt, rows) if rows else SCHEMAS[table].empty_table()

    def good(self, run_id: str) -> pa.Table | None:
        """Return the row of the newest good attempt of a run that is whole, samples and steps included, or None."""
        good = (one for one in reversed(self.attempts) if one.run_id == run_id and one.ok)
        return next((self.run(one) for one in good if self._whole(one)), None)

    def _whole(self, attempt: Attempt) -> bool:
        return all(self.part(attempt, table) is not None for table in ("samples", "steps"))
