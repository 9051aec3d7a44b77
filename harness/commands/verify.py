"""`decbench verify RUN [samples=N] [--json] [results_dir=...]`: run a stored run again, and compare every decoding.

RUN is the beginning of a run_id. The run is made from its stored config, not from today's options, on this machine and
with this code. Outputs, counts, verdicts and, of traced runs, every step have to be equal; seconds are not compared. A
difference whose margin is below what the dtype can decide is a tie, as for `decbench gate`. Told are the first sample,
step and field that differ, and what of the code, versions and hardware is not as it was. Nothing is written.

samples=N decodes the batches of the first N samples alone. Exit code 0: the same, 1: it differs, 2: cannot be run.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from harness.commands.console import console
from harness.commands.results.words import Words, parse
from harness.config.catalogue import nearest
from harness.errors import ConfigError, listed
from harness.results.reproduction import Parting
from harness.results.scan import Scan
from harness.results.selection import attempt_of
from harness.runs.progress import SweepProgress
from harness.runs.verification import Verification, verify

_SAMPLES = "samples"
_NAMED = 8


def main(argv: Sequence[str]) -> int:
    """Run it again, say what came out, and return the exit code."""
    words = parse(argv, flags=("--json",))
    if not words.rest:
        sys.stdout.write(f"{__doc__}")
        return 2
    samples = _samples(words)
    if len(words.names) != 1:
        raise ConfigError(f"verify {' '.join(words.rest)}: takes one run; decbench results list names them")
    scan = Scan(words.store.folder)
    attempt = attempt_of(scan.attempts, words.names[0])
    with SweepProgress(console=console(stderr=True), runs=1) as progress:
        progress.begin(attempt.run_id)
        found = verify(scan, attempt, progress, samples=samples)
        progress.end("")
    if "--json" in words.flags:
        told = asdict(found) | {"same": not found.differing, "first": asdict(_first(found)) if found.parted else None}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        _print(found)
    return int(bool(found.differing))


def _samples(words: Words) -> int | None:
    given = dict(word.split("=", 1) for word in words.filters)
    for name in given:
        if name != _SAMPLES:
            raise ConfigError(f"verify {name}: no such setting; {nearest(name, [_SAMPLES, 'results_dir'])}")
    text = given.get(_SAMPLES)
    if text is not None and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"{_SAMPLES}={text}: must be a whole number from 1")
    return None if text is None else int(text)


def _first(found: Verification) -> Parting:
    return next(iter(found.differing), found.parted[0])


def _print(found: Verification) -> None:
    ties = len(found.parted) - len(found.differing)
    verdict = f"differs in {len(found.differing)} of" if found.differing else "is the same in all"
    lines = [f"{found.run_id}: {verdict} {found.decoded} decodings" + (f", {ties} of them ties" if ties else "")]
    for kind, group in (("first difference", found.differing), ("first tie", [p for p in found.parted if p.tie])):
        for one in group[:1]:
            step = "" if one.step is None else f", step {one.step}"
            again = f", repetition {one.repetition}" if one.repetition else ""
            lines.append(f"{kind}: sample {one.sample}{again}{step}, {', '.join(one.fields)}: {one.detail}")
    changed = listed(found.changed, _NAMED) or "nothing that names a run"
    lines.append(f"changed since it was stored: {changed}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
