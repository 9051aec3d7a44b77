"""`decbench figures NAME|FILE ... [column=value ...] [--output FOLDER]`: draw stored runs, as svg, pdf, png and csv.

NAME is a figure of ours or of a plug-in (`decbench list figures`), FILE a YAML file of yours: `kind`, which `runs`,
what is drawn as `x` and `y`, what tells `groups` and `panels` apart. Further words choose among stored runs, as for
`decbench results list`: task=list_sort, name=SWEEP, config.method.threshold=0.9. Files go to RESULTS_DIR/figures;
caption, settings, n, interval and provenance are in the metadata of the pictures.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands.results.words import Words, parse
from harness.config.catalogue import file_of, names, nearest, refused
from harness.errors import ConfigError
from harness.results.figures.definition import TABLE, Definition, read_definition
from harness.results.selection import parse_filters


def main(argv: Sequence[str]) -> int:
    """Draw each figure that is named, and say where it lies and what it shows."""
    words = parse(argv, options=("--output",))
    if not words.names:
        raise ConfigError(f"figures: name one, or give a file; known: {', '.join(names('figure'))}")
    definitions, folder = [definition_of(name) for name in words.names], output_of(words, "figures")
    filters = parse_filters(words.filters)
    from harness.results.figures.making import make, save
    from harness.runs.theory_points import theory

    for definition in definitions:
        made = make(words.store, definition, filters, theory)
        for path in save(made, folder / definition.name):
            sys.stdout.write(f"{path}\n")
        sys.stdout.write(f"{made.caption}\n")
    return 0


def definition_of(name: str, *, tables: bool = False) -> Definition:
    """Return the definition of a figure, or of a table, by name or file; raise ConfigError for what is none."""
    from harness.config.option_files import read_option

    given = name.endswith((".yaml", ".yml")) or "/" in name
    if not given and (reason := refused("figure", name)):
        raise ConfigError(f"{name}: {reason}")
    if not given and name not in names("figure"):
        raise ConfigError(f"{name}: no such figure, and no file ending in .yaml; {nearest(name, names('figure'))}")
    file = Path(name).absolute() if given else file_of("figure", name)
    try:
        option = read_option(file, ())
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    option.pop("defaults", None)
    definition = read_definition({"name": file.stem, **option}, str(file) if given else name)
    if (definition.kind == TABLE) is not tables:
        raise ConfigError(
            f"{name}: kind: {definition.kind}: is for decbench {'figures' if tables else 'tables'} {name}"
        )
    return definition


def output_of(words: Words, kind: str) -> Path:
    """Return the folder that files go to; raise ConfigError where a store that is no folder has none."""
    if "--output" in words.options:
        return Path(words.options["--output"])
    root = str(words.store.root)
    if "://" in root:
        raise ConfigError(f"results_dir={root}: is no folder for {kind}; say where they go: --output FOLDER")
    return Path(root) / kind
