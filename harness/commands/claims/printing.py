"""Claims with their verdicts on the terminal, as Markdown, and as JSON."""

import json
from collections.abc import Sequence

from rich.table import Table

from harness.commands.console import console
from harness.commands.systems import systems
from harness.results.claims.rendering import Judged, counted, document, entry


def as_json(judged: Sequence[Judged]) -> str:
    """Return an array with all of every claim."""
    return json.dumps([entry(one) for one in judged], indent=1) + "\n"


def as_markdown(judged: Sequence[Judged]) -> str:
    """Return a page with one table per system."""
    return document(judged, {one.name: one.heading for one in systems()}) + "\n"


def as_text(judged: Sequence[Judged]) -> str:
    """Return one line per claim and the counts of verdicts; all of a single claim."""
    if len(judged) == 1:
        return "".join(f"{name:10} {_told(value)}\n" for name, value in entry(judged[0]).items())
    table = Table("claim", "published", "verdict", "because", box=None)
    for one in judged:
        table.add_row(one.claim.id, str(one.claim.published or ""), one.verdict.outcome.value, one.verdict.because)
    terminal = console()
    with terminal.capture() as lines:
        terminal.print(table, highlight=False, markup=False)
    return lines.get() + ", ".join(f"{count} {name}" for name, count in counted(judged).items()) + "\n"


def _told(value: object) -> str:
    if isinstance(value, list):
        return "\n           ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)


FORMS = {"": as_text, "--json": as_json, "--markdown": as_markdown}
