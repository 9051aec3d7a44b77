"""Numbers in answers: where the answer of a text stands, and the readings of the published protocols."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from tasks.boxes import last_box
from tasks.math import expressions
from tasks.math.continuation import before_next_question
from tasks.math.expressions import Reading
from tasks.math.spelling import plain

_LONGEST = 60
_PLACES = 30
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_QUANTITY = re.compile(
    r"(?<![\w.^])(?<!\^\{)(?<!_\{)(?:(?<![)\]}%])(?P<sign>[-+]))?(?:\$(?P<minus>-)?)?"
    rf"(?:(?P<whole>\d{{1,4}}) (?=\d{{1,4}}/\d))?(?P<number>{_DIGITS})"
    rf"(?:[eE](?P<exponent>[-+]?\d{{1,2}})(?!\w))?(?:/\$?(?P<divisor>{_DIGITS})(?![\d/]))?"
)
_JOINT = re.compile(r"[ \t]*(?:[-+*/=\u00d7\u00f7\u2013]|\\times|\\cdot|\\div|x(?=[ \t]*\$?\d)|(?:or|to)\b)[ \t]*")
_HASHES = re.compile(r"####[\s*_`($]{0,8}(?=[-+\u2013]?[ $]{0,2}\.?\d)")
_ANSWER_IS = re.compile(r"answer is", re.IGNORECASE)
_LEADING_MINUS = re.compile(r"^([\s*_:=(]{0,8})[-\u2013][ ]{0,2}(?=[$\d.])")
_SPACED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?![\d,]|\.\d)")
# What stands around numbers in running text, undone before they are looked for.
_TIDYING = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)(?:\{,\}|\\[,;: ]|['_])(?=\d{3}(?!\d))", ","),
        (r"\\(?=[$%])", ""),
        (r"(?<=\d)(?=\\[dtc]?frac)", " "),
        (rf"\\[dtc]?frac\s{{0,4}}\{{({_DIGITS})\}}\s{{0,4}}\{{({_DIGITS})\}}", r"\1/\2"),
        (r"(?<![A-Za-z])[A-Z]{1,3}(?=\$)", ""),
        (r"(?<![A-Za-z])(?:Rs|[A-Z]{3})(?=\d)", " "),
        (r"(?<=[A-Za-z])\.(?=[-$]?\d)", ". "),
        (r"(?<![A-Za-z0-9)}\]_])_{1,3}(?=[-$.\d])", " "),
        (r"=[ \t]{0,4}[-\u2013][ \t]{1,4}(?=[$\d.])", "= -"),
    )
]

# The readings of the published protocols.
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_STRICT_COT = re.compile(r"The answer is (-?[0-9.,]+).")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_PLAIN = re.compile(r"-?\d+\.\d+|-?\d+")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of a text, exactly, or None; the rule that found it, and which reader made a number of it."""

    value: Fraction | None
    path: str
    reader: str = expressions.TEXT


def last_number(text: str) -> Fraction | None:
    """Return the last number of a text: sign, currency, thousands, decimals, `1/2`, `1 1/2`, `1e3`.

    A sign counts only at the beginning of a word: in "9-4" the last number is 4, in "x = -4" it is -4. Digits that
    belong to a word (`x_1`, `m^2`, `H2O`) and numbers longer than 60 characters are none.
    """
    values = map(_fraction, reversed(list(_QUANTITY.finditer(_tidy(text)))))
    return next((value for value in values if value is not None), None)


def written(value: Fraction) -> str:
    """Return a number as a decimal where it has one that ends within 30 places, as a fraction otherwise."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**_PLACES
    if scaled.denominator > 1:
        return str(value)
    return str(Decimal(scaled.numerator).scaleb(-_PLACES).normalize())


def own_answer(text: str) -> Answer:
    r"""Return the answer of a text by the first of these rules that applies: boxed, hashes, answer_is, last.

    boxed: in the last \boxed{...}; hashes: what begins right after the last `####`; answer_is: what begins with the
    first number after the last "answer is"; last: the last number of the text. Nothing after the beginning of another
    question counts. A box with several numbers holds no answer, and then only marks outside of it are looked at.
    """
    text, box = before_next_question(text), Reading()
    if (place := last_box(text)) is not None:
        box = expressions.read(text[slice(*place)])
        if box.value is not None:
            return Answer(value=box.value, path="boxed", reader=box.reader)
        text = text[: place[0]] + text[place[1] :]
    for mark, path in ((_HASHES, "hashes"), (_ANSWER_IS, "answer_is")):
        *_, place = (0, *(found.end() for found in mark.finditer(text)))
        if place and (marked := _leading(text[place:])) is not None:
            return Answer(value=marked.value, path=path, reader=marked.reader)
    if box.several:
        return Answer(value=None, path="boxed", reader=box.reader)
    last = last_number(text)
    return Answer(value=last, path="none" if last is None else "last")


def _leading(text: str) -> Reading | None:
    """Return what the first number of a text and the operators and numbers that follow it stand for."""
    text = _SPACED.sub(lambda match: match[0].replace(" ", ","), _LEADING_MINUS.sub(r"\1-", _tidy(text)))
    first = _QUANTITY.search(text)
    if first is None:
        return None
    end = first.end()
    while (joint := _JOINT.match(text, end)) and (operand := _QUANTITY.match(text, joint.end())):
        end = operand.end()
    if end == first.end():
        return Reading(value=_fraction(first))
    return expressions.read(text[first.start() : end])


def _tidy(text: str) -> str:
    text = plain(text)
    for pattern, replacement in _TIDYING:
        text = pattern.sub(replacement, text)
    return text


def _fraction(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _LONGEST:
        return None
    value = Fraction(match["number"].replace(",", "") + (f"e{match['exponent']}" if match["exponent"] else ""))
    divisor = Fraction((match["divisor"] or "1").replace(",", ""))
    if not divisor:
        return None
    value = value / divisor + int(match["whole"] or 0)
    return -value if "-" in (match["sign"], match["minus"]) else value


def lm_eval_strict(text: str, *, chain_of_thought: bool = False) -> str | None:
    """Return the number that lm-evaluation-harness 0.4.13 takes from its `gsm8k` (or `gsm8k_cot`) answer format."""
    match = (_STRICT_COT if chain_of_thought else _STRICT).search(text)
    return match.group(1) if match else None


def lm_eval_flexible(text: str) -> str | None:
    """Return what its flexible filter takes: the last run of digits, commas, points and dollars, "..." included."""
    found = _FLEXIBLE.findall(text)
    return next(group for group in found[-1] if group).strip() if found else None


def lm_eval_equal(answer: str | None, gold: str) -> bool:
    """Compare as its `exact_match` does: as texts, without commas, dollars, all up to `#### ` and a last period."""
    return answer is not None and _bare(answer) == _bare(gold)


def opencompass_number(text: str) -> str | None:
    """Return the last number as OpenCompass reads it: before the next question, and "1,234" gives 234."""
    found = _PLAIN.findall(text.partition("Question:")[0])
    return found[-1] if found else None


def _bare(text: str) -> str:
    return re.sub(r"\.$", "", text.replace(",", "").replace("$", "").rpartition("#### ")[2]).lower()
