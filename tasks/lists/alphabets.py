"""What the items of a list may be: single letters, person names or common words."""

import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

LETTERS = tuple(string.ascii_uppercase + string.ascii_lowercase)
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """A source of distinct list items; `draw(rng, count)` returns `count` of them in random order."""

    name: str
    largest_draw: int
    draw: Callable[[Random, int], tuple[str, ...]]


@cache
def common_words() -> tuple[str, ...]:
    """Return short everyday nouns."""
    return tuple(json.loads((DATA / "words.json").read_text(encoding="utf-8")))


@cache
def waiting_line_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ordered given and family names of the waiting-line data, repeated entries included."""
    facts = json.loads((DATA / "parity.json").read_text(encoding="utf-8"))
    return tuple(facts["first_names"]), tuple(facts["last_names"])


def _draw_names(rng: Random, count: int) -> tuple[str, ...]:
    first, last = (tuple(dict.fromkeys(names)) for names in waiting_line_names())
    pairs = zip(rng.sample(first, count), rng.sample(last, count), strict=True)
    return tuple(f"{given} {family}" for given, family in pairs)


def _draw_letters(rng: Random, count: int) -> tuple[str, ...]:
    return tuple(rng.sample(LETTERS, count))


def _draw_words(rng: Random, count: int) -> tuple[str, ...]:
    return tuple(rng.sample(common_words(), count))


ALPHABETS = {
    alphabet.name: alphabet
    for alphabet in (
        Alphabet(name="letters", largest_draw=52, draw=_draw_letters),
        Alphabet(name="names", largest_draw=92, draw=_draw_names),
        Alphabet(name="words", largest_draw=104, draw=_draw_words),
    )
}
