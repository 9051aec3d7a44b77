"""How rows end, and samples with them.

Shapes: B rows, L positions, R rows that are left of a sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from harness.engine.autoregressive.branching import Branch, Branching
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.shared.generation import Generation, known_margin


@dataclass(kw_only=True)
class Endings:
    """Takes rows that are finished, and with the last that a sample needs, its generation into `results`."""

    branching: Branching
    stop_ids: tuple[int, ...]
    readable: Callable[[int, Sequence[int]], bool]
    results: list[Generation] = field(default_factory=list)
    _ended: dict[int, list[Branch]] = field(default_factory=dict)

    def take(self, sequences: Sequences, calls: int) -> Sequences:
        """Return the rows that go on; those of a sample that is done do not."""
        last_B = sequences.tokens_BL.gather(1, sequences.length_B[:, None] - 1).squeeze(1)
        stopped_B = is_stop(last_B, self.stop_ids)
        finished_B = stopped_B | (sequences.length_B == sequences.limit_B)
        if not self._ended and not bool(finished_B.any()):
            return sequences
        for row in finished_B.nonzero().squeeze(1).tolist():
            branch = self._branch(sequences, row, bool(stopped_B[row]), calls)
            self._ended.setdefault(branch.generation.sample, []).append(branch)
        for sample in list(self._ended):
            rows_R = ((sequences.sample_B == sample) & ~finished_B).nonzero().squeeze(1)
            if not len(rows_R) or self.branching.over(self._ended[sample], sequences, rows_R):
                aborted = int(sequences.generated_B[rows_R].sum())
                self.results.append(self._result(self._ended.pop(sample), aborted, calls))
                finished_B[rows_R] = True
        return sequences.rows((~finished_B).nonzero().squeeze(1))

    def _result(self, ended: Sequence[Branch], aborted: int, calls: int) -> Generation:
        best, *more = (one.generation for one in self.branching.settled(ended))
        further = {"others" if self.branching.votes else "beside": tuple(more)}
        generated = aborted + sum(one.generation.tokens_generated for one in ended)
        return replace(best, tokens_generated=generated, calls=calls, **further)

    def _branch(self, sequences: Sequences, row: int, stopped: bool, calls: int) -> Branch:
        response = slice(int(sequences.prompt_length_B[row]), int(sequences.length_B[row]))
        sample, tokens = int(sequences.sample_B[row]), tuple(sequences.tokens_BL[row, response].tolist())
        generation = Generation(
            sample=sample,
            tokens=tokens,
            decided_at=tuple(sequences.decided_at_BL[row, response].tolist()),
            idle=0,
            forced=0,
            remasked=0,
            tokens_generated=int(sequences.generated_B[row]),
            first_call=0,
            calls=calls,
            token_margin=known_margin(float(sequences.token_margin_B[row])),
        )
        kept = {name: one for name, one in sequences.memory.items() if isinstance(one, Tensor) and one.ndim == 1}
        return Branch(
            generation=generation,
            stopped=stopped,
            readable=self.readable(sample, tokens),
            memory={name: float(one[row]) for name, one in kept.items()},
        )
