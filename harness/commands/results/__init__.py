"""`decbench results WHAT`: look at what is stored, take it elsewhere, and keep it in order.

  list [column=value ...] [--all] [--json]    newest attempts of every run, or all; name= finds resumed runs, too
  show RUN [--json]                           one run: what was asked, what came out, on what it rests
  compare RUN RUN ... [--seeds] [--k 1,4] [--json]    the others against the first, on the same samples
  compare column=value ... [--k 1,4] [--json]         every setting against its baseline; several seeds are one
  export [column=value ...] [--format csv|markdown|latex] [--columns a,b] [--output FILE]
  delete RUN ... | column=value ... [--yes]   remove runs, all their attempts, for good
  compact                                     pack many small files into few
  migrate                                     bring a store of older columns to the present ones

RUN is the beginning of a run_id; compare takes several with commas, seeds of one setting, and with --seeds all that
differ from it in the seed alone. Columns are those of the table `runs`, and places of a configuration, such as
config.method.threshold; column=null finds what is not known.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from harness.errors import ConfigError

_MODULES = {
    "list": "looking", "show": "looking", "compare": "comparing", "export": "looking",
    "delete": "keeping", "compact": "keeping", "migrate": "keeping",
}  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Do what the first word says and return the exit code."""
    if not argv:
        sys.stdout.write(f"{__doc__}")
        return 2
    what, *rest = argv
    if what not in _MODULES:
        from harness.config.catalogue import nearest

        raise ConfigError(f"{what}: nothing to do with results; {nearest(what, _MODULES)}")
    module = import_module(f"harness.commands.results.{_MODULES[what]}")
    return getattr(module, f"{what}_runs")(rest)
