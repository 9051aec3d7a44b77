"""What the page of one run shows: its samples and the films of some, and all of its row."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from harness.results.html.films import film, spelled_words
from harness.results.schemas import RUNS
from harness.results.trace import SAMPLE_COLUMNS

SHOWN = ("sample_id", "correct", "correct_strict", "output_text", "extracted", "detail", "nfe", "query_tokens",
         "tokens_out", "remasked", "latency_s", "token_margin", "choice_margin", "finish_reason")  # fmt: skip
_JSON = ("config", "provenance", "produced_by")

Row = Mapping[str, Any]
Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class RunRows:
    """The rows of a run: samples of the first repetition in order, and the steps of some of them by name of sample.

    Samples have the columns of `SHOWN` and `trace.SAMPLE_COLUMNS`; those that are shown become plain values.
    `again` says that the steps are of a later decoding, `spelled` how tokens of its model are written, and `asked` what
    some samples were asked.
    """

    run: Row
    samples: pa.Table
    steps: Mapping[str, Sequence[Row]]
    spelled: Callable[[int], str]
    again: bool = False
    asked: Mapping[str, Turns] = field(default_factory=dict)

    def details(self, samples: int | None, films: int) -> dict[str, Any]:
        """Return what is shown of the first `samples` (all without a number), and films of the first `films`."""
        kept = self.samples.slice(0, samples)
        listed = kept.select(SHOWN).to_pylist()
        columns = [one for one in SHOWN if any(row[one] not in (None, "") for row in listed)]
        played = kept.slice(0, films).select(SAMPLE_COLUMNS).to_pylist()
        made = [one for row in played if (one := self._film(row)) is not None]
        return {
            "samples": {"columns": columns, "rows": [[row[one] for one in columns] for row in listed]},
            "listed": [len(kept), len(self.samples)],
            "films": made,
            "words": spelled_words(made, self.spelled),
        }

    def about(self) -> dict[str, Any]:
        """Return its row, and what of it is JSON as what it holds."""
        return {
            "row": {name: _plain(self.run[name]) for name in RUNS.names if name not in _JSON},
            **{name: json.loads(self.run[name] or "null") for name in _JSON},
        }

    def _film(self, row: Row) -> dict[str, Any] | None:
        steps = self.steps.get(row["sample_id"], ())
        made = film(row, steps, again=self.again and bool(steps))
        known = row["sample_id"] in self.asked
        return None if made is None else made | {"prompt": row["prompt_sha256"] if known else None}


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value


def index_entry(run: Row, films: Sequence[str]) -> dict[str, Any]:
    """Return what lists of runs show of a run; `films` are the samples that can be played."""
    names = ("run_id", "setting_id", "status", "error", "model", "family", "method", "setting", "task", "template",
             "protocol", "seed", "gen_length", "batch_size", "dtype", "device", "measure", "n", "accuracy", "nfe",
             "created")  # fmt: skip
    return {name: _plain(run[name]) for name in names} | {"films": list(films)}
