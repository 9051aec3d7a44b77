"""What every method promises, because it is listed in `conf/method`, and two methods with every cache."""

from functools import cache

import pytest
import torch

from harness.config import options
from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine import diffusion, draft_verify
from harness.engine.canvas import Canvas
from harness.engine.drafting import Round, Sequences
from harness.engine.families import Method
from harness.engine.generation import Generation
from harness.engine.method import DiffusionMethod
from harness.engine.model import ModelKind
from harness.engine.policy import REGISTRY
from harness.engine.prediction import Candidates
from harness.engine.records import Ledger
from harness.models import random as random_models
from harness.models.pool import LoadedModel
from harness.runs.decode_batch import Decoded, decode_batch
from harness.runs.measure import Measure, Measurement

options.register()
CACHES = sorted(name for group, name in REGISTRY if group == "method/cache" and name != "none")
BLOCKWISE = [f"{method} method.block_length=8" for method in ("threshold", "llada")]
# It computes what is decided next, which of these two only a random order tells.
GREEDY = "llada method.block_length=8 method.remasking=random method/cache=dkv_greedy"
CACHED = [f"{method} method/cache={cache}" for method in BLOCKWISE for cache in CACHES if cache != "dkv_greedy"]
# A sampler that comes with its model has no other model to run on here; its own tests load a miniature.
IN_TREE = [name for name in names("method") if read("method", name)["family"] != "own_sampler"]
METHODS = [*IN_TREE, *CACHED, GREEDY]
MODELS = {"causal": "tiny_ar", "masked_diffusion": "random_mdm", "block_diffusion": "tiny_block"}
LENGTH = 16
PROMPTS = [[2, 30 + i, *range(76, 76 + i), 4] for i in range(1, 9)]


@cache
def model(kind: str) -> LoadedModel:
    """Make a random-weight model in float64, where a batch cannot change an answer by rounding."""
    block = 8 if kind == "block_diffusion" else None
    return random_models.load(
        name="random", kind=kind, seed=3, max_length=64, block_length=block, dtype=torch.float64, device="cpu"
    )


@cache
def built(method: str) -> tuple[Method, LoadedModel]:
    """Build a method as its config has it, and a model that it runs on.

    Methods hold parameters only, so that one serves every test.
    """
    for kind in read("method", method.split()[0])["models"]:
        made = build_method(compose([f"model={MODELS[kind]}", *f"method={method}".split(), f"gen_length={LENGTH}"]))
        try:
            if isinstance(made, DiffusionMethod):
                made.fit_kind(ModelKind(kind))
        except ValueError:
            continue
        return made, model(kind)
    raise AssertionError(f"no model for {method}")


def decoded(method: str, rows: list[int], seed: int = 0) -> Decoded:
    """Decode some of the prompts together."""
    made, loaded = built(method)
    return decode_batch(
        loaded.model,
        made,
        [PROMPTS[row] for row in rows],
        seeds=[1000 * seed + row for row in rows],
        gen_length=LENGTH,
        measure=Measure(name=Measurement.COUNTS),
    )


def answers(made: Decoded) -> list[tuple]:
    """Return everything of the generations but their number in the batch, and their counts."""

    def plain(one: Generation) -> tuple:
        return (one.tokens, one.decided_at, one.idle, one.forced, one.remasked, one.tokens_generated)

    return [(plain(one), counts) for one, counts in zip(made.generations, made.counts, strict=True)]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_answers(method: str):
    """Guards against a global generator or state that outlives a generation."""
    rows = list(range(8))
    assert answers(decoded(method, rows)) == answers(decoded(method, rows))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_the_others(method: str, size: int):
    """Guards answers, steps and counts of ragged prompts against the composition of the batch."""
    together = answers(decoded(method, list(range(8))))
    parts = [answers(decoded(method, list(range(first, min(first + size, 8))))) for first in range(0, 8, size)]
    assert [one for part in parts for one in part] == together


@pytest.mark.parametrize("method", METHODS)
def test_every_position_is_decided_by_a_real_token(method: str):
    """Guards against masks in answers, and calls that are not counted or not needed.

    Every call writes a token, lengthens the canvas or stores what later calls reuse, but for one last look at what is
    complete.
    """
    made, (_, loaded) = decoded(method, list(range(8))), built(method)
    for one, counts in zip(made.generations, made.counts, strict=True):
        assert loaded.model.spec.mask_id not in one.tokens
        assert counts.nfe + counts.nfe_prefill >= 1
        assert counts.nfe - counts.nfe_cache <= one.tokens_generated + max(0, len(one.tokens) - LENGTH) + 1
        assert len(one.tokens) <= loaded.model.spec.max_length
        assert min(one.decided_at) >= 0


def prompts_of(state: Canvas | Sequences) -> list[list[int]]:
    """Return what stands where the prompts were laid out, in the order of the samples."""
    rows = zip(state.sample_B.tolist(), state.tokens_BL.tolist(), state.prompt_length_B.tolist(), strict=True)
    return [tokens[:length] for _, tokens, length in sorted(rows)]


@pytest.mark.parametrize("method", METHODS)
def test_prompts_are_never_touched(method: str):
    """Guards every state of a generation against commits, edits and re-masks outside of the response."""
    made, loaded = built(method)[0], built(method)[1].model
    seen = 0

    def check(state: Canvas | Sequences) -> None:
        nonlocal seen
        seen += 1
        assert prompts_of(state) == [PROMPTS[sample] for sample in sorted(state.sample_B.tolist())]

    def after_step(before: Canvas, candidates: Candidates, after: Canvas) -> None:
        check(after)

    def after_round(completed: Round) -> None:
        check(completed.after)

    with torch.inference_mode():
        if isinstance(made, DiffusionMethod):
            assert loaded.spec.mask_id is not None
            canvas = Canvas.from_prompts(
                PROMPTS, gen_length=LENGTH, mask_id=loaded.spec.mask_id, pad_id=loaded.spec.pad_id, seeds=range(8)
            )
            diffusion.decode(loaded, made, canvas, Ledger(), [after_step])
        else:
            draft_verify.decode(
                loaded, made, PROMPTS, gen_length=LENGTH, seeds=range(8), ledger=Ledger(), observers=[after_round]
            )
    assert seen
