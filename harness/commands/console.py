"""Where commands print tables: as wide as a terminal, and as wide as they are where a program reads them."""

import sys

from rich.console import Console

_UNBOUNDED = 10_000


def console() -> Console:
    """Return a console on standard output that wraps lines on a terminal only."""
    return Console() if sys.stdout.isatty() else Console(width=_UNBOUNDED, color_system=None)
