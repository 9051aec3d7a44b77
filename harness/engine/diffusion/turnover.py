"""Rows leave the batch when they have ended, and others begin in their place.

Shapes: B rows, L positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.standing import Standing
from harness.engine.shared.generation import UNDECIDED, Generation, known_margin
from harness.engine.shared.memory import Memory
from harness.engine.shared.model import LanguageModel, keep_rows
from harness.engine.shared.transfer import read_rows

Arrivals = Callable[[int, int], Canvas | None]
"""Return rows that begin now, beside so many that go on, of that width; None where nobody waits or there is no room."""


@dataclass(kw_only=True)
class Turnover:
    """Begins rows as they arrive, and takes those that have ended.

    `on_finished` is told of at least `at_once` rows together: what they have come to is on the device, and every look
    at it is a wait.
    """

    model: LanguageModel
    method: DiffusionMethod
    arrivals: Arrivals
    on_finished: Callable[[list[Generation]], None]
    at_once: int
    finished: int = 0
    _asked_at: int = -1
    _ended: list[Canvas] = field(default_factory=list)
    _made: list[Generation] = field(default_factory=list)

    def begin(self, canvas: Canvas) -> tuple[Canvas | None, Standing | None]:
        """Return new rows as the first evaluation finds them, without those that leave nothing to decide."""
        canvas = canvas.copy()
        self.method.preparation(self.model, canvas)
        self.method.window.update(canvas)
        return self.part(canvas, Standing.of(self.method, canvas))

    def part(self, canvas: Canvas, standing: Standing) -> tuple[Canvas | None, Standing | None]:
        """Return the rows that go on (None: nobody), and how they stand; take the others.

        The stores of `canvas` are used up.
        """
        live = standing.live
        if all(live):
            return canvas, standing
        ended, bare = [not one for one in live], replace(canvas, memory=Memory(), stores={})
        self._ended.append(bare.rows(standing.index_of(ended)) if any(live) else bare)
        self.finished += sum(ended)
        if sum(part.num_rows for part in self._ended) >= self.at_once:
            self._tell()
        if not any(live):
            return None, None
        keep = standing.index_of(live)
        kept, standing = canvas.rows(keep, keep_rows), standing.rows(live, keep)
        standing.tell(kept)
        return kept, standing

    def fresh(self, beside: Canvas | None) -> Canvas | None:
        """Return rows that begin now beside others, None where there are none, or nobody has made room for them."""
        if self._asked_at == self.finished:
            return None
        self._asked_at, shape = self.finished, (0, 0) if beside is None else (*beside.tokens_BL.shape,)
        while (canvas := self.arrivals(*shape)) is not None:
            begun, _ = self.begin(canvas)
            if begun is not None:
                return begun
        return None

    def results(self) -> list[Generation]:
        """Return what all rows have come to, by sample."""
        self._tell()
        return sorted(self._made, key=lambda generation: generation.sample)

    def _tell(self) -> None:
        if self._ended:
            made, self._ended = generations(self._ended), []
            self._made += made
            self.on_finished(made)


def generations(finished: Sequence[Canvas]) -> list[Generation]:
    """Return what all rows have come to, by sample."""
    done = Canvas.cat(finished) if len(finished) > 1 else finished[0]
    tokens_BL = done.tokens_BL.masked_fill(done.undecided_BL, done.mask_id)
    decided_at_BL = done.decided_at_BL.masked_fill(done.undecided_BL, UNDECIDED)
    numbers = {
        "sample": done.sample_B,
        "idle": done.idle_B,
        "forced": done.forced_B,
        "remasked": done.remasked_B,
        "tokens_generated": done.generated_B,
        "first_call": done.first_call_B.masked_fill(done.first_undecided_B == 0, 0) - 1,
        "stopped_at": done.stopped_at_B,
        "calls": done.calls_B,
    }
    # No step is the last one any more: what all hung on is worked out together.
    unfinished_B, noted = done.undecided_BL.any(1) | done.held_B, done.margins.begun().settled
    columns_BK = torch.stack([*numbers.values(), done.prompt_length_B, done.length_B, unfinished_B], 1)
    rows = read_rows(columns_BK, torch.stack([noted.token_B, noted.choice_B], 1), tokens_BL, decided_at_BL)
    made = [
        Generation(
            **dict(zip(numbers, told, strict=True)),
            tokens=tuple(tokens[start:end]),
            decided_at=tuple(decided_at[start:end]),
            out_of_budget=bool(unfinished),
            token_margin=known_margin(token_margin),
            choice_margin=known_margin(choice_margin),
        )
        for (*told, start, end, unfinished), (token_margin, choice_margin), tokens, decided_at in rows
    ]
    return sorted(made, key=lambda generation: generation.sample)
