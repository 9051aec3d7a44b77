"""Arithmetic that models write, evaluated exactly and in bounded time; model text never reaches `eval`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 200
DEEPEST = 30
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
_SPELLINGS = {"\\times": "*", "\\cdot": "*", "\u00d7": "*", "\u00b7": "*", "\\div": "/", "\u00f7": "/", "\u2212": "-"}
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


class NotArithmetic(ValueError):
    """A text is no expression of whole numbers, + - * / and parentheses, is too long or deep, or divides by zero."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """The value of an expression and the numbers in it, in order."""

    value: Fraction
    numbers: tuple[int, ...]


def evaluate(text: str) -> Expression:
    """Return the value of `text`; raise NotArithmetic for anything but an expression of at most 200 characters
    with signs and parentheses at most 30 deep.

    There is no power operator, and the product of what fits into 200 characters is small: the time is bounded.
    """
    if len(text) > LONGEST:
        raise NotArithmetic("too long")
    for spelling, sign in _SPELLINGS.items():
        text = text.replace(spelling, sign)
    parser = _Parser(_tokens(text))
    value = parser.sum()
    if parser.left:
        raise NotArithmetic(f"unexpected {parser.left[0]}")
    return Expression(value=value, numbers=tuple(parser.numbers))


def _tokens(text: str) -> list[str]:
    found, place, text = [], 0, text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotArithmetic(f"unexpected {text[place]}")
        found.append(match.group(1))
        place = match.end()
    return found


class _Parser:
    """Recursive descent over tokens: sums of products of signed numbers and parentheses."""

    def __init__(self, tokens: list[str]) -> None:
        self.left, self.numbers, self.depth = tokens, list[int](), 0

    def sum(self) -> Fraction:
        """Read products joined by + and -."""
        return self._chain("+-", self.product)

    def product(self) -> Fraction:
        """Read factors joined by * and /."""
        return self._chain("*/", self.factor)

    def factor(self) -> Fraction:
        """Read a number, a signed factor or a sum in parentheses."""
        token = self._next()
        if token in "-(":
            return self._deeper(negated=token == "-")
        if not token.isdecimal():
            raise NotArithmetic(f"unexpected {token}")
        self.numbers.append(int(token))
        return Fraction(self.numbers[-1])

    def _deeper(self, *, negated: bool) -> Fraction:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NotArithmetic("too deep")
        value = -self.factor() if negated else self.sum()
        self.depth -= 1
        if not negated and self._next() != ")":
            raise NotArithmetic("unbalanced parentheses")
        return value

    def _chain(self, operators: str, operand: Callable[[], Fraction]) -> Fraction:
        value = operand()
        while self.left and self.left[0] in operators:
            operation = _OPERATIONS[self._next()]
            try:
                value = operation(value, operand())
            except ZeroDivisionError as error:
                raise NotArithmetic("division by zero") from error
        return value

    def _next(self) -> str:
        if not self.left:
            raise NotArithmetic("incomplete")
        return self.left.pop(0)
