"""What the items of a list may be: single letters, person names or common words."""

import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

LETTERS = tuple(string.ascii_uppercase + string.ascii_lowercase)

WORDS = tuple(
    """
    apple autumn basket beach bird blanket boat book bottle bread breeze bridge brush bucket butter button
    candle carpet chair cheese cherry circle clock cloud coat coffee corner cotton cousin cup curtain dance
    desert dinner door dream drum engine evening family farmer feather field finger flower forest garden
    glass grape guitar hammer harbor hill honey horse island jacket kettle kitchen ladder lake lamp leaf
    lemon letter market meadow mirror morning mountain music needle ocean orange paper pencil pillow pocket
    potato rabbit rain ribbon river road salt school shadow silver smoke snow spoon stone street summer
    sugar table ticket tower train tree village water window winter
    """.split()
)


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """A source of distinct list items; `draw(rng, count)` returns `count` of them in random order."""

    name: str
    largest_draw: int
    draw: Callable[[Random, int], tuple[str, ...]]


@cache
def waiting_line_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ordered given and family names of the waiting-line data, repeated entries included."""
    facts = json.loads((Path(__file__).parent / "data" / "parity.json").read_text(encoding="utf-8"))
    return tuple(facts["first_names"]), tuple(facts["last_names"])


def _draw_names(rng: Random, count: int) -> tuple[str, ...]:
    first, last = (tuple(dict.fromkeys(names)) for names in waiting_line_names())
    pairs = zip(rng.sample(first, count), rng.sample(last, count), strict=True)
    return tuple(f"{given} {family}" for given, family in pairs)


def _drawn_from(symbols: Sequence[str]) -> Callable[[Random, int], tuple[str, ...]]:
    return lambda rng, count: tuple(rng.sample(symbols, count))


ALPHABETS = {
    alphabet.name: alphabet
    for alphabet in (
        Alphabet(name="letters", largest_draw=len(LETTERS), draw=_drawn_from(LETTERS)),
        Alphabet(name="names", largest_draw=92, draw=_draw_names),
        Alphabet(name="words", largest_draw=len(WORDS), draw=_drawn_from(WORDS)),
    )
}
