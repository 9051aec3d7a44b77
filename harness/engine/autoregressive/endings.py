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
from harness.engine.shared.transfer import read_rows


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

    def take(self, sequences: Sequences, completed: Round) -> tuple[Sequences | None, list[Generation]]:
        """Return the rows that go on from a round, None where nobody does, and what others have come to.

        Rows of a sample that is done end. `sequences` are those behind the round, their stores are used up. The host
        waits for the device here, and learns how the rows stand. Raises DecodeError if the round's logits are not
        numbers.
        """
        self.rounds += 1
        stopped_B = is_stop(_last(sequences, completed), self.stop_ids)
        finished_B = stopped_B | (sequences.length_B == sequences.limit_B)
        columns, broken = [finished_B, sequences.length_B, sequences.computed_B], completed.prediction.broken
        columns += [sequences.sample_B, *([] if broken is None else [broken.expand_as(finished_B)])]
        finished, lengths, computed, samples, *broken = torch.stack(columns).tolist()
        if broken and any(broken[0]):
            completed.prediction.require_numbers(completed.before.sample_B)
        sequences.known.update(length_B=(sequences.length_B, lengths), computed_B=(sequences.computed_B, computed))
        if not self._ended and not any(finished):
            return sequences, []
        known, going_on = len(self.results), [row for row, done in enumerate(finished) if not done]
        ending = [row for row, done in enumerate(finished) if done]
        for branch in self._branches(sequences, ending, stopped_B) if ending else ():
            self._ended.setdefault(branch.generation.sample, []).append(branch)
        here = {*samples}
        for sample in [one for one in self._ended if one in here]:
            rows = [row for row in going_on if samples[row] == sample]
            rows_R = torch.tensor(rows, dtype=torch.int64, device=finished_B.device)
            if not rows or self.branching.over(self._ended[sample], sequences, rows_R):
                aborted = int(sequences.generated_B[rows_R].sum()) if rows else 0
                self.results.append(self._result(self._ended.pop(sample), aborted))
                going_on = [row for row in going_on if samples[row] != sample]
        if not going_on:
            return None, self.results[known:]
        kept = sequences.rows(torch.tensor(going_on, dtype=torch.int64, device=finished_B.device), keep_rows)
        for name, column in (("length_B", lengths), ("computed_B", computed)):
            kept.known[name] = (getattr(kept, name), [column[row] for row in going_on])
        return kept, self.results[known:]

    def _result(self, ended: Sequence[Branch], aborted: int) -> Generation:
        best, *more = (one.generation for one in self.branching.settled(ended))
        further = {"others" if self.branching.votes else "beside": tuple(more)}
        generated = aborted + sum(one.generation.tokens_generated for one in ended)
        return replace(best, tokens_generated=generated, calls=self.rounds - self._began[best.sample], **further)

    def _branches(self, sequences: Sequences, rows: Sequence[int], stopped_B: Tensor) -> list[Branch]:
        """Return what rows have come to; the host waits for the device once."""
        numbers_BK = torch.stack(
            [sequences.sample_B, sequences.prompt_length_B, sequences.length_B, sequences.generated_B, stopped_B], 1
        )
        kept = {name: one.double() for name, one in sequences.memory.items() if one.ndim == 1}
        kept_BK = torch.stack([sequences.token_margin_B.double(), *kept.values()], 1)
        parts = numbers_BK, kept_BK, sequences.tokens_BL, sequences.decided_at_BL
        index_R = torch.tensor(rows, device=stopped_B.device)
        told = read_rows(*(part_BX.index_select(0, index_R) for part_BX in parts))
        made = []
        for (sample, start, end, generated, stopped), (margin, *memory), tokens, decided_at in told:
            response = tuple(tokens[start:end])
            generation = Generation(
                sample=sample,
                tokens=response,
                decided_at=tuple(decided_at[start:end]),
                idle=0,
                forced=0,
                remasked=0,
                tokens_generated=generated,
                first_call=0,
                token_margin=known_margin(margin),
            )
            made.append(
                Branch(
                    generation=generation,
                    stopped=bool(stopped),
                    readable=self.readable(sample, response),
                    memory=dict(zip(kept, memory, strict=True)),
                )
            )
        return made


def _last(sequences: Sequences, completed: Round) -> Tensor:
    """Return the last token of each row behind a round, which the verdict tells where it is all that was emitted."""
    verdict, told = completed.verdict, sequences.tokens_BL is completed.after.tokens_BL
    if told and verdict.further is None and not completed.proposal.tokens_BK.shape[1]:
        return verdict.token_B
    return sequences.tokens_BL.gather(1, sequences.length_B[:, None] - 1).squeeze(1)
