"""Numbers in answers: found in running text, and compared as decimals, so that 18.00 is 18."""

import re
from decimal import Decimal

from tasks.boxes import last_boxed

_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?")
_DECORATION = re.compile(r"\\(?:!|,|;| |left|right|%|\$)|\$|€|%|\\(?:text|mathrm|textbf|mbox)\s*\{[^{}]*\}|\{,\}")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_STRICT_COT = re.compile(r"The answer is (-?[0-9.,]+).")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_PLAIN = re.compile(r"-?\d+\.\d+|-?\d+")


def numbers(text: str) -> list[Decimal]:
    """Return the numbers in a text in order: optional sign, thousands commas and decimals; currency is left out.

    A sign counts only at the beginning of a word: in "9-4" the second number is 4, in "x = -4" it is -4.
    """
    text = text.replace("\\$", "").replace("$", "").replace("€", "")
    found = (match.group().replace(",", "").replace("\u2212", "-") for match in _NUMBER.finditer(text))
    return [Decimal(number) for number in found if any(character.isdigit() for character in number)]


def boxed_number(text: str) -> Decimal | None:
    r"""Return the one number inside the last \boxed{...}, without units, currency and spacing commands.

    Of an equation the part after the last `=` counts; None where more than one number is left.
    """
    inside = last_boxed(text)
    if inside is None:
        return None
    kept = _DECORATION.sub(lambda match: "," if match.group() == "{,}" else "", inside).rpartition("=")[2]
    found = numbers(kept)
    return found[0] if len(found) == 1 and not re.search(r"\\d?frac|/", kept) else None


def own_answer(text: str) -> tuple[Decimal | None, str]:
    r"""Return the answer of a text and the rule that found it, the first of: boxed, hashes, answer_is, last.

    boxed: in the last \boxed{...}; hashes: first number after the last `####`; answer_is: first number after the
    last "answer is"; last: the last number of the text.
    """
    if (boxed := boxed_number(text)) is not None:
        return boxed, "boxed"
    for mark, path in (("####", "hashes"), ("answer is", "answer_is")):
        _, found, rest = text.lower().rpartition(mark)
        if found and (after := numbers(rest)):
            return after[0], path
    everywhere = numbers(text)
    return (everywhere[-1], "last") if everywhere else (None, "none")


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
    for pattern in (r",", r"\$", r"(?s).*#### ", r"\.$"):
        text = re.sub(pattern, "", text)
    return text.lower()
