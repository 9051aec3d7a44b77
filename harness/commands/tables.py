"""`decbench tables [NAME|FILE] [column=value ...] [--format markdown|latex|csv] [--output FILE]`: tables of runs.

NAME is a table of ours or of a plug-in (leaderboard unless another is named), FILE a YAML file of yours: `kind: table`,
which `runs`, the quantities `y`, what makes a row (`groups`), and what makes a block of columns (`panels`). Further
words choose among stored runs, as for `decbench results list`. The best of a model is bold, what is not significantly
worse on the same samples is marked. LaTeX has the rules of booktabs.
"""

import sys
from collections.abc import Sequence

from harness.commands.figures import definition_of
from harness.commands.results.words import parse
from harness.errors import ConfigError
from harness.results.selection import parse_filters

_DEFAULT = "leaderboard"


def main(argv: Sequence[str]) -> int:
    """Print a table, or write it to a file."""
    words = parse(argv, options=("--format", "--output"))
    if len(words.names) > 1:
        raise ConfigError(f"tables {' '.join(words.names)}: takes one table at a time")
    from harness.results import tables
    from harness.results.figures.making import caption_of
    from harness.results.figures.selected import select

    form = words.options.get("--format", "markdown")
    if form not in tables.FORMATS:
        raise ConfigError(f"--format={form}: no such format; known: {', '.join(tables.FORMATS)}")
    definition = definition_of(words.names[0] if words.names else _DEFAULT, tables=True)
    selected = select(words.store, definition, parse_filters(words.filters))
    frame = tables.data(selected)
    if not len(frame):
        raise ConfigError(f"{definition.name}: none of its runs has {', '.join(definition.y)}")
    text = tables.FORMATS[form](frame, caption_of(selected))
    if not words.written("--output", text):
        sys.stdout.write(text)
    return 0
