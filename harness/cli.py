"""`decbench`: one word of what to do, then its arguments; everything heavy is imported by the command that needs it."""

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from harness.errors import ConfigError, DataError, MissingDependency, RunFailed, one_line

_HELP = """usage: decbench COMMAND [arguments]

  run [-m] key=value ...     decode a task: decbench run model=tiny_mdm method=threshold task=list_copy
  plan key=value ...         what `run` with the same arguments would do and cost; also run --dry-run
  generate PROMPT key=value ...
                             answer a prompt of your own (-: from standard input), with counts; trace=true: its steps
  list methods|models|tasks|experiments|figures|systems [--json]
  show method=NAME [...]     resolved options with types, defaults and the paper; also model=NAME, protocol=NAME
  doctor [--json] [...]      what can run here, and why the rest cannot; with protocol=NAME protocol.wording=FOLDER,
                             which of its published prompts that checkout has
  conform [FILE] [--json]    replay reference trajectories through the real loop, or with model=external
                             model.target=... method=NAME through the code that a method was ported from
  train NAME                 train an embedded model
  new method|task|model NAME [--into FOLDER]    files of a part of your own, which work, to start from
  check method=NAME          whether it keeps the promises of methods; also cache=, task=, model= NAME
  lm_eval ...                lm-evaluation-harness's own command line, with decbench as a model
  figures NAME|FILE ...      draw stored runs: svg, pdf, png and csv; which figures: decbench list figures
  tables [NAME|FILE] ...     tables of stored runs, best and ties marked: markdown, LaTeX, csv
  report [column=value ...]  one HTML page of stored runs: leaderboard, plots, and a viewer of decodings
  iso_quality [NAME]         the fastest setting of each method that loses at most a margin, from a stored search
  trace RUN SAMPLE           how one sample was decoded, step by step
  replay key=value ...       what other draft lengths and thresholds would come to, from one pass over plain answers
  results [WHAT ...]         list, show, compare, export and delete what is stored, and keep it in order
  gate key=value ...         runs against a committed baseline: outputs, counters, accuracy, CPU time; 1 if it is red
  watch [NAME]               a running sweep: done, left, failed, time to go, first results; from any process
  verify RUN [samples=N]     run a stored run again from what is stored of it; 1 and the first difference if it is other
  sync tracker=NAME ...       tell a tracker of stored runs, each once: tracker=wandb, tracker=mlflow
  claims [ID ...]            published claims beside what is stored, with a verdict on each
  bench [key=value ...]      time and memory of published shapes with every cache, on a large GPU
  cost model=NAME method=NAME device=NAME      predicted operations, bytes and seconds on a machine that is not here
  cost break_even model=NAME device=NAME       tokens per call from which blocks are as fast as a causal model

`run` composes a model, a method and a task; choices with commas and experiments are swept. --json prints one JSON
object as the last line. Results go to results/raw, see results_dir=... `decbench --version` says which this is.
Methods, policies, caches, tasks, models, protocols and experiments of your own: --config-dir FOLDER, or folders in
DECBENCH_PATH; docs/plugins.md says what goes into them.
"""

_RUN_HELP = """usage: decbench run key=value ... [--json]

  decbench run method=threshold task=list_sort task.samples=16     one run; model=tiny_mdm unless you choose another
  decbench run method=threshold method.threshold=0.5,0.9           a choice with commas is a sweep
  decbench run experiment=quickstart                               a whole experiment: decbench list experiments
  decbench plan experiment=quickstart                              what that would do: stored, new, refused, cost

What exists: decbench list models|methods|tasks; the knobs of a method: decbench show method=NAME.
"""

_STORING = ("run", "gate")
"""Commands that store runs on their way."""

_YOUNG = 20_000
"""New objects after which garbage is looked for."""

# A fifth of a short command would go into looking for garbage among what goes anyway.
atexit.register(gc.freeze)

_SIGNALLED = 128
"""What shells add to the number of the signal that ended a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch a command line; return 0, 1 (something failed) or 2 (the request cannot be carried out)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"decbench {version('decbench')}\n")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_HELP)
        return 0
    from harness.config import plugins

    try:
        with _collecting_rarely(), plugins.commanded(arguments) as kept:
            return _dispatch(*kept[:1], rest=kept[1:])
    except ConfigError as error:
        sys.stderr.write(f"decbench: {error}\n")
        return 2


def _dispatch(command: str = "", *, rest: list[str]) -> int:
    if command in COMMANDS and {"-h", "--help"} & {*rest}:
        sys.stdout.write(_help_of(command))
        return 0
    if command not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"
        sys.stderr.write(f"decbench {command}: no such command; {hint}\n")
        return 2
    try:
        with _ended_alike():
            code = COMMANDS[command](rest)
        _tell_problems()
        return code
    except (ConfigError, DataError, MissingDependency) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _tell_problems(str(error))
        sys.stderr.write(f"decbench {command}: {one_line(error)}\n")
        return 2
    except RunFailed as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stderr.write(f"decbench {command}: {one_line(error)}\n")
        return 1
    except KeyboardInterrupt as stop:
        kept = "; finished runs and batches are stored, the same command goes on from there"
        sys.stderr.write(f"interrupted{kept if command in _STORING else ''}\n")
        return _SIGNALLED + (stop.args[0] if stop.args else signal.SIGINT)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _tell_problems(str(error))
        sys.stderr.write(f"decbench {command}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows the traceback)\n")
        return 1


def _tell_problems(said: str = "") -> None:
    from harness.config.catalogue import tell_problems

    tell_problems(said)


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Have the garbage collector look less often: a tenth of importing frameworks and of planning is spent in it."""
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _ended_alike() -> Iterator[None]:
    """Have a command that is asked to end, or whose terminal goes, end as Ctrl-C ends it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored already stays so: that is what nohup and background jobs of a shell ask for.
    heard = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(argv: list[str]) -> int:
    if "--dry-run" in argv:
        return _plan([one for one in argv if one != "--dry-run"])
    if not argv:
        sys.stdout.write(_RUN_HELP)
        return 2
    from harness.config.presence import refuse_absent_model

    refuse_absent_model(argv)
    overrides = _known(argv)
    from harness.commands.run import main as run

    return run(overrides, as_json="--json" in argv)


def _plan(argv: list[str]) -> int:
    if not argv:
        sys.stdout.write(_RUN_HELP)
        return 2
    overrides = _known(argv)
    from harness.commands.plan import main as plan

    return plan(overrides, as_json="--json" in argv)


def _help_of(command: str) -> str:
    """Return what the module of a command says of itself; it is read, not run, so that help needs no framework."""
    if command not in _MODULES:
        return _RUN_HELP
    import ast
    from importlib.resources import files

    place = _MODULES[command].replace(".", "/")
    folder = files("harness").joinpath("commands")
    package = folder.joinpath(place, "__init__.py")
    file = package if package.is_file() else folder.joinpath(f"{place}.py")
    return f"{ast.get_docstring(ast.parse(file.read_text('utf-8')))}\n"


def _known(argv: list[str]) -> list[str]:
    """Return the overrides of a command line; refuse those whose names tell that they are none, which takes no second.

    Frameworks take several to be imported.
    """
    overrides = [one for one in argv if one not in ("--json", "-m", "--multirun")]
    from harness.config.overrides import parse
    from harness.config.root import refuse_unknown

    refuse_unknown(parse(overrides))
    return overrides


def _module(name: str) -> Callable[[list[str]], int]:
    def command(argv: list[str]) -> int:
        return import_module(f"harness.commands.{name}").main(argv)

    return command


_MODULES = {
    "generate": "generate",
    "list": "list",
    "show": "show",
    "doctor": "doctor",
    "conform": "conform",
    "train": "train",
    "new": "new.command",
    "check": "check.command",
    "lm_eval": "lm_eval.command",
    "bench": "bench",
    "cost": "cost",
    "figures": "figures",
    "tables": "tables",
    "report": "report",
    "iso_quality": "iso_quality",
    "trace": "trace",
    "replay": "replay",
    "claims": "claims",
    "results": "results",
    "gate": "gate",
    "verify": "verify",
    "sync": "sync",
    "watch": "watch",
}

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "plan": _plan,
    **{name: _module(place) for name, place in _MODULES.items()},
}
