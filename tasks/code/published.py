"""How published evaluations find the program in an answer, defects included; for their numbers only.

`sanitize` restates the clean-up of Dream's evaluation (arXiv:2508.15487), which Fast-dLLM and dParallel share: it drops
functions without `return`, augmented assignments, and what only an attribute of it is used. `opencompass_*` restate
the post-processing of OpenCompass. Rules that decide nothing else than which of several odd texts count may differ.
"""

import ast
import re
from collections.abc import Iterator

from tasks.code.extraction import FENCE, parse

_MOST_LINES = 100
_PYTHON = "```python\n"
_BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_END = re.compile(r"'?\s*\[?DONE\]?")
_BEGINS, _DONES = (r"\[BEGIN\]", "BEGIN"), (r"\[DONE\]", "DONE")
# Of the quotes around a program both go, or the first, or none: never the last alone.
_QUOTED = (("\\s*'", "'\\s*"), ("\\s*'", ""), ("", ""))
_MBPP_RULES = [
    *((begin + after, before + done) for after, before in _QUOTED for done in _DONES for begin in _BEGINS),
    (_PYTHON.strip(), FENCE),
    (FENCE, FENCE),
    (_PYTHON.strip(), None),
    (FENCE, None),
    (r"\[BEGIN\]\s*'", None),
    (r"\[BEGIN\]", None),
    ("'", r"'\s*\[DONE\]"),
]
"""What the program stands between, as patterns, in the order in which they are tried; None is the end of the text."""


def fenced(text: str) -> str:
    """Return what follows the first Python fence, up to the next fence; the whole text without one."""
    before, found, rest = text.partition(_PYTHON)
    return rest.partition(FENCE)[0] if found else before


def sanitize(text: str, entry_point: str | None = None) -> str:
    """Return the definitions in the longest part of a text that parses; with an entry point those that it reaches.

    Kept are imports, classes, single assignments to a name, and functions that contain a return statement. Of two
    definitions of a name the last counts. Empty where nothing is left.
    """
    tree = _longest_part(text.replace("\t", "    ").replace("\r\n", "\n"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    definitions = {name: node for node in tree.body if (name := _name(node)) is not None}
    if entry_point is not None:
        reached = _reached(entry_point, definitions)
        definitions = {name: node for name, node in definitions.items() if name in reached}
    kept: list[ast.stmt] = [*imports, *definitions.values()]
    return ast.unparse(ast.Module(body=kept, type_ignores=[]))


def opencompass_humaneval(text: str) -> str:
    """Return the first closed fence, or all of the text, without blanks before it."""
    block = _BLOCK.search(text)
    return (block.group(1) if block else text).lstrip()


def opencompass_mbpp(text: str) -> str:
    """Return what stands between the first pair of `_MBPP_RULES` that the text has, cut at a fence or a DONE in it.

    Both ends have to be there: text with [BEGIN] and a fence but no [DONE] is read by its fence, behind which there
    may be nothing.
    """
    found = (_between(text, begin, end) for begin, end in _MBPP_RULES)
    code = next((inside for inside in found if inside is not None), text)
    return _END.split(code.partition(FENCE)[0], maxsplit=1)[0].replace("\\_", "_").strip()


def _between(text: str, begin: str, end: str | None) -> str | None:
    """Return what stands between the first `begin` and the last `end` behind it, None where one of them is missing."""
    start = re.search(begin, text)
    if start is None or end is None:
        return text[start.end() :] if start else None
    # Ends may overlap: of four backticks the last three count.
    ends = [match.start() for match in re.finditer(f"(?={end})", text) if match.start() >= start.end()]
    return text[start.end() : ends[-1]] if ends else None


def _longest_part(text: str) -> ast.Module:
    """Return the tree of the contiguous lines, out of the first 100, that parse and hold most non-blank lines."""
    lines = text.split("\n")[:_MOST_LINES]
    filled = [bool(line.strip()) for line in lines]
    best, most = ast.Module(body=[], type_ignores=[]), 0
    for first in range(len(lines)):
        for end in range(len(lines), first, -1):
            count = sum(filled[first:end])
            if count <= most:
                break
            if (tree := parse("\n".join(lines[first:end]))) is not None:
                best, most = tree, count
                break
    return best


def _name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.FunctionDef) and any(isinstance(inner, ast.Return) for inner in ast.walk(node)):
        return node.name
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _reached(entry_point: str, definitions: dict[str, ast.stmt]) -> set[str]:
    reached, waiting = {entry_point}, [entry_point]
    while waiting:
        node = definitions.get(waiting.pop())
        new = set(_used(node)) - reached if node is not None else set()
        reached |= new
        waiting += new
    return reached


def _used(node: ast.AST) -> Iterator[str]:
    """Yield the names that a definition uses; of an attribute only its last part."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
        if not isinstance(node.value, ast.Name | ast.Attribute):
            yield from _used(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _used(child)
