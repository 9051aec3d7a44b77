"""Decoders, caches, end-of-text rules and kinds of models: what is shown is what runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from harness.cli import main
from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.config.matrix import Combination, caches, combinations, decoders, policies
from harness.engine.diffusion import loop as diffusion
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel, ModelKind
from harness.engine.shared.records import Counts, Ledger
from harness.models import random as random_models
from harness.models.embedded import EmbeddedModel
from harness.runs.decode_batch import decode_batch
from harness.runs.measure import Measure, Measurement
from methods.diffusion.daedal import CanvasGrowth

SHOWN = Path(__file__).resolve().parents[2] / "results" / "compatibility.md"
PROMPTS = [[2, 30 + i, *range(76, 76 + i), 4] for i in range(1, 9)]
LENGTH = 16

found = cache(combinations)


def test_the_matrix_that_is_shown_is_the_one_that_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Guards the document against a policy that has come to refuse, or to allow, something else."""
    monkeypatch.setattr("harness.config.matrix.combinations", found)
    assert main(["list", "compatibility"]) == 0
    assert capsys.readouterr().out == SHOWN.read_text()


def test_every_decoder_runs_with_some_cache():
    """Guards against reasons that refuse too much: without a cache, or with its own, every decoder runs."""
    runs = {(one.row, one.kind) for one in found("cache") if one.reason is None}
    assert runs == {(one.row, one.kind) for one in found("cache")}


@cache
def _model(kind: ModelKind) -> LanguageModel:
    block = 8 if kind is ModelKind.BLOCK_DIFFUSION else None
    loaded = random_models.load(
        name="random", kind=kind.value, seed=3, layers=2, max_length=64, block_length=block, dtype=torch.float64
    )
    return loaded.model


@cache
def _method(name: str, kind: ModelKind) -> DiffusionMethod:
    fitting = "random_mdm" if kind is ModelKind.MASKED_DIFFUSION else "tiny_block"
    blocks = ["method.block_length=8"] if "block_length" in read("method", name) else []
    method = build_method(compose([f"model={fitting}", f"method={name}", *blocks, f"gen_length={LENGTH}"]))
    assert isinstance(method, DiffusionMethod)
    return method


def _answers(one: Combination, size: int) -> list:
    method, made = replace(_method(one.row, one.kind), cache=caches()[one.column]), []
    for first in range(0, len(PROMPTS), size):
        prompts = PROMPTS[first : first + size]
        part = decode_batch(
            _model(one.kind),
            method,
            prompts,
            seeds=range(first, first + len(prompts)),
            gen_length=LENGTH,
            measure=Measure(name=Measurement.COUNTS),
        )
        made += [
            (row.tokens, row.decided_at, counts) for row, counts in zip(part.generations, part.counts, strict=True)
        ]
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", [name for name in names("method") if read("method", name)["family"] == "diffusion"])
def test_a_row_is_the_same_in_every_batch(method: str):
    """Guards every combination that is not refused: it ends, and batches of 1, 3 and 8 give each row one answer."""
    for one in found("cache"):
        if one.row == method and one.reason is None:
            assert _answers(one, 1) == _answers(one, 3) == _answers(one, 8), one


# Tokens that the small random models often write, the first of them at once in one row and late in another.
PAD, END, TURN, MASK = 0, 49, 28, 1
SHORT, LONGEST = 8, 12
ROWS = {0: PROMPTS[0], 1: PROMPTS[3], 2: PROMPTS[5]}
# Without a rule, every decoder decodes in tests/methods/test_every_method.py.
RULES = {name: cls() for name, cls in policies("finish").items() if name != "full"}
RULES["canvas_growth"] = CanvasGrowth(low=0.6, grow=3, Lmax=LONGEST, eos_init=0, eos_grow=2, W=2)
REFUSED = ("does not go with method/preparation=reference_answer",)


def _ends(canvas: Canvas, *others: int) -> torch.Tensor:
    return torch.isin(canvas.tokens_BL, torch.tensor([END, TURN, *others]))


def _completed_B(before: Canvas, after: Canvas) -> torch.Tensor:
    return ~(before.window_BL & after.undecided_BL).any(1) & ~after.held_B & (after.clock_B > before.clock_B)


def _block_eos(before: Canvas, after: Canvas) -> bool:
    """Return whether end tokens stand behind every window that was completed with one."""
    ended_B = _completed_B(before, after) & (before.window_BL & _ends(after)).any(1)
    last_B1 = before.place_BL.masked_fill(~before.window_BL, -1).amax(1, keepdim=True)
    behind_BL = after.response_BL & (after.place_BL > last_B1)
    return bool(((after.tokens_BL == END) | ~behind_BL | ~ended_B[:, None]).all())


def _all_end(before: Canvas, after: Canvas) -> bool:
    """Return whether nothing is left to do behind a window of one and the same end token."""
    same_BL = (after.tokens_BL == after.tokens_BL.masked_fill(~before.window_BL, -1).amax(1)[:, None]) & _ends(after, 0)
    ended_B = _completed_B(before, after) & (same_BL | ~before.window_BL).all(1)
    return not bool((after.undecided_BL & ended_B[:, None]).any())


def _prefix_eos(before: Canvas, after: Canvas) -> bool:
    """Return whether end tokens, and nothing else, stand behind the first one."""
    ends_BL = after.response_BL & _ends(after)
    behind_BL = after.response_BL & (ends_BL.cumsum(1) - ends_BL.long() > 0)
    return bool(((after.tokens_BL == END) | ~behind_BL).all())


def _length_is_kept(before: Canvas, after: Canvas) -> bool:
    return torch.equal(after.length_B - after.prompt_length_B, torch.full_like(after.length_B, SHORT))


IN_EVERY_STEP: dict[str, Callable[[Canvas, Canvas], bool]] = {
    "block_eos": _block_eos,
    "all_end": _all_end,
    "prefix_eos": _prefix_eos,
    "stop_token": _length_is_kept,
    "predict_eos": lambda before, after: bool((after.length_B <= before.length_B).all()),
    "canvas_growth": lambda before, after: bool((after.length_B >= before.length_B).all()),
}


def _behind_the_first_end(tokens: tuple[int, ...]) -> tuple[int, ...]:
    return tokens[min((i for i, token in enumerate(tokens) if token in (END, TURN)), default=len(tokens)) + 1 :]


IN_THE_ANSWER: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "prefix_eos": lambda tokens: set(_behind_the_first_end(tokens)) <= {END},
    "stop_token": lambda tokens: set(_behind_the_first_end(tokens)) <= {PAD},
    "canvas_growth": lambda tokens: SHORT < len(tokens) <= LONGEST,
}


@cache
def _small(kind: ModelKind) -> LanguageModel:
    block = 8 if kind is ModelKind.BLOCK_DIFFUSION else None
    loaded = random_models.load(
        name="random", kind=kind.value, seed=3, layers=1, width=16, heads=2, kv_heads=1, feed_forward_width=16,
        max_length=64, block_length=block, dtype=torch.float64,
    )  # fmt: skip
    assert isinstance(loaded.model, EmbeddedModel)
    return EmbeddedModel(loaded.model.transformer, replace(loaded.model.spec, stop_ids=(END, TURN)))


def _with_rule(rule: str, method: DiffusionMethod, kind: ModelKind, rows: list[int]) -> list[tuple[Generation, Counts]]:
    """Decode, and hold the rule to account in every step."""
    prompts = [ROWS[row] for row in rows]
    canvas = Canvas.from_prompts(
        prompts, gen_length=SHORT, mask_id=MASK, pad_id=PAD, stop_ids=(END, TURN), seeds=rows
    )  # fmt: skip
    canvas.sample_B, ledger = torch.tensor(rows), Ledger()

    def watch(before: Canvas, candidates: object, after: Canvas) -> None:
        assert IN_EVERY_STEP[rule](before, after)
        for sample, tokens in zip(after.sample_B.tolist(), after.tokens_BL.tolist(), strict=True):
            assert tokens[: len(ROWS[sample])] == ROWS[sample]

    with torch.inference_mode():
        made = diffusion.decode(_small(kind), replace(method, finish=RULES[rule]), canvas, ledger, [watch])
    return list(zip(made, ledger.counts(rows), strict=True))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_every_decoder_takes_every_end_of_text_rule(rule: str, every: int):
    """Guards a choice that is the user's: any decoder ends by any rule, row by row, or says why it cannot."""
    runs = {(one.row, one.kind) for one in found("finish") if one.column == rule and one.reason is None}
    for one in found("finish"):
        assert one.reason is None or any(reason in one.reason for reason in REFUSED), one
    changed, first = 0, [*RULES].index(rule) % every
    for i, (name, kind, method) in enumerate(decoders()[first::every]):
        if (name, kind) not in runs:
            continue
        together, alone = _with_rule(rule, method, kind, [0, 1, 2]), _with_rule(rule, method, kind, [i % 3])
        assert together[i % 3] == alone[0], (name, kind)
        for one, _ in together:
            assert MASK not in one.tokens, (name, kind)
            assert IN_THE_ANSWER.get(rule, lambda tokens: True)(one.tokens), (name, kind, one.tokens)
            changed += one.tokens_generated != SHORT or len(one.tokens) != SHORT
    assert changed > len(runs) // (4 * every)
