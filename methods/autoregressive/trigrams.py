"""A table of trigrams that adapts to a text, and the search through it for what may come next; for `aded`."""

import math
from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from methods.autoregressive.ngrams import read_documents

Key = tuple[int, int]
Table = Mapping[Key, Mapping[int, float]]
"""From two tokens to the weights of those that follow them."""

KEPT = 12
"""Successors of a key that a corpus gives."""
SEEN, ADDED, MOST = 16, 0.04, 3.0
"""An adaptation looks at so many last tokens, adds so much to each trigram in them, up to so much."""
WORDS, EXPLORE, FLATTEN = 4, 32, 8
"""Length of a searched sequence, its root included, and c1 and c2 of the search."""


def read_corpus(file: str) -> Table:
    """Return frequencies of trigrams in a JSON list of documents, lists of tokens; the best `KEPT` of each key."""
    counts: dict[Key, Counter[int]] = defaultdict(Counter)
    for document in read_documents(file):
        for a, b, c in zip(document, document[1:], document[2:], strict=False):
            counts[a, b][c] += 1
    return {key: _frequencies(following) for key, following in counts.items()}


def _frequencies(following: Counter[int]) -> dict[int, float]:
    best = sorted(following.items(), key=lambda item: (-item[1], item[0]))[:KEPT]
    return {token: count / following.total() for token, count in best}


def adapted(table: Table, tokens: Sequence[int], searched: Collection[int]) -> Table:
    """Return a table as it is for a text, behind the searches that were made at some of its lengths.

    Each has added to the trigrams in the last tokens that there were.
    """
    times = Counter(
        tuple(tokens[end - 3 : end]) for length in searched for end in range(max(3, length - SEEN + 3), length + 1)
    )
    changed: dict[Key, dict[int, float]] = {}
    for (a, b, c), count in times.items():
        following = changed.setdefault((a, b), dict(table.get((a, b), {})))
        following[c] = min(MOST, following.get(c, 0.0) + ADDED * count)
    return ChainMap(changed, table)  # type: ignore[arg-type]


@dataclass
class _Place:
    """A place of the search: its last two tokens, the weight of its last one, what was found below it."""

    key: Key
    weight: float
    path: tuple[int, ...]
    below: list["_Place"] = field(default_factory=list)
    visits: int = 0
    worth: float = 0.0

    def urge(self, visits_above: int) -> float:
        """Return how much there is to be said for a look here; without one so far, everything."""
        if not self.visits:
            return math.inf
        explore = EXPLORE + math.log((visits_above + FLATTEN + 1) / FLATTEN)
        return self.worth / self.visits + explore * self.weight * math.sqrt(visits_above) / (1 + self.visits)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A Monte Carlo tree search for sequences that are likely by a table; `draw` gives uniform numbers by turn.

    With `score_bug` a roll-out is scored as the released code does, by the weight of each token as its own successor.
    """

    table: Table
    stop_ids: Collection[int]
    iterations: int
    output: int
    draw: Callable[[int], Sequence[float]]
    score_bug: bool = False

    def sequences(self, root: Key) -> list[tuple[int, ...]]:
        """Return sequences behind two tokens, the most visited first, each with its best successor; none twice."""
        top, places = _Place(key=root, weight=1.0, path=()), list[_Place]()
        for turn in range(self.iterations):
            line = [top]
            while line[-1].below:
                here = line[-1]
                line.append(max(here.below, key=lambda place: place.urge(here.visits)))
            if len(line) < WORDS and (following := self._following(line[-1].key)):
                leaf = line[-1]
                leaf.below = [
                    _Place(key=(leaf.key[1], token), weight=weight, path=(*leaf.path, token))
                    for token, weight in following
                ]
                places += leaf.below
                line.append(leaf.below[0])
            score = 1 + self._rolled_out(root, line[-1].path, self.draw(turn))
            for place in line:
                place.visits, place.worth = place.visits + 1, place.worth + score
        best = sorted(places, key=lambda place: -place.visits)[: self.output]
        return list(dict.fromkeys(self._extended(root, place.path) for place in best))

    def _following(self, key: Key) -> list[tuple[int, float]]:
        """Return what may follow, heaviest first; nothing behind a stop token."""
        if key[1] in self.stop_ids:
            return []
        return sorted(self.table.get(key, {}).items(), key=lambda item: (-item[1], item[0]))

    def _rolled_out(self, root: Key, path: tuple[int, ...], uniform: Sequence[float]) -> float:
        """Return the weights along a sequence, gone on with at random as far as a sequence goes."""
        words = [*root, *path]
        while len(words) < WORDS + 1 and (following := self._following((words[-2], words[-1]))):
            target = uniform[len(words) - 2] * sum(weight for _, weight in following)
            passed = (token for i, (token, _) in enumerate(following) if target < sum(w for _, w in following[: i + 1]))
            words.append(next(passed, following[-1][0]))
        return sum(
            self.table.get((a, b), {}).get(b if self.score_bug else c, 0.0)
            for a, b, c in zip(words, words[1:], words[2:], strict=False)
        )

    def _extended(self, root: Key, path: tuple[int, ...]) -> tuple[int, ...]:
        following = self._following((*root, *path)[-2:])  # type: ignore[arg-type]
        return (*path, following[0][0]) if following else path


def trie(sequences: Sequence[tuple[int, ...]], most: int) -> list[tuple[int, int]]:
    """Return a tree of sequences as nodes (parent, token), at most `most` of them.

    First those of most distinct tokens are dropped, the last of them first, until all have together no more than that;
    then tokens that find no place any more.
    """
    kept = list(sequences)
    while sum(len(set(one)) for one in kept) > most:
        longest = max(len(set(one)) for one in kept)
        kept.pop(max(place for place, one in enumerate(kept) if len(set(one)) == longest))
    known: dict[tuple[int, ...], int] = {(): -1}
    nodes: list[tuple[int, int]] = []
    for one in kept:
        for depth in range(1, len(one) + 1):
            if one[:depth] not in known and len(nodes) < most and one[: depth - 1] in known:
                nodes.append((known[one[: depth - 1]], one[depth - 1]))
                known[one[:depth]] = len(nodes) - 1
    return nodes
