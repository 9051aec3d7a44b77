"""Conditional frequencies of tokens behind up to some tokens before them, from a corpus."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import FieldError

Context = tuple[int, ...]


def read_documents(file: str) -> list[list[int]]:
    """Return a JSON list of documents, lists of tokens; raise FieldError for a file that holds none."""
    try:
        return [[int(token) for token in document] for document in json.loads(Path(file).read_text())]
    except (OSError, ValueError, TypeError) as error:
        said = f"name a JSON list of documents, each a list of token ids: {error}"
        raise FieldError("corpus_file", file, said) from error


@dataclass(frozen=True)
class Ngrams:
    """How often each token follows a context of up to so many tokens."""

    counts: Mapping[Context, Counter[int]]

    @classmethod
    def of(cls, documents: Sequence[Sequence[int]], longest: int) -> "Ngrams":
        """Count contexts of 1 to `longest` tokens."""
        counts: dict[Context, Counter[int]] = defaultdict(Counter)
        for document in documents:
            for place, token in enumerate(document):
                for length in range(1, min(place, longest) + 1):
                    counts[tuple(document[place - length : place])][token] += 1
        return cls(dict(counts))

    def blended(self, before: Sequence[int], tokens: Sequence[int], weights: Sequence[float]) -> list[float]:
        """Return for each token the sum of its frequencies behind the last 1, 2, ... tokens `before`, weighed.

        A context that the corpus does not have adds nothing.
        """
        total = [0.0] * len(tokens)
        for length, weight in enumerate(weights[: len(before)], start=1):
            seen = self.counts.get(tuple(before[-length:]))
            if seen is not None:
                total = [one + weight * seen[token] / seen.total() for one, token in zip(total, tokens, strict=True)]
        return total
