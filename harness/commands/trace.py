"""`decbench trace RUN SAMPLE [--json] [results_dir=...]`: how one sample was decoded, step by step.

RUN is the beginning of a run_id, or filters that the newest run passes, as for `decbench results list`: task=list_sort
method=threshold. SAMPLE is the beginning of a sample's name, or its number from 0. A line per step shows the whole
response, below its prompt: + committed, = accepted draft, ! rejected draft, ~ replaced, - taken back, . not decided. On
a terminal the colour of a committed token says how sure it was, and what a cache answered for is underlined. Of runs
with measure=traced everything is known, of others when each position was committed for good.
"""

import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.commands.console import console
from harness.commands.results.words import Words, parse
from harness.errors import ConfigError, DataError
from harness.results.parts import as_rows
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.selection import attempt_of, matching, parse_filters
from harness.results.trace import SAMPLE_COLUMNS, STEP_COLUMNS, Frame, Mark, first_decodings, frames

if TYPE_CHECKING:
    from rich.text import Text

_UNDECIDED = "."
_WIDEST = 10
_HEAD = 26
_LEGEND = "+ committed   = accepted draft   ! rejected draft   ~ replaced   - taken back   . not decided"
# From unsure to sure, of rising lightness (cividis), and the marks of what takes back.
_SHADES = ("#7a7b78", "#958f78", "#b3a772", "#d1c064", "#f0db4e")
_STYLES = {Mark.REMASKED: "bold #d55e00", Mark.EDITED: "bold #cc79a7", Mark.REJECTED: "#d55e00"}


def main(argv: Sequence[str]) -> int:
    """Print the steps of a sample."""
    words = parse(argv, flags=("--json",))
    names = [*([_newest(words)] if words.filters else []), *words.names]
    if len(names) not in (1, 2):
        raise ConfigError(f"trace {' '.join(words.rest)}: takes a run and one of its samples; decbench results list")
    attempt = attempt_of(words.store.attempts(), names[0])
    chosen = words.store.chosen([attempt.run_id])
    run = next(iter(as_rows(chosen.table("runs"))), None)
    samples = first_decodings(chosen.table("samples", SAMPLE_COLUMNS))
    if run is None or not samples.num_rows:
        raise DataError(f"{attempt.run_id}: has no samples; decbench results show {attempt.run_id} says why")
    sample = _sample(samples, names[1] if len(names) == 2 else "", attempt.run_id)
    every = first_decodings(chosen.table("steps", STEP_COLUMNS))
    steps = every.filter(pc.field("sample_id") == sample["sample_id"]).to_pylist()
    spelled = spelling(json.loads(run["config"]))
    shown = frames(sample, steps)
    if "--json" in words.flags:
        sys.stdout.write(json.dumps([_plain(frame, spelled) for frame in shown]) + "\n")
        return 0
    from harness.runs.asked import Asked

    asked = Asked()(run, [sample]).get(sample["sample_id"], ())
    _print(run, sample, asked, shown, spelled, traced=bool(steps))
    return 0


def _newest(words: Words) -> str:
    """Return the name of the newest run that passes the filters."""
    filters = {"status": {"ok"}, **parse_filters(words.filters)}
    found = matching(Scan(words.store.folder), filters, ("run_id",), names=read_requests(words.store).names())
    if not found:
        raise ConfigError(f"{' '.join(words.filters)}: no run in {words.store.root} is like this; see results list")
    return found[-1]["run_id"]


def _sample(samples: pa.Table, name: str, run_id: str) -> Mapping[str, Any]:
    """Return the sample of a name, of the beginning of one, or of a number; raise ConfigError where that is none."""
    known = {str(one): at for at, one in enumerate(samples["sample_id"].to_pylist())}

    def row(at: int) -> Mapping[str, Any]:
        return samples.slice(at, 1).to_pylist()[0]

    if name in known:
        return row(known[name])
    if name.isdecimal() and int(name) < len(samples):
        return row(int(name))
    found = [one for one in known if name and one.startswith(name)]
    if len(found) == 1:
        return row(known[found[0]])
    if found:
        raise ConfigError(f"{name}: begins the names of several samples, {', '.join(found[:5])}; write more")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or [*known][:3]
    told = f"{name}: run {run_id} has no such sample" if name else f"run {run_id}: say which sample"
    raise ConfigError(f"{told}; it has {len(known)}, such as {', '.join(close)}, or number them from 0")


def spelling(config: Mapping[str, Any]) -> Callable[[int], str]:
    """Return how tokens of a run's model are written; by number where its tokenizer is not on this machine."""
    from harness.config.content import tokenizer_folder
    from harness.models import text
    from harness.models.tokenizer import VOCABULARY

    model = config.get("models", {}).get("target", {})
    if model.get("tokenizer") == "symbols":
        return lambda token: VOCABULARY[token] if 0 <= token < len(VOCABULARY) else str(token)
    try:
        folder = tokenizer_folder(model)
        inner = text.read(folder) if folder is not None else None
    except (ConfigError, DataError):
        inner = None
    if inner is None:
        return str
    return lambda token: json.dumps(inner.decode([token]), ensure_ascii=False)[1:-1]


def _plain(frame: Frame, spelled: Callable[[int], str]) -> dict[str, Any]:
    return {
        "step": frame.number,
        "tokens": [None if token is None else spelled(token) for token in frame.tokens],
        "marks": {str(position): mark.name.lower() for position, mark in frame.marks.items()},
        "certainty": {str(position): value for position, value in frame.certainty.items()},
        "computed": frame.computed,
        "reused": frame.reused,
        "cached": None if frame.cached is None else list(frame.cached),
    }


def _print(
    run: Mapping[str, Any],
    sample: Mapping[str, Any],
    asked: Sequence[tuple[str, str]],
    shown: Sequence[Frame],
    spelled: Callable[[int], str],
    *,
    traced: bool,
) -> None:
    out = console()
    verdict = {True: "right", False: "wrong", None: "not graded"}[sample["correct"]]
    told = f"{run['model']}  {run['setting']}  {run['task']}  {sample['sample_id']}  {verdict}"
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    for role, turn in asked:
        out.print(f"{role or 'prompt'}: {turn}", style="dim", highlight=False, markup=False, soft_wrap=True)
    width = min(_WIDEST, max([1, *(len(spelled(t)) for frame in shown for t in frame.tokens if t is not None)])) + 2
    length = max(len(frame.tokens) for frame in shown)
    per_line = max(1, (out.width - _HEAD) // width) if out.is_terminal else length
    for start in range(0, length, per_line):
        for line in _grid(shown, range(start, min(start + per_line, length)), width, spelled):
            out.print(line, soft_wrap=True)
    calls = sample["nfe"]
    counts = f"{len(shown)} steps, {'-' if calls is None else calls} calls"
    out.print(f"{_LEGEND}\n{counts}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if any(frame.moved for frame in shown):
        out.print("* the response grew or shrank: positions before may be others", style="dim", markup=False)
    if not traced:
        out.print("not traced: when each token was committed for good is all that is known; measure=traced tells more",
                  style="dim", highlight=False, markup=False, soft_wrap=True)  # fmt: skip


def _grid(shown: Sequence[Frame], places: range, width: int, spelled: Callable[[int], str]) -> "Iterator[Text]":
    from rich.text import Text

    head = f"{'step':>5} {'computed':>9} {'reused':>8}  "
    yield Text(head + "".join(f"{at:<{width}}" for at in places), "dim")
    for frame in shown:
        numbers = ("-" if one is None else str(one) for one in (frame.computed, frame.reused))
        head = "{:>4}{} {:>9} {:>8}  ".format(frame.number, "*" if frame.moved else " ", *numbers)
        line = Text().append(head, "dim")
        for at in places:
            line.append_text(_cell(frame, at, width, spelled))
        line.rstrip()
        yield line


def _cell(frame: Frame, at: int, width: int, spelled: Callable[[int], str]) -> "Text":
    from rich.text import Text

    token = frame.tokens[at] if at < len(frame.tokens) else None
    mark = frame.marks.get(at)
    text = _UNDECIDED if token is None else spelled(token)
    text = text if len(text) <= width - 2 else f"{text[: width - 3]}…"
    sure = frame.certainty.get(at)
    style = _STYLES.get(mark, "") if mark else "dim" if token is None else ""
    if mark in (Mark.COMMITTED, Mark.ACCEPTED) and sure is not None:
        style = f"bold {_SHADES[min(len(_SHADES) - 1, int(sure * len(_SHADES)))]}"
    cell = Text(f"{mark.value if mark else ' '}{text:<{width - 1}}", style)
    if at in (frame.cached or ()):
        cell.stylize("underline", 1, 1 + len(text))
    return cell
