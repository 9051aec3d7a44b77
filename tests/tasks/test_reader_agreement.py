r"""Our own reading of boxes beside math-verify's, on the worked answers of GSM8K and on seeded ways of writing them.

Where the two differ ours is the number that was written. math-verify reads no equation, percent, emphasis, bare words,
full-width digits, final period or bare braces as a number. What a space separates it adds up (`1 240` gives 241), or
takes for nothing where a part is zero (`2 000` gives 0).
"""

from fractions import Fraction
from random import Random

import pytest

from tasks import rows
from tasks.math import expressions, numerals
from tasks.math.gsm8k import FOLDER
from tasks.math.verifier import VERIFIER, installed_version

FULL_WIDTH = str.maketrans("0123456789", "".join(chr(0xFF10 + digit) for digit in range(10)))
# What is written of n, and what it is worth; `{c}` is n with commas, `{d}` its double, `{q}` its square.
AGREED = {
    "{n}": "n",
    "{c}": "n",
    "\\${c}": "n",
    "-{n}": "-n",
    "\u2212{n}": "-n",
    "({n})": "n",
    "{n}.00": "n",
    r"{n}\text{{ dollars}}": "n",
    r"{n}\text{{ ft}}^2": "n",
    r"{n}\ \mathrm{{cm}}^2": "n",
    r"{n}^\circ": "n",
    r"{n} \times 1": "n",
    "{n} + 0": "n",
    "{d}/2": "n",
    r"\frac{{{d}}}{{2}}": "n",
    r"-\dfrac{{{d}}}{{2}}": "-n",
    r"{n}\frac{{1}}{{2}}": "n+1/2",
    r"\sqrt{{{q}}}": "n",
}
OURS_ALONE = {
    "x = {n}": "n",
    r"{d} \div 2 = {n}": "n",
    r"{n}\%": "n",
    "**{n}**": "n",
    "{n} dollars": "n",
    "{n}.": "n",
    "{{{n}}}": "n",
    r"\mathbf{{{n}}}": "n",
    "{f}": "n",
    "{s}": "n",
}
VALUES = {"n": lambda n: Fraction(n), "-n": lambda n: Fraction(-n), "n+1/2": lambda n: n + Fraction(1, 2)}
MUTATIONS = 2000

pytestmark = pytest.mark.skipif(installed_version() is None, reason="the extra math is not installed")


def answers() -> list[str]:
    return [str(row["answer"]) for row in rows.shipped(FOLDER, "gsm8k_test.jsonl.gz")]


def gold(answer: str) -> str:
    return answer.rpartition("#### ")[2]


def read_both(form: str, n: int) -> tuple[Fraction | None, Fraction | None]:
    spaced, wide = f"{n:,}".replace(",", " "), str(n).translate(FULL_WIDTH)
    text = form.format(n=n, c=f"{n:,}", d=2 * n, q=n * n, s=spaced, f=wide)
    return expressions.read(text).value, VERIFIER.value(text)


def added_up(n: int) -> int:
    """Return what math-verify makes of a number whose thousands are separated by spaces."""
    parts = [int(part) for part in f"{n:,}".split(",")]
    return sum(parts) if all(parts) else 0


def check(forms: dict[str, str], rng: Random, count: int) -> None:
    values = [abs(int(gold(answer).replace(",", ""))) for answer in answers()]
    for number in range(count):
        form, n = list(forms)[number % len(forms)], rng.choice(values)
        expected, (ours, theirs) = VALUES[forms[form]](n), read_both(form, n)
        assert (form, n, ours) == (form, n, expected)
        known = {expected} if forms is AGREED else {None, expected} | ({added_up(n)} if form == "{s}" else set())
        assert theirs in known, (form, n)


def test_a_few_of_every_form_are_read() -> None:
    """Guards our reading of every form, twice each, beside math-verify's."""
    check(AGREED, Random(1), 2 * len(AGREED))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_both_readers_agree_on_the_worked_answers() -> None:
    """Guards the 1,319 reference answers: the whole text is read by us, its number by both."""
    for answer in answers():
        expected = Fraction(gold(answer).replace(",", ""))
        assert numerals.own_answer(answer).value == expected == VERIFIER.value(gold(answer))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_both_readers_agree_on_mutations() -> None:
    """Guards 2,000 ways of writing: where the readers differ, ours is right and the difference is a listed one."""
    rng, share = Random(0), len(AGREED) / len(AGREED | OURS_ALONE)
    check(AGREED, rng, round(MUTATIONS * share))
    check(OURS_ALONE, rng, MUTATIONS - round(MUTATIONS * share))
