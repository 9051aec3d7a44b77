"""How samples begin: all at once, or as others end.

Shapes: B rows.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.engine.autoregressive.endings import Endings
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.model import LanguageModel

Begins = Callable[[int, int], int]
"""Say how many of the samples that wait begin now, beside so many that go on, in rows of that width."""


def everyone(going_on: int, width: int) -> int:
    """Have all begin at once."""
    return sys.maxsize


@dataclass(kw_only=True)
class Entrance:
    """The samples that wait, in their order."""

    model: LanguageModel
    prompts: Sequence[Sequence[int]]
    seeds: Sequence[int]
    gen_length: int
    nodes: int
    begins: Begins
    _begun: int = 0

    def take(self, going_on: Sequences | None, endings: Endings) -> Sequences | None:
        """Return the rows that begin now, None where nobody waits or there is no room; `endings` is told of them."""
        first, waiting = self._begun, len(self.prompts) - self._begun
        if not waiting:
            return None
        width = 0 if going_on is None else going_on.tokens_BL.shape[1]
        some = slice(first, first + min(waiting, self.begins(first - len(endings.results), width)))
        if some.stop == first:
            return None
        self._begun = some.stop
        endings.begin(range(first, some.stop))
        return Sequences.from_prompts(
            self.model,
            self.prompts[some],
            gen_length=self.gen_length,
            seeds=self.seeds[some],
            first=first,
            nodes=self.nodes,
        )
