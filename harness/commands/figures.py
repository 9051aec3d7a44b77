"""`decbench figures NAME|FILE ... [column=value ...] [--output FOLDER]`: draw stored runs, as svg, pdf, png and csv.

NAME is a figure of ours or of a plug-in (`decbench list figures`), FILE a YAML file of yours: `kind`, which `runs`,
what is drawn as `x` and `y`, what tells `groups` and `panels` apart. Further words choose among stored runs, as for
`decbench results list`: task=list_sort, name=SWEEP, config.method.threshold=0.9. Files go to RESULTS_DIR/figures;
caption, settings, n, interval and provenance are in the metadata of the pictures.

paper=NAME writes the tables of a paper, as md and tex, and figures of them, published values beside measured ones and a
gap where nothing was run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands.results.words import Words, parse
from harness.config.catalogue import file_of, names, nearest, refused
from harness.errors import ConfigError
from harness.results.figures.definition import TABLE, Definition, read_definition
from harness.results.files import beside
from harness.results.selection import parse_filters


def main(argv: Sequence[str]) -> int:
    """Draw each figure that is named, and say where it lies and what it shows."""
    words = parse(argv, options=("--output",))
    papers = [word.removeprefix("paper=") for word in words.rest if word.startswith("paper=")]
    if papers:
        return _published(papers, words)
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


def _published(papers: Sequence[str], words: Words) -> int:
    """Write the tables of papers, and a figure of each, with what stored runs measure beside the printed values."""
    from harness.config.option_files import read_option
    from harness.config.plugins import ours
    from harness.results import published
    from harness.results.figures.making import make_published, save

    if len(words.rest) != len(papers):
        raise ConfigError(f"figures {' '.join(words.rest)}: a paper says which runs it is about; give paper=NAME alone")
    conf = ours().conf
    assert conf is not None
    known = {file.stem: file for file in sorted((conf / "published").glob("*.yaml"))}
    for name in papers:
        if name not in known:
            raise ConfigError(f"paper={name}: no numbers of such a paper are here; {nearest(name, known)}")
    for name in papers:
        paper = published.read_paper(read_option(known[name], ()), name)
        folder = output_of(words, "figures") / name
        for table in paper.tables:
            made = make_published(words.store, paper, table)
            paths = save(made, folder / table.name)
            for suffix, written in ((".md", published.markdown), (".tex", published.latex)):
                paths.append(folder / f"{table.name}{suffix}")
                paths[-1].write_text(written(paper, table, made.data), encoding="utf-8")
            sys.stdout.write("".join(f"{path}\n" for path in paths))
            sys.stdout.write(f"\n{published.markdown(paper, table, made.data)}\n")
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
    """Return the folder that files go to."""
    return Path(words.options["--output"]) if "--output" in words.options else beside(words.store.root) / kind
