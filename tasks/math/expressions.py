r"""The one number that an expression stands for, as models write it: units, currency, spaces, fractions, equations.

Numbers and arithmetic are read here, exactly; what is more than that (roots, powers, commands of LaTeX) is left to
math-verify where it is installed. It never sees units or lists: it reads `18 hours 30 min` as 18 and `1 234` as 235.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from tasks.math.spelling import plain
from tasks.math.verifier import VERIFIER, installed_version
from tasks.puzzles.arithmetic import NotArithmetic, evaluate

TEXT, MATH_VERIFY = READERS = ("text", "math_verify")
LONGEST = 400
_MOST_POWERS = 2

_UNWRAPPED = re.compile(r"\\(?:text|math|operatorname|[mh]box|emph)[a-z]*\s*\{([^{}]*)\}")
_DEEPEST_TEXT = 3
_TOKEN = re.compile(
    r"""
    (?P<root> \\sqrt\s*\[\d\] )
    | (?P<comma> ,\\! | \{,\} | (?<![A-Za-z\\])(?:and|or|to)(?![A-Za-z]) )
    | (?P<gap> \\\\ | \\q?quad(?![A-Za-z]) | [;&\n] )
    | (?P<times> \\(?:times|cdot|ast)(?![A-Za-z]) | [\u00d7\u00b7\u22c5] | (?<=\d)\s{0,4}x(?=\s{0,4}\d) )
    | (?P<over> \\div(?![A-Za-z]) | \u00f7 )
    | (?P<equals> \\(?:approx|simeq)(?![A-Za-z]) )
    | (?P<range> (?<=[\d\s])--+ )
    | (?P<tens> (?<=\d)[eE](?=[-+]?\d{1,2}(?!\w)) )
    | (?P<fraction> \\[dtc]?frac(?![A-Za-z]) )
    | (?P<blank> \\[,:;!\ ] | ~ | [A-Za-z]{0,3}\\?\$ | \\?% | ["'!?\[\]`] | [:.](?!\s*\d)
        | (?:\\text)?\\?color\s*\{[a-z]+\} | \^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))
        | \\(?:left|right|[a-z]*style|bf|rm|it|[bB]ig+[lr]?|pounds|euro|yen|rupee|cents?|degree)(?![A-Za-z]) )
    | (?P<command> \\[A-Za-z]+ )
    | (?P<words> [A-Za-z\u00b5\u00b0\u2032][A-Za-z'\u00b0\u00b2\u00b3\u00b9]*(?:[23](?!\d))?\.?
        (?:\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d))? )
    """,
    re.VERBOSE,
)
_WRITTEN = {"comma": ",", "gap": ";", "times": "*", "over": "/", "equals": "=", "range": "\u2013", "tens": "\u2147"}
_WRITTEN |= {"fraction": "\\frac", "blank": " ", "words": ";"}
# In order. A semicolon is where words or a gap stood; it counts only between two numbers.
_TIDYING = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\s;]*;[\s;]*", ";"),
        (r";?[*/];", ";"),
        (r"(?<![\d)}]);|;(?![\d(\\.])", " "),
        (r"\\frac\s*\{\s*\}\s*\{\s*\}|\([\s,]*\)", " "),
        (r"^[\s,:*_]+|[\s,:*_]+$", ""),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\s*(?:\u2147|\*\s*10\s*\^\s*\{?\s*)([-+]?\d{1,2})(?!\d)\s*\}?", "\u2147\\1"),
    )
]
_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?P<mark>[, '_])\d{3}(?:(?P=mark)\d{3})*(?!\d)")
_MIXED = re.compile(r"(?<![\d./])(\d+)(?:\s+(\d+)/(\d+)(?![\d.])|\s*\\frac\s*\{(\d+)\}\s*\{(\d+)\})")
_FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_DEEPEST_FRACTION = 4
_NUMBER = re.compile(r"[-+]?\s*(?:\d+(?:\.\d+)?|\.\d+)")
_TENS = re.compile("(\\d+(?:\\.\\d+)?|\\.\\d+)\u2147([-+]?\\d+)")
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_SEVERAL = re.compile(r"[;,:\u2013]|[\d)}]\s+[\d(\\.]|\d\s*\(|\)\s*[\d(]")
_RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*")
_POWER = re.compile(r"\^\s*(?:\{\s*\d{1,2}\s*\}|\d)")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an expression holds: the value of its one number, or None with `several` numbers, or with none at all."""

    value: Fraction | None = None
    several: bool = False
    reader: str = TEXT


def read(latex: str) -> Reading:
    """Return the one number of an expression; of an equation or a chain of them the part after the last `=`.

    Two numbers without an operator between them are several, and so are a range (`5-6`: a smaller number first, or an
    en dash), a list, a ratio and alternatives. An expression longer than 400 characters has no value.
    """
    if not any(character.isdecimal() for character in latex):
        return Reading()
    if len(latex) > LONGEST:
        return Reading(several=True)
    *left, last = _clean(latex).split("=")
    if any(re.search(r"\d.*,", part) for part in left) or _is_several(last):
        return Reading(several=True)
    return _value(last.strip())


def _clean(latex: str) -> str:
    """Return numbers and operators; of words only that they were there, where two numbers stand around them."""
    text = plain(latex)
    for _ in range(_DEEPEST_TEXT):
        text = _UNWRAPPED.sub(r" \1 ", text)
    text = _GROUPS.sub(lambda match: re.sub(r"\D", "", match[0]), _TOKEN.sub(_rewritten, text))
    for pattern, replacement in _TIDYING:
        text = pattern.sub(replacement, text)
    return _MIXED.sub(lambda m: f"({m[1]}+{m[2] or m[4]}/{m[3] or m[5]})", text)


def _rewritten(token: re.Match[str]) -> str:
    return _WRITTEN.get(token.lastgroup or "", token[0])


def _is_several(text: str) -> bool:
    pair = _RANGE.fullmatch(text)
    return bool(_SEVERAL.search(text)) or (pair is not None and Fraction(pair[1]) < Fraction(pair[2]))


def _value(text: str) -> Reading:
    if _NUMBER.fullmatch(text):
        return Reading(value=Fraction(re.sub(r"\s", "", text)))
    try:
        return Reading(value=evaluate(_arithmetic(text)).value)
    except NotArithmetic:
        return _by_math_verify(text)


def _arithmetic(text: str) -> str:
    """Return an expression without LaTeX and decimal points, for exact arithmetic on whole numbers."""
    text = _TENS.sub(lambda match: f"({Fraction(f'{match[1]}e{match[2]}')})", text)
    for _ in range(_DEEPEST_FRACTION):
        text = _FRACTION.sub(r"((\1)/(\2))", text)
    text = _DECIMAL.sub(lambda match: f"({match[1]}{match[2]}/1{'0' * len(match[2])})", text)
    return text.replace("{", "(").replace("}", ")")


def _by_math_verify(text: str) -> Reading:
    """Ask math-verify about more than arithmetic, unless towers of powers would keep it busy."""
    powers = text.count("^")
    if (
        not (installed_version() and re.search(r"[\\^]", text))
        or powers > _MOST_POWERS
        or powers != len(_POWER.findall(text))
    ):
        return Reading(several=True)
    value = VERIFIER.value(text)
    return Reading(value=value, several=value is None, reader=MATH_VERIFY)
