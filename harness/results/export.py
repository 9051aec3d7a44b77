"""Rows of runs as text for other programs: csv, markdown, and LaTeX with booktabs."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from harness.results.canonical import canonical_json

Rows = Sequence[Mapping[str, Any]]

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def as_csv(rows: Rows, columns: Sequence[str]) -> str:
    """Return a header and one line per row; numbers in full, nothing for null, lists as JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_exact(row[name]) for name in columns] for row in rows)
    return out.getvalue()


def as_markdown(rows: Rows, columns: Sequence[str]) -> str:
    """Return a table whose numbers are rounded for reading."""
    lines = [columns, ["---"] * len(columns), *([_read(row[name]) for name in columns] for row in rows)]
    escaped = ([cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def as_latex(rows: Rows, columns: Sequence[str]) -> str:
    """Return a tabular with the rules of booktabs, numbers on the right."""
    right = [any(isinstance(row[name], int | float) for row in rows) for name in columns]
    body = "".join(_latex_line([_read(row[name]) for name in columns]) for row in rows)
    return (
        f"\\begin{{tabular}}{{{''.join('r' if one else 'l' for one in right)}}}\n\\toprule\n"
        f"{_latex_line(columns)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


FORMATS: dict[str, Callable[[Rows, Sequence[str]], str]] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_text, cells)) + " \\\\\n"


def latex_text(text: str) -> str:
    """Return a text whose signs mean themselves in LaTeX."""
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _exact(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return canonical_json(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _read(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else _exact(value)
