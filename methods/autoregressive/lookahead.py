"""Lookahead decoding: a window of guesses runs ahead and leaves n-grams behind, the drafts; one call computes both.

Paper: Fu et al., arXiv:2402.02057, sections 3 and 4. Code: hemingkx/Spec-Bench, model/lade/decoding.py.

A window has N - 1 rows of W columns and starts with the last token, its first column in row 0. A token of row 0 follows
the one on its left, one of a later row follows the one above it, so that the window is a tree. What the model says
behind the last row completes a column to N tokens: the first is the key under which a pool keeps the others. Then rows
move up, and what was said is the new last row. Up to G of the pool's (N - 1)-grams that began with the last token are
branches of their own in the same call, newest last; the longest one that the model agrees with stands.

The window begins as one row of W + N - 3 tokens drawn from the prompt, keyed by the row's seed, and gets a row with
each of the first N - 2 calls, in which it loses a column.

| symbol | argument | default |
|---|---|---|
| N | N | 5 (Spec-Bench; the code's fallback is 8) |
| W | W | 7 (60) |
| G | G | 7 (60) |
| tau | temperature | 0: greedy |

Deviations from the code: behind a branch that stands whole comes the token that the model adds, as in the paper's
Algorithm 2 (1 to N tokens a call), where the code drops it; sampling is the keyed exact match. The window moves by one
token a call, however many stand, as in the code. Near the last position of the model, where it does not fit, it rests.

Invariants: output equals plain decoding, sampled too; `nfe_draft` = 0. A call computes (N - 1)(W + g) positions with g
branches, the last token included; while the window has f + 1 < N - 1 rows, (f + 1)(W + N - 2 - f).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.trees import ANCHOR, MOST_NODES, Node
from harness.engine.shared.largest import at_largest
from harness.engine.shared.memory import Memory
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger
from harness.errors import FieldError, at_least, within

WINDOW, FILLED, KEYS, GRAMS = (f"lookahead.{name}" for name in ("window_BNC", "filled_B", "keys_BE", "grams_BEN"))
"""What is kept between rounds: the window [B, N - 1, columns], its last row [B] that is filled, and what was put into
the pool, oldest first: keys [B, entries] and the tokens behind them [B, entries, N - 1]; -1 is no entry."""


@dataclass(frozen=True)
class _Window:
    """One row's window: rows of equal width, filled ones only; the first token stands for the last committed one."""

    rows: list[list[int]]

    def nodes(self, first: int) -> list[Node]:
        """Return the tokens but the first, as nodes of a tree that has `first` nodes before."""
        width = len(self.rows[0])
        made = [(ANCHOR if not column else first + column - 1, self.rows[0][column + 1]) for column in range(width - 1)]
        # The first column of row 0 is the anchor, of which there is no node.
        above = [ANCHOR, *range(first, first + width - 1)]
        for row in self.rows[1:]:
            start = first + len(made)
            made += zip(above, row, strict=True)
            above = [*range(start, start + width)]
        return made

    def answers(self, said: list[int]) -> list[int]:
        """Return what the model said behind each token of the last row, of all that it said of this row.

        The last row has the last entries; that of the last committed token is the first of all.
        """
        width = len(self.rows[0])
        return [said[0], *said[len(said) + 1 - width :]] if len(self.rows) == 1 else said[-width:]

    def columns(self, last: int, answers: list[int]) -> list[list[int]]:
        """Return the columns with what was said behind them, the first of which begins with the last token."""
        first_row, *others = self.rows
        return [list(column) for column in zip([last, *first_row[1:]], *others, answers, strict=True)]


@policy("method/drafter", "lookahead")
class Lookahead:
    """Draft up to `G` n-grams of `N` tokens that a window of `W` columns has found; all three as in the paper."""

    N: int = 5
    W: int = 7
    G: int = 7

    def __post_init__(self) -> None:
        at_least(2, N=self.N)
        at_least(1, W=self.W, G=self.G)
        within(1, MOST_NODES, N=self.N, W=self.W, G=self.G)
        if self.nodes > MOST_NODES:
            must = (
                f"need no more than {MOST_NODES} tokens per call with W={self.W} and G={self.G}, and needs {self.nodes}"
            )
            raise FieldError("N", self.N, must)
        if self.N + self.W < 4:
            raise FieldError("W", self.W, "be at least 2 with N=2: the last token alone is no window")

    @property
    def nodes(self) -> int:
        """Return the largest number of tokens that a row computes behind its last one."""
        return max((f + 1) * self._columns(f) - 1 for f in range(self.N - 1)) + self.G * (self.N - 1)

    def _columns(self, filled: int) -> int:
        return self.W + self.N - 2 - filled

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return the branches of each row, with the window beside them."""
        if not sequences.memory.complete(WINDOW):
            self._begin(sequences)
        last_B = sequences.tokens_BL.gather(1, sequences.length_B[:, None] - 1)[:, 0]
        room = (model.spec.max_length - sequences.length_B).tolist()
        windows, drafted = _windows(sequences, self), limit_B.tolist()
        trees, beside = [], []
        for row, grams in enumerate(self._grams(sequences, last_B)):
            nodes: list[Node] = []
            for gram in grams:
                start, depth = len(nodes), min(len(gram), drafted[row])
                nodes += [(start + place - 1 if place else ANCHOR, gram[place]) for place in range(depth)]
            window = windows[row].nodes(len(nodes))
            deepest = len(windows[row].rows[0]) + len(windows[row].rows) - 2
            window = window if deepest <= room[row] else []
            trees.append([*nodes, *window])
            beside.append(len(window))
        return Proposal.of_trees(trees, beside, sequences.tokens_BL.device)

    def update(self, completed: Round) -> None:
        """Put what the window has found into the pool, and move it on; the prefill has none."""
        beside_B = completed.proposal.beside_B
        if beside_B is None:
            return
        memory, before, rows = completed.after.memory, completed.before, completed.before.num_rows
        entry, proposal = completed.proposal.entries(), completed.proposal
        said_BT = torch.zeros(rows, proposal.tokens_BK.shape[1] + 1, dtype=torch.int64, device=entry[0].device)
        said = said_BT.index_put(entry, at_largest(completed.prediction.logits_NV)).tolist()
        last = before.tokens_BL.gather(1, before.length_B[:, None] - 1)[:, 0].tolist()
        ends, beside = proposal.fed_B.tolist(), beside_B.tolist()
        windows, found = _windows(before, self), []
        for row, window in enumerate(windows):
            grams = [[-1] * self.N] * self.W
            if beside[row]:
                answers = window.answers(said[row][: ends[row] + 1])
                if len(window.rows) == self.N - 1:
                    grams = window.columns(last[row], answers)
                    windows[row] = _Window([*window.rows[1:], answers])
                else:
                    windows[row] = _Window([each[1:] for each in (*window.rows, answers)])
            found.append(grams)
        self._keep(memory, windows, before.tokens_BL.device)
        found_BWN = torch.tensor(found, device=before.tokens_BL.device)
        for name, more in ((KEYS, found_BWN[..., 0]), (GRAMS, found_BWN[..., 1:])):
            kept = memory.get(name, -1)
            memory[name] = torch.cat([kept, more], 1) if isinstance(kept, Tensor) else more

    def _begin(self, sequences: Sequences) -> None:
        """Begin with one row of the prompt's tokens, drawn at random."""
        rows, drawn = sequences.num_rows, self.W + self.N - 3
        uniform_BW = uniforms(sequences.seed_B, torch.zeros_like(sequences.seed_B), "window", drawn)
        place_BW = (uniform_BW * sequences.prompt_length_B[:, None]).long()
        tokens = sequences.tokens_BL.gather(1, place_BW).tolist()
        begun = Memory()
        self._keep(begun, [_Window([[0, *tokens[row]]]) for row in range(rows)], place_BW.device)
        for name in (WINDOW, FILLED):
            sequences.memory[name] = sequences.memory.get(name, begun[name])

    def _keep(self, memory: Memory, windows: list[_Window], device: torch.device) -> None:
        """Remember windows, filled up to the size of the largest."""
        wide = self._columns(0)
        padded = [[[*row, *[0] * (wide - len(row))] for row in window.rows] for window in windows]
        padded = [[*rows, *[[0] * wide] * (self.N - 1 - len(rows))] for rows in padded]
        memory[WINDOW] = torch.tensor(padded, device=device)
        memory[FILLED] = torch.tensor([len(window.rows) - 1 for window in windows], device=device)

    def _grams(self, sequences: Sequences, last_B: Tensor) -> list[list[list[int]]]:
        """Return the n-grams of each row's pool behind its last token: the last G that differ, oldest first."""
        keys_BE = sequences.memory.get(KEYS, -1)
        if not isinstance(keys_BE, Tensor):
            return [[] for _ in range(sequences.num_rows)]
        found: list[dict[tuple[int, ...], None]] = [{} for _ in range(sequences.num_rows)]
        row_N, entry_N = (keys_BE == last_B[:, None]).nonzero(as_tuple=True)
        for row, gram in zip(row_N.tolist(), sequences.memory[GRAMS][row_N, entry_N].tolist(), strict=True):
            found[row].pop(tuple(gram), None)
            found[row][tuple(gram)] = None
        return [[list(gram) for gram in list(grams)[-self.G :]] for grams in found]


def _windows(sequences: Sequences, drafter: Lookahead) -> list[_Window]:
    """Return the windows of all rows."""
    window_BNC, filled_B = sequences.memory[WINDOW], sequences.memory[FILLED]
    columns = [(filled, drafter.W + drafter.N - 2 - filled) for filled in filled_B.tolist()]
    return [
        _Window([row[:width] for row in rows[: filled + 1]])
        for rows, (filled, width) in zip(window_BNC.tolist(), columns, strict=True)
    ]
