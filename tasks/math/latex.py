r"""Answers in LaTeX compared as texts, after a normal form that undoes differences of writing only."""

import re
from fractions import Fraction

_DROPPED = re.compile(
    r"\\(?:left|right)(?![a-zA-Z])|\\[!,;:]|\\ |~|\\?\$|\\?%|\^\{?\\circ\}?|\\(?:quad|qquad)(?![a-zA-Z])"
)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|textit)\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])|\\frac\s*(\{[^{}]*\})\s*([0-9a-zA-Z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}")
_RATIO = re.compile(r"(-?\d+)/(\d+)")
_MOST_DIGITS = 1000
_DECIMAL = re.compile(r"-?\d*\.?\d+|-?\d+\.")


def normal(answer: str) -> str:
    r"""Return an answer without spacing, sizes, units, degree and currency signs, every \frac and \sqrt in braces.

    Of `x = 5` with a single letter on the left only the right side is kept, and thousands commas are dropped.
    """
    text = _TEXT.sub(lambda match: match.group(1).strip(), answer.strip().rstrip("."))
    text = re.sub(r"\\[dt]frac", r"\\frac", text).replace("{,}", ",")
    text = re.sub(r"\s+", "", _DROPPED.sub("", text))
    text = _SHORT_FRACTION.sub(_braced_fraction, text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    return re.sub(r"^[a-zA-Z]=(?!.*=)", "", text)


def rational(text: str) -> Fraction | None:
    r"""Return the value of an integer, a decimal, `a/b` or \frac{a}{b} in normal form, or None for anything else."""
    if len(text) <= _MOST_DIGITS and _DECIMAL.fullmatch(text):
        return Fraction(text.rstrip("."))
    sign, above, below = "", "", ""
    if match := _RATIO.fullmatch(text):
        above, below = match.groups()
    elif match := _FRACTION.fullmatch(text):
        sign, above, below = match.groups()
    if not match or not below.strip("0") or max(len(above), len(below)) > _MOST_DIGITS:
        return None
    return Fraction(int(above), int(below)) * (-1 if sign else 1)


def equal(one: str, other: str) -> bool:
    """Tell whether two answers have the same normal form, or are the same rational number."""
    first, second = normal(one), normal(other)
    if first == second:
        return first != ""
    value = rational(first)
    return value is not None and value == rational(second)


def _braced_fraction(match: re.Match[str]) -> str:
    if match[1] is not None:
        return f"\\frac{{{match[1]}}}{{{match[2]}}}"
    return f"\\frac{match[3]}{{{match[4]}}}"
