"""Staged prompting: code by way of requirements, a state machine and pseudocode, one asked for behind the other.

Paper: lifecycle-aware code generation, Xing et al., arXiv:2510.24019 (by summaries; no code). Its gains come from a
model that was fine-tuned on all stages; this is the prompting alone, on a model as it is, and no claim of the paper's.

A row is told what a stage asks for and opens the stage's tag; what it writes until it closes the tag, stops, or has
used the stage's budget is the artifact, and the next stage is told behind it. So every stage reads the task and all
earlier artifacts, whose keys and values are there already. The answer is what stands in the last `<code>`. With `plan`
one instruction asks for all artifacts at once, with the budgets together: the comparison that is due.

| symbol | argument | default |
|---|---|---|
| stages | stages | RA, AD, DD, CODE; any of the first three may be left out |
| budgets | budgets | 256, 384, 384, 512 tokens |
| | plan | false |

Texts become tokens by the model's tokenizer (`in_tokens`); told ones are in `tokens_out`, not in `tokens_generated`.
Deviations: instructions stand in the answer's turn, not in new prompts; the first token that the model says of the bare
task is taken back.
Invariants: where no tokenizer tells the texts' tokens the answers are those of greedy decoding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import ClassVar, Self

import torch

from harness.engine.autoregressive.branching import rewritten
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.policy import policy
from harness.errors import FieldError
from methods.autoregressive.budget_forcing import TOKEN_BY_TOKEN

STAGES = {
    "RA": ("requirements", "List inputs, outputs, constraints and edge cases of the task as numbered requirements."),
    "AD": (
        "machine",
        "Describe the states, events and transitions needed to satisfy the requirements, one transition per line as "
        "STATE --event/guard--> STATE.",
    ),
    "DD": ("pseudocode", "Write language-neutral pseudocode implementing the machine."),
    "CODE": ("code", "Write the final Python function only."),
}
STAGE, FROM = "staged.stage_B", "staged.from_B"
"""What a row keeps: the number of its stage from 1 (0: it has not begun), and the place where its text began."""


@policy("method/revision", "stages")
class Stages:
    """Ask for one artifact after another, and for the code last; see the module."""

    goes_with: ClassVar[Mapping[str, str | tuple[str, ...]]] = TOKEN_BY_TOKEN

    stages: tuple[str, ...] = ("RA", "AD", "DD", "CODE")
    budgets: tuple[int, ...] = (256, 384, 384, 512)
    plan: bool = False
    ids: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    """Openings, then closings of the stages in tokens, how long each is, and the text of every token (`in_tokens`)."""

    def __post_init__(self) -> None:
        known = [*STAGES]
        if [*self.stages] != [one for one in known if one in self.stages] or "CODE" not in self.stages:
            raise FieldError("stages", [*self.stages], f"be some of {', '.join(known)}, in this order, CODE the last")
        if len(self.budgets) != len(self.stages) or min(self.budgets, default=0) < 1:
            raise FieldError("budgets", [*self.budgets], f"be {len(self.stages)} numbers of at least 1, one per stage")

    def texts(self) -> tuple[list[str], list[str]]:
        """Return what opens each stage, and what closes it where the row has not."""
        told = [STAGES[one] for one in self.stages]
        closings = [f"\n</{tag}>\n" for tag, _ in told]
        if self.plan:
            asked = " ".join(f"{words} Put it between <{tag}> and </{tag}>." for tag, words in told)
            return [f"\n{asked}\n<{told[0][0]}>\n"], closings[-1:]
        return [f"\n{words}\n<{tag}>\n" for tag, words in told], closings

    def in_tokens(self, encode: Callable[[str], Sequence[int]], pieces: Sequence[str]) -> Self:
        """Return the policy with its texts in tokens."""
        ids = [list(encode(text)) for texts in self.texts() for text in texts]
        sizes = tuple(map(len, ids))
        return replace(self, ids=tuple(token for one in ids for token in one), sizes=sizes, pieces=tuple(pieces))

    def answer(self, text: str) -> str:
        """Return what stands in the last `<code>`, the whole text where there is none."""
        _, opened, code = text.rpartition("<code>")
        return code.partition("</code>")[0] if opened else text

    def __call__(self, sequences: Sequences, stop_ids: tuple[int, ...]) -> Sequences:
        """Return the sequences, the next stage told to rows that have ended one."""
        if not self.ids:
            return sequences
        nothing_B = torch.zeros_like(sequences.length_B)
        stage_B, from_B = (sequences.memory.get(name, nothing_B).clone() for name in (STAGE, FROM))
        for row, stage in enumerate(stage_B.tolist()):
            start, end = int(sequences.prompt_length_B[row]), int(sequences.length_B[row])
            response, room = sequences.tokens_BL[row, start:end].tolist(), int(sequences.limit_B[row]) - start
            keep, told = self._next(response, stage, int(from_B[row]), stop_ids)
            if told and keep + len(told) < room:
                sequences = rewritten(sequences, row, keep, told)
                stage_B[row], from_B[row] = stage + 1, keep + len(told)
        memory = sequences.memory
        memory |= {STAGE: stage_B, FROM: from_B}
        return sequences

    def _next(
        self, response: Sequence[int], stage: int, begun: int, stop_ids: tuple[int, ...]
    ) -> tuple[int, list[int]]:
        """Return how much of a response stays, and what it is told behind that, nothing while a stage goes on."""
        bounds = [0, *accumulate(self.sizes)]
        texts = [list(self.ids[first:end]) for first, end in pairwise(bounds)]
        openings, closings = texts[: len(texts) // 2], texts[len(texts) // 2 :]
        if not stage:
            return 0, openings[0]
        if stage > len(openings):
            return len(response), []
        budget = sum(self.budgets) if self.plan else self.budgets[stage - 1]
        stopped, closed = response[-1] in stop_ids, self._closed(response[begun:], stage)
        if not stopped and not closed and len(response) - begun < budget:
            return len(response), []
        if stage == len(openings):
            return len(response), [] if stopped else [stop_ids[0]]
        told = openings[stage] if closed else closings[stage - 1] + openings[stage]
        return len(response) - stopped, told

    def _closed(self, said: Sequence[int], stage: int) -> bool:
        """Say whether the last token has closed a stage's tag."""
        tag = STAGES["CODE" if self.plan else self.stages[stage - 1]][0]
        tail = "".join(self.pieces[token] for token in said[-len(tag) - 4 :] if token < len(self.pieces))
        return f"</{tag}>" in tail
