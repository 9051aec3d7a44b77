"""`decbench lm_eval`: the command line of lm-evaluation-harness, in which decbench is a model.

The library finds models in a fixed table of its own and loads no plugins, so a process has to be told: this command
does it for `lm_eval`'s own, and a program calls `register` before `lm_eval.simple_evaluate(model="decbench", ...)`.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence

from harness.errors import MissingDependency

NAME = "decbench"


def register() -> None:
    """Make `decbench` a model of lm-evaluation-harness in this process; raise MissingDependency without it."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingDependency("lm_eval: needs the package lm_eval: pip install 'decbench[lm-eval]'")
    # The table of its own models is filled by this import, and only while it is empty.
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target="harness.commands.lm_eval.model:DecbenchLM")


def main(argv: Sequence[str]) -> int:
    """Run `lm_eval ARGUMENTS`, offline unless HF_HUB_OFFLINE=0 is in the environment."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    register()
    from lm_eval.__main__ import cli_evaluate

    before = sys.argv
    sys.argv = ["lm_eval", *argv]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
    return 0
