"""What is said of every drafter that runs a part of its target."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.model import ForwardRequest, LanguageModel
from harness.engine.shared.records import ForwardRecord, Ledger, Role
from harness.models.embedded import EmbeddedModel
from harness.models.key_values import KeyValueStore
from tests.engine.causal import PROMPTS, continue_greedily, random_causal, run

LAYERS = 8


def weights(*shape: int, seed: int = 0) -> Tensor:
    """Return the weights of a part that nobody has trained."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * shape[-1] ** -0.5


@cache
def target(layers: int = LAYERS, seed: int = 0, stop: int | None = None) -> EmbeddedModel:
    """Return a random model of so many layers."""
    return random_causal(layers=layers, seed=seed, stop_ids=() if stop is None else (stop,))


@cache
def answers(layers: int = LAYERS, seed: int = 0) -> list[tuple[int, ...]]:
    """Return what greedy decoding answers, by full forwards."""
    return [continue_greedily(target(layers, seed), prompt, 12) for prompt in PROMPTS]


def same_for_every_batch(model: LanguageModel, method: AutoregressiveMethod) -> list[tuple[int, ...]]:
    """Return the answers; rows alone, three and eight of them have the same tokens, rounds and counts."""
    seen = []
    for size in (1, 3, 8):
        rows = []
        for start in range(0, len(PROMPTS), size):
            ledger, part = Ledger(), PROMPTS[start : start + size]
            seeds = range(100 + start, 100 + start + len(part))
            made = run(model, method, part, seeds=seeds, ledger=ledger)
            counts = ledger.counts(range(len(part)))
            rows += [(one.tokens, one.decided_at, count) for one, count in zip(made, counts, strict=True)]
        seen.append(rows)
    assert seen[0] == seen[1] == seen[2]
    return [row[0] for row in seen[0]]


def stores_are_fresh(
    model: LanguageModel, method: AutoregressiveMethod, prompts: Sequence[Sequence[int]] = PROMPTS, length: int = 12
) -> int:
    """Return how many drafts stood in rounds behind which keys and values are those of a fresh forward."""
    stood: list[int] = []

    def check(completed: Round) -> None:
        after = completed.after
        assert isinstance(after.store, KeyValueStore)
        for row, end in enumerate((after.length_B - 1).tolist()):
            fresh = model.new_store(1, after.store.slots)
            assert isinstance(fresh, KeyValueStore)
            tokens_BT = after.tokens_BL[row : row + 1, :end]
            if end:
                model.forward(ForwardRequest(tokens_BT, positions_BT=torch.arange(end)[None], kv=fresh, end=end))
            for kept, again in zip([*after.store.keys, *after.store.values], [*fresh.keys, *fresh.values], strict=True):
                torch.testing.assert_close(kept[row, :end], again[0, :end], rtol=0, atol=1e-5)
        stood.append(int(completed.n_accepted_B.sum()))

    run(model, method, prompts, length, observers=[check])
    return sum(stood)


def rounds_of(model: LanguageModel, method: AutoregressiveMethod, length: int = 12) -> list[tuple[int, int, float]]:
    """Return of one prompt's rounds how many tokens were drafted, how many stood, and what layers were loaded."""
    ledger, seen, found = Ledger(), 0, []

    def watch(completed: Round) -> None:
        nonlocal seen
        loads = sum(record.layers for record in ledger.records[seen:])
        seen = len(ledger.records)
        found.append((int(completed.n_drafted_B[0]), int(completed.n_accepted_B[0]), loads))

    run(model, method, PROMPTS[1:2], length, ledger=ledger, observers=[watch])
    return found


def drafting(records: Sequence[ForwardRecord]) -> list[ForwardRecord]:
    """Return the calls that drafted."""
    return [record for record in records if record.role is Role.DRAFT]
