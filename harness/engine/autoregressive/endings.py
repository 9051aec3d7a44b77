"""How rows end, and samples with them.

Shapes: B rows, L positions, R rows that are left of a sample.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.engine.autoregressive.branching import Branch, Branching
from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.shared.generation import Generation, known_margin
from harness.engine.shared.model import keep_rows


@dataclass(kw_only=True)
class Endings:
    """Takes rows that are finished, and with the last that a sample needs, its generation into `results`.

    `rounds` have been made of any rows.
    """

    branching: Branching
    stop_ids: tuple[int, ...]
    readable: Callable[[int, Sequence[int]], bool]
    results: list[Generation] = field(default_factory=list)
    rounds: int = 0
    _began: dict[int, int] = field(default_factory=dict)
    _ended: dict[int, list[Branch]] = field(default_factory=dict)

    def begin(self, samples: Iterable[int]) -> None:
        """Note that samples begin with the next round."""
        self._began |= dict.fromkeys(samples, self.rounds)

    def take(self, sequences: Sequences, completed: Round) -> tuple[Sequences, list[Generation]]:
        """Return the rows that go on from a round, and what others have come to; rows of a sample that is done end.

        `sequences` are those behind the round, their stores are used up. The host waits for the device here, and learns
        how the rows stand. Raises DecodeError if the round's logits are not numbers.
        """
        self.rounds += 1
        stopped_B = is_stop(_last(sequences, completed), self.stop_ids)
        finished_B = stopped_B | (sequences.length_B == sequences.limit_B)
        columns, broken = [finished_B, sequences.length_B, sequences.computed_B], completed.prediction.broken
        columns += [] if broken is None else [broken.expand_as(finished_B)]
        finished, lengths, computed, *broken = torch.stack(columns).tolist()
        if broken and any(broken[0]):
            completed.prediction.require_numbers(completed.before.sample_B)
        sequences.known.update(length_B=(sequences.length_B, lengths), computed_B=(sequences.computed_B, computed))
        if not self._ended and not any(finished):
            return sequences, []
        known = len(self.results)
        for row in finished_B.nonzero().squeeze(1).tolist():
            branch = self._branch(sequences, row, bool(stopped_B[row]))
            self._ended.setdefault(branch.generation.sample, []).append(branch)
        here = set(sequences.sample_B.tolist())
        for sample in [one for one in self._ended if one in here]:
            rows_R = ((sequences.sample_B == sample) & ~finished_B).nonzero().squeeze(1)
            if not len(rows_R) or self.branching.over(self._ended[sample], sequences, rows_R):
                aborted = int(sequences.generated_B[rows_R].sum())
                self.results.append(self._result(self._ended.pop(sample), aborted))
                finished_B[rows_R] = True
        going_on = [row for row, done in enumerate(finished_B.tolist()) if not done]
        kept = sequences.rows(torch.tensor(going_on, dtype=torch.int64, device=finished_B.device), keep_rows)
        for name, column in (("length_B", lengths), ("computed_B", computed)):
            kept.known[name] = (getattr(kept, name), [column[row] for row in going_on])
        return kept, self.results[known:]

    def _result(self, ended: Sequence[Branch], aborted: int) -> Generation:
        best, *more = (one.generation for one in self.branching.settled(ended))
        further = {"others" if self.branching.votes else "beside": tuple(more)}
        generated = aborted + sum(one.generation.tokens_generated for one in ended)
        return replace(best, tokens_generated=generated, calls=self.rounds - self._began[best.sample], **further)

    def _branch(self, sequences: Sequences, row: int, stopped: bool) -> Branch:
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
            token_margin=known_margin(float(sequences.token_margin_B[row])),
        )
        kept = {name: one for name, one in sequences.memory.items() if one.ndim == 1}
        return Branch(
            generation=generation,
            stopped=stopped,
            readable=self.readable(sample, tokens),
            memory={name: float(one[row]) for name, one in kept.items()},
        )


def _last(sequences: Sequences, completed: Round) -> Tensor:
    """Return the last token of each row behind a round, which the verdict tells where it is all that was emitted."""
    verdict, told = completed.verdict, sequences.tokens_BL is completed.after.tokens_BL
    if told and verdict.further is None and not completed.proposal.tokens_BK.shape[1]:
        return verdict.token_B
    return sequences.tokens_BL.gather(1, sequences.length_B[:, None] - 1).squeeze(1)
