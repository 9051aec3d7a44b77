"""`decbench`: one word of what to do, then its arguments; everything heavy is imported by the command that needs it."""

import os
import sys
from collections.abc import Callable, Sequence

from harness.errors import ConfigError, DataError, MissingDependency

_HELP = """usage: decbench COMMAND [arguments]

  run [-m] key=value ...     decode a task: decbench run model=tiny_mdm method=threshold task=list_copy
  list methods|models|tasks|experiments [--json]
  show method=NAME [...]     resolved options with types, defaults and the paper; also model=NAME, protocol=NAME
  doctor [--json] [...]      what can run here, and why the rest cannot; with protocol=NAME protocol.wording=FOLDER,
                             which of its published prompts that checkout has
  conform [FILE] [--json]    replay reference trajectories through the real loop
  train NAME                 train an embedded model
  lm_eval ...                lm-evaluation-harness's own command line, with decbench as a model
  bench [key=value ...]      time and memory of published shapes with every cache, on a large GPU

`run` composes a model, a method and a task; choices with commas and experiments are swept. --json prints one JSON
object as the last line. Results go to results/raw, see results_dir=...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch a command line; return 0, 1 (something failed) or 2 (the request cannot be carried out)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_HELP)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command in COMMANDS and {"-h", "--help"} & {*rest}:
        sys.stdout.write(_HELP)
        return 0
    if command not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"
        sys.stderr.write(f"decbench {command}: no such command; {hint}\n")
        return 2
    try:
        return COMMANDS[command](rest)
    except (ConfigError, DataError, MissingDependency) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stderr.write(f"decbench {command}: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished runs are stored, the same command goes on from there\n")
        return 130
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = " ".join(str(error).split())
        sys.stderr.write(
            f"decbench {command}: {type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows the traceback)\n"
        )
        return 1


def _run(argv: list[str]) -> int:
    from harness.runs.presence import refuse_absent_model

    refuse_absent_model(argv)
    from harness.runs.sweep import main as run

    return run([a for a in argv if a != "--json"], as_json="--json" in argv)


def _list(argv: list[str]) -> int:
    from harness.runs.inspect import list_options

    return list_options(argv)


def _show(argv: list[str]) -> int:
    from harness.runs.inspect import show

    return show(argv)


def _doctor(argv: list[str]) -> int:
    from harness.runs.doctor import main as doctor

    return doctor(argv)


def _conform(argv: list[str]) -> int:
    from harness.runs.conform import main as conform

    return conform(argv)


def _train(argv: list[str]) -> int:
    from harness.runs.train import main as train

    return train(argv)


def _lm_eval(argv: list[str]) -> int:
    from harness.runs.lm_eval.command import main as lm_eval

    return lm_eval(argv)


def _bench(argv: list[str]) -> int:
    from harness.runs.bench import main as bench

    return bench(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "list": _list,
    "show": _show,
    "doctor": _doctor,
    "conform": _conform,
    "train": _train,
    "lm_eval": _lm_eval,
    "bench": _bench,
}
