"""What every method promises. A rule yields what breaks it, in words, and nothing where it is kept.

The common suite of the tests and `decbench check` hold methods to these.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from harness.commands.check.subject import Decoding, Subject
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.generation import GIVEN, UNDECIDED

Rule = Callable[[Subject], Iterator[str]]


def progress(subject: Subject) -> Iterator[str]:
    """Rows end by themselves, and every call but one last look writes, lengthens or stores something."""
    decoding = subject.together
    for row, (one, counts) in enumerate(zip(decoding.generations, decoding.counts, strict=True)):
        useful = one.tokens_generated + max(0, len(one.tokens) - subject.length) + 1
        if isinstance(subject.method, AutoregressiveMethod):
            useful *= 1 + getattr(subject.method.acceptor, "calls_beside", 0)
        if one.out_of_budget or UNDECIDED in one.decided_at:
            yield f"row {row} was given up after {counts.nfe} calls: a policy takes back, holds or idles without end"
        elif counts.nfe - counts.nfe_cache > useful:
            yield f"row {row} took {counts.nfe} calls ({counts.nfe_cache} to store) to write {useful - 1} tokens"
        elif counts.nfe < 1:
            yield f"row {row} was written without a call of the model"


def mask(subject: Subject) -> Iterator[str]:
    """No mask is committed, and no answer is longer than the model."""
    spec = subject.model.spec
    for row, one in enumerate(subject.together.generations):
        places = [place for place, token in enumerate(one.tokens) if token == spec.mask_id]
        if committed := [place for place in places if one.decided_at[place] != UNDECIDED]:
            yield f"row {row} has committed masks, at places {_listed(committed)}"
        if len(one.tokens) > spec.max_length:
            yield f"row {row} has {len(one.tokens)} tokens, the model {spec.max_length} positions"


def determinism(subject: Subject) -> Iterator[str]:
    """The same seeds give the same answers, steps and counts."""
    yield from _differences(subject.together, subject.decode(range(len(subject.prompts))), "decoded again")


def batch(subject: Subject) -> Iterator[str]:
    """A row does not depend on the others: batches of 1 and 3, and rows that begin beside others, give the same."""
    rows = range(len(subject.prompts))
    for size in (1, 3):
        parts = [subject.decode(rows[first : first + size]) for first in range(0, len(rows), size)]
        apart = replace(
            parts[0],
            generations=[one for part in parts for one in part.generations],
            counts=[one for part in parts for one in part.counts],
        )
        yield from _differences(subject.together, apart, f"decoded in batches of {size}")
    if not isinstance(subject.method, OwnSamplerMethod):
        yield from _differences(subject.together, subject.in_turn(2), "that begins beside others")


def given(subject: Subject) -> Iterator[str]:
    """Prompts, and tokens that are given in the response, stay as they are in every state; nothing else is given."""
    together = subject.together
    yield from together.touched
    if not together.looks and not isinstance(subject.method, OwnSamplerMethod):
        yield "no state was seen on the way"
    for row, one in enumerate(together.generations):
        if places := [place for place, decided_at in enumerate(one.decided_at) if decided_at == GIVEN]:
            yield f"row {row} says of places {_listed(places)} that they were given, which nobody did"
    if isinstance(subject.method, DiffusionMethod):
        yield from subject.decode(range(min(3, len(subject.prompts))), constrained=True).touched


def counting(subject: Subject) -> Iterator[str]:
    """Every call that the model saw is on record, with the positions that went through its layers, no fewer, no more.

    Where a call has several rows, the shorter ones are filled up, which is no work of theirs.
    """
    for row in range(min(2, len(subject.prompts))):
        decoding = subject.decode([row])
        if len(decoding.shown) != len(decoding.records):
            yield f"row {row}: the model was called {len(decoding.shown)} times, {len(decoding.records)} are on record"
            continue
        calls = zip(count(), decoding.shown, decoding.layer_tokens, decoding.records)
        for call, shape, computed, record in calls:
            charged, told = int(record.query_B.sum()), int(record.layer_tokens_B.sum())
            if charged > shape.numel():
                yield f"row {row}, call {call}: {charged} positions are on record, the model was shown {shape.numel()}"
            elif computed is not None and (computed < told or (shape[0] == 1 and computed > told)):
                yield (
                    f"row {row}, call {call}: {computed} positions went through the layers, summed over these, "
                    f"{told} are on record"
                )


RULES: dict[str, Rule] = {rule.__name__: rule for rule in (progress, mask, determinism, batch, given, counting)}


def unchanged(base: Subject, subject: Subject) -> Iterator[str]:
    """Beside a part that changes no answer, every token is the same, and no more calls are made.

    So is the step of every token; not the round of an autoregressive method, which writes several.
    """
    same = 1 if isinstance(base.method, AutoregressiveMethod) else 2
    for row, (plain, made) in enumerate(zip(base.together.answers, subject.together.answers, strict=True)):
        if plain[:same] != made[:same]:
            yield f"row {row} differs from what it is without: {plain[0]} became {made[0]}"
        elif made[-1].nfe > plain[-1].nfe:  # type: ignore[attr-defined]
            yield f"row {row} takes {made[-1].nfe} calls in place of {plain[-1].nfe}"  # type: ignore[attr-defined]


def closed_form(subject: Subject, calls: int | list[int]) -> Iterator[str]:
    """One prompt costs what the method says: so many calls of everything, or these positions in each call."""
    expected = [len(subject.prompts[0]) + subject.length] * calls if isinstance(calls, int) else calls
    queries = [int(record.query_B.sum()) for record in subject.decode([0]).records]
    if queries != expected:
        yield f"its calls compute {queries} positions, its closed form says {expected}"


def _differences(first: Decoding, second: Decoding, how: str) -> Iterator[str]:
    for row, (one, other) in enumerate(zip(first.answers, second.answers, strict=True)):
        if one[0] != other[0]:
            places = [place for place, (a, b) in enumerate(zip(one[0], other[0], strict=False)) if a != b]  # type: ignore[call-overload]
            yield f"row {row} {how} has other tokens, at places {_listed(places)}"
        elif one != other:
            yield f"row {row} {how} takes other steps or has other counts"


def _listed(places: list[int]) -> str:
    return ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
