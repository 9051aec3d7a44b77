"""Finds the program in an answer: in a fence, between marks, as the whole text, or as the body of a given header."""

import ast
import warnings
from collections.abc import Callable, Iterator

FENCE = "```"
_MOST_LINES_DROPPED = 200
_INDENT = "    "


def extract_code(text: str, entry_point: str, header: str = "") -> tuple[str | None, str]:
    """Return the first program in `text` that defines `entry_point` at top level, and the rule that found it.

    Rules in order: before_fence (the prompt opened it), fence (every block; the last may be unclosed), marks
    ([BEGIN] ... [DONE]), whole, and body of the given `header`, whose indentation is repaired. Trailing lines are
    dropped until a candidate parses, at most 200; nothing is removed from inside. (None, "none") without any.
    """
    for path, candidate in _candidates(text):
        code = _longest_parsing(candidate, lambda tree: defines(tree, entry_point))
        if code is not None:
            return code, path
    body = max((_as_body(candidate, header) for _, candidate in _candidates(text)), key=len) if header else []
    return (header + "\n".join(body), "body") if body else (None, "none")


def blocks(text: str) -> tuple[str, list[str]]:
    """Return the text before the first fence line, and what stands in every fence; the last may be unclosed."""
    before: list[str] = []
    found: list[list[str]] = []
    current, inside = before, False
    for line in text.split("\n"):
        if not line.lstrip().startswith(FENCE):
            current.append(line)
            continue
        inside = not inside
        # Between fences is prose: it is kept nowhere.
        current = []
        if inside:
            found.append(current)
    return "\n".join(before), ["\n".join(lines) for lines in found]


def parse(code: str) -> ast.Module | None:
    """Return the syntax tree of a program, None for what is none; generated text can break a parser in many ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None


def defines(tree: ast.Module, name: str) -> bool:
    """Tell whether a program binds a name at top level: as function, class, variable or import."""
    return any(name in _bound(node) for node in tree.body)


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return []


def _candidates(text: str) -> Iterator[tuple[str, str]]:
    before, fenced = blocks(text)
    if fenced:
        yield "before_fence", before
    yield from (("fence", block) for block in fenced)
    if "[DONE]" in text or "[BEGIN]" in text:
        _, begun, rest = text.partition("[BEGIN]")
        yield "marks", (rest if begun else text).partition("[DONE]")[0].strip("\n")
    yield "whole", text


def _longest_parsing(text: str, accepts: Callable[[ast.Module], bool]) -> str | None:
    lines = text.rstrip().split("\n")
    for count in range(len(lines), max(0, len(lines) - _MOST_LINES_DROPPED - 1), -1):
        code = "\n".join(lines[:count])
        tree = parse(code)
        if tree is not None:
            # Fewer lines define no more.
            return code.rstrip() if accepts(tree) else None
    return None


def _as_body(text: str, header: str) -> list[str]:
    """Return the most lines of a text that go on from the header, with their indentation as repaired."""
    lines = text.strip("\n").rstrip().split("\n")
    first_only = [_INDENT + lines[0].lstrip(), *lines[1:]]
    all_of_them = [_INDENT + line if line.strip() else line for line in lines]
    best: list[str] = []
    for variant in (lines, first_only, all_of_them):
        for count in range(len(variant), max(0, len(variant) - _MOST_LINES_DROPPED), -1):
            if count > len(best) and _continues(header, variant[:count]):
                best = variant[:count]
                break
    return best


def _continues(header: str, lines: list[str]) -> bool:
    """Tell whether lines are a body of the header's last function: indented, and with something in them."""
    indented = lines[0][:1].isspace() and any(line.strip() for line in lines)
    return indented and parse(header + "\n".join(lines)) is not None
