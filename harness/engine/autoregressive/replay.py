"""Offline replay: what a drafter proposes behind every prefix of an answer, from which rounds of other lengths follow.

Greedy verification writes the same answer y whatever is drafted. Where a proposal hangs on the committed text alone, it
can be made behind all prefixes at once, and compared with y: a round that begins behind n tokens, m of whose drafts
stand, ends behind n + m + 1. So one pass tells the rounds of every draft length, without the model; of the same numbers
that drafting itself would come to, which makes it a test of the loop.

Shapes: B rows, one for each prefix; K drafted tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Drafted, Drafter, DraftsStepwise, Proposal
from harness.engine.autoregressive.loop import propose
from harness.engine.autoregressive.method import AutoregressiveMethod, FixedLength
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.drafts import Drafting, Drafts
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.records import Ledger, Role

_ROWS = 32


@runtime_checkable
class DraftsFromText(Drafter, Protocol):
    """A drafter that tells whether its proposals are chains that hang on the committed text alone, on no earlier round.

    `nested` says whether of fewer tokens they are the first ones of more.
    """

    @property
    def from_text(self) -> bool:
        """Say whether they do, with these parameters."""
        ...

    @property
    def nested(self) -> bool:
        """Say whether shorter proposals begin longer ones."""
        ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """What was drafted behind a prefix: `drafted` tokens one after the other, the first `stand` of them the answer's.

    `probabilities` are those that the drafter gave them, none where it tells none. `calls` were made to draft them,
    which loaded `loads` layers; the first `begun` layers of the target have passed them.
    """

    drafted: int
    stand: int
    probabilities: tuple[float, ...]
    calls: int
    loads: float
    begun: int


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A draft length: at most `length` tokens, none behind one of a probability below `threshold`.

    With `heuristic` the length goes up by two behind a round in which all stood, else down by one, to 1 at least.
    """

    length: int
    threshold: float = 0.0
    heuristic: bool = False

    def drafts(self, place: Place, length: int) -> int:
        """Return how many of the tokens of a place are drafted, of at most `length`."""
        most = min(length, place.drafted)
        unsure = (number for number, p in enumerate(place.probabilities[:most], start=1) if p < self.threshold)
        return next(unsure, most)

    def following(self, length: int, accepted: int) -> int:
        """Return the length behind a round of another one."""
        if not self.heuristic:
            return length
        return length + 2 if accepted == length else max(1, length - 1)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What an answer costs by a rule; `plain_loads` are the layers that plain decoding loads."""

    drafting: Drafting
    nfe: int
    nfe_draft: int
    layer_loads: float
    plain_loads: float


def replay(places: Sequence[Place], rule: Rule, *, layers: int) -> Replayed:
    """Return what the rounds of a rule come to, of an answer with one token more than `places`, by a target's layers.

    The first token is the prompt's call's.
    """
    drafts, at, length, calls, draft_loads, loads = Drafts(), 0, rule.length, 0, 0.0, float(layers)
    while at < len(places):
        place = places[at]
        drafted = rule.drafts(place, length)
        accepted = min(drafted, place.stand)
        made = _calls(place, drafted)
        drafts.add(drafted=drafted, tried=min(accepted + 1, drafted), accepted=accepted)
        calls, draft_loads = calls + made, draft_loads + (place.loads * made / place.calls if made else 0.0)
        loads += layers - (place.begun if drafted else 0)
        at, length = at + accepted + 1, rule.following(length, accepted)
    return Replayed(
        drafting=drafts.drafting(query_tokens=0, layer_loads=draft_loads),
        nfe=1 + len(drafts.drafted),
        nfe_draft=calls,
        layer_loads=loads + draft_loads,
        plain_loads=float(layers * (len(places) + 1)),
    )


def _calls(place: Place, drafted: int) -> int:
    """Return how many calls so many of a place's drafts take: one each, beside what does not hang on their number."""
    if not drafted or place.calls < place.drafted:
        return place.calls if drafted else 0
    return drafted + place.calls - place.drafted


@dataclass
class _Watch:
    """A draft length that stops nothing, and keeps how probable each token was to the drafter."""

    length: int
    said: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def limit(self, sequences: Sequences) -> Tensor:
        """Return the same length for every row."""
        return torch.full_like(sequences.length_B, self.length)

    def keep_going(self, drafted: Drafted) -> Tensor:
        """Go on with all rows."""
        self.said.append((drafted.row_R, drafted.probability_R()))
        return torch.ones_like(drafted.row_R, dtype=torch.bool)

    def probabilities(self, rows: int) -> list[tuple[float, ...]]:
        """Return those of each row, in the order of its tokens."""
        found: list[tuple[float, ...]] = [()] * rows
        for row_R, probability_R in self.said:
            for row, probability in zip(row_R.tolist(), probability_R.tolist(), strict=True):
                found[row] = (*found[row], probability)
        return found


@torch.inference_mode()
def record(
    model: LanguageModel,
    method: AutoregressiveMethod,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    length: int,
    gen_length: int,
    seed: int,
) -> list[Place]:
    """Return what a drafter proposes behind every prefix of an answer but the whole, of up to `length` tokens.

    The answer is what plain decoding gives, of up to `gen_length` tokens. The model reads it once. The drafter must be
    one that drafts from text (`DraftsFromText`).
    """
    assert isinstance(method.drafter, DraftsFromText) and method.drafter.from_text, "hangs on earlier rounds"
    read = _read(model, prompt, answer, gen_length=gen_length, seed=seed)
    emitted_B = torch.arange(1, len(answer), device=model.device)
    return [
        place for part_B in emitted_B.split(_ROWS) for place in _places(model, method, read, answer, part_B, length)
    ]


def _read(
    model: LanguageModel, prompt: Sequence[int], answer: Sequence[int], *, gen_length: int, seed: int
) -> Sequences:
    """Return one row of prompt and answer, with the model's keys and values of all but the last token."""
    row = Sequences.from_prompts(model, [prompt], gen_length=gen_length, seeds=[seed])
    start, end = len(prompt), len(prompt) + len(answer)
    tokens_BL = row.tokens_BL.clone()
    tokens_BL[0, start:end] = torch.tensor(answer, device=model.device)
    end_B = torch.tensor([end - 1], device=model.device)
    window = Window(tokens_BL=tokens_BL, start_B=0 * end_B, end_B=end_B, read_B=end_B - 1, store=row.store)
    ask(model, window, row, Ledger(), Role.PREFILL)
    return replace(row, tokens_BL=tokens_BL)


def _places(
    model: LanguageModel,
    method: AutoregressiveMethod,
    read: Sequences,
    answer: Sequence[int],
    emitted_B: Tensor,
    length: int,
) -> Iterator[Place]:
    """Yield the place behind each of some prefixes: one row for each, that knows nothing of what follows."""
    ledger, watch = Ledger(), _Watch(length)
    rows = read.rows(torch.zeros_like(emitted_B))
    length_B = rows.prompt_length_B + emitted_B
    place_L = torch.arange(rows.tokens_BL.shape[1], device=emitted_B.device)
    rows = replace(
        rows,
        tokens_BL=rows.tokens_BL.masked_fill(place_L >= length_B[:, None], model.spec.pad_id),
        length_B=length_B,
        computed_B=length_B - 1,
        sample_B=torch.arange(len(emitted_B), device=emitted_B.device),
    )
    stepwise = isinstance(method.drafter, DraftsStepwise)
    made = propose(model, replace(method, draft_length=watch if stepwise else FixedLength(length=length)), rows, ledger)
    assert made.parent_BK is None, "trees are not replayed"
    calls, loads = _work(ledger, len(emitted_B))
    begun = [0] * len(calls) if made.begun is None else made.begun.layers_B.tolist()
    told = watch.probabilities(len(calls))
    for row, (emitted, tokens) in enumerate(zip(emitted_B.tolist(), _tokens(made), strict=True)):
        right = [one == other for one, other in zip(tokens, answer[emitted:], strict=False)]
        yield Place(
            drafted=len(tokens),
            stand=[*right, False].index(False),
            probabilities=told[row],
            calls=calls[row],
            loads=loads[row],
            begun=begun[row],
        )


def _tokens(made: Proposal) -> list[list[int]]:
    return [row[:count] for row, count in zip(made.tokens_BK.tolist(), made.count_B.tolist(), strict=True)]


def _work(ledger: Ledger, rows: int) -> tuple[list[int], list[float]]:
    """Return calls and loaded layers of each row."""
    calls, loads = [0] * rows, [0.0] * rows
    for record in ledger.records:
        for row in record.sample_B.tolist():
            calls[row] += 1
            loads[row] += record.layers
    return calls, loads
