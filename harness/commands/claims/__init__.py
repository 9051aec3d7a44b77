"""`decbench claims [ID ...] [--markdown|--json] [--file=FILE] [--keep=FILE] [results_dir=FOLDER]`: published, measured.

Every claim of FILE (results/claims.yaml) with a verdict that follows from stored runs, found by `setting_id`:
reproduced, within interval, differs; mechanism holds, fails or is undecided on the models asked; not comparable; not
run. IDs (or their beginnings, or names of systems) choose some; one alone is told whole, with its commands.
Runs are looked for in results_dir (results/raw) and, where that has none and was not named, among those that are kept
beside FILE (claims.parquet). --keep writes such a file, of the runs of all settings that claims speak of.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError

_FILE = "results/claims.yaml"


def main(argv: Sequence[str]) -> int:
    """Print the claims that are asked for, with their verdicts; return 0."""
    from harness.commands.claims import judging, printing
    from harness.commands.results.words import parse
    from harness.results.claims.kept import read_kept, write_kept

    words = parse(argv, flags=("--json", "--markdown"), options=("--file", "--keep"))
    if words.filters:
        raise ConfigError(f"{words.filters[0]}: nothing is made of this; claims takes ids, and results_dir=FOLDER")
    file = Path(words.options.get("--file", _FILE))
    claims, beside = judging.chosen(judging.claims_of(file), words.rest), file.with_suffix(".parquet")
    given = any(word.startswith("results_dir=") for word in argv)
    judged, used = judging.judge_all(claims, words.store, read_kept(beside) if beside.is_file() and not given else {})
    if "--keep" in words.options:
        write_kept(Path(words.options["--keep"]), used)
    form = next((one for one in ("--json", "--markdown") if one in words.flags), "")
    sys.stdout.write(printing.FORMS[form](judged))
    return 0
