"""Which mutants are tried: one at each of a seeded sample of places in the code."""

import ast
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from attrs import evolve
from cosmic_ray.work_item import WorkItem

_SAME = ("_Is_Eq", "_Eq_Is", "_IsNot_NotEq", "_NotEq_IsNot")
"""Exchanges that None, enumerations and small numbers cannot tell, which is all that such comparisons are made of."""

Place = tuple[str, ...]
Position = tuple[int, int]


def draw(items: Iterable[WorkItem], tree: Path, *, seed: int, size: int) -> list[WorkItem]:
    """Return one mutant at each of `size` places, luckiest first; a larger `size` keeps those of a smaller one.

    Luck and job id hang on the text of the line and not on its number, so edits elsewhere leave the sample as it is.
    An operator that has many replacements weighs no more than one that has a single one.
    """
    variants = _places(items, tree)
    mutants = []
    for place in sorted(variants, key=lambda place: _digest(str(seed), *place))[:size]:
        chosen = int(_digest("variant", str(seed), *place), 16) % len(variants[place])
        mutants.append(evolve(variants[place][chosen], job_id=_digest(*place, str(chosen))))
    return mutants


def _places(items: Iterable[WorkItem], tree: Path) -> dict[Place, list[WorkItem]]:
    """Group mutants by place: file, text of the line, column, kind of operator, and how many equal ones come before."""
    found: defaultdict[tuple[Path, Position, str], list[WorkItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (item.mutations[0].operator_name, item.mutations[0].occurrence)):
        mutation = item.mutations[0]
        if mutation.operator_name.endswith(_SAME):
            continue
        found[mutation.module_path, mutation.start_pos, mutation.operator_name.split("_")[0]].append(item)
    read = cache(lambda path: (tree / path).read_text())
    declared = cache(lambda path: declarations(read(path)))
    places, seen = {}, Counter()
    for path, position, kind in sorted(found):
        if any(start <= position < end for start, end in declared(path)):
            continue
        place = (str(path), read(path).splitlines()[position[0] - 1].strip(), str(position[1]), kind)
        places[(*place, str(seen[place]))] = found[path, position, kind]
        seen[place] += 1
    return places


def declarations(source: str) -> list[tuple[Position, Position]]:
    """Return where types and the switches of dataclasses stand: nothing that runs rightly hangs on them."""
    parts: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        parts += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.ClassDef):
            parts += [d for d in node.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func) == "dataclass"]
    return [((p.lineno, p.col_offset), (p.end_lineno or 0, p.end_col_offset or 0)) for p in parts if p is not None]


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
