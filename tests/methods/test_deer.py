"""Blocks that a masked-diffusion model drafts: the target's own answers and law, and what a block costs."""

from collections.abc import Sequence

import pytest
import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import Models
from harness.engine.shared.records import Ledger, Role
from harness.models import random as random_models
from harness.models.embedded import EmbeddedModel
from methods.autoregressive.deer import DiffusionDrafter
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import PROMPTS, VOCABULARY, continue_greedily, random_causal, run, with_drafts
from tests.methods.laws import TINY, TINY_PROMPT, law_of, likelihood

MODEL = random_causal()
ANSWERS = [continue_greedily(MODEL, prompt, 12) for prompt in PROMPTS]


def diffusion() -> EmbeddedModel:
    """Return a masked-diffusion model with random weights, of more tokens than the target by its mask and others."""
    loaded = random_models.load(
        name="draft", kind="masked_diffusion", seed=3, max_length=64, logit_deviation=1.0, dtype=torch.float64
    )
    assert isinstance(loaded.model, EmbeddedModel)
    return loaded.model


def deer(length: int, temperature: float = 0.0) -> AutoregressiveMethod:
    """Return the method that drafts blocks of `length` tokens."""
    return with_drafts(Rejection(temperature=temperature), DiffusionDrafter(temperature=temperature), length)


@torch.inference_mode()
def block(draft: EmbeddedModel, text: Sequence[int], masks: int) -> list[int]:
    """Return the most probable tokens of masks behind a text, by a plain forward."""
    spec = draft.spec
    logits_LV = draft.transformer(torch.tensor([[*text, *[spec.mask_id] * masks]]))[0, len(text) :]
    logits_LV[:, spec.mask_id] = -torch.inf
    return logits_LV[:, :VOCABULARY].argmax(-1).tolist()


@pytest.mark.parametrize("length", [0, 1, 4, 32])
def test_rounds_and_work_are_those_of_a_plain_reading(length: int) -> None:
    """Guards losslessness, masks behind the text alone, and what is charged: one draft a round, text and masks."""
    draft, ledger = diffusion(), Ledger()
    made = run(Models(MODEL, draft), deer(length), PROMPTS, ledger=ledger)
    assert [one.tokens for one in made] == ANSWERS
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        emitted, expected = 1, [(Role.PREFILL, len(prompt))]
        while emitted < len(answer):
            masks, text = min(length, len(answer) - emitted - 1), [*prompt, *answer[:emitted]]
            guess = block(draft, text, masks) if masks else []
            expected += [(Role.DRAFT, len(text) + masks)] if masks else []
            expected.append((Role.VERIFY if masks else Role.TARGET, 1 + masks))
            emitted += next((k for k in range(masks) if guess[k] != answer[emitted + k]), masks) + 1
        seen = [(r.role, int(r.query_B[r.sample_B == row])) for r in ledger.records if row in r.sample_B.tolist()]
        # A row that has no room is verified beside rows that have.
        assert [query for _, query in seen] == [query for _, query in expected]
        assert [role is Role.DRAFT for role, _ in seen] == [role is Role.DRAFT for role, _ in expected]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [3, 8])
def test_a_row_does_not_depend_on_the_others(rows: int, temperature: float) -> None:
    """Guards padding of the canvas, masks of rows with more room, random numbers."""
    models, counted = Models(MODEL, diffusion()), []
    for parts in ([range(rows)], [[row] for row in range(rows)]):
        rows_of: list[object] = []
        for part in parts:
            ledger = Ledger()
            made = run(
                models, deer(5, temperature), [PROMPTS[row] for row in part], seeds=[100 + r for r in part],
                ledger=ledger,
            )  # fmt: skip
            counts = ledger.counts(range(len(part)))
            rows_of += [(m.tokens, m.decided_at, m.tokens_generated, c) for m, c in zip(made, counts, strict=True)]
        counted.append(rows_of)
    assert counted[0] == counted[1]


def test_nothing_is_drafted_behind_a_stop_token() -> None:
    """Guards answers that end inside a block."""
    draft = diffusion()
    stop = block(draft, [*PROMPTS[2], ANSWERS[2][0]], 8)[3]
    expected = [a[: a.index(stop) + 1] if stop in a else a for a in ANSWERS]
    seen: list[list[int]] = []
    made = run(
        Models(random_causal(stop_ids=(stop,)), draft), deer(8), PROMPTS,
        observers=[
            lambda done: seen.extend(
                row[:n] for row, n in zip(done.proposal.tokens_BK.tolist(), done.n_drafted_B.tolist(), strict=True)
            )
        ],
    )  # fmt: skip
    assert [one.tokens for one in made] == expected
    assert all(stop not in row[:-1] for row in seen) and any(row[-1:] == [stop] for row in seen)


@pytest.mark.parametrize("length", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_answers_have_the_law_of_the_target(length: int) -> None:
    """Guards marginal laws of a block against the joint law of the answers, by enumeration."""
    rows, stand = 8_000, list[int]()
    made = run(
        Models(TINY, diffusion()), deer(length, 1.0), [TINY_PROMPT] * rows, 4, seeds=range(rows),
        observers=[lambda completed: stand.append(int(completed.n_accepted_B.sum()))],
    )  # fmt: skip
    assert sum(stand) > rows / 20
    assert likelihood(made, law_of(Rejection(temperature=1.0), 4)) > 1e-3


def test_logits_of_a_draft_that_are_not_numbers_name_it() -> None:
    """Guards a broken draft against being taken for a bad one, in silence."""
    draft = diffusion()
    torch.nn.init.constant_(draft.transformer.head.weight, torch.nan)
    with pytest.raises(DecodeError, match=r"model draft returned logits .*NaN"):
        run(Models(MODEL, draft), deer(3), PROMPTS[:1])
