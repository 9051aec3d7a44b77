"""`decbench watch [NAME] [once=true] [--json] [results_dir=...]`: a running sweep, seen from any process or machine.

What is done, left, failed and expected, and the first results; the last sweep that started, or the one of that name or
id. It ends when the sweep does, or with Ctrl-C, which does not touch the sweep. Piped, or with once=true, it prints how
things stand and ends. A sweep that is gone without having ended is said to be stopped, and since when; the command that
started it goes on from there. Reads the store alone, and writes nothing.

Exit code 0: the sweep has ended, or this was one look; 1: it was stopped while being watched; 2: there is none.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harness.commands.console import console
from harness.commands.results.words import Words, parse
from harness.config.catalogue import nearest
from harness.errors import ConfigError
from harness.runs.standing import State, Watched, look, sweeps

if TYPE_CHECKING:
    from rich.console import RenderableType

_EVERY_S = 1.0
_SHOWN = 12
_SIGNALLED = 128


def main(argv: Sequence[str]) -> int:
    """Show a sweep until it ends, or once."""
    words = parse(argv, flags=("--json",))
    once = _once(words)
    asked = _chosen(words)
    found = look(words.store, asked)
    if "--json" in words.flags:
        sys.stdout.write(json.dumps(_plain(found)) + "\n")
        return 0
    out = console()
    if once or not out.is_terminal:
        out.print(_shown(found, len(found.answered)), highlight=False, soft_wrap=True)
        return 0
    try:
        return _followed(words, found)
    except KeyboardInterrupt as stop:
        return _SIGNALLED + (stop.args[0] if stop.args else signal.SIGINT)


def _once(words: Words) -> bool:
    given = dict(word.split("=", 1) for word in words.filters)
    for name in given:
        if name != "once":
            raise ConfigError(f"watch {name}: no such setting; {nearest(name, ['once', 'results_dir'])}")
    value = given.get("once", "false")
    if value not in ("true", "false"):
        raise ConfigError(f"once={value}: must be true or false")
    return value == "true"


def _chosen(words: Words) -> list[Any]:
    """Return the requests of the sweep that is meant: of the last one, or of the last of a name or id."""
    known = sweeps(words.store)
    if len(words.names) > 1:
        raise ConfigError(f"watch {' '.join(words.names)}: takes one sweep, by its name or id")
    if not known:
        raise ConfigError(f"results_dir={words.store.root}: no sweep was started here; decbench run starts one")
    if not words.names:
        return known[-1]
    name = words.names[0]
    fitting = [one for one in known if one[0]["name"] == name or str(one[0]["sweep_id"]).startswith(name)]
    if not fitting:
        names = sorted({str(one[0]["name"] or one[0]["sweep_id"]) for one in known})
        raise ConfigError(f"{name}: no such sweep; {nearest(name, names)}")
    return fitting[-1]


def _followed(words: Words, found: Watched) -> int:
    from rich.live import Live

    with Live(_shown(found, _SHOWN), console=console(), auto_refresh=False) as live:
        while found.state is State.RUNNING:
            time.sleep(_EVERY_S)
            # What the sweep asked for is written anew when it ends.
            same = [one for one in sweeps(words.store) if one[0]["sweep_id"] == found.sweep_id]
            found = look(words.store, same[0] if same else found.asked)
            live.update(_shown(found, _SHOWN), refresh=True)
    return int(found.state is State.STOPPED)


def _plain(found: Watched) -> dict[str, Any]:
    counts = {status: found.count(status) for status in ("ok", "failed", "skipped")}
    return {
        "sweep_id": found.sweep_id,
        "name": found.name,
        "state": found.state.value,
        "runs": len(found.asked),
        **counts,
        "left": found.left,
        "left_s": found.left_s,
        "started": found.started.isoformat(),
        "last": found.last.isoformat(),
        "decoding": [{"run": one["label"], "kept": count, "of": one["decodings"]} for one, count in found.decoding],
        "results": [_cells(one[0]["label"], one[1]) for one in found.answered],
    }


def _cells(label: object, row: Any) -> dict[str, Any]:
    return {"run": label, **{name: row[name] for name in ("status", "n", "accuracy", "nfe", "tpf", "error")}}


def _shown(found: Watched, most: int) -> "RenderableType":
    """Return what is seen: how it stands, what is being decoded, failures, and the last results."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "n", "accuracy", "nfe", "tpf", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    good = [(one, row) for one, row in found.answered if row["status"] == "ok"]
    for one, row in good[len(good) - min(most, len(good)) :]:
        table.add_row(str(one["label"]), *(_cell(row[name]) for name in ("n", "accuracy", "nfe", "tpf")))
    lines = [Text(line) for line in _lines(found)]
    return Group(*lines, *([table] if good else []))


def _lines(found: Watched) -> Iterator[str]:
    yield f"{found.name or 'sweep'} {found.sweep_id}: {_standing(found)}"
    counts = [f"{found.count('ok')} of {len(found.asked)} runs done", f"{found.left} left"]
    counts += [f"{number} {status}" for status in ("failed", "skipped") if (number := found.count(status))]
    if found.state is State.RUNNING:
        counts.append("time to go not known yet" if found.left_s is None else f"about {_span(found.left_s)} to go")
    yield ", ".join(counts)
    for one, count in found.decoding:
        whole = "?" if one["decodings"] is None else one["decodings"]
        yield f"decoding: {one['label']}: {count} of {whole} samples"
    for one, row in found.answered:
        if row["status"] != "ok":
            yield f"{row['status']}: {one['label']}: {row['error']}"


def _standing(found: Watched) -> str:
    ago = _span((datetime.now(UTC) - found.last).total_seconds())
    if found.state is State.STOPPED:
        how = "the command that started it goes on from there"
        return f"stopped, no progress since {found.last:%Y-%m-%d %H:%M:%S} UTC ({ago} ago); {how}"
    if found.state is State.DONE:
        return f"done at {found.last:%Y-%m-%d %H:%M:%S} UTC"
    return f"running since {found.started:%Y-%m-%d %H:%M:%S} UTC, last sign of life {ago} ago"


def _span(seconds: float) -> str:
    minutes, whole = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s" if minutes else f"{whole} s"


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
