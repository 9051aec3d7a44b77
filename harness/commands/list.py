"""`decbench list methods|tasks|experiments|figures|policies|systems|compatibility [--json]` and more: what exists.

Parts that are not ours say where they are from. Policies are the parts of methods, of every slot, caches included;
systems are published ones, with what runs here of each under which name, and what does not; compatibility is Markdown
tables, of decoders by caches and by end-of-text rules. `list methods --markdown` is the README's table,
`list systems --markdown` that of `results/systems.md`.
"""

import json
import sys
from collections.abc import Sequence

from rich.table import Table

from harness.commands.console import console
from harness.config.catalogue import GROUPS, describe, marked, names, nearest, read
from harness.errors import ConfigError

POLICIES, SYSTEMS = "policies", "systems"


def main(argv: Sequence[str]) -> int:
    """Print the options of a kind, as a table or as a JSON array; methods also as the README's Markdown table.

    What is not ours says where it is from. `policies` are the parts of methods, of every slot, caches included.
    `compatibility` is two Markdown tables, of decoders by caches and by end-of-text rules.
    """
    kinds = [a for a in argv if a not in ("--json", "--markdown")]
    if kinds == ["compatibility"]:
        from harness.config import matrix

        sys.stdout.write(matrix.document() + "\n")
        return 0
    if kinds == [SYSTEMS]:
        _print_systems(argv)
        return 0
    if len(kinds) != 1 or kinds[0] not in [*GROUPS, POLICIES]:
        given, known = " ".join(kinds), [*GROUPS, POLICIES, SYSTEMS, "compatibility"]
        raise ConfigError(f"list {given}: say what to list; {nearest(given, known)}")
    entries = _policies() if kinds[0] == POLICIES else describe(GROUPS[kinds[0]])
    if "--json" in argv:
        sys.stdout.write(json.dumps(entries) + "\n")
        return 0
    if "--markdown" in argv and kinds[0] == "methods":
        sys.stdout.write(method_table() + "\n")
        return 0
    last = {"methods": "runs on", "protocols": "tasks", "policies": "slot"}.get(kinds[0], "kind")
    outside = any("from" in entry for entry in entries)
    table = Table("name", "what it does", last, *(["from"] if outside else []), box=None)
    for entry in entries:
        fits = entry.get("models") or entry.get("tasks") or entry.get("kind") or entry.get("slot") or ""
        text = ", ".join(fits) if isinstance(fits, list) else str(fits)
        if ours := entry.get("reconstructed"):
            text += f"; wording reconstructed: {', '.join(ours)}"  # type: ignore[arg-type]
        table.add_row(
            str(entry["name"]), str(entry["summary"]), text, *([str(entry.get("from", ""))] if outside else [])
        )
    console().print(table, highlight=False)
    return 0


def _print_systems(argv: Sequence[str]) -> None:
    from harness.commands import systems

    if "--json" in argv:
        sys.stdout.write(json.dumps(systems.entries()) + "\n")
    elif "--markdown" in argv:
        sys.stdout.write(systems.markdown() + "\n")
    else:
        table = Table("#", "system", "runs here as", "not built", box=None)
        for row in systems.rows():
            table.add_row(*row)
        console().print(table, highlight=False, markup=False)


def _policies() -> list[dict[str, object]]:
    from harness.config.matrix import policy_entries

    return [dict(entry) for entry in policy_entries()]


def method_table() -> str:
    """Return all methods as a Markdown table, with how many reference trajectories each reproduces."""
    from collections import Counter

    from harness.commands.conform import REFERENCES, read_cases

    cases = Counter(case["method"] for file in REFERENCES for case in read_cases(file))
    lines = ["| method | family | paper | runs on | lossless | needs | shown by |", "|---|---|---|---|---|---|---|"]
    for name, option in ((name, read("method", name)) for name in names("method")):
        kinds = ", ".join(kind.replace("_", " ") for kind in option["models"])
        shown = f"{cases[name]} reference trajectories" if cases[name] else option.get("shown_by", "")
        row = [
            f"`{name}`{marked('method', name)}",
            option["family"],
            option["paper"] or "",
            kinds,
            "yes" if option["lossless"] else "no",
        ]
        lines.append("| " + " | ".join([*row, option.get("needs", ""), shown]) + " |")
    return "\n".join(lines)
