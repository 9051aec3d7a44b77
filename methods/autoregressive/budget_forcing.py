"""Budget forcing: a model that would end its thinking early is made to go on, one that thinks too long to answer.

Papers: s1, Muennighoff et al., arXiv:2501.19393, section 3.1; `Aradhye2002/art_of_tts`, `completion_bf`.

`variant=min_wait` (s1): while fewer than `min_think` tokens are thought, an `end` of the thinking, or of the answer, is
taken back and `wait` is put in its place, at most `max_waits` times; with `max_think` tokens thought, `end` and `cue`
are put behind. `variant=fill` (the follow-up): `wait` is put in the place of every `end` until all but `reserve` tokens
of the answer's length are used or it was put `max_waits` times; then `cue`, and the model answers. It always burns the
whole budget.

| symbol | argument | default |
|---|---|---|
| end-of-thinking delimiter | end | `Final Answer` (the follow-up; s1's is a token of its model) |
| Wait | wait | `Wait` (s1); the follow-up has a blank line before it |
| | min_think, max_think, max_waits | 0, 0 (no bound), 2 |
| | reserve | 1000 tokens for the answer of `fill`, `cue` among them |

Texts become tokens by the model's tokenizer (`in_tokens`). `end` is found in the text of the row's last tokens,
whatever tokens it is made of, also where it ends inside of one; what stood before it in a token is taken back, too.
Injected tokens are in `tokens_out`, not in `tokens_generated`, and are computed by the next call, with what is behind.
Deviation: injected tokens are charged as many as they are; the release charges two for a wait and four for a cue.

Invariants: max_waits=0 and max_think=0 change nothing; `fill` makes its answers as long as there is room.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import ClassVar, Self

import torch

from harness.engine.autoregressive.branching import rewritten
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.policy import policy
from harness.errors import FieldError, at_least

WAITS = "budget_forcing.waits_B"
"""How often a row was told to wait; what it was once it has to answer is `_ANSWERS`."""

_ANSWERS = -1

TOKEN_BY_TOKEN: Mapping[str, str | tuple[str, ...]] = {
    "drafter": "empty",
    "branching": ("single", "samples"),
    "acceptor": ("greedy", "keyed_sample", "rejection", "self_contrast"),
}
"""What a revision goes with that looks at the last token of a round: what comes before it there would end nothing."""


class Forcing(Enum):
    """Which of the two published rules."""

    min_wait = "min_wait"
    fill = "fill"


@policy("method/revision", "budget")
class Budget:
    """Put `wait` in the place of an early `end`, and `cue` where the budget is used; see the module."""

    goes_with: ClassVar[Mapping[str, str | tuple[str, ...]]] = TOKEN_BY_TOKEN

    variant: Forcing = Forcing.min_wait
    end: str = "Final Answer"
    wait: str = "Wait"
    cue: str = "**Final Answer**\n"
    min_think: int = 0
    max_think: int = 0
    max_waits: int = 2
    reserve: int = 1000
    wait_ids: tuple[int, ...] = ()
    end_ids: tuple[int, ...] = ()
    cue_ids: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    """The texts in tokens, and the text of every token, which whoever knows the tokenizer fills in (`in_tokens`)."""

    def __post_init__(self) -> None:
        at_least(0, min_think=self.min_think, max_think=self.max_think, max_waits=self.max_waits, reserve=self.reserve)
        for name in ("end", "wait", "cue"):
            if not getattr(self, name):
                raise FieldError(name, repr(""), "be a text")
        if self.max_think and self.max_think < self.min_think:
            raise FieldError("max_think", self.max_think, f"be at least min_think={self.min_think}, or 0 for no bound")

    def in_tokens(self, encode: Callable[[str], Sequence[int]], pieces: Sequence[str]) -> Self:
        """Return the policy with its texts in tokens."""
        ids = {f"{name}_ids": tuple(encode(getattr(self, name))) for name in ("wait", "end", "cue")}
        return replace(self, pieces=tuple(pieces), **ids)

    def __call__(self, sequences: Sequences, stop_ids: tuple[int, ...]) -> Sequences:
        """Return the sequences with what a row is made to say in the place of what it said."""
        waits_B = sequences.memory.get(WAITS, torch.zeros_like(sequences.length_B)).clone()
        sequences.memory[WAITS] = waits_B
        for row, waits in enumerate(waits_B.tolist()):
            if waits == _ANSWERS:
                continue
            start, end = int(sequences.prompt_length_B[row]), int(sequences.length_B[row])
            response = sequences.tokens_BL[row, start:end].tolist()
            keep = self._before_end(response, stop_ids)
            room = int(sequences.limit_B[row]) - start
            at = len(response) if keep is None else keep
            tokens, waits_B[row] = self._said(at, keep is not None, room, waits)
            if tokens and at + len(tokens) < room:
                sequences = rewritten(sequences, row, at, tokens)
        return sequences

    def _before_end(self, response: Sequence[int], stop_ids: tuple[int, ...]) -> int | None:
        """Return how many tokens stand before an end that the last token has made, None where it has made none."""
        if response[-1] in stop_ids:
            return len(response) - 1
        text = ""
        for count, token in enumerate(reversed(response), start=1):
            text = (self.pieces[token] if token < len(self.pieces) else "") + text
            if self.end in text:
                return len(response) - count
            if len(text) >= len(self.end) + len(self.pieces[response[-1]] if self.pieces else ""):
                return None
        return None

    def _said(self, thought: int, ends: bool, room: int, waits: int) -> tuple[tuple[int, ...], int]:
        """Return what is put behind the thinking, and how often the row was told to wait with it."""
        if self.variant is Forcing.fill:
            if thought >= room - self.reserve or (ends and waits == self.max_waits):
                return self.cue_ids, _ANSWERS
            return (self.wait_ids, waits + 1) if ends else ((), waits)
        if ends and thought < self.min_think and waits < self.max_waits:
            return self.wait_ids, waits + 1
        if ends:
            return (), _ANSWERS
        if self.max_think and thought >= self.max_think:
            return self.end_ids + self.cue_ids, _ANSWERS
        return (), waits
