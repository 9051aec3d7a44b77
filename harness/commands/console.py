"""Where commands print tables: as wide as a terminal, and as wide as they are where a program reads them."""

import sys

from rich.console import Console

_UNBOUNDED = 10_000


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output, or error, that wraps lines on a terminal only; no text is markup."""
    if (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr, markup=False)
    return Console(stderr=stderr, markup=False, width=_UNBOUNDED, color_system=None)
